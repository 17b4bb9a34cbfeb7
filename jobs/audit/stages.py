"""What an audit has done stays done: a run that was cut off goes on behind its last stage."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from gen.data.atomic import atomic_file

T = TypeVar("T")


class Stages:
    """Results by name and key, in files of a folder.

    Args:
        folder: made if missing.
        key: what all stages depend on, such as the images and the code's revision.
        tell: told a stage's name when it begins.
    """

    def __init__(self, folder: Path, key: str, tell: Callable[[str], None] = lambda _: None):
        self.folder, self.key, self.tell = folder, key, tell
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, kind: Any, compute: Callable[[], T], *depends: Any) -> T:
        """The kept result of a stage, or a new one that is then kept.

        Args:
            name: of the stage and its file.
            kind: what the result is: a model or any type that pydantic can validate.
            compute: called without arguments, unless the result is at hand.
            depends: what else the result depends on; JSON can write it.
        """
        digest = hashlib.sha256(json.dumps([self.key, *depends], default=str).encode())
        path = self.folder / f"{name}-{digest.hexdigest()[:16]}.json"
        adapter: TypeAdapter[T] = TypeAdapter(kind)
        if path.is_file():
            try:
                return adapter.validate_json(path.read_bytes())
            except ValidationError:
                pass  # damaged, or of another version: computed anew
        self.tell(name)
        result = compute()
        with atomic_file(path, overwrite=True) as stream:
            stream.write(adapter.dump_json(result, by_alias=True))
        return result
