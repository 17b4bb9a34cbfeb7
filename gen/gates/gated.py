"""Make an image again until every gate lets it pass, or give it up.

A process around a process: attempts of many images, and the gates' networks, share forwards. Gates
are all asked about every attempt, also after one has refused, so that their rates can be compared.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

from torch import Tensor

from gen.errors import InvalidInput
from gen.gates.gate import Gate, Subject, Verdict
from gen.types import Component, Process, T

MAX_ATTEMPTS = 4


@dataclass(frozen=True)
class Gated(Generic[T]):
    """What came of it.

    Args:
        result: of the accepted attempt; None: given up.
        attempts: the verdicts of every gate on every attempt, in their order.
        rejected: what earlier attempts made, if it was asked for.
    """

    result: T | None
    attempts: tuple[tuple[Verdict, ...], ...]
    rejected: tuple[T, ...] = ()

    @property
    def given_up(self) -> bool:
        """Whether no attempt passed."""
        return self.result is None


def gated(
    make: Callable[[int], Process[T]],
    picture: Callable[[T], Tensor],
    gates: Sequence[Gate],
    about: Subject,
    max_attempts: int = MAX_ATTEMPTS,
    *,
    keep_rejected: bool = False,
) -> Process[Gated[T]]:
    """Attempt after attempt, until one passes every gate.

    Args:
        make: attempt number from 0 -> a fresh process with that attempt's seed.
        picture: what it returned -> its image (1, 1, H, W) in [0, 1].
        gates: who judge it; without any, the first attempt is accepted.
        about: what the image shall be.
        max_attempts: after so many it is given up, 1 or more.
        keep_rejected: return what was refused, too.

    Raises:
        InvalidInput: max_attempts is below 1.
    """
    if max_attempts < 1:
        raise InvalidInput(f"max_attempts is {max_attempts}, but an image needs an attempt; try 4")
    attempts: list[tuple[Verdict, ...]] = []
    rejected: list[T] = []
    for attempt in range(max_attempts):
        result = yield from make(attempt)
        verdicts = yield from judged(picture(result), gates, about)
        attempts.append(verdicts)
        if all(each.passed for each in verdicts):
            return Gated(result, tuple(attempts), tuple(rejected))
        if keep_rejected:
            rejected.append(result)
    return Gated(None, tuple(attempts), tuple(rejected))


def judged(image: Tensor, gates: Iterable[Gate], about: Subject) -> Process[tuple[Verdict, ...]]:
    """Every gate's verdict on one image (1, 1, H, W), in the order of the gates."""
    verdicts = []
    for gate in gates:
        verdicts.append((yield from gate.judge(image, about)))
    return tuple(verdicts)


def networks_of(gates: Iterable[Gate]) -> dict[str, Component]:
    """All that the gates call, to be put beside a pipeline's own networks.

    Raises:
        InvalidInput: two gates mean different networks by one name.
    """
    found: dict[str, Component] = {}
    for gate in gates:
        for name, network in gate.networks.items():
            if found.setdefault(name, network) is not network:
                raise InvalidInput(
                    f"two gates call different networks {name!r}, but a name is one network's;"
                    " rename one of them"
                )
    return found


def checked_names(gates: Sequence[Gate], taken: Mapping[str, Component]) -> dict[str, Component]:
    """The networks of a pipeline with those of the gates.

    Raises:
        InvalidInput: a gate's network has a name that the pipeline's has.
    """
    added = networks_of(gates)
    both = sorted(set(added) & set(taken))
    if both:
        raise InvalidInput(
            f"gates call networks {', '.join(both)}, but the pipeline has others of these names;"
            " rename the gates'"
        )
    return {**taken, **added}
