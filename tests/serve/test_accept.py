"""Accept headers (RFC 9110, 12.5.1): the most specific range counts, then its quality."""

import pytest
from starlette.exceptions import HTTPException

from serve.accept import preferred

JSON, PNG, EVENTS = "application/json", "image/png", "text/event-stream"
OFFERS = (JSON, PNG, EVENTS)


@pytest.mark.parametrize(
    ("accept", "offer"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        (PNG, PNG),
        ("image/*", PNG),
        ("IMAGE/PNG", PNG),
        ("text/html, image/png", PNG),
        (f"{EVENTS}, {JSON}", JSON),  # equal: ours come first
        (f"{JSON};q=0.5, {PNG}", PNG),
        (f"{JSON};q=0.5, {PNG};q=0.4", JSON),
        (f"*/*;q=0.1, {EVENTS};q=0.2", EVENTS),
        (f"{JSON};q=0, */*", PNG),  # everything but JSON
        ("image/*;q=0.9, image/png;q=0.1, text/*;q=0.5", EVENTS),
        ("*/*, image/*;q=0, application/*;q=0", EVENTS),
        ("application/json;charset=utf-8", JSON),
        ("image/png ; q=0.3 , text/event-stream ; q=0.2", PNG),
        (f"{PNG};q=high, {EVENTS}", EVENTS),  # no number: not wanted
        (f"{PNG};q=nan, {EVENTS}", EVENTS),
        (f"{JSON};q=0.001", JSON),
        # what a browser sends for an <img>
        ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", PNG),
    ],
)
def test_the_offer_that_is_preferred(accept: str | None, offer: str) -> None:
    assert preferred(accept, OFFERS) == offer


@pytest.mark.parametrize(
    "accept", ["text/html", "image/gif", "*/*;q=0", f"{JSON};q=0", "image", ";", f"{JSON};q=-1"]
)
def test_none_that_is_accepted_is_406_with_the_offers(accept: str) -> None:
    with pytest.raises(HTTPException) as refusal:
        preferred(accept, OFFERS)
    assert refusal.value.status_code == 406
    assert refusal.value.detail == f"Accept must name one of {', '.join(OFFERS)}"
