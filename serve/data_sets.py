"""Jobs over data sets of configured stores: listed when the job is made, read when an item is.

Whoever makes items never sees a store: it is given work with the pictures in it.
"""

import tempfile
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen.errors import InvalidInput, MedphantomError, NotFound
from jobs.data_stores import data_set
from jobs.tasks.data_set import MAX_ITEMS, DataSet, DataSetSpec
from jobs.tasks.task import ItemSpec
from jobs.work import Failed, News, Waits, Work
from jobs.worker import Execute
from serve.bounded_threads import BoundedThreads

if TYPE_CHECKING:  # a second's import, which few services need
    from jobs.runner.spec import JobSpec

MAX_ROOTS = 64  # of jobs that are remembered
AWAY_S = 30.0  # until a store that is away is asked again


class DataSets:
    """The stores that callers may name.

    Args:
        stores: name -> folder or fsspec URL.
        copies: folder for what is copied from stores that are no local folders.
        num_threads: questions under way at once; more are turned away.
    """

    def __init__(self, stores: Mapping[str, str], copies: Path, num_threads: int) -> None:
        self._stores, self._copies = stores, copies
        self._threads = BoundedThreads(
            num_threads, "data", "too many wait for data sets; try again"
        )
        self._copying = threading.Lock()  # two would write one file
        self._roots: dict[str, Path] = {}

    async def items(self, spec: DataSetSpec) -> tuple[list[ItemSpec], float]:
        """The items of a job, and the megapixel steps of all.

        Raises:
            InvalidInput: a store or data set is not there, something is wrong with the manifest as
                a whole, or it has more than `MAX_ITEMS` items.
            MedphantomError: the store cannot be reached.
            Busy: too many wait for one.
        """
        return await self._threads.run(self._items, spec)

    async def files(self, job_id: str, spec: DataSetSpec, item: dict[str, Any]) -> dict[str, bytes]:
        """What an item is made from, by its field. Raises InvalidInput if a file is missing."""
        return await self._threads.run(self._files, job_id, spec, item)

    def place(self, name: str, reference: str) -> Path:
        """Where a data set lies on this host, by now.

        Args:
            name: of the field that names it, for the error.

        Raises:
            InvalidInput: there is none.
            MedphantomError: the store cannot be reached.
        """
        try:
            with self._copying:
                return data_set(reference, self._stores, self._copies)
        except (InvalidInput, NotFound, FileNotFoundError) as error:
            roots = {str(Path(root)): f"store {name!r}" for name, root in self._stores.items()}
            roots |= {str(Path(root).resolve()): said for root, said in roots.items()}
            missing = isinstance(error, FileNotFoundError)
            said = "the store has none there" if missing else _without(str(error), roots)
            raise InvalidInput(f"{name} is {reference!r}: {said}") from error

    def _items(self, spec: DataSetSpec) -> tuple[list[ItemSpec], float]:
        from jobs.runner.cost import work_of
        from jobs.runner.freeze import NOTHING, opened_items
        from jobs.runner.kinds import kind_of

        job, places = self._local(spec)
        try:
            with (
                tempfile.TemporaryDirectory() as folder,
                opened_items(job, Path(folder, "ids.db")) as opened,
            ):
                items = list(islice(opened.items, MAX_ITEMS + 1))
            if not items:
                raise InvalidInput(NOTHING)
            if len(items) > MAX_ITEMS:
                raise InvalidInput(
                    f"the manifest has more than {MAX_ITEMS} items, which is more than a job of the"
                    " service makes; name a split, or use medphantom jobs run"
                )
            kind_of(job.task).check_params(job, items[0])
            self._check_reference(spec)
        except InvalidInput as error:
            raise InvalidInput(_without(str(error), places)) from error
        known = [
            {"seed": each.seed(job.seed, 0), "item": _said(each.as_json(), places)}
            for each in items
        ]
        return known, work_of(job, items)

    def _check_reference(self, spec: DataSetSpec) -> None:
        """What gates shall learn from must be a collection of pictures."""
        if spec.gates is None:
            return
        from gen.data.collection import read_collection

        reference = spec.gates["reference"]
        place = self.place("gates.reference", reference)
        try:
            read_collection(place)
        except InvalidInput as error:
            said = _without(str(error), {str(place): reference})
            raise InvalidInput(f"gates.reference is {reference!r}: {said}") from error

    def _local(self, spec: DataSetSpec) -> "tuple[JobSpec, dict[str, str]]":
        """The job over local folders, and what these are called by callers."""
        path, root = spec.manifest.path, spec.manifest.root
        local = self.place("manifest.path", path)
        places = {str(local): path}
        if root is None:
            places[str(local.parent)] = path.rpartition("/")[0] or path.partition(":")[0] + ":"
            return spec.as_job(path=str(local)), places
        folder = self.place("manifest.root", root)
        return spec.as_job(path=str(local), root=str(folder)), {**places, str(folder): root}

    def _files(self, job_id: str, spec: DataSetSpec, item: dict[str, Any]) -> dict[str, bytes]:
        from jobs.runner.items import item_from
        from jobs.runner.kinds import read_files

        row = item_from(item)
        if row.image is None and row.mask is None:
            return {}
        root = self._root(job_id, spec)
        try:
            return read_files(row, root)
        except InvalidInput as error:
            raise InvalidInput(_without(str(error), {str(root): ""})) from error

    def _root(self, job_id: str, spec: DataSetSpec) -> Path:
        """Found, and copied here, once for a job."""
        if job_id not in self._roots:
            from jobs.runner.readers import root_of

            job, _ = self._local(spec)
            root = root_of(job.manifest)
            if spec.manifest.root is None and not Path(job.manifest.path).is_dir():
                store, _, path = spec.manifest.path.partition(":")
                self.place("manifest.path", f"{store}:{path.rpartition('/')[0]}")
            while len(self._roots) >= MAX_ROOTS:
                self._roots.pop(next(iter(self._roots)), None)
            self._roots[job_id] = root
        return self._roots[job_id]


def with_data_sets(data_sets: DataSets, execute: Execute) -> Execute:
    """The same maker of items, which is given work with the pictures that a store has."""

    async def run(work: Work) -> AsyncIterator[News | Waits]:
        if work.task == DataSet.name:
            ((index, item),) = work.items.items()
            try:
                if "error" in item["item"]:
                    raise InvalidInput(item["item"]["error"])
                spec = DataSetSpec.model_validate(work.spec)
                files = await data_sets.files(work.request_id, spec, item["item"])
            except InvalidInput as error:
                yield Failed(index, str(error), retry=False)
                return
            except MedphantomError as error:  # the store is away, for all items
                yield Waits(index, str(error), AWAY_S)
                return
            work = replace(work, items={index: {**item, "files": files}})
        async with aclosing(execute(work)) as news:  # type: ignore[type-var]
            async for each in news:
                yield each

    return run


def _without(text: str, places: Mapping[str, str]) -> str:
    """A message that tells nothing of where stores lie."""
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, places[place])
    return text


def _said(item: dict[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    return {**item, "error": _without(item["error"], places)} if "error" in item else item
