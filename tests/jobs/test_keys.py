"""Keys: what is kept of a secret, whom it lets in, and that a quota is spent once."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gen.errors import Busy, InvalidInput, NotAllowed, NotFound
from jobs.keys import Key, KeyStore, Scope

START = 7200.0  # a full hour


@pytest.fixture
def now() -> list[float]:
    """The time of the simulated clock."""
    return [START]


@pytest.fixture
def keys(store_url: str, now: list[float]) -> Iterator[KeyStore]:
    """A store without keys, on either database."""
    store = KeyStore(store_url, lambda: now[0])
    yield store
    store.close()


def has_room(keys: KeyStore, key: Key, work: float) -> bool:
    """Whether work could be spent."""
    try:
        keys.spend(key, work)
    except Busy:
        return False
    return True


def test_a_secret_opens_its_own_key(keys: KeyStore) -> None:
    created, secret = keys.create("clinic", [Scope.JOBS, Scope.GENERATE], 5.0)
    keys.create("other", [Scope.METRICS], None)
    assert re.fullmatch(f"mp_{created.id}_[A-Za-z0-9_-]{{43}}", secret)
    key = keys.check(secret)
    assert (key.id, key.name, key.work_per_hour) == (created.id, "clinic", 5.0)
    assert key.scopes == {Scope.GENERATE, Scope.JOBS}


def test_the_database_never_holds_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "keys.db"
    store = KeyStore(f"sqlite:///{file}")
    _, secret = store.create("clinic", [Scope.JOBS], None)
    store.check(secret)
    store.close()
    with sqlite3.connect(file) as connection:
        dump = "".join(connection.iterdump())
    connection.close()
    assert "clinic" in dump
    assert secret not in dump
    assert secret.split("_", 2)[2] not in dump


@pytest.mark.parametrize(
    "change",
    [str.upper, lambda secret: secret[:-1], lambda secret: f"{secret[:-1]}é", lambda _: ""],
)
def test_a_secret_that_differs_is_unknown_and_not_repeated(
    keys: KeyStore, change: Callable[[str], str]
) -> None:
    _, secret = keys.create("clinic", [Scope.JOBS], None)
    with pytest.raises(NotAllowed, match="unknown") as refusal:
        keys.check(change(secret))
    assert not refusal.value.known
    assert secret.split("_", 2)[2][:-1] not in str(refusal.value)


def test_the_right_id_with_another_keys_secret_is_unknown(keys: KeyStore) -> None:
    one, _ = keys.create("one", [Scope.JOBS], None)
    _, secret = keys.create("two", [Scope.JOBS], None)
    with pytest.raises(NotAllowed, match="unknown"):
        keys.check(f"mp_{one.id}_{secret.split('_', 2)[2]}")


def test_a_revoked_key_stays_revoked_since_the_first_time(keys: KeyStore, now: list[float]) -> None:
    key, secret = keys.create("clinic", [Scope.JOBS], None)
    assert keys.any()
    keys.revoke(key.id)
    now[0] += 100
    assert keys.revoke(key.id).revoked_at == START
    assert not keys.any()
    with pytest.raises(NotAllowed, match="revoked"):
        keys.check(secret)
    with pytest.raises(NotFound, match="keys list"):
        keys.revoke("ffffffffffff")


def test_keys_are_listed_in_the_order_they_were_made(keys: KeyStore, now: list[float]) -> None:
    for name in ("zebra", "ape"):
        keys.create(name, [Scope.JOBS], None)
        now[0] += 1
    assert [key.name for key in keys.list()] == ["zebra", "ape"]


def test_use_is_noted_once_a_minute(keys: KeyStore, now: list[float]) -> None:
    _, secret = keys.create("clinic", [Scope.JOBS], None)
    noted = []
    for after in (0, 59, 60, 119, 121):
        now[0] = START + after
        keys.check(secret)
        noted.append(keys.list()[0].last_used_at)
    assert noted == [START, START, START + 60, START + 60, START + 121]


def test_a_key_needs_a_name_a_scope_and_a_quota_above_nothing(keys: KeyStore) -> None:
    with pytest.raises(InvalidInput, match="name is empty"):
        keys.create(" ", [Scope.JOBS], None)
    with pytest.raises(InvalidInput, match="scopes is empty; give some of generate, jobs, metrics"):
        keys.create("clinic", [], None)
    for quota in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidInput, match="work_per_hour"):
            keys.create("clinic", [Scope.JOBS], quota)


def test_a_quota_is_spent_whole_and_fresh_in_the_next_clock_hour(
    keys: KeyStore, now: list[float]
) -> None:
    key, _ = keys.create("clinic", [Scope.JOBS], 1.0)
    now[0] = START + 3000
    assert [has_room(keys, key, 0.1) for _ in range(11)] == [True] * 10 + [False]
    with pytest.raises(Busy, match="next hour") as refusal:
        keys.spend(key, 0.1)
    assert (refusal.value.reason, refusal.value.retry_after_s) == ("quota", 600)
    now[0] = START + 3600
    assert has_room(keys, key, 1.0)


def test_what_was_refused_costs_nothing(keys: KeyStore) -> None:
    key, _ = keys.create("clinic", [Scope.JOBS], 10.0)
    keys.spend(key, 4.0)
    assert not has_room(keys, key, 7.0)
    assert has_room(keys, key, 6.0)


def test_work_above_a_whole_hours_quota_can_never_pass_so_it_is_no_matter_of_waiting(
    keys: KeyStore,
) -> None:
    key, _ = keys.create("clinic", [Scope.JOBS], 10.0)
    with pytest.raises(InvalidInput, match="10 an hour"):
        keys.spend(key, 11.0)


def test_a_key_without_a_quota_spends_what_it_likes(keys: KeyStore) -> None:
    key, _ = keys.create("clinic", [Scope.JOBS], None)
    keys.spend(key, 1e12)
    keys.refund(key, 1e12)


def test_a_refund_can_be_spent_again_but_only_in_its_hour(keys: KeyStore, now: list[float]) -> None:
    key, _ = keys.create("clinic", [Scope.JOBS], 10.0)
    keys.spend(key, 10.0)
    keys.refund(key, 4.0)
    assert has_room(keys, key, 4.0)
    assert not has_room(keys, key, 0.1)
    now[0] += 3600
    keys.refund(key, 10.0)
    assert has_room(keys, key, 10.0)
    assert not has_room(keys, key, 0.1)


def test_a_clock_that_is_an_hour_behind_does_not_renew_the_quota(
    keys: KeyStore, now: list[float]
) -> None:
    key, _ = keys.create("clinic", [Scope.JOBS], 10.0)
    keys.spend(key, 10.0)
    now[0] -= 1
    assert not has_room(keys, key, 1.0)
    now[0] += 1
    assert not has_room(keys, key, 1.0)


def test_many_threads_spend_a_quota_exactly_once(keys: KeyStore) -> None:
    key, _ = keys.create("clinic", [Scope.JOBS], 20.0)
    with ThreadPoolExecutor(16) as pool:
        spent = list(pool.map(lambda _: has_room(keys, key, 1.0), range(50)))
    assert sum(spent) == 20


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from(["spend", "refund"]), st.integers(0, 12), st.integers(0, 2500)),
        max_size=25,
    )
)
def test_never_more_than_the_quota_is_spent_and_not_refunded_in_an_hour(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, int, int]]
) -> None:
    now = [START]
    store = KeyStore(f"sqlite:///{tmp_path_factory.mktemp('keys') / 'k.db'}", lambda: now[0])
    key, _ = store.create("clinic", [Scope.JOBS], 10.0)
    spent: dict[int, int] = {}
    for call, work, wait in calls:
        now[0] += wait
        hour = int(now[0] // 3600)
        before = spent.setdefault(hour, 0)
        if call == "refund":
            store.refund(key, work)
            spent[hour] = max(0, before - work)
        elif work <= 10:
            assert has_room(store, key, work) == (before + work <= 10)
            spent[hour] = before + work if before + work <= 10 else before
    store.close()
