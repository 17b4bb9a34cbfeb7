"""Which served model a request gets."""

from pathlib import Path

import pytest

from gen.errors import InvalidInput
from jobs.tasks import TASKS
from jobs.tasks.served import choose_model, fits, task_of

CXR, LARGE = TASKS["text-to-cxr"], TASKS["large-images"]


def test_a_card_or_a_folder_tells_the_task(tiny_folder: Path, tiny_large_model: Path) -> None:
    assert task_of("cxr-mini") == task_of(str(tiny_folder)) == "text-to-image"
    assert task_of(str(tiny_large_model)) == "embedding-to-image"
    assert task_of("nobody-knows") is None


def test_the_first_that_fits_is_the_default(tiny_large_model: Path) -> None:
    served = ("cxr-encoder-mini", "cxr-mini", str(tiny_large_model))
    assert choose_model(CXR, served, None) == "cxr-mini"
    assert choose_model(LARGE, served, None) == str(tiny_large_model)
    assert choose_model(LARGE, served, str(tiny_large_model)) == str(tiny_large_model)
    with pytest.raises(InvalidInput, match="model must be one of cxr-mini"):
        choose_model(CXR, served, str(tiny_large_model))
    with pytest.raises(InvalidInput, match="embedding-to-image"):
        choose_model(LARGE, ("cxr-mini",), None)


def test_what_only_loading_can_tell_may_fit_both() -> None:
    assert fits(CXR, "nobody-knows")
    assert fits(LARGE, "nobody-knows")
