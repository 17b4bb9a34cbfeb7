"""What a model says of its square lies on the right pixels of the picture."""

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen.data.model_square import ModelSquare
from gen.data.transforms import fit
from gen.errors import InvalidInput

MODES = st.sampled_from(["crop", "pad"])
SIDES = st.integers(24, 150)


@st.composite
def squares(draw: st.DrawFn) -> ModelSquare:
    height, width = draw(SIDES), draw(SIDES)
    squashed = draw(st.none() | st.tuples(SIDES, SIDES))
    return ModelSquare(height, width, draw(st.integers(24, 90)), draw(MODES), squashed)


def centre_of_mass(pixels: np.ndarray) -> np.ndarray:
    rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]] + 0.5
    return np.array([(pixels * rows).sum(), (pixels * columns).sum()]) / pixels.sum()


@settings(deadline=None)
@given(square=squares(), seed=st.integers(0, 99))
def test_the_way_there_is_that_of_fit_and_valid_is_where_white_stays(
    square: ModelSquare, seed: int
) -> None:
    picture = np.random.default_rng(seed).random((square.height, square.width))
    expected = fit(picture, square.size, square.orig_size, square.mode)
    np.testing.assert_array_equal(square.to_model(picture), expected)
    white = square.to_model(np.ones((square.height, square.width)))
    np.testing.assert_array_equal(square.valid, white > 0)
    if square.mode == "crop":
        assert square.valid.all()


@settings(deadline=None, max_examples=200)
@given(square=squares(), data=st.data())
def test_a_bright_spot_comes_back_to_within_one_pixel_of_the_coarser_grid(
    square: ModelSquare, data: st.DataObject
) -> None:
    seen_rows, seen_columns = np.nonzero(square.seen)
    scale = np.array([square.height, square.width]) / square.resized
    margin = np.ceil(2 * np.maximum(scale, 1)).astype(int)
    rows = (seen_rows.min() + margin[0], seen_rows.max() - margin[0])
    columns = (seen_columns.min() + margin[1], seen_columns.max() - margin[1])
    if rows[0] > rows[1] or columns[0] > columns[1]:
        return  # nearly all was cut off
    spot = np.array([data.draw(st.integers(*rows)), data.draw(st.integers(*columns))])
    distance = (np.mgrid[: square.height, : square.width] - spot[:, None, None]) / np.maximum(
        scale, 1
    )[:, None, None]
    picture = np.exp(-(distance**2).sum(axis=0))
    back = square.from_model(square.to_model(picture))
    assert back.shape == picture.shape
    error = np.array(np.unravel_index(back.argmax(), back.shape)) - spot
    assert (np.abs(error) <= np.ceil(np.maximum(scale, 1))).all()


@settings(deadline=None)
@given(square=squares(), data=st.data())
def test_a_spot_of_the_map_lies_on_the_pixels_that_the_model_saw_there(
    square: ModelSquare, data: st.DataObject
) -> None:
    rows, columns = np.nonzero(square.valid)
    index = data.draw(st.integers(0, len(rows) - 1))
    spot = np.zeros((square.size, square.size))
    spot[rows[index], columns[index]] = 1
    back = square.from_model(spot)
    scale = np.array([square.height, square.width]) / square.resized
    expected = (np.array([rows[index], columns[index]]) + 0.5 - square.offset) * scale
    if back.max() > 0:
        peaks = np.argwhere(back > 0.999 * back.max()) + 0.5
        assert (np.abs(peaks.mean(axis=0) - expected) <= np.maximum(scale, 1)).all()


@settings(deadline=None)
@given(square=squares())
def test_no_quarter_changes_places(square: ModelSquare) -> None:
    """A ramp of three speeds tells rows from columns and both from their mirror images."""
    rows, columns = np.mgrid[: square.height, : square.width]
    picture = (rows / square.height + 3 * columns / square.width) / 4
    back = square.from_model(square.to_model(picture), fill=np.nan)
    interior = np.isfinite(back)
    tolerance = 6 / min(*square.resized, square.height, square.width)
    np.testing.assert_allclose(back[interior], picture[interior], atol=tolerance)


@settings(deadline=None)
@given(square=squares(), value=st.floats(-5, 5, width=32))
def test_a_constant_map_stays_constant_and_what_was_cut_is_filled(
    square: ModelSquare, value: float
) -> None:
    back = square.from_model(np.full((square.size, square.size), value), fill=-9)
    np.testing.assert_allclose(back[square.seen], value, atol=1e-5)
    assert (back[~square.seen] == -9).all()
    if square.mode == "pad":
        assert square.seen.all()


def test_padding_is_cut_and_does_not_bleed_into_the_picture() -> None:
    square = ModelSquare(40, 80, 32)
    map_of_padding = np.where(square.valid, 0.0, 1.0)
    assert square.from_model(map_of_padding).max() == 0


@settings(deadline=None)
@given(square=squares())
def test_the_box_of_the_whole_square_is_what_was_seen(square: ModelSquare) -> None:
    box = square.box_from_model((0, 0, square.size, square.size))
    assert box is not None
    rows, columns = np.nonzero(square.seen)
    x, y, w, h = box
    assert abs(y - rows.min()) <= 1
    assert abs(x - columns.min()) <= 1
    assert abs(y + h - rows.max() - 1) <= 1
    assert abs(x + w - columns.max() - 1) <= 1


def test_a_box_lies_on_the_lesion_it_was_drawn_around() -> None:
    picture = np.zeros((100, 200))
    picture[60:80, 120:180] = 1
    square = ModelSquare(100, 200, 50)
    rows, columns = np.nonzero(square.to_model(picture) > 0.5)
    box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert square.box_from_model(box) == pytest.approx((120, 60, 60, 20), abs=4)
    assert square.box_from_model((0, 0, 50, 5)) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"height": 0}, "at least 1"),
        ({"size": 0}, "at least 1"),
        ({"orig_size": (0, 3)}, "at least 1"),
        ({"mode": "squash"}, "'crop' or 'pad'"),
        ({"height": 4000, "width": 10}, "cut it into parts"),
    ],
)
def test_a_geometry_that_cannot_be_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        ModelSquare(**{"height": 10, "width": 20, "size": 8, **changes})


@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_arrays_of_another_shape_are_refused(mode: Literal["crop", "pad"]) -> None:
    square = ModelSquare(10, 20, 8, mode)
    with pytest.raises(InvalidInput, match=r"\(20, 10\)"):
        square.to_model(np.zeros((20, 10)))
    with pytest.raises(InvalidInput, match=r"\(8, 8\) is needed"):
        square.from_model(np.zeros((8, 9)))
    with pytest.raises(InvalidInput, match="finite"):
        square.from_model(np.full((8, 8), np.nan))
    with pytest.raises(InvalidInput, match="positive sides"):
        square.box_from_model((0, 0, 0, 1))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 64), (64, 20), (2, 64)])
def test_padding_may_show_the_mirror_image(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).random((height, width)).astype(np.float32)
    square = ModelSquare(height, width, 64)
    fitted = square.to_model(pixels)
    mirrored = square.mirrored(fitted)
    assert mirrored.shape == (64, 64)
    assert np.array_equal(mirrored[square.valid], fitted[square.valid])
    top, left = square.offset
    if top:
        assert np.array_equal(mirrored[top - 1], mirrored[top])
    if left:
        assert np.array_equal(mirrored[:, left - 1], mirrored[:, left])
    assert np.allclose(square.from_model(mirrored), square.from_model(fitted))
