"""Reports as one self-contained page, of a template and the parts that all templates share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gen.data.atomic import atomic_file

PARTS = Path(__file__).parent / "page"


def write_page(path: Path, template: Path, values: Mapping[str, Any]) -> None:
    """Write what `page_of` gives; an older file is replaced."""
    page = page_of(template, values)
    with atomic_file(path, overwrite=True) as stream:
        stream.write(page.encode())


def page_of(template: Path, values: Mapping[str, Any]) -> str:
    """A page as HTML.

    Args:
        template: may include what lies beside it and in `jobs/page/`.
        values: by their names in the template; one that is missing is an error.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, PARTS]),
        autoescape=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(template.name).render(values)
