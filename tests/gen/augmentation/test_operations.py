"""What each operation needs, and what it cannot take."""

from typing import Any

import pytest

from gen.augmentation.operations import OPERATIONS, RULES, check_needs, check_operation
from gen.errors import InvalidInput

COMPLETE: dict[str, dict[str, Any]] = {
    "vary": {"picture": True, "prompt": True},
    "insert": {"picture": True, "prompt": True},
    "remove": {"picture": True, "mask": True},
    "synthesise": {"prompt": True},
    "classical": {"picture": True, "steps": True},
}
NOTHING = {"picture": False, "prompt": False, "mask": False, "strength": None, "steps": False}


def test_every_operation_has_rules_and_can_be_done_with_what_it_needs() -> None:
    assert set(RULES) == set(OPERATIONS) == set(COMPLETE)
    for name, given in COMPLETE.items():
        check_needs(check_operation(name), **{**NOTHING, **given})


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("vary", {"picture": False}, "vary starts from a picture; give one"),
        ("vary", {"prompt": False}, "needs words for what is to be seen; give a prompt or labels"),
        ("vary", {"mask": True}, "takes no mask or box"),
        ("vary", {"strength": 0.0}, "strength is 0.0, but must be above 0"),
        ("insert", {"strength": 1.5}, "strength is 1.5"),
        ("remove", {"mask": False}, "needs to know where; give a mask or a box"),
        ("synthesise", {"picture": True}, "takes no picture"),
        ("synthesise", {"strength": 0.5}, "operation synthesise has none"),
        ("classical", {"steps": False}, "does nothing without classical steps"),
        ("classical", {"prompt": True}, "takes no prompt"),
    ],
)
def test_what_is_missing_or_too_much_is_named(
    name: str, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        check_needs(check_operation(name), **{**NOTHING, **COMPLETE[name], **changed})


def test_an_operation_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="operation is 'flip', but must be one of: vary, insert"):
        check_operation("flip")
