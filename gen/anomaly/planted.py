"""Lesions painted into healthy pictures, with exact masks: soft opacities and foreign patches.

Opacities are added, since attenuation adds up along a ray: ribs and vessels stay visible through
them. Foreign patches are another picture's, mixed in (foreign patch interpolation, Tan et al. 2020,
arXiv 2011.04197) or continued from the edge by their gradients (Poisson image interpolation, Tan et
al. 2021, arXiv 2107.02622).

Pictures are (S, S) float32 in [-1, 1]. Outside its mask a picture stays as it is, bit for bit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

from gen.anomaly.body import body_mask
from gen.anomaly.regions import Mask
from gen.errors import InvalidInput

Kind = Literal["brighter", "darker", "mixed patch", "poisson patch"]
KINDS: tuple[Kind, ...] = get_args(Kind)

RADIUS = (0.04, 0.11)  # of the side: nodules to consolidations
MIN_AREA = 0.002  # of the picture
STRETCH = 1.6  # of the axes, at most
SOFTNESS = (0.4, 0.7)  # share of the radius over which an opacity fades out
CONTRAST = (0.12, 0.24)  # mean absolute change within the mask
MIN_CHANGE = 0.1  # of it, where black or white cut it off
MIXING = (0.5, 1.0)  # share of the foreign picture
_LUNGS = (0.2, 0.74, 0.14, 0.86)  # top, bottom, left, right as shares of the side
_DARK = 0.4  # share of these pixels that count as lung
_FAINT = 0.05  # of the peak: what is less is left as it was
_MAX_GAIN = 3.0  # of the change by a foreign patch
_ATTEMPTS = 40

Picture = NDArray[np.float32]


@dataclass(frozen=True)
class Planted:
    """A picture (S, S) with a lesion, and the mask (S, S) of the pixels that belong to it."""

    picture: Picture
    mask: Mask
    kind: Kind


def plant(kind: Kind, picture: Picture, foreign: Picture, rng: np.random.Generator) -> Planted:
    """Paint one lesion into a healthy picture.

    Args:
        kind: of `KINDS`.
        picture: (S, S) in [-1, 1].
        foreign: (S, S) in [-1, 1], another healthy picture; opacities do without.
        rng: of place, shape, size and contrast.

    Raises:
        InvalidInput: the shapes differ, or the picture has no place for a lesion that would show.
    """
    if picture.shape != foreign.shape or picture.shape != (len(picture), len(picture)):
        raise InvalidInput(
            f"picture has the shape {picture.shape} and foreign {foreign.shape}, but both must be"
            " one (S, S); resize them"
        )
    for weights in sites(picture, rng):
        mask = weights > 0
        if kind in ("brighter", "darker"):
            changed = _opacity(picture, weights, 1 if kind == "brighter" else -1, rng)
        else:
            changed = _patch(picture, foreign, weights, kind == "poisson patch", rng)
        lesioned = np.where(mask, np.clip(changed, -1, 1), picture).astype(np.float32)
        if np.abs(lesioned - picture)[mask].mean() >= MIN_CHANGE:
            return Planted(lesioned, mask, kind)
    raise InvalidInput(
        f"picture has no place for a lesion of the kind {kind!r}: {_ATTEMPTS} draws left its body,"
        f" were too small or changed it by less than {MIN_CHANGE}; give a picture of a chest in"
        " [-1, 1]"
    )


def sites(
    picture: Picture, rng: np.random.Generator, radius: tuple[float, float] = RADIUS
) -> Iterator[NDArray[np.float64]]:
    """Shapes for a lesion, weights (S, S) in [0, 1], each around a place in the lungs.

    All of a shape lies within the body. There may be none, where a picture shows no body. `radius`
    is the least and the most, as shares of the side.
    """
    body = body_mask(picture)
    places = lung_places(picture, body)
    for _ in range(_ATTEMPTS if len(places) else 0):
        weights = draw_shape(len(picture), rng.choice(places), rng, radius)
        mask = weights > 0
        if mask.mean() >= MIN_AREA and not (mask & ~body).any():
            yield weights


def lung_places(picture: Picture, body: Mask) -> NDArray[np.intp]:
    """Rows and columns (P, 2) where the middle of the body is dark: for the most, the lungs."""
    side = len(picture)
    top, bottom, left, right = (round(share * side) for share in _LUNGS)
    middle = np.zeros_like(body)
    middle[top:bottom, left:right] = body[top:bottom, left:right]
    smooth = gaussian_filter(picture, side / 32)
    dark = np.quantile(smooth[middle], _DARK) if middle.any() else 0.0
    return np.argwhere(middle & (smooth <= dark))


def draw_shape(
    side: int,
    place: NDArray[np.intp],
    rng: np.random.Generator,
    radius: tuple[float, float] = RADIUS,
) -> NDArray[np.float64]:
    """Weights (S, S) in [0, 1] around a place: an ellipse with an uneven rim, fading out."""
    mean_radius = side * rng.uniform(*radius)
    stretch, angle = np.sqrt(rng.uniform(1, STRETCH)), rng.uniform(0, np.pi)
    y, x = np.mgrid[:side, :side] - place[:, None, None]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    distance = np.hypot(along / stretch, across * stretch) / mean_radius
    rim = 1 + 0.25 * _smooth_noise(side, mean_radius / 2, rng)
    depth = np.clip((rim - distance) / rng.uniform(*SOFTNESS), 0, 1)
    weights = depth**2 * (3 - 2 * depth)
    parts, _ = label(weights > _FAINT)  # pieces of the rim may come loose
    own = parts[tuple(place)]
    return np.where((parts == own) & (own > 0), weights, 0)


def _smooth_noise(side: int, sigma: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise (S, S) of unit variance, correlated over `sigma` pixels."""
    noise = gaussian_filter(rng.standard_normal((side, side)), sigma, mode="wrap")
    return noise / noise.std()


