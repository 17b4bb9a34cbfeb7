"""What was left out or assumed while something was read, a line for each kind of it."""


class Notes:
    """Counts what was left out, and keeps the first example of each kind."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, str]] = {}

    def add(self, what: str, example: str) -> None:
        """One more of a kind, such as "image(s) cannot be read"."""
        count, first = self._seen.get(what, (0, example))
        self._seen[what] = (count + 1, first)

    def lines(self) -> list[str]:
        """A line for each kind, in the order of their first examples."""
        return [f"{n} {what}; the first: {first}" for what, (n, first) in self._seen.items()]
