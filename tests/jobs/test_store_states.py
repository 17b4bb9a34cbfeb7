"""Any calls in any order leave the store as a simple model says."""

import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gen.errors import LeaseLost, NotFound
from jobs.store import JobStore, Lease, State

IDS = st.sampled_from(["a", "b", "c"])
LEASE_S, TTL_S, NUM_STEPS = 30.0, 200.0, 4


@dataclass
class ModelItem:
    """An item as it should be."""

    state: State = State.QUEUED
    token: int = 0
    attempts: int = 0
    losses: int = 0
    steps_done: int = 0
    not_before: float = 0.0
    lease_until: float = 0.0

    def back(self, not_before: float) -> None:
        """To the queue."""
        self.state, self.not_before, self.steps_done = State.QUEUED, not_before, 0

    def lose(self, not_before: float) -> None:
        """Its worker died."""
        self.losses += 1
        if self.losses < 10:
            self.back(not_before)
        else:
            self.state = State.FAILED


@dataclass
class ModelJob:
    """A job as it should be."""

    items: list[ModelItem]
    expires_at: float
    cancelled: bool = False
    started: bool = False

    @property
    def state(self) -> State:
        """What follows from the items."""
        states = {item.state for item in self.items}
        if self.cancelled:
            return State.CANCELLED
        if states <= {State.SUCCEEDED, State.FAILED}:
            return State.FAILED if State.FAILED in states else State.SUCCEEDED
        return State.RUNNING if self.started else State.QUEUED


