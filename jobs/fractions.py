"""Shares of training data as people write them."""

import re

from gen.errors import InvalidInput


def parse_fractions(text: str) -> tuple[float, ...]:
    """Shares in order, of text such as "0.05,0.2,1".

    Raises:
        InvalidInput: one is no number, or not above 0 and at most 1.
    """
    try:
        found = tuple(sorted({float(each) for each in re.split(r"[,\s]+", text.strip())}))
    except ValueError:
        found = ()
    if not found or not all(0 < each <= 1 for each in found):
        raise InvalidInput(
            f"fractions is {text!r}, but must be shares above 0 and at most 1, as 0.05,0.2,1"
        )
    return found
