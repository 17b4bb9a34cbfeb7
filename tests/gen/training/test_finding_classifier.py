"""The masked loss and its weights in closed form, and a run that leaves a classifier."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gen.errors import InvalidInput
from gen.models.cxr_classifier import CXRClassifier
from gen.models.cxr_encoder import CXREncoder
from gen.store.loading import load_components
from gen.training.dataset import read_chest_xrays
from gen.training.finding_classifier import (
    FindingClassifierConfig,
    draw_weights,
    make_classifier,
    masked_loss,
    outputs_of,
    positive_weights,
    train_finding_classifier,
)

NAN = float("nan")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of 32 px with random weights."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    CXREncoder(32, (8, 16), 8).save_pretrained(folder)
    return folder


def config_of(
    data: Path, output: Path, encoder: Path, **changes: object
) -> FindingClassifierConfig:
    """A config of two steps."""
    fields = {
        "data": data, "output": output, "encoder": str(encoder), "num_steps": 2, "batch_size": 4,
        "learning_rate": 1e-3, "min_positives": 1,
    }  # fmt: skip
    return FindingClassifierConfig.model_validate({**fields, **changes})


def test_what_is_not_spoken_of_costs_nothing_and_has_no_gradient() -> None:
    log_odds = torch.tensor([[0.0, 5.0], [2.0, -7.0]], requires_grad=True)
    stated = torch.tensor([[1.0, NAN], [0.0, NAN]])
    loss = masked_loss(log_odds, stated, torch.tensor([3.0, 9.0]))
    # 3 log 2 for the positive, log(1 + e^2) for the negative, over two known
    assert loss.item() == pytest.approx((3 * math.log(2) + math.log(1 + math.e**2)) / 2)
    loss.backward()
    assert log_odds.grad is not None
    assert log_odds.grad[:, 1].tolist() == [0, 0]
    assert log_odds.grad[:, 0].tolist() == pytest.approx(
        [-3 / 4, 1 / (1 + math.exp(-2)) / 2]  # w (p - 1) / 2 and p / 2
    )


def test_a_row_that_says_more_counts_no_more() -> None:
    log_odds = torch.tensor([[0.0, 0.0], [3.0, 5.0]])
    stated = torch.tensor([[1.0, 0.0], [0.0, NAN]])
    loss = masked_loss(log_odds, stated, torch.ones(2))
    assert loss.item() == pytest.approx((math.log(2) + math.log(1 + math.e**3)) / 2)


def test_a_batch_that_says_nothing_costs_nothing() -> None:
    assert masked_loss(torch.ones(2, 1), torch.full((2, 1), NAN), torch.ones(1)) == 0


def test_a_row_is_drawn_by_its_rarest_positive() -> None:
    stated = torch.zeros(1000, 4)
    stated[:800, 0] = 1
    stated[600:900, 1] = 1  # of which 200 have both
    stated[790:794, 2] = 1
    stated[:, 3] = NAN
    weights = draw_weights(stated)
    assert weights[0] == pytest.approx(800**-0.5)
    assert weights[700] == weights[850] == pytest.approx(300**-0.5)
    assert weights[790] == weights[793] == pytest.approx(4**-0.5)
    assert weights[999] == pytest.approx(1000**-0.5)


def test_positives_weigh_what_they_lack_in_number_within_bounds() -> None:
    stated = torch.tensor([[1.0, 1, 1, NAN], [0, 1, 0, NAN], [0, 1, 0, NAN], [NAN, 0, 0, NAN]])
    even = torch.ones(4)
    assert positive_weights(stated, even, 8).tolist() == pytest.approx([2, 1 / 3, 3, 1])
    assert positive_weights(stated, even, 2).tolist() == pytest.approx([2, 1 / 2, 2, 1])
    drawn = torch.tensor([4.0, 1, 1, 1])
    assert positive_weights(stated, drawn, 8)[0] == pytest.approx(2 / 4)


@given(st.lists(st.sampled_from([0.0, 1.0, NAN]), min_size=1, max_size=20))
def test_weighted_positives_balance_negatives_where_bounds_allow(column: list[float]) -> None:
    stated = torch.tensor(column)[:, None]
    weight = positive_weights(stated, torch.ones(len(column)), 100.0)
    positive, negative = column.count(1), column.count(0)
    if positive and negative:
        assert weight.item() * positive == pytest.approx(negative)
    assert 1 / 100 - 1e-6 <= weight.item() <= 100


def test_outputs_are_those_with_images_of_both_kinds(radiographs: Path) -> None:
    data = read_chest_xrays(radiographs, "train", 32)  # 3 normal adults, 3 children with viral
    chosen = outputs_of(data, 3)
    assert chosen == ("Normal", "Pneumonia", "child")  # normal adults speak of no viral one
    with pytest.raises(InvalidInput, match=r"min_positives is 4, but the most .* is 3"):
        outputs_of(data, 4)


def test_a_classifier_starts_from_the_encoder_it_names(encoder: Path, tmp_path: Path) -> None:
    classifier = make_classifier(str(encoder), ("Mass", "child"))
    expected = load_components(encoder)["model"].state_dict()
    assert all(
        torch.equal(classifier.encoder.state_dict()[name], expected[name]) for name in expected
    )
    CXRClassifier(("Mass",), 32, (8, 16), 8).save_pretrained(tmp_path)
    with pytest.raises(InvalidInput, match="must name a CXREncoder"):
        make_classifier(str(tmp_path), ("Mass",))


def test_a_run_leaves_a_classifier_and_its_figures(
    radiographs: Path, encoder: Path, tmp_path: Path
) -> None:
    folder = train_finding_classifier(config_of(radiographs, tmp_path, encoder), lambda _: None)
    classifier = load_components(folder)["model"]
    figures = json.loads((tmp_path / "evaluation.json").read_text())
    assert figures["images_seen"] == 8
    assert {each["output"] for each in figures["separations"]} == set(classifier.config.outputs)
    child = next(each for each in figures["separations"] if each["output"] == "child")
    assert (child["num_shown"], child["num_not_shown"]) == (2, 2)
    assert 0 <= child["auroc"]["low"] <= child["auroc"]["value"] <= child["auroc"]["high"] <= 1


def test_a_run_that_was_cut_off_goes_on_alike(
    radiographs: Path, encoder: Path, tmp_path: Path
) -> None:
    class CutOffError(Exception):
        pass

    def weights(folder: Path) -> dict[str, torch.Tensor]:
        return load_components(folder)["model"].state_dict()

    def cut(info: object) -> None:
        if getattr(info, "step", 0) == 2:
            raise CutOffError

    settings = {"num_steps": 3, "checkpoint_every": 1}
    whole = config_of(radiographs, tmp_path / "whole", encoder, **settings)
    halved = config_of(radiographs, tmp_path / "halved", encoder, **settings)
    expected = weights(train_finding_classifier(whole, lambda _: None))
    with pytest.raises(CutOffError):
        train_finding_classifier(halved, cut)
    found = weights(train_finding_classifier(halved, lambda _: None))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
