"""Fidelity and diversity: all images, and each group of them, beside real images' own figures."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gen.data.captions import Labels
from gen.errors import InvalidInput
from gen.metrics.diversity import choose_pairs, mean_ms_ssim, pairs_within, vendi_score
from gen.metrics.feature_cache import read_thumbnails
from gen.metrics.fidelity import MIN_IMAGES, BesideFloor, Comparison, compare
from gen.metrics.frechet import frechet_distance
from gen.metrics.groups import rows_by_group
from gen.metrics.intervals import Estimate, Features
from gen.metrics.kernel import kernel_distance
from gen.metrics.prdc import prdc
from gen.metrics.spectrum import NUM_BANDS, band_ratios
from jobs.audit.schema import Diversity, Fidelity, Figure, Group, Groups, Interval, Model, Omitted
from jobs.audit.sets import ImageSet, Inputs

ALL = "all classes"
DIVERSITY = ("spread", "vendi")
MAX_SIZE, MAX_GROUP_SIZE = 2000, 500  # images of each set in a draw
MS_SSIM_SIDE = 224  # what radiographs of the usual collections have at least
MIN_SIDE = 176  # below it the coarsest scale of MS-SSIM does not fit
MAX_PAIRS = 200
MAX_CLASSES = 10
MAX_SPECTRUM_IMAGES = 400


class Likeness(Model):
    """Both sections, and what each draw of each group gave, for the gaps between groups."""

    fidelity: Fidelity
    diversity: Diversity
    draws: dict[str, dict[str, dict[str, tuple[list[float], list[float]]]]]


def figures_of(judged: Features, real: Features) -> Mapping[str, float]:
    """All that is measured on two sets of features (N, D); the last two on the first alone."""
    supports = prdc(judged, real)
    return {
        "frechet": frechet_distance(judged, real),
        "kernel": 1000 * kernel_distance(judged, real),
        "precision": supports.precision,
        "recall": supports.recall,
        "density": supports.density,
        "coverage": supports.coverage,
        "spread": float(np.sqrt(2 * judged.var(0, ddof=1, dtype=np.float64).sum())),
        "vendi": vendi_score(judged),
    }


def likeness(inputs: Inputs) -> Likeness:
    """Measure fidelity and diversity."""
    overall = _compared(inputs, inputs.synthetic, inputs.real, MAX_SIZE)
    found = {
        axis: {
            name: _compared(inputs, inputs.synthetic.part(ours), inputs.real.part(theirs),
                            MAX_GROUP_SIZE)
            for name, ours, theirs in groups
        }
        for axis, groups in _groups(inputs)
    }  # fmt: skip
    return Likeness(
        fidelity=Fidelity(
            overall=_group(overall, fidelity=True),
            groups={axis: _all(groups, fidelity=True) for axis, groups in found.items()},
            spectrum=_spectrum(inputs),
        ),
        diversity=Diversity(
            overall=_group(overall, fidelity=False),
            groups={axis: _all(groups, fidelity=False) for axis, groups in found.items()},
            **_similarity(inputs),
        ),
        draws={
            axis: {name: _draws(each) for name, each in groups.items() if not _is_omitted(each)}
            for axis, groups in found.items()
        },
    )


_Compared = tuple[ImageSet, ImageSet, Comparison | Omitted]


def _compared(inputs: Inputs, ours: ImageSet, theirs: ImageSet, max_size: int) -> _Compared:
    if len(ours) < 2 * MIN_IMAGES or len(set(theirs.patients)) < 2 * MIN_IMAGES:
        why = (
            f"{len(ours)} synthetic images against {len(theirs)} real ones of"
            f" {len(set(theirs.patients))} patients: figures need {2 * MIN_IMAGES} images and"
            f" {2 * MIN_IMAGES} patients"
        )
        return ours, theirs, Omitted(omitted=why)
    try:
        found = compare(
            ours.features, theirs.features, theirs.patients, figures_of,
            seed=inputs.seed, max_size=max_size,
        )  # fmt: skip
    except InvalidInput as error:
        return ours, theirs, Omitted(omitted=str(error))
    return ours, theirs, found


def _groups(inputs: Inputs) -> Iterator[tuple[str, list[tuple[str, list[int], list[int]]]]]:
    """Axis, and name, synthetic and real rows of each group that either set holds."""
    ours, theirs = rows_by_group(inputs.synthetic.labels), rows_by_group(inputs.real.labels)
    for axis in ours:
        names = sorted(ours[axis].keys() | theirs[axis].keys())
        yield axis, [(name, ours[axis].get(name, []), theirs[axis].get(name, [])) for name in names]


def _is_omitted(compared: _Compared) -> bool:
    return isinstance(compared[2], Omitted)


def _all(groups: dict[str, _Compared], *, fidelity: bool) -> Groups:
    return {name: _group(each, fidelity=fidelity) for name, each in groups.items()}


def _group(compared: _Compared, *, fidelity: bool) -> Group | Omitted:
    ours, theirs, found = compared
    if isinstance(found, Omitted):
        return found
    figures = {
        name: Figure.beside(each.value, each.floor)
        for name, each in found.figures.items()
        if (name in DIVERSITY) != fidelity
    }
    return Group(images=len(ours), real=len(theirs), size=found.size, figures=figures)


def _draws(compared: _Compared) -> dict[str, tuple[list[float], list[float]]]:
    found = compared[2]
    assert isinstance(found, Comparison)
    return {
        name: (each.draws.tolist(), each.floor_draws.tolist())
        for name, each in found.figures.items()
    }


def besides(draws: tuple[list[float], list[float]]) -> BesideFloor:
    """What `Likeness.draws` holds, as `gen.metrics.fidelity` knows it."""
    return BesideFloor(np.array(draws[0]), np.array(draws[1]))


def _spectrum(inputs: Inputs) -> dict[str, list[float]] | Omitted:
    """Ratios of power by age group, at a size that most files of both sets have."""
    side = _common_side(inputs)
    if side <= 4 * NUM_BANDS:
        return Omitted(
            omitted=f"files have {side} pixels a side, but {NUM_BANDS} bands need more than"
            f" {4 * NUM_BANDS}"
        )
    ratios = {}
    for axis, groups in _groups(inputs):
        if axis != "age group":
            continue
        everyone = [("all", range(len(inputs.synthetic)), range(len(inputs.real)))]
        for name, ours, theirs in groups or everyone:
            parts = [
                _large(part.part(list(rows)), side, inputs)
                for part, rows in ((inputs.synthetic, ours), (inputs.real, theirs))
            ]
            if min(map(len, parts)) >= MIN_IMAGES:
                pictures = [
                    read_thumbnails(part.items, side, inputs.bars.bar(f"detail of {name}")).images
                    for part in parts
                ]
                ratios[name] = band_ratios(*pictures)
    return ratios or Omitted(omitted=f"no group has {MIN_IMAGES} files of each set")


def _common_side(inputs: Inputs) -> int:
    """What nine in ten files of both sets have, at most 256."""
    return int(min(256, *(np.quantile(s.sides, 0.1) for s in (inputs.synthetic, inputs.real))))


def _large(part: ImageSet, side: int, inputs: Inputs) -> ImageSet:
    rows = np.flatnonzero(part.sides >= side)
    return part.part(_some(rows, MAX_SPECTRUM_IMAGES, inputs))


def _some(rows: NDArray[np.intp], count: int, inputs: Inputs) -> NDArray[np.intp]:
    return np.sort(np.random.default_rng(inputs.seed).permutation(rows)[:count])


def _similarity(inputs: Inputs) -> dict[str, Groups | Omitted]:
    """MS-SSIM within a prompt and within a class of labels, beside the real class's own."""
    side = min(MS_SSIM_SIDE, _common_side(inputs))
    if side < MIN_SIDE:
        why = Omitted(omitted=f"images have {side} pixels a side, but MS-SSIM needs {MIN_SIDE}")
        return {"prompt": why, "class": why}
    prompts: Groups = {}
    classes: Groups = {}
    report = inputs.bars.bar("likeness of pairs")
    kinds = _classes(inputs)
    for done, (name, ours, theirs) in enumerate(kinds):
        judged, real = inputs.synthetic.part(ours), inputs.real.part(theirs)
        own = _pairs_of_class(real, inputs, side)
        within = pairs_within([item.prompt or "" for item in judged.items], MAX_PAIRS, inputs.seed)
        for groups, estimate in (
            (prompts, _ms_ssim(judged, within, side)),
            (classes, _pairs_of_class(judged, inputs, side)),
        ):
            if estimate is not None:
                figures = {"ms_ssim": Figure.beside(estimate, own)}
                groups[name] = Group(images=len(judged), real=len(real), figures=figures)
        report(done + 1, len(kinds))
    none = Omitted(omitted="no class of labels has four synthetic images and three real ones")
    repeated = Omitted(omitted="no prompt has several images: make more of each, with -n")
    for groups in (prompts, classes):
        if len(groups) > 1:
            groups[ALL] = _pooled(groups)
    return {"prompt": prompts or (repeated if kinds else none), "class": classes or none}