class StoreMachine(RuleBasedStateMachine):
    """Clients, workers, living and dead, and a clock."""

    @initialize()
    def open(self) -> None:
        """Begin with an empty store."""
        self.folder = Path(tempfile.mkdtemp())
        self.now = 1000.0
        self.store = JobStore(f"sqlite:///{self.folder / 'jobs.db'}", lambda: self.now)
        self.jobs: dict[str, ModelJob] = {}
        self.leases: list[Lease] = []

    def teardown(self) -> None:
        """Leave nothing behind."""
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)

    def held(self, lease: Lease) -> ModelItem | None:
        """The item of a lease that counts."""
        job = self.jobs.get(lease.job_id)
        item = job.items[lease.index] if job else None
        current = item and item.token == lease.token and item.state is State.RUNNING
        return item if current else None

    def a_lease(self, data: st.DataObject) -> Lease:
        """One that was given, good or void."""
        return data.draw(st.sampled_from(self.leases))

    @rule(job_id=IDS, num_items=st.integers(1, 3), owner=st.sampled_from(["ann", "bob"]))
    def create(self, job_id: str, num_items: int, owner: str) -> None:
        if job_id in self.jobs:
            owner = self.store.get(job_id).owner
            num_items = 1  # an old job is found by its spec: its items are not compared
        new = self.store.create(
            job_id, "t", owner, {}, [{}] * num_items, TTL_S, steps_per_item=NUM_STEPS
        )[1]
        assert new == (job_id not in self.jobs)
        if new:
            items = [ModelItem() for _ in range(num_items)]
            self.jobs[job_id] = ModelJob(items, self.now + TTL_S)

    @rule(limit=st.integers(0, 4))
    def lease(self, limit: int) -> None:
        leases = self.store.lease("w", limit, LEASE_S)
        items = [item for job in self.jobs.values() for item in job.items]
        for item in items:
            if item.state is State.RUNNING and item.lease_until <= self.now:
                item.lose(self.now)
        queued = [item for item in items if item.state is State.QUEUED]
        ready = [item for item in queued if item.not_before <= self.now]
        assert len({(lease.job_id, lease.index) for lease in leases}) == len(leases)
        assert min(limit, len(ready), 1) <= len(leases) <= min(limit, len(ready))
        if len(ready) == len(queued):
            assert len(leases) == min(limit, len(ready))
        for lease in leases:
            job = self.jobs[lease.job_id]
            item = job.items[lease.index]
            assert any(item is one for one in ready)
            item.token += 1
            item.state, item.lease_until, job.started = State.RUNNING, self.now + LEASE_S, True
            assert (lease.token, lease.attempt) == (item.token, item.attempts + 1)
        self.leases += leases

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        lease = self.a_lease(data)
        item = self.held(lease)
        assert self.store.heartbeat([lease], LEASE_S) == ([] if item else [lease])
        if item:
            item.lease_until = self.now + LEASE_S

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), step=st.integers(1, NUM_STEPS), preview=st.sampled_from([None, "data:"]))
    def progress(self, data: st.DataObject, step: int, preview: str | None) -> None:
        lease = self.a_lease(data)
        item = self.held(lease)
        if item is None:
            with pytest.raises(LeaseLost):
                self.store.progress(lease, step, NUM_STEPS, preview)
        else:
            self.store.progress(lease, step, NUM_STEPS, preview)
            item.steps_done = step

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        lease = self.a_lease(data)
        item = self.held(lease)
        job = self.jobs.get(lease.job_id)
        known = job.items[lease.index] if job else None
        if item:
            item.state, item.steps_done = State.SUCCEEDED, NUM_STEPS
        file = f"{lease.job_id}-{lease.index}-{lease.token}"
        if known and known.state is State.SUCCEEDED and known.token == lease.token:
            self.store.finish(lease, {"seed": 1}, file, "ab", 3)
            assert self.store.item(lease.job_id, lease.index).file == file
        else:
            with pytest.raises(LeaseLost):
                self.store.finish(lease, {"seed": 1}, file, "ab", 3)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), retry=st.booleans())
    def fail(self, data: st.DataObject, retry: bool) -> None:
        lease = self.a_lease(data)
        item = self.held(lease)
        if item is None:
            with pytest.raises(LeaseLost):
                self.store.fail(lease, "no", retry)
            return
        self.store.fail(lease, "no", retry)
        item.attempts += 1
        if retry and item.attempts < 3:
            item.back(self.now)
        else:
            item.state = State.FAILED

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), delay_s=st.sampled_from([0.0, 10.0]), lost=st.booleans())
    def release(self, data: st.DataObject, delay_s: float, lost: bool) -> None:
        lease = self.a_lease(data)
        item = self.held(lease)
        if item is None:
            with pytest.raises(LeaseLost):
                self.store.release(lease, delay_s, lost=lost)
            return
        self.store.release(lease, delay_s, lost=lost)
        if lost:
            item.lose(self.now + delay_s)
        else:
            item.back(self.now + delay_s)

    @rule(job_id=IDS)
    def cancel(self, job_id: str) -> None:
        if job_id not in self.jobs:
            with pytest.raises(NotFound):
                self.store.cancel(job_id)
            return
        self.store.cancel(job_id)
        self.cancel_model(self.jobs[job_id])

    def cancel_model(self, job: ModelJob) -> None:
        """What cancelling means."""
        if not job.state.is_final:
            job.cancelled = True
            for item in job.items:
                if not item.state.is_final:
                    item.state = State.CANCELLED

    @rule()
    def purge(self) -> None:
        expired = {job_id for job_id, job in self.jobs.items() if job.expires_at <= self.now}
        files = self.store.purge()
        results = [
            item
            for job_id in expired
            for item in self.jobs.pop(job_id).items
            if item.state is State.SUCCEEDED
        ]
        assert len(files) == len(results)

    @rule(seconds=st.sampled_from([1.0, 10.0, 31.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        counts: Counter[State] = Counter()
        listed = {job.id: job for job in self.store.list(None, 9)[0]}
        assert listed.keys() == self.jobs.keys()
        for job_id, model in self.jobs.items():
            states = [item.state for item in model.items]
            counts.update(states)
            job = listed[job_id]
            assert job.state is model.state
            assert (job.finished_at is not None) == job.state.is_final
            assert (job.started_at is not None) == model.started
            assert (job.num_succeeded, job.num_failed) == (
                states.count(State.SUCCEEDED),
                states.count(State.FAILED),
            )
            assert job.steps_done == sum(item.steps_done for item in model.items)
            assert job.num_steps == NUM_STEPS * len(states)
            for kept, item in zip(self.store.items(job_id, 0, 9), model.items, strict=True):
                assert (kept.state, kept.attempts, kept.losses, kept.steps_done) == (
                    item.state,
                    item.attempts,
                    item.losses,
                    item.steps_done,
                )
                assert (kept.file is not None) == (item.state is State.SUCCEEDED)
        assert self.store.counts() == {state: counts[state] for state in State}

    @invariant()
    def the_events_tell_the_story(self) -> None:
        for job_id, model in self.jobs.items():
            events = self.store.events(job_id)
            seqs = [event.seq for event in events]
            assert seqs == sorted(set(seqs))
            assert (events[0].kind, seqs[0]) == ("queued", 1)
            kinds = Counter(event.kind for event in events)
            assert kinds["finished"] == (events[-1].kind == "finished") == model.state.is_final
            assert kinds["started"] == sum(item.token for item in model.items)
            ended = {event.data["index"] for event in events if event.kind == "item"}
            previews = Counter(event.data["index"] for event in events if event.kind == "preview")
            assert kinds["item"] == len(ended)
            for index, item in enumerate(model.items):
                assert (index in ended) == (item.state in (State.SUCCEEDED, State.FAILED))
                assert previews[index] <= (not item.state.is_final)


StoreMachine.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    phases=set(Phase) - {Phase.explain},  # it takes minutes
    suppress_health_check=[HealthCheck.too_slow],
)
TestAnyCallsInAnyOrder = StoreMachine.TestCase
