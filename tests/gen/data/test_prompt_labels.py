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
