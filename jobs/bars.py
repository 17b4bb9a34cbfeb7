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
                self._tasks[title] = self._progress.add_task(title)
            self._progress.update(self._tasks[title], completed=done, total=total)

        return report


@contextmanager
def bars() -> Iterator[Bars]:
    """Draw on stderr until the block ends."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield Bars(console, progress)
