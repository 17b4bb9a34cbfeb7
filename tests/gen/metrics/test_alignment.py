"""The area under curves, and what they say by output, finding and phrase."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gen.data.captions import NORMAL, PHRASES, Labels
from gen.data.prompt_labels import labels_in
from gen.errors import InvalidInput
from gen.metrics.alignment import (
    Separation,
    auroc,
    beside_real,
    confusion,
    followed,
    load_classifier,
    phrase_in,
    phrasings,
    separations,
)
from gen.metrics.features import features_of
from gen.models.cxr_classifier import CXRClassifier
from gen.store.loading import load_components


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    area = auroc(scores, labels)
    assert area.value == pytest.approx(3 / 4)
    assert area.low <= area.value <= area.high


def test_an_area_needs_both_classes() -> None:
    with pytest.raises(InvalidInput, match="0 negative"):
        auroc(np.ones(3), np.ones(3, bool))


@settings(max_examples=25, deadline=None)
@given(
    positive=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    negative=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    seed=st.integers(0, 99),
)
def test_the_area_counts_ties_as_half_in_any_order(
    positive: list[int], negative: list[int], seed: int
) -> None:
    pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    scores = np.array([*positive, *negative], float)
    labels = np.arange(len(scores)) < len(positive)
    order = np.random.default_rng(seed).permutation(len(scores))
    area = auroc(scores[order], labels[order], num_resamples=10)
    assert area.value == pytest.approx(np.mean(pairs))
    assert 0 <= area.low <= area.high <= 1


def test_the_interval_narrows_with_more_images_around_the_value() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for count in (40, 1000):
        labels = np.arange(count) % 2 == 0
        area = auroc(rng.normal(size=count) + labels, labels)
        assert area.low < area.value < area.high
        widths.append(area.high - area.low)
    assert widths[1] < widths[0] / 2


SICK, WELL = Labels(("Pneumonia",), child=True), Labels((NORMAL,), child=True)
ADULT = Labels((NORMAL,), view="PA", sex="F", age=30.0)


def by_name(found: list[Separation]) -> dict[tuple[str, str], Separation]:
    """Separations by output and population."""
    return {(each.output, each.among): each for each in found}


def test_children_and_adults_are_judged_apart_so_that_age_alone_is_no_pneumonia() -> None:
    labels = [SICK, SICK, WELL, WELL, ADULT, ADULT]
    child_detector = np.array([[0.9, 0.9, 0.9, 0.9, 0.1, 0.1]]).T
    pneumonia = by_name(separations(child_detector, labels, ("Pneumonia",)))
    children = pneumonia["Pneumonia", "children"]
    assert children.auroc is not None
    assert children.auroc.value == 0.5
    assert (children.num_shown, children.num_not_shown) == (2, 2)
    assert pneumonia["Pneumonia", "adults"] == Separation("Pneumonia", "adults", 0, 2, None)
    child = by_name(separations(child_detector, labels, ("child",)))
    assert child.keys() == {("child", "everyone")}
    area = child["child", "everyone"].auroc
    assert area is not None
    assert area.value == 1


def test_what_a_prompt_does_not_say_is_not_counted() -> None:
    labels = [SICK, Labels(("Mass",), sex="M"), Labels(("Mass",)), ADULT]
    found = by_name(separations(np.zeros((4, 3)), labels, ("Mass", "female", "Hernia")))
    assert found["Mass", "adults"].num_shown == 2
    assert found["Mass", "adults"].num_not_shown == 1
    assert ("Mass", "children") not in found
    assert (found["female", "adults"].num_shown, found["female", "adults"].num_not_shown) == (1, 1)
    assert found["Hernia", "adults"].auroc is None


def test_generated_images_stand_beside_real_ones_of_the_same_output_and_population() -> None:
    generated = [
        Separation("Mass", "adults", 1, 2, None),
        Separation("Hernia", "adults", 1, 1, None),
    ]
    real = [Separation("Mass", "children", 5, 5, None), Separation("Mass", "adults", 7, 8, None)]
    assert [each.real for each in beside_real(generated, real)] == [real[1], None]


def test_a_finding_drawn_as_another_ranks_high_in_the_others_column() -> None:
    labels = [Labels((name,)) for name in ("Mass", "Mass", "Nodule", "Nodule")]
    scores = np.array([[0.01, 0.2, 0.9], [0.02, 0.1, 0.9], [0.03, 0.8, 0.1], [0.04, 0.9, 0.1]])
    found = confusion(scores, labels, ("Mass", "Nodule", "child"))
    assert found.rows == found.columns == ("Mass", "Nodule")
    assert found.num_asked == (2, 2)
    assert np.allclose(found.mean_rank, [[0.25, 0.25], [0.75, 0.75]])  # (1 + 2 - 1) / 2 / 4


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([SICK, WELL, ADULT]), min_size=1, max_size=20), st.integers(0, 9))
def test_the_mean_rank_of_all_images_is_one_half(labels: list[Labels], seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 3, (len(labels), 2)).astype(float)
    found = confusion(scores, labels, ("Normal", "Pneumonia"))
    assert sum(found.num_asked) == len(labels)
    assert np.allclose(np.array(found.num_asked) @ found.mean_rank / len(labels), 0.5)


def test_the_phrase_that_is_not_followed_is_found() -> None:
    prompts = [
        *["chest X-ray of a child with pneumonia"] * 3,
        *["chest X-ray of a child with lung infection"] * 3,
        *["chest X-ray of a child, normal study"] * 3,
    ]
    scores = np.array([[0.9] * 3 + [0.1] * 3 + [0.5] * 3]).T
    found = phrasings(scores, prompts, [labels_in(each) for each in prompts], ("Pneumonia",))
    areas = {phrase: each.auroc.value for phrase, (each,) in found.items() if each.auroc}
    assert areas == {"pneumonia": 1.0, "lung infection": 0.0}
    assert found["pneumonia"][0].num_not_shown == 3


@pytest.mark.parametrize(
    ("prompt", "finding", "phrase"),
    [
        ("Pneumonia of Viral origin. CXR", "Viral pneumonia", "pneumonia of viral origin"),
        ("portable film: COVID-19 pneumonia", "COVID-19", "covid-19 pneumonia"),
        ("a massive heart", "Mass", None),
        ("a child", NORMAL, None),
    ],
)  # fmt: skip
def test_the_longest_whole_wording_is_taken(prompt: str, finding: str, phrase: str | None) -> None:
    assert phrase_in(prompt, finding) == phrase


def test_what_was_asked_for_ranks_among_people_of_the_same_age() -> None:
    labels = [SICK, WELL, WELL, replace(ADULT, findings=("Mass",)), ADULT]
    outputs = (NORMAL, "Pneumonia", "Mass")
    shown = [[0.1, 0.9, 0], [0.8, 0.2, 0], [0.9, 0.1, 0], [0.1, 0.99, 0.9], [0.9, 0.99, 0.1]]
    ranks = followed(np.array(shown), labels, outputs)
    assert ranks.tolist() == pytest.approx([5 / 6, 3 / 6, 5 / 6, 3 / 4, 3 / 4])
    assert np.isnan(followed(np.ones((1, 1)), [SICK], ("Mass",))).all()
    chance = followed(np.random.default_rng(0).random((400, 3)), [SICK] * 400, outputs)
    assert chance.mean() == pytest.approx(0.5)


@given(st.sampled_from([(name, word) for name, words in PHRASES.items() for word in words]))
def test_every_wording_of_the_captions_is_recognised(pair: tuple[str, str]) -> None:
    finding, word = pair
    assert phrase_in(f"Frontal CXR of a man: {word}.", finding) == word.lower()


def test_a_classifier_is_loaded_and_asked_and_nothing_else_is_taken_for_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    CXRClassifier(("Mass", "child"), 32, (8, 16), 8).save_pretrained(tmp_path)
    classifier = load_classifier(tmp_path)
    assert (classifier.outputs, classifier.encoder.side) == (("Mass", "child"), 32)
    images = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8)
    answers = features_of(images, classifier.encoder, batch_size=2)
    network = load_components(tmp_path)["model"].eval()
    expected = network(images.float() / 127.5 - 1).sigmoid()
    assert np.allclose(answers, expected.detach(), atol=1e-6)
    with pytest.raises(InvalidInput, match="train finding-classifier"):
        load_classifier("cxr-encoder-mini")
