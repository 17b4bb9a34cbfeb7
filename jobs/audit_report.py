"""An audit's figures as one self-contained HTML page."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gen.data.atomic import atomic_file

NAMES = {
    "frechet": "Fréchet distance",
    "kernel": "kernel distance (KID x 1000)",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "ms_ssim": "MS-SSIM",
    "spread": "feature spread",
    "vendi": "Vendi score",
    "copies": "rate of suspected copies",
}
READINGS = {
    "frechet": "Distance between the two clouds of features; at the floor, as close as other"
    " patients' images.",
    "kernel": "The same question without assuming Gaussians, unbiased for small sets.",
    "precision": "Share of synthetic images that fall among real ones. Low: unreal images.",
    "recall": "Share of real images that fall among synthetic ones. Low: kinds are missing.",
    "density": "As precision, but robust to outliers; above 1: crowded around typical images.",
    "coverage": "Share of real images with a synthetic one close by. Low: kinds are missing.",
}
LIMITS = (
    "Distances compare with one another inside one report, not with those of other encoders.",
    "Labels are as good as the real set's; text-mined ones are often wrong.",
    "No figure here says that an image is safe to diagnose from, or that a set is private.",
)


def summary(report: dict[str, Any]) -> list[str]:
    """What a reader in a hurry should know, a sentence each."""
    lines = []
    frechet = report["fidelity"]["overall"]["figures"]["frechet"]
    lines.append(
        f"Fidelity: the Fréchet distance is {frechet['value'] / frechet['floor']['value']:.1f}"
        " times its floor."
    )
    coverage = report["fidelity"]["overall"]["figures"]["coverage"]
    lines.append(
        f"Coverage: {100 * coverage['value']:.0f} % of real images have a synthetic one close by;"
        f" other real images reach {100 * coverage['floor']['value']:.0f} %."
    )
    copies = report["copies"]
    if "omitted" not in copies:
        lines.append(
            f"Copies: {len(copies['flagged'])} of {report['sets']['synthetic']['images']} images"
            " suspiciously near a training image"
            f" ({100 * copies['rate']['value']:.1f} %; held-out real images"
            f" {100 * copies['floor']['value']:.1f} %)."
        )
    judged = [row for row in report["alignment"].get("labels", {}).values() if row["generated"]]
    if judged:
        low = sum(row["generated"]["high"] < row["real"]["low"] for row in judged)
        lines.append(
            f"Alignment: of {len(judged)} labels that prompts asked for, {low} show clearly less"
            " than real images do."
        )
    return lines


def write_report(
    path: Path, report: dict[str, Any], pictures: dict[str, Any], plots: dict[str, Any]
) -> None:
    """Write the page.

    Args:
        path: of the HTML file; an older one is replaced.
        report: the content of audit.json.
        pictures: data URIs `synthetic`, `real`, `best`, `worst`, and `pairs` with captions.
        plots: data URIs `fidelity` (a list), `spectrum`, `confusion`, `copies`, or None.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("audit.html.jinja").render(
        {**report, "summary": summary(report), "names": NAMES, "readings": READINGS},
        limits=LIMITS,
        pictures=pictures,
        plots=plots,
    )
    with atomic_file(path, overwrite=True) as stream:
        stream.write(page.encode())
