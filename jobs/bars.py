"""Progress of long work for people, on stderr: a bar on a terminal, lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 20  # where there is no terminal to draw a bar on

Report = Callable[[int, int], None]
"""Called with (done, in all)."""

Count = Callable[[int, int], None]
"""Called with (done, of which failed)."""


class Pace:
    """How fast work goes, by what was done since it began.

    Args:
        total: pieces of work.
        before: of these, done by an earlier run.
        clock: seconds.
    """

    def __init__(
        self, total: int, before: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._before, self._clock = total, before, clock
        self._began = clock()

    def rate(self, done: int) -> float:
        """Pieces a second, 0 until there is one."""
        passed = self._clock() - self._began
        return max(0, done - self._before) / passed if passed > 0 else 0.0

    def said(self, done: int, failed: int) -> str:
        """In words: the rate, the time left, and what failed."""
        rate = self.rate(done)
        words = [f"{rate:.1f}/s"] if rate else []
        if rate and done < self._total:
            words.append(f"{duration((self._total - done) / rate)} left")
        return ", ".join([*words, f"{failed} failed"])


def duration(seconds: float) -> str:
    """As 4 s, 3 min or 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Bars:
    """Makes a bar for each piece of work, by its title."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console, self._progress = console, progress
        self._tasks: dict[str, TaskID] = {}

    def say(self, line: str) -> None:
        """A line above the bars."""
        self._console.print(line, highlight=False, markup=False)

    def bar(self, title: str) -> Report:
        """A bar that is drawn from its first report on."""
        said = time.monotonic()

        def report(done: int, total: int) -> None:
            nonlocal said
            if not self._console.is_terminal:
                if done == total or time.monotonic() - said > LINE_EVERY_S:
                    said = time.monotonic()
                    self.say(f"{title}: {done} of {total}")
                return
            if title not in self._tasks:
                self._tasks[title] = self._progress.add_task(title, said="")
            self._progress.update(self._tasks[title], completed=done, total=total)

        return report

    def counter(self, title: str, total: int, before: int = 0) -> Count:
        """A bar with rate, time left and failures; now and then a line where none is drawn.

        Args:
            total: pieces of work.
            before: of these, done by an earlier run.
        """
        pace, said, ended = Pace(total, before), time.monotonic(), False

        def count(done: int, failed: int) -> None:
            nonlocal said, ended
            words = pace.said(done, failed)
            if not self._console.is_terminal:
                if (done == total and not ended) or time.monotonic() - said > LINE_EVERY_S:
                    said, ended = time.monotonic(), done == total
                    self.say(f"{title}: {done} of {total}, {words}")
                return
            if title not in self._tasks:
                self._tasks[title] = self._progress.add_task(title, total=total, said="")
            self._progress.update(self._tasks[title], completed=done, said=words)

        return count


@contextmanager
def bars() -> Iterator[Bars]:
    """Draw on stderr until the block ends."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[said]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield Bars(console, progress)
