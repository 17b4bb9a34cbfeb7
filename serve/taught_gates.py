"""What the gates of jobs learn: once a job, by the worker, which hands it to those who make items.

It holds pictures of patients. The sink keeps it as long as what callers send, and samplers keep
that of a few jobs.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen.data.bundle import pack, unpack
from gen.errors import InvalidInput, MedphantomError
from jobs.sink import Sink
from jobs.tasks.data_set import DataSet
from jobs.work import Failed, News, Waits, Work
from jobs.worker import Execute, in_thread
from serve.data_sets import AWAY_S, DataSets

if TYPE_CHECKING:  # torch, which is needed only where a job has gates
    from jobs.bars import Bars, Report

WAIT_S = 5.0  # until a job looks again whether its gates have learnt
MAX_LESSONS = 64  # of jobs that are remembered
KEPT = 8  # folders of a sampler


class Teacher:
    """Has gates learn from the references of jobs, one after another, in a thread of its own.

    Args:
        data_sets: where the references are.
        sink: where what was learnt is kept.
        cache: folder of features and calibrations, so that a second time is quick.
    """

    def __init__(self, data_sets: DataSets, sink: Sink, cache: Path) -> None:
        self._data_sets, self._sink, self._cache = data_sets, sink, cache
        self._thread = ThreadPoolExecutor(1, "gates")
        self._lessons: dict[str, Future[str]] = {}
        self._said: dict[str, str] = {}

    def taught(self, job_id: str, gates: dict[str, Any]) -> str | None:
        """SHA-256 of what the gates of a job have learnt, for `Sink.get_upload`; None: not yet.

        Raises:
            InvalidInput: they cannot learn from that reference.
        """
        if job_id not in self._lessons:
            while len(self._lessons) >= MAX_LESSONS:
                oldest = next(iter(self._lessons))
                self._lessons.pop(oldest)
                self._said.pop(oldest, None)
            self._lessons[job_id] = self._thread.submit(self._learn, job_id, gates)
        lesson = self._lessons[job_id]
        if not lesson.done():
            return None
        if not isinstance(lesson.exception(), InvalidInput | None):
            del self._lessons[job_id]  # the store or the sink is away: another try may help
        return lesson.result()

    def said(self, job_id: str) -> str:
        """How far it is."""
        return self._said.get(job_id, "others are before it")

    def _learn(self, job_id: str, gates: dict[str, Any]) -> str:
        from jobs.gates.calibrate import calibrate_gates
        from jobs.gates.config import gates_config

        place = self._data_sets.place("gates.reference", gates["reference"])
        config = gates_config({**gates, "reference": str(place)})
        try:
            folder = calibrate_gates(config, self._cache, self._bars(job_id))
        except InvalidInput as error:
            raise InvalidInput(str(error).replace(str(place), gates["reference"])) from error
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        data = pack(files)
        digest = hashlib.sha256(data).hexdigest()
        self._sink.put_upload(digest, data)
        return digest

    def _bars(self, job_id: str) -> "Bars":
        from rich.console import Console
        from rich.progress import Progress

        from jobs.bars import Bars

        said = self._said

        class Told(Bars):
            """Progress as a line that the job shows."""

            def say(self, line: str) -> None:
                said[job_id] = line

            def bar(self, title: str) -> "Report":
                def report(done: int, total: int) -> None:
                    said[job_id] = f"{title}: {done} of {total}"

                return report

        return Told(Console(quiet=True), Progress(disable=True))


def with_teacher(teacher: Teacher, execute: Execute) -> Execute:
    """The same maker of items, for whose jobs gates learn first: meanwhile these wait."""

    async def run(work: Work) -> AsyncIterator[News | Waits]:
        gates = work.spec.get("gates") if work.task == DataSet.name else None
        if gates is not None:
            ((index, item),) = work.items.items()
            try:
                digest = teacher.taught(work.request_id, gates)
            except InvalidInput as error:
                yield Failed(index, str(error), retry=False)
                return
            except MedphantomError as error:  # the store of the reference, or the sink, is away
                yield Waits(index, str(error), AWAY_S)
                return
            if digest is None:
                said = teacher.said(work.request_id)
                yield Waits(index, f"gates learn from {gates['reference']}: {said}", WAIT_S)
                return
            work = replace(work, items={index: {**item, "gates": digest}})
        async with aclosing(execute(work)) as news:  # type: ignore[type-var]
            async for each in news:
                yield each

    return run


class Taught:
    """What gates have learnt, as folders of this host.

    Args:
        sink: that has it.
        root: of the folders.
    """

    def __init__(self, sink: Sink, root: Path) -> None:
        self._sink, self._root = sink, root

    async def given(self, work: Work) -> Work:
        """Work that names these folders where it named digests.

        Raises:
            MedphantomError: the sink is away, or has forgotten it.
        """
        if work.task != DataSet.name or work.spec.get("gates") is None:
            return work
        items = {
            index: {**item, "gates": str(await in_thread(self._folder, item["gates"]))}
            for index, item in work.items.items()
        }
        return replace(work, items=items)

    def _folder(self, digest: str) -> Path:
        folder = self._root / digest
        if not folder.is_dir():
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = Path(tempfile.mkdtemp(dir=self._root, prefix=".part-"))
            for name, data in unpack(self._sink.get_upload(digest)).items():
                (part / name).write_bytes(data)
            try:
                part.rename(folder)
            except OSError:  # another process was first
                shutil.rmtree(part, ignore_errors=True)
            self._forget(folder)
        os.utime(folder)
        return folder

    def _forget(self, kept: Path) -> None:
        """Leave those that were used last."""
        folders = [each for each in self._root.iterdir() if each.is_dir() and each != kept]
        folders.sort(key=lambda each: each.stat().st_mtime, reverse=True)
        for old in folders[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