def _opacity(
    picture: Picture, weights: NDArray[np.float64], sign: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A mottled veil over the picture, or a part of it taken away."""
    mottled = weights * (1 + 0.15 * _smooth_noise(len(picture), len(picture) / 64, rng))
    contrast = rng.uniform(*CONTRAST)
    return picture + sign * contrast * mottled / mottled[weights > 0].mean()


def _patch(
    picture: Picture,
    foreign: Picture,
    weights: NDArray[np.float64],
    by_gradients: bool,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """The same shape cut from anywhere in the foreign picture, its change brought to `CONTRAST`."""
    rows, columns = (np.flatnonzero((weights > 0).any(axis)) for axis in (1, 0))
    shift = [rng.integers(-each[0], len(picture) - each[-1]) for each in (rows, columns)]
    moved = np.roll(foreign, (-shift[0], -shift[1]), (0, 1))
    mixing = rng.uniform(*MIXING)
    mask = weights > 0
    if by_gradients:
        change = poisson(picture, moved, mask) - picture
    else:
        change = weights * (moved - picture)
    mean = mixing * np.abs(change)[mask].mean()
    gain = min(np.clip(mean, *CONTRAST) / max(mean, 1e-9), _MAX_GAIN)
    return picture + gain * mixing * change


def poisson(picture: Picture, guide: NDArray[np.floating], mask: Mask) -> NDArray[np.float64]:
    """Within the mask the guide's gradients, on its edge the picture (Perez et al. 2003, eq. 7)."""
    index = np.full(mask.shape, -1)
    index[mask] = np.arange(mask.sum())
    y, x = np.nonzero(mask)
    right = np.zeros(len(y))
    entries = [(index[mask], index[mask], np.full(len(y), 4.0))]
    for down, across in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        place = y + down, x + across  # inside the picture: the mask is kept within the body
        right += guide[y, x].astype(np.float64) - guide[place]
        inner = index[place] >= 0
        right[~inner] += picture[place][~inner]
        entries.append((index[mask][inner], index[place][inner], np.full(inner.sum(), -1.0)))
    row, column, value = (np.concatenate(each) for each in zip(*entries, strict=True))
    system = coo_array((value, (row, column)), shape=(len(y), len(y))).tocsc()
    result = picture.astype(np.float64)
    result[mask] = spsolve(system, right)
    return result
