"""What was left out or assumed while something was read, a line for each kind of it."""

from collections.abc import Iterable


class Notes:
    """Counts what was left out, and keeps the first example of each kind."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, str]] = {}
        self._lines: list[str] = []

    def add(self, what: str, example: str) -> None:
        """One more of a kind, such as "image(s) cannot be read"."""
        count, first = self._seen.get(what, (0, example))
        self._seen[what] = (count + 1, first)

    def take(self, lines: Iterable[str]) -> None:
        """Lines that somebody else counted."""
        self._lines += lines

    def lines(self) -> list[str]:
        """Lines taken, and one for each kind, in the order of their first examples."""
        counted = [f"{n} {what}; the first: {first}" for what, (n, first) in self._seen.items()]
        return self._lines + counted
