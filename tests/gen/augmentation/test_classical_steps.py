"""TorchIO's transforms as steps: of a seed, with their masks, and never mirrored."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gen.augmentation.classical import (
    BASELINE,
    STEPS,
    Step,
    StepName,
    describe_steps,
    parse_steps,
    transformed,
)
from gen.errors import InvalidInput

SPATIAL: tuple[StepName, ...] = ("affine", "elastic")


def picture(height: int = 72, width: int = 56) -> NDArray[np.float32]:
    coarse = np.random.default_rng(0).uniform(0.2, 0.8, (6, 5)).astype(np.float32)
    tensor = torch.from_numpy(coarse)[None, None]
    grown = torch.nn.functional.interpolate(tensor, (height, width), mode="bilinear")
    return np.asarray(grown[0, 0])


def blob(height: int = 72, width: int = 56) -> NDArray[np.bool_]:
    mask = np.zeros((height, width), bool)
    mask[20:45, 15:35] = True
    return mask


@pytest.mark.parametrize("name", STEPS)
def test_a_seed_makes_the_picture_and_nobody_elses_numbers_are_touched(name: StepName) -> None:
    steps = [Step(name)]
    before = torch.random.get_rng_state()
    first, mask = transformed(picture(), blob(), steps, 7)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    again, _ = transformed(picture(), blob(), steps, 7)
    other, _ = transformed(picture(), blob(), steps, 8)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, picture())
    assert first.shape == (72, 56)
    assert 0 <= first.min() <= first.max() <= 1
    assert mask is not None
    assert mask.dtype == bool
    if name not in SPATIAL:
        assert np.array_equal(mask, blob())


@pytest.mark.parametrize("name", SPATIAL)
def test_a_picture_and_its_mask_move_together(name: StepName) -> None:
    moved_at_all = 0.0
    for seed in range(4):
        image, mask = transformed(blob().astype(np.float32), blob(), [Step(name, 2.0)], seed)
        assert mask is not None
        same = (image > 0.5) == mask
        assert same.mean() > 0.99
        moved_at_all = max(moved_at_all, float((mask != blob()).mean()))
    assert moved_at_all > 0.01


def test_left_stays_left() -> None:
    marked = np.zeros((64, 64), np.float32)
    marked[8:16, 8:16] = 1
    for seed in range(8):
        image, _ = transformed(marked, None, [Step("affine"), Step("elastic")], seed)
        rows, columns = np.nonzero(image > 0.5)
        assert rows.mean() < 24
        assert columns.mean() < 24


def test_more_of_a_step_changes_more() -> None:
    def changed(amount: float) -> float:
        gaps = [
            np.abs(
                transformed(picture(), None, [Step("gamma", amount)], seed)[0] - picture()
            ).mean()
            for seed in range(6)
        ]
        return float(np.mean(gaps))

    assert changed(0.25) < changed(1.0) < changed(4.0)


def test_steps_follow_one_another_and_none_change_nothing() -> None:
    both, _ = transformed(picture(), None, [Step("gamma"), Step("noise")], 3)
    one, _ = transformed(picture(), None, [Step("gamma")], 3)
    assert 0 < np.abs(both - one).mean() < 0.05
    same, mask = transformed(picture(), blob(), [], 3)
    assert np.array_equal(same, picture())
    assert np.array_equal(mask, blob())


def test_steps_are_read_as_they_are_written() -> None:
    steps = parse_steps("affine, gamma:0.5,noise:2")
    assert steps == (Step("affine"), Step("gamma", 0.5), Step("noise", 2))
    assert parse_steps(describe_steps(steps)) == steps
    assert parse_steps(describe_steps(BASELINE)) == BASELINE


@pytest.mark.parametrize("text", ["flip", "affine:0", "affine:9", "gamma:much", ""])
def test_a_step_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="must be one of affine, elastic"):
        parse_steps(text)
