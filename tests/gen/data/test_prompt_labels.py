"""Sentences that people write, read as labels."""

import pytest

from gen.data.prompt_labels import labels_in


@pytest.mark.parametrize(
    ("prompt", "findings"),
    [
        ("chest x-ray of a man without pneumonia", ("Normal",)),
        ("CXR. No evidence of pleural effusion, cardiomegaly.", ("Cardiomegaly",)),
        ("pneumonia of viral origin in a toddler", ("Viral pneumonia",)),
        ("COVID-19 pneumonia and pulmonary edema", ("COVID-19", "Edema")),
        ("a photograph of a cat", ("Normal",)),
    ],
)
def test_findings_are_read_and_denials_respected(prompt: str, findings: tuple[str, ...]) -> None:
    assert labels_in(prompt).findings == findings


def test_who_it_is_is_read() -> None:
    woman = labels_in("PA chest radiograph of a 63-year-old woman: lung mass")
    assert (woman.age, woman.sex, woman.child) == (63.0, "F", False)
    assert labels_in("paediatric patient, CXR").child


@pytest.mark.parametrize(
    ("prompt", "view"),
    [
        ("PA chest radiograph of a man", "PA"),
        ("Upright frontal CXR of a man", "PA"),
        ("portable chest film", "AP"),
        ("Anteroposterior chest x-ray", "AP"),
        ("PA and AP chest x-ray", None),
        ("frontal chest x-ray of a patient", None),
    ],
)
def test_the_view_is_read_where_one_is_named(prompt: str, view: str | None) -> None:
    assert labels_in(prompt).view == view


@pytest.mark.parametrize("denial", ["no {}", "without {}", "No evidence of {}", "WITHOUT {}"])
@pytest.mark.parametrize("words", ["pneumonia", "viral pneumonia", "COVID-19 pneumonia"])
def test_what_is_denied_is_not_asked_for(denial: str, words: str) -> None:
    denied = denial.format(words)
    assert labels_in(f"CXR of a child. {denied}.").normal
    assert labels_in(f"CXR of a child with effusion. {denied}.").findings == ("Effusion",)


def test_a_denial_ends_with_its_clause() -> None:
    assert labels_in("No effusion. Pneumonia.").findings == ("Pneumonia",)
    assert labels_in("mass, no effusion; hernia").findings == ("Hernia", "Mass")


def test_a_word_within_another_says_nothing() -> None:
    assert labels_in("massive archive of a woman").findings == ("Normal",)
    assert labels_in("a human manual").sex is None
