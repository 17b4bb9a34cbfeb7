"""Reports for people: one self-contained HTML file, in one style."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gen.data.atomic import atomic_file


def write_page(path: Path, template: Path, values: Mapping[str, Any]) -> None:
    """Fill a template, which may include `page_style.html.jinja`; an older page is replaced."""
    folders = [template.parent, Path(__file__).parent]
    environment = Environment(
        loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template(template.name).render(values)
    with atomic_file(path, overwrite=True) as stream:
        stream.write(page.encode())
