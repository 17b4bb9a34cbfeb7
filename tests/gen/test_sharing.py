"""Who goes into a forward: longest waiting first, even shares, live before batch, no starvation."""

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen.sharing import BATCH, FAIR_TURN, LIVE, PATIENCE, RECENT, choose


@dataclass(eq=False)
class Waiter:
    """A process that waits for rows of one component."""

    num_waiting: int = 2
    owner: Hashable = "ann"
    priority: int = LIVE
    turn: int = 0
    arrived: int = 0
    component: str = "unet"
    whole: bool = False

    def group(self) -> Hashable:
        return self.component

    def is_whole(self) -> bool:
        return self.whole


def shares(
    *waiting: Waiter,
    turns: dict[Hashable, int] | None = None,
    forward: int = 1,
    max_rows: int = 8,
    shared_rows: int = 8,
) -> dict[Waiter, int]:
    """Rows by process, in the order they were chosen."""
    return dict(choose(waiting, turns or {}, forward, max_rows, shared_rows))


def test_the_owner_who_has_waited_longest_leads() -> None:
    ann, bob = Waiter(8, "ann"), Waiter(8, "bob")
    chosen = shares(ann, bob, turns={"ann": 5, "bob": 2})
    assert list(chosen) == [bob, ann]
    new = Waiter(8, "cat")
    assert next(iter(shares(ann, bob, new, turns={"ann": 5, "bob": 2}))) is new


def test_of_one_owner_the_process_that_has_waited_longest_leads() -> None:
    late, early = Waiter(8, turn=7), Waiter(8, turn=3)
    assert next(iter(shares(late, early))) is early


def test_a_newcomer_leads_its_owners_processes_but_not_the_fair_turn() -> None:
    old, new = Waiter(8, turn=3), Waiter(8, arrived=9, component="text_encoder")
    assert next(iter(shares(old, new, forward=FAIR_TURN + 1))) is new
    assert next(iter(shares(old, new, forward=2 * FAIR_TURN))) is old


def test_only_calls_of_the_leaders_group_ride_along() -> None:
    leader, other = Waiter(1, turn=0), Waiter(1, turn=1, component="decoder")
    fellow = Waiter(1, turn=2)
    assert shares(leader, other, fellow) == {leader: 1, fellow: 1}


def test_a_call_that_must_stay_whole_goes_alone_and_beyond_the_budget() -> None:
    leader, fellow = Waiter(100, whole=True), Waiter(1, turn=1)
    assert shares(leader, fellow, max_rows=4, shared_rows=4) == {leader: 100}


def test_rows_are_even_between_owners_then_between_an_owners_processes() -> None:
    many = [Waiter(4, "ann", turn=turn) for turn in range(2)]
    one = Waiter(100, "bob")
    assert shares(*many, one, max_rows=12, shared_rows=12) == {many[0]: 3, many[1]: 3, one: 6}


def test_work_nobody_waits_for_gets_the_rows_that_are_left() -> None:
    batch, live = Waiter(10, "bob", BATCH), Waiter(2, "ann")
    assert shares(batch, live) == {live: 2, batch: 6}
    assert shares(batch, Waiter(8, "ann")).get(batch) is None


def test_one_forward_in_eight_ignores_priority() -> None:
    batch, live = Waiter(9, "bob", BATCH), Waiter(9, "ann")
    turns: dict[Hashable, int] = {"ann": 7}
    for forward in range(1, 3 * FAIR_TURN):
        leader = next(iter(shares(batch, live, turns=turns, forward=forward)))
        assert (leader is batch) == (forward % FAIR_TURN == 0)


@pytest.mark.parametrize(
    ("others", "budget"),
    [
        ([], 16),  # alone
        ([Waiter(40, "ann")], 16),  # two of one owner's own
        ([Waiter(40, "bob")], 8),  # two forwards would take longer
        ([Waiter(40, "bob"), Waiter(40, "bob")], 4),  # with two, not due yet
        ([Waiter(40, "ann", BATCH)], 4),
        ([Waiter(40, "bob", component="decoder")], 4),  # waits for this forward to end
    ],
)
def test_forwards_are_short_while_a_live_process_is_beside_others(
    others: list[Waiter], budget: int
) -> None:
    ann = Waiter(40, "ann")
    turns = {each.owner: 8 for each in [ann, *others]}
    chosen = shares(ann, *others, turns=turns, forward=9, max_rows=16, shared_rows=4)
    assert next(iter(chosen)) is ann
    assert sum(chosen.values()) == budget


