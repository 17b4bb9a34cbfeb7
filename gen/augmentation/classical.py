"""Classical augmentation by TorchIO's transforms, as steps that follow one another.

Pérez-García et al. 2021 (TorchIO, arXiv 2003.04696). Radiographs are never flipped: the heart lies
on the left, and a mirrored chest would be another diagnosis. A mask moves with its picture, its
values by the nearest neighbour.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from gen.errors import InvalidInput

if TYPE_CHECKING:  # torch and torchio are imported where pictures are changed
    from collections.abc import Iterator

    from gen.anomaly.regions import Mask

StepName = Literal[
    "affine", "elastic", "bias_field", "gamma", "noise", "blur", "motion", "ghosting"
]
STEPS: tuple[StepName, ...] = get_args(StepName)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Step:
    """One transform, and how far its parameters may be drawn: 1 is small, as made for chests."""

    name: StepName
    amount: float = Field(default=1.0, gt=0, le=4)


BASELINE: tuple[Step, ...] = tuple(Step(name) for name in ("affine", "elastic", "gamma", "noise"))
"""What classifiers of radiographs are usually trained with."""

# Transforms draw from torch's one global generator, so only one thread may use it so at a time.
_DRAWING = threading.Lock()


def parse_steps(text: str) -> tuple[Step, ...]:
    """Steps from text such as "affine,gamma:0.5": names, and after a colon their amounts.

    Raises:
        InvalidInput: a name is unknown or an amount out of range.
    """
    steps = []
    for part in text.split(","):
        name, _, amount = part.strip().partition(":")
        try:
            steps.append(Step(name, float(amount or 1)))  # type: ignore[arg-type]
        except ValueError as error:
            raise InvalidInput(
                f"classical step {part.strip()!r} must be one of {', '.join(STEPS)}, perhaps with"
                " an amount above 0 and at most 4, as in gamma:0.5"
            ) from error
    return tuple(steps)


def describe_steps(steps: Sequence[Step]) -> str:
    """As `parse_steps` reads them."""
    return ",".join(
        step.name if step.amount == 1 else f"{step.name}:{step.amount:g}" for step in steps
    )


def transformed(
    pixels: NDArray[np.float32], mask: "Mask | None", steps: Sequence[Step], seed: int
) -> "tuple[NDArray[np.float32], Mask | None]":
    """A picture and its mask after all steps; a seed always gives the same.

    Args:
        pixels: (H, W) in [0, 1].
        mask: (H, W), or None.
        steps: in their order; none change nothing.
        seed: of all that is drawn. Nobody else's random numbers are touched.

    Returns:
        The picture (H, W) in [0, 1] and the mask.
    """
    if not steps:
        return pixels, mask
    import torch
    import torchio

    images: dict[str, Any] = {"picture": torchio.ScalarImage(tensor=_volume(pixels))}
    if mask is not None:
        images["mask"] = torchio.LabelMap(tensor=_volume(mask.astype(np.float32)))
    subject = torchio.Subject(images)
    side = max(pixels.shape)
    with own_randomness(seed):
        for step in steps:
            subject = TRANSFORMS[step.name](torchio, step.amount, side)(subject)
            subject.picture.set_data(subject.picture.data.clamp(0, 1))  # before the next one
    moved = np.asarray(subject.picture.data[0, :, :, 0], np.float32)
    if mask is None:
        return moved, None
    assert isinstance(subject.mask.data, torch.Tensor)
    return moved, np.asarray(subject.mask.data[0, :, :, 0]) > 0.5


@contextmanager
def own_randomness(seed: int) -> "Iterator[None]":
    """Within it, torch's global generator starts from a seed; after it, nobody can tell."""
    import torch

    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with _DRAWING, torch.random.fork_rng(gpus):
        torch.default_generator.manual_seed(seed % 2**63)
        yield


def _volume(pixels: NDArray[np.floating]) -> Any:
    """(1, H, W, 1): TorchIO's images are (channels, and three axes of space)."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(pixels, np.float32))[None, :, :, None]


def _affine(torchio: Any, amount: float, side: int) -> Any:
    """Within 5 %, 5 degrees and 3 % of the side: how patients stand before the detector."""
    scale, shift, turn = 0.05 * amount, 0.03 * amount * side, 5 * amount
    return torchio.RandomAffine(
        scales=(1 - scale, 1 + scale, 1 - scale, 1 + scale, 1, 1),
        degrees=(0, 0, 0, 0, -turn, turn),
        translation=(-shift, shift, -shift, shift, 0, 0),
        default_pad_value=0,
    )


def _elastic(torchio: Any, amount: float, side: int) -> Any:
    """Displacements of up to 2 % of the side between seven points along it."""
    most = 0.02 * amount * side
    return torchio.RandomElasticDeformation(
        num_control_points=(7, 7, 5), max_displacement=(most, most, 0), locked_borders=2
    )


def _motion(torchio: Any, amount: float, side: int) -> Any:
    """One breath while the detector reads: 1 degree and 1 % of the side."""
    return torchio.RandomMotion(degrees=amount, translation=0.01 * amount * side, num_transforms=1)


def _blur(torchio: Any, amount: float, side: int) -> Any:
    """Up to a pixel of 256."""
    most = amount * side / 256
    return torchio.RandomBlur((0, most, 0, most, 0, 0))


TRANSFORMS: dict[StepName, Callable[[Any, float, int], Any]] = {
    "affine": _affine,
    "elastic": _elastic,
    "bias_field": lambda torchio, amount, _: torchio.RandomBiasField(0.15 * amount, order=2),
    "gamma": lambda torchio, amount, _: torchio.RandomGamma(0.25 * amount),
    "noise": lambda torchio, amount, _: torchio.RandomNoise(0, (0, 0.02 * amount)),
    "blur": _blur,
    "motion": _motion,
    "ghosting": lambda torchio, amount, _: torchio.RandomGhosting(
        num_ghosts=(2, 4), axes=(0, 1), intensity=(0, 0.15 * amount), restore=0.05
    ),
}
"""(torchio, amount, longer side in pixels) -> a transform."""
