"""An audit as two files: figures for programs, one self-contained page for people."""

import json
from pathlib import Path
from typing import Any

from gen.data.atomic import atomic_file
from jobs.audit.schema import Audit
from jobs.pages import write_page

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
    "followed": "rank in what was asked for",
    "copies": "rate of suspected copies",
    "detail": "detail (power spectrum)",
    "auroc": "AUROC of a finding",
}
READINGS = {
    "frechet": "Distance between the two clouds of features; at the floor, as close as other"
    " patients' images.",
    "kernel": "The same question without assuming Gaussians, unbiased for small sets.",
    "precision": "Share of synthetic images that fall among real ones. Low: unreal images.",
    "recall": "Share of real images that fall among synthetic ones. Low: kinds are missing.",
    "density": "As precision, but robust to outliers; above 1: crowded around typical images.",
    "coverage": "Share of real images with a synthetic one close by. Low: kinds are missing.",
    "spread": "Mean distance of two images' features. Below the floor: they differ too little.",
    "vendi": "Number of effectively different images. Below the floor: they repeat themselves.",
}
LIMITS = (
    "Distances compare with one another inside one report, not with those of other encoders.",
    "Labels are as good as the real set's; text-mined ones are often wrong.",
    "Only images were looked at: what a model itself betrays of its training images is asked by"
    " `medphantom evaluate membership` and `reidentification`.",
    "No figure here says that an image is safe to diagnose from, or that a set is private.",
)


def summary(report: dict[str, Any]) -> list[str]:
    """What a reader in a hurry should know of audit.json's content, a sentence each."""
    parts = (_fidelity, _diversity, _alignment, _copies, _fairness)
    return [line for part in parts for line in part(report)]


def _fidelity(report: dict[str, Any]) -> list[str]:
    overall = report["fidelity"]["overall"]
    if "omitted" in overall:
        return [f"Fidelity: not measured; {overall['omitted']}."]
    frechet, coverage = (overall["figures"][name] for name in ("frechet", "coverage"))
    return [
        f"Fidelity: the Fréchet distance is {frechet['value']:.3g}, its floor"
        f" {frechet['floor']['value']:.3g} ({frechet['value'] / frechet['floor']['value']:.1f}"
        " times).",
        f"Coverage: {coverage['value']:.0%} of real images have a synthetic one close by; other"
        f" real images reach {coverage['floor']['value']:.0%}.",
    ]


def _diversity(report: dict[str, Any]) -> list[str]:
    groups = report["diversity"]["prompt"]
    if "omitted" in groups:
        return []
    name, group = list(groups.items())[-1]  # all classes together, or the only one
    alike = group["figures"]["ms_ssim"]
    if not alike["floor"]:
        return []
    return [
        f"Diversity: two images of one prompt ({name}) have an MS-SSIM of {alike['value']:.2f}, two"
        f" real images of its class {alike['floor']['value']:.2f}."
    ]


def _alignment(report: dict[str, Any]) -> list[str]:
    judged = [row for row in report["alignment"].get("labels", {}).values() if row["real"]]
    if not judged:
        return []
    low = sum(row["generated"]["high"] < row["real"]["low"] for row in judged)
    return [
        f"Alignment: of {len(judged)} labels that prompts asked for, {low} stand out clearly less"
        " than in real images."
    ]


def _copies(report: dict[str, Any]) -> list[str]:
    copies = report["copies"]
    if "omitted" in copies:
        return [f"Copies: not searched for; {copies['omitted']}."]
    return [
        f"Copies: {len(copies['flagged'])} of {report['sets']['synthetic']['images']} images"
        f" suspiciously near a {'training' if copies['searched'] == 'train' else 'real'} image"
        f" ({copies['rate']['value']:.1%}; held-out real images {copies['floor']['value']:.1%})."
    ]


def _fairness(report: dict[str, Any]) -> list[str]:
    sure = [
        f"{NAMES[name]} by {axis} (worst: {gap['worst']})"
        for axis, gaps in report["fairness"].items()
        if "omitted" not in gaps
        for name, gap in gaps.items()
        if name in ("frechet", "coverage", "followed", "copies") and gap["low"] > 0
    ]
    return [
        f"Fairness: clear gaps in {', '.join(sure) or 'none of the figures that were looked at'}."
    ]


def write_json(path: Path, audit: Audit) -> None:
    """Write audit.json; an older one is replaced."""
    with atomic_file(path, overwrite=True) as stream:
        stream.write(json.dumps(audit.as_json(), indent=1, ensure_ascii=False).encode())


def write_report(path: Path, audit: Audit, pictures: dict[str, Any], plots: dict[str, Any]) -> None:
    """Write the page.

    Args:
        path: of the HTML file; an older one is replaced.
        audit: the figures.
        pictures: data URIs `synthetic`, `real`, `best`, `worst`, and `pairs` with captions.
        plots: data URIs `fidelity` (a list), `spectrum`, `confusion`, `copies`, or None.
    """
    report = audit.as_json()
    values = {**report, "summary": summary(report), "names": NAMES, "readings": READINGS}
    values |= {"limits": LIMITS, "pictures": pictures, "plots": plots}
    write_page(path, Path(__file__).parent / "page.html.jinja", values)
