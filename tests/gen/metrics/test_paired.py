"""Figures of classifiers as drawn tiles and seeds would have them, against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gen.errors import InvalidInput
from gen.metrics.alignment import auroc
from gen.metrics.paired import HeldOut, accuracy, compare, macro_auroc


def drawn_probabilities(seed: int, seeds: int, labels: NDArray[np.intp]) -> NDArray[np.float64]:
    """Somewhat right: (S, N, K), some of them equal."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(seeds, len(labels), labels.max() + 1))
    logits[:, np.arange(len(labels)), labels] += 1
    return np.exp(logits.round(1)) / np.exp(logits.round(1)).sum(-1, keepdims=True)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), num_classes=st.integers(2, 4))
def test_a_tile_drawn_twice_counts_as_two_tiles(seed: int, num_classes: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(num_classes), rng.integers(num_classes, size=8)])
    probabilities = drawn_probabilities(seed, 2, labels)
    counts = np.concatenate([np.ones(num_classes, int), rng.integers(3, size=8)])
    many, repeated = np.repeat(labels, counts), np.repeat(probabilities, counts, axis=1)
    weights = counts[None].astype(float)
    expected = (repeated.argmax(-1) == many).mean(1)
    np.testing.assert_allclose(accuracy(probabilities, labels, weights)[0], expected)
    areas = [
        [auroc(scores[:, k], many == k, 1).value for k in range(num_classes)] for scores in repeated
    ]
    found = macro_auroc(probabilities, labels, weights)[0]
    np.testing.assert_allclose(found, np.mean(areas, axis=1))


def test_an_interval_is_as_wide_as_chance_among_tiles() -> None:
    labels = np.repeat([0, 1], 200)
    right = np.random.default_rng(0).random(400) < 0.7
    one = np.where(right, labels, 1 - labels)
    # all seeds say the same, so that nothing is uncertain but which tiles were held out
    probabilities = np.stack([np.eye(2)[one]] * 3)
    found = compare(probabilities, HeldOut(labels, range(400)), num_resamples=4000)["accuracy"]
    shares = [right[labels == label].mean() for label in (0, 1)]
    spread = np.sqrt(sum(share * (1 - share) / 199 for share in shares)) / 2
    assert found.value == pytest.approx(right.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.08)


def test_an_interval_is_as_wide_as_chance_among_seeds() -> None:
    labels = np.array([0, 0, 1, 1])
    # seeds that are always right, and seeds that are always wrong
    probabilities = np.stack([np.eye(2)[labels if s % 2 else 1 - labels] for s in range(50)])
    found = compare(probabilities, HeldOut(labels, range(4)), num_resamples=4000)["accuracy"]
    assert found.value == 0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 / 7, rel=0.1)


def test_copies_of_one_picture_are_one_observation() -> None:
    labels = np.repeat([0, 1], 100)
    right = np.repeat(np.random.default_rng(1).random(20) < 0.6, 10)
    probabilities = np.stack([np.eye(2)[np.where(right, labels, 1 - labels)]] * 2)
    alone = compare(probabilities, HeldOut(labels, range(200)))["accuracy"]
    grouped = compare(probabilities, HeldOut(labels, np.repeat(range(20), 10).tolist()))["accuracy"]
    assert grouped.value == alone.value
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(
        np.sqrt(10 * (99 / 10) / 9), rel=0.25
    )


def test_a_gap_is_narrower_than_its_parts_and_nothing_differs_from_itself() -> None:
    labels = np.repeat([0, 1, 2], 30)
    held_out = HeldOut(labels, range(90))
    one = drawn_probabilities(0, 4, labels)
    better = one.copy()
    better[:, ::10] = np.eye(3)[labels[::10]]
    alone = compare(one, held_out)
    same, gap = compare(one, held_out, one), compare(better, held_out, one)
    for name in ("accuracy", "macro_auroc"):
        assert same[name].low == same[name].value == same[name].high == 0
        assert gap[name].value == pytest.approx(
            compare(better, held_out)[name].value - alone[name].value
        )
        assert gap[name].value > 0
        assert gap[name].high - gap[name].low < alone[name].high - alone[name].low


def test_too_few_seeds_classes_or_groups_are_refused() -> None:
    labels = np.array([0, 0, 1, 1])
    with pytest.raises(InvalidInput, match=r"groups a class, but there must be two"):
        HeldOut(labels, [0, 0, 1, 2])
    with pytest.raises(InvalidInput, match="two classes"):
        HeldOut(np.zeros(4, np.intp), range(4))
    held_out = HeldOut(labels, range(4))
    with pytest.raises(InvalidInput, match="more seeds"):
        compare(np.full((1, 4, 2), 0.5), held_out)
    with pytest.raises(InvalidInput, match=r"must be \(2, 4, 2\)"):
        compare(np.full((2, 4, 2), 0.5), held_out, np.full((3, 4, 2), 0.5))
