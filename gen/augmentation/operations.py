"""What can be done to a picture, what each operation needs, and how it is done by default."""

from dataclasses import dataclass
from typing import Literal, get_args

from gen.errors import InvalidInput

Operation = Literal["vary", "insert", "remove", "synthesise", "classical"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

NUM_INFERENCE_STEPS = 25


@dataclass(frozen=True)
class Rules:
    """What one operation takes.

    Args:
        picture: whether it starts from one.
        prompt: whether words must say what is to be seen.
        mask: whether it takes a mask; "drawn" may draw one, "needed" must be given one.
        strength: its default; None where there is none.
        guidance_scale: its default; None where no network is asked.
    """

    picture: bool
    prompt: bool
    mask: Literal["drawn", "needed", "taken"] | None
    strength: float | None
    guidance_scale: float | None


# Chosen with cxr-mini, by eye. Half of the schedule keeps the layout of a chest and draws the rest
# anew; more moves the heart and the diaphragm. Under a mask, the picture around says where things
# lie, so all is drawn; a lesion needs guidance, or the model goes on with healthy lung.
RULES: dict[Operation, Rules] = {
    "vary": Rules(True, True, None, 0.5, 1.5),
    "insert": Rules(True, True, "drawn", 1.0, 3.0),
    "remove": Rules(True, False, "needed", 1.0, 1.5),
    "synthesise": Rules(False, True, None, None, 1.5),
    "classical": Rules(True, False, "taken", None, None),
}


def check_operation(operation: str) -> Operation:
    """The operation of that name.

    Raises:
        InvalidInput: there is none.
    """
    for known in OPERATIONS:
        if operation == known:
            return known
    raise InvalidInput(f"operation is {operation!r}, but must be one of: {', '.join(OPERATIONS)}")


def check_needs(
    operation: Operation,
    *,
    picture: bool,
    prompt: bool,
    mask: bool,
    strength: float | None,
    steps: bool,
) -> None:
    """Raise InvalidInput if an operation lacks what it needs, or is given what it cannot take.

    Args:
        picture, prompt, mask, steps: whether these are given, steps being the classical ones.
        strength: as given.
    """
    rules = RULES[operation]
    if picture != rules.picture:
        says = "starts from a picture; give one" if rules.picture else "takes no picture"
        raise InvalidInput(f"operation {operation} {says}")
    if rules.prompt and not prompt:
        raise InvalidInput(
            f"operation {operation} needs words for what is to be seen; give a prompt or labels"
        )
    if operation == "classical" and (prompt or not steps):
        wrong = "takes no prompt" if prompt else "does nothing without classical steps; name some"
        raise InvalidInput(f"operation classical {wrong}")
    if mask and rules.mask is None:
        raise InvalidInput(f"operation {operation} takes no mask or box; leave it out")
    if rules.mask == "needed" and not mask:
        raise InvalidInput(f"operation {operation} needs to know where; give a mask or a box")
    if strength is None:
        return
    if rules.strength is None:
        raise InvalidInput(f"strength is {strength}, but operation {operation} has none")
    check_strength(strength)


def check_strength(strength: float) -> None:
    """Raise InvalidInput unless a strength is above 0 and at most 1."""
    if not 0 < strength <= 1:
        raise InvalidInput(f"strength is {strength}, but must be above 0 and at most 1; try 0.5")
