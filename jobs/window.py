"""Many processes through one engine, few at a time, so that memory does not grow with their number.

They share forwards; what each returns comes in their order.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is imported when something is made
    from gen.engine import Engine, Ticket
    from gen.types import Process, T


def windowed(
    engine: "Engine", processes: "Iterable[Process[T]]", at_once: int, exact: bool = False
) -> "Iterator[Ticket[T]]":
    """A ticket of each process once it is done, in order.

    Args:
        engine: that nobody else steps meanwhile.
        processes: taken from only when there is room.
        at_once: so many are under way, or done and not asked for yet.
        exact: give the same bits in any company.
    """
    waiting: deque[Ticket[T]] = deque()
    coming = iter(processes)
    while True:
        while len(waiting) < at_once and (process := next(coming, None)) is not None:
            waiting.append(engine.submit(process, exact=exact))
        if not waiting:
            return
        while not waiting[0].done():
            engine.step()
        yield waiting.popleft()
