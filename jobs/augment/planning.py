"""How many images of what a data set lacks, and after which real ones each shall be made.

An image is made after a real one: it has its findings, view, sex and age. So findings that come
together stay together, and no patient is described that nobody has seen.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gen.data.captions import Labels
from gen.errors import InvalidInput


@dataclass(frozen=True)
class Target:
    """What is wanted; exactly one of the three.

    Args:
        equal: every class as large as the largest.
        minimum: images of every class, at least.
        factor: of the images that each class has.
        below: only classes with fewer images than this are raised; None is all.
    """

    equal: bool = False
    minimum: int | None = None
    factor: float | None = None
    below: int | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("equal", "minimum", "factor") if getattr(self, name)]
        if len(given) != 1:
            raise InvalidInput(
                f"{' and '.join(given) or 'none of equal, minimum and factor'} is given; say what"
                " is wanted by exactly one of --equal, --minimum and --factor"
            )
        if self.factor is not None and not 1 < self.factor <= 1000:
            raise InvalidInput(f"factor is {self.factor}, but must be above 1 and at most 1000")

    def wanted(self, counts: Mapping[str, int]) -> dict[str, int]:
        """How many images each class shall have; no class loses any."""
        largest = max(counts.values())
        raised = {
            name: largest
            if self.equal
            else self.minimum
            if self.minimum is not None
            else round(count * (self.factor or 1))
            for name, count in counts.items()
            if self.below is None or count < self.below
        }
        return {name: max(count, raised.get(name, 0)) for name, count in counts.items()}


def counts_of(labels: Iterable[Labels]) -> Counter[str]:
    """Images of each finding; one of several findings counts for each."""
    return Counter(name for each in labels for name in each.findings)


def followed(labels: Sequence[Labels], wanted: Mapping[str, int], seed: int = 0) -> list[int]:
    """The real row that each image to be made follows, until every class has what is wanted.

    The rarest class comes first, since images of it often show others, too. Within a class all
    rows are followed equally often, in an order drawn by the seed.

    Args:
        labels: of the real rows.
        wanted: images of each class, real ones included.

    Raises:
        InvalidInput: a class is wanted that no row shows.
    """
    counts = counts_of(labels)
    rows: list[int] = []
    for name in sorted(wanted, key=lambda each: (counts[each], each)):
        showing = [row for row, each in enumerate(labels) if name in each.findings]
        if not showing and wanted[name] > 0:
            raise InvalidInput(
                f"{wanted[name]} images of {name!r} are wanted, but no image shows it to follow;"
                f" classes are {', '.join(sorted(counts))}"
            )
        random.Random(f"{seed}/{name}").shuffle(showing)
        turn = 0
        while counts[name] < wanted[name]:
            row = showing[turn % len(showing)]
            rows.append(row)
            counts.update(labels[row].findings)
            turn += 1
    return rows
