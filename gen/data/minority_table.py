"""The table of minority scores that `medphantom train minority-scores` writes."""

import csv
from pathlib import Path
from typing import NamedTuple

from gen.errors import InvalidInput


class ScoredImage(NamedTuple):
    """A row: a file, what kind of image it is, its score, and the shares of images below it."""

    file: str
    group: str
    score: float
    quantile: float
    group_quantile: float


def read_minority_scores(table: Path) -> list[ScoredImage]:
    """The rows of a table.

    Raises:
        InvalidInput: it cannot be read, has other columns or no rows, or a cell is no number.
    """
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = [
                ScoredImage(
                    row["file"],
                    row["group"],
                    float(row["score"]),
                    float(row["quantile"]),
                    float(row["group_quantile"]),
                )
                for row in csv.DictReader(file)
            ]
        if not rows:
            raise ValueError("it has no rows")
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InvalidInput(
            f"scores is {table}, which is no table of {', '.join(ScoredImage._fields)}: {error!r};"
            " make it with medphantom train minority-scores"
        ) from error
    return rows
