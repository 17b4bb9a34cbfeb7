"""Which of the forms we can answer in a caller prefers."""

from collections.abc import Sequence

from starlette.exceptions import HTTPException


def preferred(accept: str | None, offers: Sequence[str]) -> str:
    """The offer with the highest quality in an Accept header; the first where all are equal.

    Raises:
        HTTPException: 406, none of the offers is accepted.
    """
    if not accept:
        return offers[0]
    wishes = [_parse(part) for part in accept.split(",") if part.strip()]

    def quality(offer: str) -> float:
        kind = offer.split("/")[0]
        for pattern in (offer, f"{kind}/*", "*/*"):  # the most specific one counts
            for name, weight in wishes:
                if name == pattern:
                    return weight
        return 0.0

    best = max(offers, key=quality)
    if quality(best) <= 0:
        raise HTTPException(406, f"Accept must name one of {', '.join(offers)}")
    return best


def _parse(part: str) -> tuple[str, float]:
    name, *parameters = (each.strip().lower() for each in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return name, float(parameter[2:])
            except ValueError:
                return name, 0.0
    return name, 1.0
