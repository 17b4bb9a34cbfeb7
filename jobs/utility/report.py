"""A run as one self-contained page for people, and in short."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.pages import write_page
from jobs.utility.arms import NAMES, REAL

if TYPE_CHECKING:
    from jobs.utility.sets import Sets

LIMITS = (
    "If the generator was trained on the same `train` images, it has seen all of them: with a small"
    " share of labels, the arms with synthetic images know more than those without.",
    "A small network at low resolution was trained; larger ones may gain more or less.",
    "An interval covers that other patients might have been held out and other seeds and shares"
    " drawn, not another synthetic set of the same generator. With few seeds it is too narrow.",
    "Of twenty gaps that are none, one has an interval without zero by chance.",
    "Labels are as good as the collection's; text-mined ones are often wrong.",
    "No figure here says that a classifier, or an image, is safe to diagnose with.",
)
FIGURES = {"auroc": "AUROC", "average_precision": "average precision", "accuracy": "accuracy"}


def said(number: float) -> str:
    """A gap with its sign."""
    return f"{number:+.3f}"


def gap_name(name: str) -> str:
    """A gap in words."""
    one, other = name.split(" - ")
    return f"{NAMES[one]}, less {NAMES[other]}"


def summary(figures: dict[str, Any]) -> list[str]:
    """What a reader in a hurry should know, a sentence each."""
    gaps = [each for each in figures["verdicts"] if each["gap"].endswith(f" - {REAL}")]
    clear = {
        kind: [each for each in gaps if each["verdict"] == kind] for kind in ("better", "worse")
    }
    lines = [
        f"Of {len(gaps)} comparisons with real images only, macro AUROC is clearly higher in"
        f" {len(clear['better'])} and clearly lower in {len(clear['worse'])}; the others cannot be"
        " told from no change."
    ]
    for kind, word in (("better", "higher"), ("worse", "lower")):
        lines += [
            f"{NAMES[each['gap'].removesuffix(f' - {REAL}')].capitalize()}: {word} by"
            f" {said(each['value'])} [{said(each['low'])}, {said(each['high'])}] with"
            f" {each['fraction']:.0%} of the patients."
            for each in clear[kind]
        ]
    if figures["too_few"]:
        names = ", ".join(
            f"{each['class']} ({each['test_patients_with']})" for each in figures["too_few"]
        )
        lines.append(f"Too few test patients to judge, and in no mean: {names}.")
    return lines


def write_report(path: Path, figures: dict[str, Any], sets: "Sets") -> None:
    """Write the page; an older one is replaced."""
    from jobs.utility import drawing

    values = {
        **figures,
        "summary": summary(figures),
        "limits": LIMITS,
        "arms": NAMES,
        "figure_names": FIGURES,
        "gap_name": gap_name,
        "pictures": drawing.pictures(sets),
        "plots": drawing.plots(figures),
    }
    write_page(path, Path(__file__).parent / "page.html.jinja", values)
