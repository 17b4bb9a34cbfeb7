"""Who goes into a forward, and with how many rows: the engine's rules of fairness.

Nobody starves:

- owners take turns, longest waiting first, and share the rows evenly; so do one owner's processes,
  newcomers first, so a call of hundreds of rows is spread over many forwards and others need not
  wait for its end;
- who has many processes has the next turn up to `PATIENCE` forwards later, so that one who floods
  slows others less than by half;
- a lower priority number goes first and the others get the rows it leaves, except that one forward
  in `FAIR_TURN` goes to the process that has waited longest, whatever its priority and owner;
- while somebody waits for a live process beside others, or others were served a moment ago and may
  come again, forwards are kept short: `shared_rows`, which slow nobody much, or twice as many where
  another owner's turn has come as well, since two forwards would take longer.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import accumulate, groupby
from typing import Protocol, TypeVar

LIVE, BATCH = 0, 1  # priorities: somebody waits; work for the rows that live requests leave
FAIR_TURN = 8  # costs live requests at most an eighth of the forwards
RECENT = 8  # forwards ago: who sends one request after another is away for fewer
PATIENCE = 3  # leaves one who floods a fourth of the forwards beside one who sends one by one
FEWEST_ROWS = 2  # a guided call has two: served whole, it need not wait for a second forward


class Waiting(Protocol):
    """A process that waits for the rest of its call."""

    priority: int
    owner: Hashable
    arrived: int  # after which forward
    turn: int  # number of the forward that served it last, 0 for a newcomer
    num_waiting: int  # rows of its call not answered yet

    def group(self) -> Hashable:
        """What calls must have in common to share a forward."""
        ...

    def is_whole(self) -> bool:
        """Whether the call must not be split or shared."""
        ...


W = TypeVar("W", bound=Waiting)


def choose(
    waiting: Sequence[W],
    turns: Mapping[Hashable, int],
    forward: int,
    max_rows: int,
    shared_rows: int,
) -> list[tuple[W, int]]:
    """The processes of the next forward, each with its number of rows; the first one leads.

    Args:
        waiting: at least one.
        turns: number of the forward that served an owner last; unknown owners go first.
        forward: number of this one, from 1.
        max_rows: most rows of a forward.
        shared_rows: most rows while a live process is beside another owner's or priority's; twice
            as many where another owner is due.
    """
    all_equal = forward % FAIR_TURN == 0
    num_processes = Counter((each.owner, each.priority) for each in waiting)

    def rank(each: W) -> int:
        return 0 if all_equal else each.priority

    def since(each: W) -> int:
        # not by owner, or one whose live calls are served often would starve its own jobs
        if all_equal:
            return 0
        others = num_processes[each.owner, each.priority] - 1
        return turns.get(each.owner, 0) + min(others, PATIENCE)

    def last(each: W) -> int:
        # newcomers first, or the first answer would take as long as all others' next ones; but no
        # stream of them may keep the one that has waited longest from its turn
        return max(each.turn, each.arrived) if all_equal else each.turn

    queue = sorted(waiting, key=lambda each: (rank(each), since(each), last(each)))
    leader = queue[0]
    if leader.is_whole():
        return [(leader, leader.num_waiting)]
    recent = {owner for owner, turn in turns.items() if turn >= forward - RECENT}
    parties = len(num_processes) + len(recent - {each.owner for each in waiting})
    crowded = parties > 1 and any(priority == LIVE for _, priority in num_processes)
    fellows = [each for each in queue if each.group() == leader.group()]
    is_due = any(each.owner != leader.owner and since(each) < forward for each in fellows)
    budget = min(max_rows, shared_rows * (1 + is_due)) if crowded else max_rows
    shares: list[tuple[W, int]] = []
    for _, equals in groupby(fellows, key=rank):
        served = _share(list(equals), budget)
        budget -= sum(count for _, count in served)
        shares += served
    return shares


def _share(equals: Iterable[W], budget: int) -> list[tuple[W, int]]:
    """Rows of equals, in their order: even between owners, then between an owner's processes."""
    owners: dict[Hashable, list[W]] = {}
    for each in equals:
        owners.setdefault(each.owner, []).append(each)
    wanted = [sum(each.num_waiting for each in group) for group in owners.values()]
    shares = []
    for group, rows in zip(owners.values(), fair_shares(wanted, budget), strict=True):
        counts = fair_shares([each.num_waiting for each in group], rows)
        shares += [(each, count) for each, count in zip(group, counts, strict=True) if count]
    return shares


def fair_shares(wanted: Sequence[int], budget: int) -> list[int]:
    """Split a budget of rows max-min fairly: small wishes are met, large ones share the rest.

    Where the budget does not hold `FEWEST_ROWS` or the whole wish of each, the first ones get
    that much, and the next one what is left.
    """
    least = list(accumulate(min(wish, FEWEST_ROWS) for wish in wanted))
    num_served = max(1, bisect_right(least, budget)) if wanted else 0
    shares = [0] * len(wanted)
    ascending = sorted(range(num_served), key=lambda index: wanted[index])
    for num_done, index in enumerate(ascending):
        shares[index] = min(wanted[index], budget // (num_served - num_done))
        budget -= shares[index]
    if num_served < len(wanted):
        shares[num_served] = min(wanted[num_served], budget)
    return shares
