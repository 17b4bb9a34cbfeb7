"""Data sets by the name of a configured store: `lab:cxr` is the folder cxr of the store "lab".

Callers of the service name stores, never places; where a store lies is said by MEDPHANTOM_STORES.
A store that is no local folder is copied, file by file, before it is read.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gen.data.atomic import atomic_file
from gen.data.manifest import inside
from gen.errors import InvalidInput, MedphantomError, NotFound, UnsafeFile

NAME = re.compile(r"(?P<store>[a-z][a-z0-9_-]{1,63}):(?P<path>[^\x00]{0,1000})")
MAX_BYTES = 64 * 2**30  # of a data set that is copied
_COPIED = ".copied.json"  # file -> what it was copied from


def is_named(reference: str) -> bool:
    """Whether it has the form of a data set in a store, as `lab:cxr`; a URL has not."""
    return NAME.fullmatch(reference) is not None and "://" not in reference


def data_set(reference: str, stores: Mapping[str, str], copies: Path) -> Path:
    """The local folder or file of a data set.

    Args:
        reference: such as "lab:cxr".
        stores: name -> folder or fsspec URL.
        copies: folder for what is copied from other file systems.

    Raises:
        InvalidInput: the reference has not this form, or no store of the name is configured.
        NotFound: the store has nothing there.
        UnsafeFile: the path leaves the store.
        MedphantomError: the store cannot be reached.
    """
    found = NAME.fullmatch(reference)
    if found is None or not is_named(reference):
        raise InvalidInput(
            f"{reference[:80]!r} names no data set of a store; write STORE:PATH, as lab:cxr"
        )
    name, path = found["store"], found["path"].strip("/")
    if name not in stores:
        known = ", ".join(sorted(stores)) or "none; set MEDPHANTOM_STORES"
        raise InvalidInput(f"store {name!r} is not configured; configured are {known}")
    root = stores[name]
    folder = Path(root) if "://" not in root else _copy(root, path, copies)
    local = inside(folder, path) if path else folder.resolve()
    if not local.exists():
        raise NotFound(f"store {name!r} has no {path!r}; check the path")
    return local


def _copy(root: str, path: str, copies: Path) -> Path:
    """Bring what has changed of a data set here; returns the folder that stands for the root."""
    from fsspec.core import url_to_fs

    folder = copies / hashlib.sha256(root.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        system, base = url_to_fs(root)
        wanted = f"{base.rstrip('/')}/{path}".rstrip("/")
        system.invalidate_cache()
        there = system.find(wanted, detail=True)
        _fetch(system, base.rstrip("/"), there, folder)
    except (MedphantomError, FileNotFoundError):
        raise
    except Exception as error:
        # the message of a foreign error may name the place
        raise MedphantomError(
            f"the data store failed with {type(error).__name__}; try again later"
        ) from error
    return folder


def _fetch(system: Any, base: str, there: Mapping[str, Any], folder: Path) -> None:
    size = sum(int(each.get("size") or 0) for each in there.values())
    if size > MAX_BYTES:
        raise InvalidInput(
            f"the data set has {size} bytes, but at most {MAX_BYTES} are copied; name a part of it"
        )
    ledger = folder / _COPIED
    copied = json.loads(ledger.read_text()) if ledger.exists() else {}
    for name, entry in there.items():
        file = name[len(base) :].lstrip("/")
        state = [entry.get("size"), str(entry.get("ETag") or entry.get("mtime") or "")]
        local = _place(folder, file)
        if copied.get(file) == state and local.is_file():
            continue
        local.parent.mkdir(parents=True, exist_ok=True)
        part = local.with_name(f".{local.name}.{os.getpid()}.part")
        system.get_file(name, str(part))
        os.replace(part, local)
        copied[file] = state
    with atomic_file(ledger, overwrite=True) as stream:
        stream.write(json.dumps(copied).encode())


def _place(folder: Path, file: str) -> Path:
    if file == _COPIED:
        raise UnsafeFile(f"{file!r} is a name that copies of data sets keep for themselves")
    return inside(folder, file)
