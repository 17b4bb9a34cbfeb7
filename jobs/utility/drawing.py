"""The plots and pictures of a run's page, as data URIs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.plots import FLOOR, INK, forest, png, sheet, start
from jobs.utility.arms import ARMS, CLASSICAL, MIXED, NAMES, PRETRAINED, REAL, SYNTHETIC

if TYPE_CHECKING:
    from jobs.utility.sets import Sets

NUM_PICTURES = 12
COLOURS = {
    REAL: INK, SYNTHETIC: "#b3261e", MIXED: "#0b6e99", CLASSICAL: "#8a6d00",
    PRETRAINED: "#5b3f95",
}  # fmt: skip
_OTHER = "#3a7d44"


def pictures(sets: "Sets") -> dict[str, str]:
    """Some images of both kinds, drawn at random."""
    rng = np.random.default_rng(0)
    found = {}
    for name, images in (("synthetic", sets.synthetic), ("real", sets.train)):
        rows = rng.permutation(len(images))[:NUM_PICTURES]
        found[name] = sheet(images.pixels[rows, 0].numpy(), min(6, len(rows)), 96)
    return found


def plots(figures: dict[str, Any]) -> dict[str, Any]:
    """Data URIs: `curve`, `gaps` and `classes` (a list, one a share), and `missed` by share."""
    results = figures["results"]
    return {
        "curve": curve(results, "auroc", "macro AUROC on held-out patients"),
        "gaps": [_gaps(each) for each in results],
        "classes": [_classes(each) for each in results],
        "missed": [_missed(each) for each in results],
    }


def curve(results: Sequence[dict[str, Any]], figure: str, title: str) -> str:
    """A macro figure of each arm over shares, with intervals side by side."""
    drawn, axes = start(6.4, 3.4)
    arms = [arm for arm in ARMS if arm in results[0]["arms"]]
    for place, arm in enumerate(arms):
        values = [each["arms"][arm]["macro"][figure] for each in results]
        across = np.arange(len(results)) + (place - (len(arms) - 1) / 2) * 0.09
        middle = np.array([each["value"] for each in values])
        reach = np.array([[v["value"] - v["low"], v["high"] - v["value"]] for v in values]).T
        colour = COLOURS.get(arm, _OTHER)
        axes.errorbar(
            across, middle, np.maximum(reach, 0), color=colour, marker="o", ms=4, lw=1.2,
            elinewidth=1, label=NAMES[arm],
        )  # fmt: skip
    labels = [f"{each['fraction']:.0%}\n{each['patients']} patients" for each in results]
    axes.set_xticks(range(len(results)), labels)
    axes.set_title(title, loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return png(drawn)


def _title(result: dict[str, Any], what: str) -> str:
    return f"{what}, {result['fraction']:.0%} of the patients"


def _gaps(result: dict[str, Any]) -> str:
    rows = [
        (NAMES[name.removesuffix(f" - {REAL}")], gap["macro"]["auroc"])
        for name, gap in result["gaps"].items()
        if name.endswith(f" - {REAL}")
    ]
    return forest(rows, _title(result, "macro AUROC less that of real only"), zero=True)


def _classes(result: dict[str, Any]) -> str:
    """Of the arm that mixes, or of the first there is."""
    names = [name for name in result["gaps"] if name.endswith(f" - {REAL}")]
    chosen = f"{MIXED} - {REAL}" if f"{MIXED} - {REAL}" in names else names[0]
    rows = [(name, each["auroc"]) for name, each in result["gaps"][chosen]["classes"].items()]
    arm = NAMES[chosen.removesuffix(f" - {REAL}")]
    return forest(rows, _title(result, f"AUROC by class, less real only:\n{arm}"), zero=True)


def _missed(result: dict[str, Any]) -> str | None:
    """The share of the ill that are called normal, by group and arm."""
    arms = result["arms"]
    groups = [name for name, each in arms[REAL].get("groups", {}).items() if "missed" in each]
    if not groups:
        return None
    drawn, axes = start(6.4, 2.8)
    width = 0.8 / len(arms)
    for place, (arm, found) in enumerate(arms.items()):
        values = [found["groups"][group]["missed"] for group in groups]
        reach = np.array([[v["value"] - v["low"], v["high"] - v["value"]] for v in values]).T
        axes.bar(
            np.arange(len(groups)) + (place - (len(arms) - 1) / 2) * width,
            [each["value"] for each in values], width, yerr=np.maximum(reach, 0),
            color=COLOURS.get(arm, _OTHER), alpha=0.8, ecolor=FLOOR, label=NAMES[arm],
        )  # fmt: skip
    axes.set_xticks(range(len(groups)), groups)
    axes.set_title(_title(result, "share of the ill called normal"), loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return png(drawn)
