from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen.data.captions import Labels
from gen.errors import InvalidInput
from jobs.augment.planning import Target, counts_of, followed

NAMES = ("Hernia", "Mass", "Nodule", "Effusion")
LABELS = st.lists(
    st.sets(st.sampled_from(NAMES), min_size=1).map(lambda names: Labels(tuple(sorted(names)))),
    min_size=1,
    max_size=30,
)


@given(LABELS, st.integers(1, 40))
def test_every_class_gets_its_minimum_and_none_is_raised_alone_beyond_it(labels, minimum):
    before = counts_of(labels)
    wanted = Target(minimum=minimum).wanted(before)
    rows = followed(labels, wanted)
    after = before + counts_of(labels[row] for row in rows)
    assert all(after[name] >= minimum for name in before)
    # the last image made for a class was needed: without it, some class would lack one
    for row in rows[-1:]:
        assert any(after[name] - 1 < wanted[name] for name in labels[row].findings)


@given(LABELS)
def test_equal_classes_are_as_large_as_the_largest(labels):
    before = counts_of(labels)
    assert set(Target(equal=True).wanted(before).values()) == {max(before.values())}


def test_one_image_of_two_rare_findings_counts_for_both():
    labels = [Labels(("Hernia", "Mass")), *[Labels(("Nodule",))] * 5]
    assert followed(labels, {"Hernia": 3, "Mass": 3, "Nodule": 5}) == [0, 0]


def test_rows_of_a_class_are_followed_equally_often():
    labels = [Labels(("Mass",))] * 3
    counts = Counter(followed(labels, {"Mass": 3 + 7}))
    assert sorted(counts.values()) == [2, 2, 3]


def test_only_classes_below_a_number_are_raised():
    counts = {"Hernia": 10, "Mass": 59, "Effusion": 60}
    wanted = Target(minimum=200, below=60).wanted(counts)
    assert wanted == {"Hernia": 200, "Mass": 200, "Effusion": 60}
    assert Target(factor=1.5).wanted(counts) == {"Hernia": 15, "Mass": 88, "Effusion": 90}


def test_a_class_never_loses_images():
    assert Target(minimum=5).wanted({"Mass": 9}) == {"Mass": 9}


def test_the_same_seed_follows_the_same_rows():
    labels = [Labels(("Mass",))] * 9
    wanted = {"Mass": 12}
    assert followed(labels, wanted, 1) == followed(labels, wanted, 1)
    assert followed(labels, wanted, 1) != followed(labels, wanted, 2)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "none of equal"),
        ({"equal": True, "minimum": 3}, "equal and minimum"),
        ({"factor": 1.0}, "factor is 1"),
    ],
)
def test_a_target_that_says_nothing_or_two_things_is_refused(fields, words):
    with pytest.raises(InvalidInput, match=words):
        Target(**fields)


def test_a_class_that_nobody_has_cannot_be_raised():
    with pytest.raises(InvalidInput, match="no image shows it"):
        followed([Labels(("Mass",))], {"Hernia": 3})