def test_company_that_is_due_never_goes_beyond_the_most_rows() -> None:
    assert sum(shares(Waiter(40), Waiter(40, "bob"), max_rows=8, shared_rows=6).values()) == 8


def test_one_who_floods_rides_along_beyond_the_short_forward_only_when_due() -> None:
    flood = [Waiter(2, "ann") for _ in range(20)]
    polite = Waiter(2, "bob")
    turns: dict[Hashable, int] = {}
    sizes = []
    for forward in range(1, FAIR_TURN):
        chosen = shares(*flood, polite, turns=turns, forward=forward, shared_rows=2)
        assert chosen[polite] == 2
        sizes.append(sum(chosen.values()))
        turns |= dict.fromkeys((each.owner for each in chosen), forward)
    assert sizes == [2, 2, 2, 4, 2, 2, 2]


def test_one_who_floods_gets_every_fourth_forward_beside_one_who_does_not() -> None:
    flood = [Waiter(2, "ann", component="decoder", turn=turn) for turn in range(20)]
    polite = Waiter(2, "bob")
    turns: dict[Hashable, int] = {}
    leaders = []
    for forward in range(1, 8 * FAIR_TURN + 1):
        leader = next(iter(shares(*flood, polite, turns=turns, forward=forward)))
        leader.turn = turns[leader.owner] = forward
        leaders.append(leader.owner)
    assert leaders.count("ann") == len(leaders) / (PATIENCE + 1)


def test_forwards_stay_short_for_an_owner_who_may_come_again() -> None:
    for away, budget in ((1, 4), (RECENT, 4), (RECENT + 1, 16)):
        chosen = shares(
            Waiter(40, "ann"), turns={"bob": 90 - away}, forward=90, max_rows=16, shared_rows=4
        )
        assert sum(chosen.values()) == budget


def test_jobs_among_themselves_get_full_forwards() -> None:
    jobs = [Waiter(40, owner, BATCH) for owner in ("ann", "bob")]
    assert sum(shares(*jobs, max_rows=16, shared_rows=4).values()) == 16


WAITER = st.builds(
    Waiter,
    num_waiting=st.integers(1, 20),
    owner=st.sampled_from("abc"),
    priority=st.sampled_from([LIVE, BATCH]),
    component=st.sampled_from(["unet", "decoder"]),
    whole=st.sampled_from([False, False, False, True]),
)


@settings(max_examples=60, deadline=None)
@given(
    waiting=st.lists(WAITER, min_size=1, max_size=10),
    max_rows=st.integers(1, 12),
    shared_rows=st.integers(1, 12),
)
def test_a_forward_holds_rows_that_wait_within_its_budget(
    waiting: list[Waiter], max_rows: int, shared_rows: int
) -> None:
    shared_rows = min(shared_rows, max_rows)
    for forward in range(1, 2 * FAIR_TURN):
        chosen = choose(waiting, {}, forward, max_rows, shared_rows)
        leader, num_rows = chosen[0][0], sum(rows for _, rows in chosen)
        assert len({id(each) for each, _ in chosen}) == len(chosen)
        assert all(1 <= rows <= each.num_waiting for each, rows in chosen)
        assert {each.group() for each, _ in chosen} == {leader.group()}
        if leader.whole:
            assert chosen == [(leader, leader.num_waiting)]
        else:
            fellows = sum(each.num_waiting for each in waiting if each.group() == leader.group())
            assert min(shared_rows, fellows) <= num_rows <= max_rows


@settings(max_examples=60, deadline=None)
@given(
    flood=st.lists(WAITER, min_size=1, max_size=8),
    patient=WAITER,
    max_rows=st.integers(1, 8),
)
def test_nobody_starves_however_many_others_never_end(
    flood: list[Waiter], patient: Waiter, max_rows: int
) -> None:
    """The others wait for as many rows again as soon as they are served."""
    everybody = [*flood, patient]
    turns: dict[Hashable, int] = {}
    for forward in count(1):
        chosen = choose(everybody, turns, forward, max_rows, max_rows)
        for each, _ in chosen:
            each.turn = turns[each.owner] = forward
        if any(each is patient for each, _ in chosen):
            break
        assert forward <= FAIR_TURN * len(everybody)
