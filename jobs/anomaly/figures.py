"""The figures asked of a detector: of planted lesions, of healthy images and of boxed ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.anomaly.sets import BoxedSet, Sets

if TYPE_CHECKING:  # torch is imported when something is measured
    import numpy as np
    from numpy.typing import NDArray

    from gen.anomaly.detections import Detections
    from gen.metrics.anomaly import MaskRule
    from gen.metrics.weighted import Figure

    Maps = Mapping[str, NDArray[np.floating]]

MIN_AREA = 0.001  # of the map: a smaller component touches no box


@dataclass(frozen=True)
class Asked:
    """A figure of some images, whose they are, and their groups: see `bootstrap`."""

    figure: "Figure"
    patients: list[str]
    groups: list[int] | None = None


def planted_figures(
    sets: Sets,
    maps: "Maps",
    found: "Mapping[str, Detections]",
    threshold: float,
    rule: "MaskRule",
) -> dict[str, Asked]:
    """Of planted lesions, and of what is left of healthy images."""
    from gen.metrics.anomaly import shrink
    from gen.metrics.anomaly_healing import healing, restoration
    from gen.metrics.anomaly_pixels import (
        aupro,
        average_precision,
        best_dice,
        count_pixels,
        dice_at,
    )
    from gen.metrics.weighted import mean_of

    planted = sets.planted
    covered = shrink(planted.masks, maps["planted"].shape[-1])
    counts = count_pixels(maps["planted"], covered, rule)
    healed = healing(
        planted.originals, planted.lesioned.images, found["planted"].healthy, planted.masks
    )
    kept = restoration(sets.healthy.images, found["healthy"].healthy)
    figures = {
        "average_precision": average_precision(counts),
        "aupro": aupro(counts),
        "best_dice": best_dice(counts),
        "dice_at_healthy_threshold": dice_at(maps["planted"], covered, threshold, rule),
        "healing": mean_of(healed),
    }
    return {
        **{what: Asked(figure, planted.lesioned.patients) for what, figure in figures.items()},
        "restoration": Asked(mean_of(kept), sets.healthy.patients),
        "auroc_planted": _auroc(
            maps["planted"], maps["healthy"], planted.lesioned.patients, sets.healthy.patients
        ),
    }


def boxed_figures(
    sets: Sets,
    boxed: BoxedSet,
    maps: "Maps",
    threshold: float,
) -> dict[str, Asked]:
    """Of images with boxes, each hit rate beside what it is by habit."""
    import numpy as np

    from gen.metrics.anomaly_boxes import boxes_touched, hits_elsewhere, points_at_box
    from gen.metrics.weighted import mean_of, ratio_of

    side = maps["boxed"].shape[-1]
    boxes = [each * side / boxed.examined.images.shape[-1] for each in boxed.boxes]
    counts = np.array([len(each) for each in boxes])
    min_area = max(1, round(MIN_AREA * side**2))
    beside = maps["healthy"][sets.peers]
    pointed, touched = hits_elsewhere(beside, boxes, threshold, min_area)
    here = boxes_touched(maps["boxed"], boxes, threshold, min_area)
    figures = {
        "pointing": mean_of(points_at_box(maps["boxed"], boxes)),
        "pointing_by_habit": mean_of(pointed),
        "boxes_touched": ratio_of(here, counts),
        "boxes_touched_by_habit": ratio_of(touched, counts),
    }
    patients = [sets.healthy.patients[row] for row in np.flatnonzero(sets.peers)]
    return {
        **{what: Asked(figure, boxed.examined.patients) for what, figure in figures.items()},
        "auroc_boxed": _auroc(maps["boxed"], beside, boxed.examined.patients, patients),
    }


def _auroc(
    diseased: "NDArray[np.floating]",
    healthy: "NDArray[np.floating]",
    diseased_patients: list[str],
    healthy_patients: list[str],
) -> Asked:
    import numpy as np

    from gen.metrics.anomaly import auroc, image_scores

    scores = np.concatenate([image_scores(diseased), image_scores(healthy)])
    groups = [1] * len(diseased) + [0] * len(healthy)
    figure = auroc(scores, np.array(groups, bool))
    return Asked(figure, diseased_patients + healthy_patients, groups)
