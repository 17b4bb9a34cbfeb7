"""What a text-to-image model is shown while it learns."""

import pytest
import torch

from gen.data.captions import NORMAL, Labels
from gen.training.captioned import draw_captions, row_weights


def test_balance_makes_groups_equally_likely() -> None:
    labels = [Labels((NORMAL,), child=True)] * 8 + [Labels(("Mass",))] * 2
    assert row_weights(labels, 0).tolist() == [1.0] * 10
    even = row_weights(labels, 1)
    assert even[:8].sum() == pytest.approx(even[8:].sum())
    half = row_weights(labels, 0.5)
    assert half[:8].sum() / half[8:].sum() == pytest.approx(2)


def test_captions_are_dropped_as_often_as_asked() -> None:
    labels = [Labels(("Mass",))] * 2000
    said = draw_captions(labels, torch.Generator().manual_seed(0), 0.1)
    assert sum(not text for text in said) == pytest.approx(200, abs=50)
