"""An image is made again until every gate passes it, alone or in company."""

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gen.engine import Engine, run
from gen.errors import InvalidInput
from gen.gates.gate import Gate, Subject, Verdict
from gen.gates.gated import Gated, checked_names, gated, networks_of
from gen.types import Component, ModelCall, Process

ABOUT = Subject(labels=("Edema",))


def mean_of(images: Tensor) -> Tensor:
    return images.flatten(1).mean(1)


class Darker:
    """Passes images whose mean, as a network says, is below a limit."""

    def __init__(self, name: str, limit: float) -> None:
        self.name, self.limit = name, limit
        self.networks: Mapping[str, Component] = {"mean": mean_of}

    def judge(self, image: Tensor, about: Subject) -> Process[Verdict]:
        score = float((yield ModelCall("mean", (image,))))
        passed = score < self.limit
        return Verdict(self.name, passed, score, self.limit, None if passed else "too bright")


def make(levels: list[float], attempt: int) -> Process[float]:
    """An image of one level an attempt, through a network."""
    answer = yield ModelCall("copy", (torch.tensor([levels[attempt % len(levels)]]),))
    return float(answer)


def picture(level: float) -> Tensor:
    return torch.full((1, 1, 4, 4), level)


def process(levels: list[float], gates: list[Gate], attempts: int) -> Process[Gated[float]]:
    return gated(
        lambda attempt: make(levels, attempt), picture, gates, ABOUT, attempts, keep_rejected=True
    )


NETWORKS: dict[str, Component] = {"copy": lambda rows: rows.clone(), "mean": mean_of}


def test_the_first_attempt_that_every_gate_passes_is_kept() -> None:
    gates: list[Gate] = [Darker("strict", 0.3), Darker("lax", 0.6)]
    found = run(process([0.9, 0.5, 0.1, 0.2], gates, 4), NETWORKS)
    assert found.result == pytest.approx(0.1)
    assert [[each.passed for each in row] for row in found.attempts] == [
        [False, False],
        [False, True],
        [True, True],
    ]
    assert found.rejected == pytest.approx((0.9, 0.5))


def test_an_image_is_given_up_after_so_many_attempts_with_all_its_verdicts() -> None:
    found = run(process([0.9, 0.8, 0.1], [Darker("strict", 0.3)], 2), NETWORKS)
    assert found.given_up
    assert [row[0].score for row in found.attempts] == pytest.approx([0.9, 0.8])


def test_without_gates_the_first_attempt_is_kept() -> None:
    found = run(process([0.9], [], 3), NETWORKS)
    assert (found.result, found.attempts) == (pytest.approx(0.9), ((),))


def test_an_image_needs_an_attempt() -> None:
    with pytest.raises(InvalidInput, match="max_attempts is 0"):
        run(process([0.9], [], 0), NETWORKS)


@settings(max_examples=30, deadline=None)
@given(
    images=st.lists(
        st.lists(st.integers(0, 8).map(lambda n: n / 8), min_size=1, max_size=5),
        min_size=1,
        max_size=6,
    ),
    attempts=st.integers(1, 5),
    max_rows=st.integers(1, 5),
)
def test_everybody_gets_in_company_the_verdicts_they_get_alone(
    images: list[list[float]], attempts: int, max_rows: int
) -> None:
    gates: list[Gate] = [Darker("strict", 0.3), Darker("lax", 0.6)]
    engine = Engine(NETWORKS, max_rows)
    tickets = [engine.submit(process(levels, gates, attempts)) for levels in images]
    engine.drain()
    for ticket, levels in zip(tickets, images, strict=True):
        alone = run(process(levels, gates, attempts), NETWORKS)
        assert ticket.result() == alone
        assert len(alone.attempts) <= attempts
        tried = [levels[i % len(levels)] for i in range(attempts)]
        assert alone.result == next((level for level in tried if level < 0.3), None)


def test_attempts_of_many_images_share_forwards() -> None:
    forwards: list[str] = []
    engine = Engine(NETWORKS, 8, on_forward=lambda name, rows, s: forwards.append(name))
    for _ in range(8):
        engine.submit(process([0.9, 0.1], [Darker("strict", 0.3)], 2))
    engine.drain()
    assert sorted(forwards) == ["copy", "copy", "mean", "mean"]


def test_one_name_is_one_network() -> None:
    first, second = Darker("one", 0.3), Darker("two", 0.3)
    assert networks_of([first, second]) == {"mean": mean_of}
    with pytest.raises(InvalidInput, match="mean"):
        checked_names([first], {"mean": mean_of})
    second.networks = {"mean": lambda rows: rows}
    with pytest.raises(InvalidInput, match="'mean'"):
        networks_of([first, second])


def test_a_verdict_is_a_row_of_json() -> None:
    verdict = Verdict("labels", True, None, None, unjudged=("Hernia",))
    assert verdict.as_json() == {
        "gate": "labels",
        "passed": True,
        "score": None,
        "threshold": None,
        "reason": None,
        "unjudged": ["Hernia"],
    }
