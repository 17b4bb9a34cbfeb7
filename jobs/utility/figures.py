"""The figures of a run: of each share and arm, and by how much each arm exceeds real images."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from jobs.bars import Bars
from jobs.utility.arms import BOTH, CLASSICAL, MIXED, PRETRAINED, REAL
from jobs.utility.config import UtilityConfig
from jobs.utility.sets import Sets
from jobs.utility.trained import Answers, Share, draw_shares, train_arms, training_of

if TYPE_CHECKING:  # NumPy is imported when something is measured
    from gen.metrics.finding_figures import Key
    from gen.metrics.weighted import Floats
    from jobs.utility.classical import View

# beside each arm less `real`: what costs nothing is the rival, and RoentGen-v2's question
RIVALS = ((MIXED, CLASSICAL), (BOTH, CLASSICAL), (PRETRAINED, MIXED))


def measure_utility(
    config: UtilityConfig, sets: Sets, drawn: Bars, view: "View | None" = None
) -> dict[str, Any]:
    """Train all classifiers, judge them on `test` once, and give the figures as JSON holds them."""
    shares = draw_shares(config, sets)
    answers = train_arms(config, sets, shares, drawn, view)
    results = [
        _of_fraction(config, sets, fraction, shares, answers) for fraction in config.fractions
    ]
    return {
        "settings": _settings(config),
        "sets": {
            "train": _described(sets.train),
            "val": _described(sets.val),
            "test": _described(sets.test),
            "synthetic": {"images": len(sets.synthetic)},
        },
        "classes": _counts(sets),
        "too_few": sets.too_few,
        "results": results,
        "verdicts": [each for result in results for each in verdicts(result)],
        "omissions": sets.omissions,
    }


def _settings(config: UtilityConfig) -> dict[str, Any]:
    paths = {name: str(getattr(config, name)) for name in ("data", "synthetic", "out")}
    return {**asdict(config), **paths, "training": training_of(config).model_dump(mode="json")}


def _described(images: Any) -> dict[str, int]:
    return {"images": len(images), "patients": len(set(images.patients))}


def _counts(sets: Sets) -> dict[str, dict[str, int]]:
    """How many images show each class."""
    columns = {
        name: (getattr(sets, name).stated(sets.classes) == 1).sum(0)
        for name in ("train", "val", "test", "synthetic")
    }
    return {
        each: {name: int(counts[column]) for name, counts in columns.items()}
        for column, each in enumerate(sets.classes)
    }


def _of_fraction(
    config: UtilityConfig,
    sets: Sets,
    fraction: float,
    shares: Mapping[tuple[float, int], Share],
    answers: Mapping[tuple[float, str], Answers],
) -> dict[str, Any]:
    from gen.metrics.finding_figures import Judged, arm_figures, compared, thresholds_of

    test, stated = sets.test, sets.val.stated(sets.classes)
    judged = Judged(test.labels, test.patients, test.stated(sets.classes), sets.classes)
    draws = judged.draw(config.num_seeds, seed=config.seed)
    found = {}
    for arm in config.arms:
        each = answers[fraction, arm]
        found[arm] = arm_figures(each.test, thresholds_of(each.val, stated), judged, draws)
    pairs = [(arm, REAL) for arm in config.arms if arm != REAL]
    pairs += [pair for pair in RIVALS if set(pair) <= set(config.arms)]
    held = [shares[fraction, seed] for seed in config.seeds]
    return {
        "fraction": fraction,
        "images": round(sum(len(each.rows) for each in held) / len(held)),
        "patients": round(sum(each.num_patients for each in held) / len(held)),
        "arms": {arm: as_tree(figures) for arm, figures in found.items()},
        "gaps": {
            f"{one} - {other}": as_tree(compared(found[one], found[other])) for one, other in pairs
        },
    }


def as_tree(figures: "Mapping[Key, Floats]") -> dict[str, Any]:
    """Figures by their keys' parts, each with its interval."""
    from gen.metrics.crossed import estimate_of

    tree: dict[str, Any] = {}
    for key, draws in figures.items():
        branch = tree
        for part in key[:-1]:
            branch = branch.setdefault(part, {})
        branch[key[-1]] = asdict(estimate_of(draws))
    return tree


def verdicts(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each gap in macro AUROC, whether its interval says better, worse, or neither."""
    found = []
    for name, gap in result["gaps"].items():
        macro = gap["macro"]["auroc"]
        said = "better" if macro["low"] > 0 else "worse" if macro["high"] < 0 else "unclear"
        found.append({"fraction": result["fraction"], "gap": name, "verdict": said, **macro})
    return found
