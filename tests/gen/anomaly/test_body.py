"""Where the body is in a picture."""

import numpy as np

from gen.anomaly.body import body_mask

SIDE = 64


def test_the_body_is_the_largest_thing_without_holes_and_without_its_rim() -> None:
    picture = np.full((SIDE, SIDE), -1, np.float32)
    picture[8:60, 10:50] = 0.2
    picture[30:36, 25:31] = -1  # a hole
    picture[4:10, 56:60] = 1  # a letter beside the body
    body = body_mask(picture)
    rows, columns = np.nonzero(body)
    assert body[30:36, 25:31].all()
    assert not body[4:10, 56:60].any()
    # smoothing begins it a pixel early, and two pixels of rim are taken away
    assert (rows.min(), columns.min()) == (9, 11)
    assert (rows.max(), columns.max()) == (58, 48)


def test_air_has_no_body() -> None:
    assert not body_mask(np.full((SIDE, SIDE), -1, np.float32)).any()
