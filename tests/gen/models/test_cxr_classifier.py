"""What a classifier answers, and what labels say about its outputs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gen.data.captions import NORMAL, PHRASES, Labels
from gen.models.cxr_classifier import (
    OUTPUTS,
    CXRClassifier,
    statement_table,
    statements,
)

CHILD_SPOKEN = {"Normal", "Pneumonia", "Bacterial pneumonia", "Viral pneumonia"}


def findings_of(labels: Labels) -> dict[str, bool]:
    """The statements about findings."""
    return {name: said for name, said in statements(labels).items() if name in PHRASES}


def test_a_child_with_viral_pneumonia_has_pneumonia_and_nothing_else_is_known() -> None:
    said = findings_of(Labels(("Viral pneumonia",), child=True))
    assert said == {
        "Normal": False,
        "Pneumonia": True,
        "Bacterial pneumonia": False,
        "Viral pneumonia": True,
    }
    assert findings_of(Labels((NORMAL,), child=True)) == dict.fromkeys(CHILD_SPOKEN, False) | {
        "Normal": True
    }


def test_pneumonia_of_an_unsaid_kind_speaks_of_no_kind() -> None:
    for child in (True, False):
        said = findings_of(Labels(("Pneumonia",), child=child))
        assert said["Pneumonia"]
        assert not said.keys() & {"Bacterial pneumonia", "Viral pneumonia", "COVID-19"}


def test_an_adults_labels_list_all_of_chestxray14() -> None:
    said = findings_of(Labels(("Effusion", "Mass")))
    assert [name for name, shown in said.items() if shown] == ["Effusion", "Mass"]
    assert len(said) == 14 + 2  # ChestX-ray14, normal and COVID-19
    assert said["COVID-19"] is False


def test_covid_19_labels_speak_of_nothing_else_but_that_it_is_not_normal() -> None:
    assert findings_of(Labels(("COVID-19",))) == {"Normal": False, "COVID-19": True}


def test_an_adult_with_bacterial_pneumonia_has_no_viral_one() -> None:
    said = findings_of(Labels(("Bacterial pneumonia",)))
    assert said["Pneumonia"]
    assert said["Viral pneumonia"] is False


@pytest.mark.parametrize(
    ("age", "band"),
    [(39.0, "under 40"), (40.0, "40 to 60"), (59.0, "40 to 60"), (60.0, "over 60")],
)
def test_a_known_age_of_an_adult_is_in_one_band(age: float, band: str) -> None:
    said = statements(Labels((NORMAL,), view="AP", age=age, sex="F"))
    assert [name for name in ("under 40", "40 to 60", "over 60") if said[name]] == [band]
    assert (said["PA"], said["female"], said["child"]) == (False, True, False)
    assert "over 60" not in statements(Labels((NORMAL,), age=5.0, child=True))
    assert not statements(Labels((NORMAL,))).keys() & {"PA", "female", "over 60"}


@given(st.sets(st.sampled_from(sorted(PHRASES)), min_size=1), st.booleans())
def test_what_is_found_is_said_and_normal_only_alone(found: set[str], child: bool) -> None:
    labels = Labels(tuple(sorted(found)), child=child)
    said = statements(labels)
    assert all(said[name] for name in found)
    assert said.keys() <= set(OUTPUTS)
    kinds = {"Bacterial pneumonia", "Viral pneumonia"} & found
    assert {name for name, shown in said.items() if shown} - {"child"} == found | (
        {"Pneumonia"} if kinds else set()
    )


def test_a_table_of_statements_has_nan_where_nothing_is_said() -> None:
    labels = [Labels((NORMAL,), child=True), Labels(("Mass",), sex="M")]
    table = statement_table(labels, ("Mass", "female", "child"))
    expected = np.array([[np.nan, np.nan, 1], [1, 0, 0]])
    assert np.array_equal(table, expected, equal_nan=True)
    assert statement_table([], ("Mass",)).shape == (0, 1)


def small() -> CXRClassifier:
    """Random weights, three outputs."""
    torch.manual_seed(0)
    return CXRClassifier(("Mass", "PA", "child"), 32, (8, 16), 8).eval()


def test_probabilities_are_of_the_image_at_any_size() -> None:
    images = torch.zeros(2, 1, 64, 64)
    images[1] = 0.5  # constant images are the same at any size
    answer = small().probabilities(images)
    assert torch.allclose(answer, small()(images[..., :40, :40]).sigmoid(), atol=1e-6)
    assert not torch.allclose(answer[0], answer[1])


def test_it_has_at_most_a_million_parameters() -> None:
    assert CXRClassifier().num_parameters() <= 1_000_000


def test_a_saved_classifier_answers_alike_in_a_fresh_process(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path)
    code = (
        "import torch, sys; from gen.store.loading import load_components\n"
        "model = load_components(sys.argv[1])['model']\n"
        "print(list(model.config.outputs), *model(torch.ones(1, 1, 32, 32))[0].tolist())"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = small()(torch.ones(1, 1, 32, 32))[0].tolist()
    names, numbers = answer.rsplit("] ", 1)
    assert names + "]" == "['Mass', 'PA', 'child']"
    assert [float(word) for word in numbers.split()] == pytest.approx(expected, abs=1e-5)
