"""What this process computes on, and how precisely."""

import resource
import sys
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from gen.types import Component, Components


class Precision(StrEnum):
    """Of what networks compute in; their weights stay as they are."""

    NO = "no"
    BF16 = "bf16"


def autocast(precision: Precision) -> "torch.autocast":
    """Within it, networks compute in that precision."""
    import torch

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(kind, torch.bfloat16, enabled=precision is Precision.BF16)


def precise(networks: "Components", precision: Precision) -> "dict[str, Component]":
    """The same networks, computing in that precision; what is done with their answers is not."""
    if precision is Precision.NO:
        return dict(networks)

    def rounding(network: "Component") -> "Component":
        def answer(*rows: "torch.Tensor") -> "torch.Tensor":
            with autocast(precision):
                return network(*rows).float()

        return answer

    return {name: rounding(network) for name, network in networks.items()}


def device_name(threads: int | None = None) -> str:
    """The GPU's name, or the CPU with the threads that were used; None is this process's."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu ({threads or torch.get_num_threads()} threads)"


def rows_at_once() -> int:
    """Rows of a forward where nobody waits for another: enough to fill what it runs on."""
    import torch

    return 64 if torch.cuda.is_available() else 16


def peak_mb() -> float:
    """The most memory that this process has had, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)
