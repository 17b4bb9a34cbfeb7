"""Jobs whose pictures lie in a PACS: found when the job is made, fetched when an item is.

Whoever makes items never sees a PACS: it is given work with the picture in it, and what comes out
is stored on its way back. An item that is made again after a death gives objects of the same UIDs,
which are then there already.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

from gen.data.bundle import unpack
from gen.errors import InvalidInput, NotFound, PeerAway, PeerFailed
from jobs.pacs.settings import PACSSettings
from jobs.tasks.anomaly_map import DERIVED, PICTURE
from jobs.tasks.study import MAX_STUDY_PICTURES, Study
from jobs.tasks.task import Made
from jobs.tasks.uploads import Radiograph
from jobs.work import Done, Failed, News, Waits, Work
from jobs.worker import Execute
from serve.bounded_threads import BoundedThreads

if TYPE_CHECKING:  # DICOMweb takes a second to import, and few services use it
    from jobs.pacs.search import Instance

AWAY_S = 60.0  # until a PACS that is away is asked again for an item
PEER_ERRORS = (InvalidInput, NotFound, PeerFailed)  # of a picture and its PACS; more is a loss


class Studies:
    """The PACSs that callers may name, asked in threads of their own.

    Args:
        settings: of each PACS, by the name that callers give.
        num_threads: questions under way at once; more are turned away.
    """

    def __init__(self, settings: Mapping[str, PACSSettings], num_threads: int) -> None:
        self._settings = settings
        self._threads = BoundedThreads(num_threads, "pacs", "too many wait for a PACS; try again")

    async def search(self, study: Study) -> "list[Instance]":
        """The pictures of a study, always in the same order.

        Raises:
            InvalidInput: the PACS is unknown or takes no results, or the study has no picture or
                more than `MAX_STUDY_PICTURES`.
            PeerFailed: see `jobs.pacs.connection.PACS.ask`.
            Busy: too many wait for a PACS.
        """
        return await self._threads.run(self._search, study)

    async def fetch(self, study: Study, instance: dict[str, Any]) -> str:
        """A picture, in base64; `instance` has the fields of `jobs.pacs.search.Instance`.

        Raises:
            InvalidInput: it is none that can be mapped, or the PACS is no longer configured.
            NotFound, PeerFailed, Busy: as `search`.
        """
        return await self._threads.run(self._fetch, study, instance)

    async def store(self, study: Study, made: Made) -> None:
        """Store what was derived of a picture, unless it is there.

        Raises:
            InvalidInput: nothing was derived, as of a picture without identity.
            NotFound, PeerFailed, Busy: as `search`.
        """
        await self._threads.run(self._store, study, made)

    def _search(self, study: Study) -> "list[Instance]":
        from jobs.pacs.connection import configured_pacs
        from jobs.pacs.search import find_instances

        pacs = configured_pacs(study.pacs, self._settings)
        if study.store and not pacs.store_results:
            raise InvalidInput(
                f"store is true, but {pacs.place} takes no results of the service; leave it out, or"
                " have its operator set store_results in its entry of MEDPHANTOM_PACS"
            )
        try:
            found = find_instances(
                pacs,
                study_instance_uid=study.study_instance_uid,
                series_instance_uid=study.series_instance_uid,
                limit=MAX_STUDY_PICTURES + 1,
            )
        except NotFound:  # some say so of a study, others give an empty list
            found = []
        if not found:
            raise InvalidInput(f"study: {pacs.place} has no picture of it; check the UIDs")
        if len(found) > MAX_STUDY_PICTURES:
            raise InvalidInput(
                f"study has more than {MAX_STUDY_PICTURES} pictures, which is more than a job maps;"
                " name one of its series"
            )
        return sorted(found, key=lambda each: each.sop_instance_uid)

    def _fetch(self, study: Study, instance: dict[str, Any]) -> str:
        from jobs.pacs.connection import configured_pacs
        from jobs.pacs.retrieval import read_marks, retrieve
        from jobs.pacs.search import Instance, is_result

        pacs = configured_pacs(study.pacs, self._settings)
        data = retrieve(pacs, Instance(**instance), PICTURE)
        if is_result(read_marks(data)):
            raise InvalidInput("the picture is itself the result of an analysis")
        picture = Radiograph(data, PICTURE)
        picture.check()
        return picture.to_base64()

    def _store(self, study: Study, made: Made) -> None:
        from pydicom import dcmread

        from jobs.pacs.connection import configured_pacs
        from jobs.pacs.storage import store_missing

        files = unpack(made.data)
        if not files.keys() >= set(DERIVED):
            raise InvalidInput("the picture lacks identity, so its results cannot join its study")
        results = [dcmread(BytesIO(files[name])) for name in DERIVED]
        store_missing(configured_pacs(study.pacs, self._settings), results)


def with_studies(studies: Studies, execute: Execute) -> Execute:
    """The same maker of items, which is given work with the picture that a PACS has."""

    async def run(work: Work) -> AsyncIterator[News | Waits]:
        named = work.spec.get("study")
        if named is None:
            async with aclosing(execute(work)) as news:  # type: ignore[type-var]
                async for each in news:
                    yield each
            return
        study = Study.model_validate(named)
        ((index, item),) = work.items.items()
        try:
            picture = await studies.fetch(study, item["instance"])
        except PEER_ERRORS as error:
            yield _failed(index, error)
            return
        spec = {**work.spec, "study": None, "images": [picture]}
        item = {name: value for name, value in item.items() if name != "instance"}
        full = replace(work, spec=spec, items={index: item})
        async with aclosing(execute(full)) as news:  # type: ignore[type-var]
            async for each in news:
                yield await _stored(studies, study, each)

    return run


async def _stored(studies: Studies, study: Study, news: News | Waits) -> News | Waits:
    """The news, of a result that is stored if it shall be."""
    if not (isinstance(news, Done) and study.store):
        return news
    try:
        await studies.store(study, news.made)
    except PEER_ERRORS as error:
        return _failed(news.index, error)
    return news


def _failed(index: int, error: Exception) -> Failed:
    away = isinstance(error, PeerAway)
    return Failed(index, str(error), retry=away, after_s=AWAY_S if away else 0.0)
