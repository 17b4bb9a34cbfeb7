"""Captions say what the labels say, in many ways, and never more."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen.data.captions import NORMAL, PARAPHRASES, PHRASES, Labels, canonical, caption, labels_of
from gen.data.captions import paraphrase as in_other_words
from gen.data.prompt_labels import labels_in
from gen.errors import InvalidInput

ADULT_FINDINGS = sorted(set(PHRASES) - {NORMAL, "Bacterial pneumonia", "Viral pneumonia"})
CHILDREN = st.builds(
    Labels,
    findings=st.sampled_from([(NORMAL,), ("Bacterial pneumonia",), ("Viral pneumonia",)]),
    child=st.just(True),
)
ADULTS = st.builds(
    Labels,
    findings=st.one_of(
        st.just((NORMAL,)),
        st.lists(st.sampled_from(ADULT_FINDINGS), min_size=1, max_size=3, unique=True).map(
            lambda names: tuple(sorted(names))
        ),
    ),
    view=st.sampled_from(["PA", "AP", None]),
    age=st.one_of(st.none(), st.integers(18, 95).map(float)),
    sex=st.sampled_from(["M", "F", None]),
)
LABELS = st.one_of(CHILDREN, ADULTS)
SEEDS = st.integers(0, 2**32)
UNKNOWN = re.compile(
    r"\b(left|right|bilateral|unilateral|mild|moderate|severe|small|large|massive|acute)\b"
)
DENIAL = re.compile(r"\. (?:no evidence of|no|without) ([^.]+)\.?$")


def broad(labels: Labels) -> set[str]:
    """Findings, with kinds of pneumonia called pneumonia."""
    return {"Pneumonia" if name.endswith(" pneumonia") else name for name in labels.findings}


@given(labels=LABELS, seed=SEEDS)
def test_what_a_caption_says_is_what_the_labels_say(labels: Labels, seed: int) -> None:
    for write in (caption, in_other_words):
        read = labels_in(write(labels, random.Random(seed)))
        assert broad(read) == broad(labels)
        assert read.child == labels.child
        assert read.sex in (None, labels.sex)
        assert read.age in (None, labels.age)


@given(labels=LABELS)
def test_the_canonical_sentence_says_it_too(labels: Labels) -> None:
    assert broad(labels_in(canonical(labels))) == broad(labels)


@given(labels=LABELS, seed=SEEDS)
def test_a_caption_never_states_severity_or_side(labels: Labels, seed: int) -> None:
    text = caption(labels, random.Random(seed)).lower()
    text = re.sub(r"no acute|acute respiratory distress syndrome", "", text)
    assert not UNKNOWN.search(text)


def test_one_meaning_has_many_phrasings() -> None:
    rng = random.Random(0)
    child = Labels(("Viral pneumonia",), child=True)
    assert len({caption(child, rng) for _ in range(300)}) > 100


def test_paraphrases_use_words_that_captions_never_use() -> None:
    for name, words in PARAPHRASES.items():
        assert not set(words) & set(PHRASES[name])
    rng = random.Random(0)
    normal = Labels((NORMAL,), child=True)
    said = " ".join(caption(normal, rng) for _ in range(500)).lower()
    assert not any(words in said for words in PARAPHRASES[NORMAL])


@pytest.mark.parametrize(
    ("file", "findings", "expected"),
    [
        ("images/kermany/a.jpg", "pneumonia|viral", ("Viral pneumonia",)),
        ("images/kermany/a.jpg", "normal", (NORMAL,)),
        ("images/nih/a.png", "No Finding", (NORMAL,)),
        ("images/nih/a.png", "Pleural_Thickening|Mass", ("Mass", "Pleural thickening")),
    ],
)
def test_a_manifest_row_is_read(file: str, findings: str, expected: tuple[str, ...]) -> None:
    labels = labels_of({"file": file, "findings": findings})
    assert labels.findings == expected
    assert labels.child == ("kermany" in file)


@pytest.mark.parametrize("findings", ["Fracture", "", "Mass|Fracture"])
def test_a_finding_without_words_is_never_taken_for_normal(findings: str) -> None:
    with pytest.raises(InvalidInput, match="PHRASES") as caught:
        labels_of({"file": "images/nih/a.png", "findings": findings})
    assert ("Fracture has words" if findings else "none has words") in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (
            Labels((NORMAL,), view="PA", age=40, sex="F"),
            "Posteroanterior chest X-ray of a female. Findings: no acute finding.",
        ),
        (
            Labels(("COVID-19", "Pleural thickening"), view="AP", sex="M"),
            "Anteroposterior chest X-ray of a male. Findings: COVID-19, pleural thickening.",
        ),
        (
            Labels(("Viral pneumonia",), child=True),
            "Frontal chest X-ray of a young child. Findings: viral pneumonia.",
        ),
    ],
)
def test_the_canonical_sentence_is_fixed(labels: Labels, sentence: str) -> None:
    assert canonical(labels) == sentence


@given(labels=LABELS, seed=SEEDS)
def test_no_absent_finding_is_stated_and_no_present_one_denied(labels: Labels, seed: int) -> None:
    present = {*labels.findings, *broad(labels)}
    for write in (caption, in_other_words):
        stated = write(labels, random.Random(seed)).lower()
        denial = DENIAL.search(stated)
        if denial:
            stated = stated[: denial.start()]
            assert denial[1] in {PHRASES[name][0].lower() for name in set(PHRASES) - present}
        for words in phrases_of(present):
            stated = stated.replace(words, "")
        assert not [words for words in phrases_of(set(PHRASES) - present) if words in stated]


def phrases_of(names: set[str]) -> list[str]:
    """All ways to say the findings, the longest first."""
    said = [(name, *PHRASES[name], *PARAPHRASES.get(name, ())) for name in names]
    return sorted({words.lower() for group in said for words in group}, key=len, reverse=True)


@given(name=st.sampled_from(sorted(PARAPHRASES)), seed=SEEDS)
def test_a_paraphrase_says_what_captions_never_do(name: str, seed: int) -> None:
    labels = Labels((name,), child=True)
    held_out = [words.lower() for group in PARAPHRASES.values() for words in group]
    other, usual = (
        write(labels, random.Random(seed)).lower() for write in (in_other_words, caption)
    )
    assert any(words in other for words in held_out)
    assert not any(words in usual for words in held_out)


def test_a_kind_is_who_and_what_whatever_the_order() -> None:
    assert Labels(("Mass", "Effusion")).kind == Labels(("Effusion", "Mass"), sex="F").kind
    assert Labels(("Mass",), child=True).kind == "child: Mass"
