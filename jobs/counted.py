"""Networks whose rows are counted: what a run costs, whatever the machine."""

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is imported when something is made
    from gen.types import Component, Components


def counted(networks: "Components") -> "tuple[dict[str, Component], Counter[str]]":
    """The same networks, and the rows that each has answered so far, by its name."""
    rows: Counter[str] = Counter()

    def watch(name: str, network: "Component") -> "Component":
        def answer(*arguments: object) -> object:
            rows[name] += len(arguments[0])  # type: ignore[arg-type]
            return network(*arguments)

        return answer  # type: ignore[return-value]

    return {name: watch(name, network) for name, network in networks.items()}, rows