def _pooled(groups: Groups) -> Group:
    """All classes together, each weighing as many synthetic images as it has."""
    known = [each for each in groups.values() if isinstance(each, Group)]
    images = [each.images for each in known]
    weights = np.array(images) / sum(images)

    def mean(estimates: Sequence[Interval]) -> Estimate:
        value = float(weights @ [e.value for e in estimates])
        reach = float(np.sqrt(weights**2 @ [((e.high - e.low) / 2) ** 2 for e in estimates]))
        return Estimate(value, value - reach, value + reach)

    alike = [each.figures["ms_ssim"] for each in known]
    floors = [each.floor for each in alike if each.floor is not None]
    floor = mean(floors) if len(floors) == len(alike) else None
    figures = {"ms_ssim": Figure.beside(mean(alike), floor)}
    return Group(images=sum(images), real=sum(each.real for each in known), figures=figures)


def _classes(inputs: Inputs) -> list[tuple[str, list[int], list[int]]]:
    """The most frequent classes of synthetic images that real ones have too."""
    ours, theirs = _rows_of_classes(inputs.synthetic), _rows_of_classes(inputs.real)
    shared = [name for name in ours if len(ours[name]) >= 4 and len(theirs.get(name, [])) >= 3]
    frequent = sorted(shared, key=lambda name: (-len(ours[name]), name))[:MAX_CLASSES]
    return [(name, ours[name], theirs[name]) for name in sorted(frequent)]


def _rows_of_classes(images: ImageSet) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, labels in enumerate(images.labels):
        if labels is not None:
            rows.setdefault(class_of(labels), []).append(row)
    return rows


def class_of(labels: Labels) -> str:
    """All findings together, of a child or of an adult."""
    return f"{'child' if labels.child else 'adult'}: {', '.join(labels.findings)}"


def _pairs_of_class(images: ImageSet, inputs: Inputs, side: int) -> Estimate | None:
    chosen = images.part(_some(np.arange(len(images)), 64, inputs))
    return _ms_ssim(chosen, choose_pairs(len(chosen), MAX_PAIRS, inputs.seed), side)


def _ms_ssim(images: ImageSet, pairs: NDArray[np.intp], side: int) -> Estimate | None:
    """Mean similarity of pairs; None of fewer than three images."""
    rows, places = np.unique(pairs, return_inverse=True)
    if len(rows) < 3:
        return None
    thumbnails = read_thumbnails(images.part(rows).items, side)
    if len(thumbnails.images) < len(rows):
        return None
    return mean_ms_ssim(thumbnails.images, places.reshape(pairs.shape))
