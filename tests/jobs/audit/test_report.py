"""The page of an audit: whole in one file, each figure beside its floor, and nothing unescaped."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs import plots as drawing
from jobs.audit import plots
from jobs.audit.report import summary, write_report
from jobs.audit.schema import Audit

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (6, 32, 32), np.uint8)


def figure(value: float, floor: float | None = None) -> dict[str, Any]:
    """A figure as audit.json holds it."""
    own = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return own | {"floor": None if floor is None else interval(floor)}


def interval(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def group(**figures: dict[str, Any]) -> dict[str, Any]:
    return {"images": 6, "real": 9, "size": 3, "figures": figures}


@pytest.fixture
def report() -> dict[str, Any]:
    """A small audit."""
    why = {"omitted": "too few"}
    label = {"num_positive": 3, "num_images": 6, "num_real_positive": 5}
    return {
        "software": "medphantom",
        "encoder": "cxr-encoder-mini",
        "sets": {
            "synthetic": {"name": "<i>set</i>", "images": 6},
            "real": {"name": "real", "images": 9, "patients": 5},
            "train": {"name": "train", "images": 20, "patients": 11},
        },
        "fidelity": {
            "overall": group(frechet=figure(6, 2), coverage=figure(0.4, 0.9)),
            "groups": {"sex": {"male": group(frechet=figure(5, 2)), "female": why}},
            "spectrum": {"adult": [1.0, 0.8, 0.5]},
        },
        "diversity": {
            "overall": group(vendi=figure(4, 5)),
            "prompt": {"adult: Mass": group(ms_ssim=figure(0.55, 0.4))},
            "class": {"omitted": "no class is shared"},
            "groups": {},
        },
        "alignment": {
            "classifier": "judge",
            "labels": {
                "Effusion among adults": label | {"generated": interval(0.6), "real": interval(0.9)}
            },
            "too_few": ["Mass among adults: 1 of 6"],
            "phrases": {},
            "confusion": {"rows": ["Mass (3)"], "columns": ["Mass"], "mean_rank": [[0.9]]},
            "followed": why,
            "image_text": why,
        },
        "copies": {
            "flagged": ["a.png"], "rate": interval(0.17), "floor": interval(0.01),
            "threshold": interval(0.6), "false_alarm_rate": 0.01, "held_out": 9,
            "searched": "train", "tried": "features and pixels", "pairs": [],
            "planted": {"flip": interval(0.95) | {"images": 40}},
            "histogram": {"edges": [0, 1, 2], "synthetic": [0.5, 0.5], "real": [1, 0]},
        },
        "fairness": {
            "sex": {"frechet": interval(1.5) | {"best": "male", "worst": "female"}},
            "view": {"omitted": "only one view"},
        },
        "sensitivity": {
            "images": 9,
            "harms": {
                "blur": {
                    "strengths": [0, 1], "figures": {"detail": [0, 2], "frechet": [0, 1]},
                    "monotonic": {"detail": 1, "frechet": 1}, "moves": ["detail", "frechet"],
                    "noticed": ["detail"],
                }
            },
        },
        "omissions": ["2 files could not be read"],
    }  # fmt: skip


def write(path: Path, report: dict[str, Any], **drawn: Any) -> str:
    sheet = drawing.sheet(PICTURES, 3, 16)
    pictures = {"synthetic": sheet, "real": sheet, "best": sheet, "worst": sheet, "pairs": []}
    nothing = {"fidelity": [], "spectrum": None, "confusion": None, "copies": None}
    audit = Audit.model_validate(report)
    write_report(path, audit, pictures | drawn.pop("pictures", {}), nothing | drawn)
    return path.read_text()


def test_the_page_stands_alone_and_gives_every_figure(
    report: dict[str, Any], tmp_path: Path
) -> None:
    pair = {"picture": drawing.pair(PICTURES[0], PICTURES[1]), "caption": "a.png"}
    page = write(
        tmp_path / "audit.html",
        report,
        pictures={"pairs": [pair]},
        fidelity=[drawing.forest([("overall", figure(6, 2)), ("men", figure(5))], "Fréchet"), None],
        spectrum=plots.spectrum(report["fidelity"]["spectrum"]),
        confusion=plots.confusion(
            np.array([[0.9, 0.5], [0.2, 0.7]]), ["Mass", "Nodule"], ["Mass", "Nodule"]
        ),
        copies=plots.histogram(report["copies"]["histogram"], 3.0, "similarity"),
    )
    assert set(re.findall(r'(?:src|href)="([a-z]+):', page)) == {"data"}
    assert page.count("<img") == 4 + 1 + 4  # sheets, a pair, plots
    assert "&lt;i&gt;set" in page
    assert "<i>set" not in page
    for text in ("Fréchet distance", "6 <span", "2 <span", "only one view", "could not be read"):
        assert text in page
    assert "<b>detail (power spectrum)</b>" in page
    assert "<b>Fréchet distance</b>" not in page


def test_the_summary_compares_with_the_floor(report: dict[str, Any]) -> None:
    lines = summary(Audit.model_validate(report).as_json())
    for line, text in zip(
        lines,
        (
            "6, its floor 2 (3.0 times)",
            "40% of real images have a synthetic one close by; other real images reach 90%",
            "(adult: Mass) have an MS-SSIM of 0.55, two real images of its class 0.40",
            "1 stand out clearly less",
            "1 of 6 images suspiciously near a training image (17.0%; held-out real images 1.0%)",
            "clear gaps in Fréchet distance by sex (worst: female)",
        ),
        strict=True,
    ):
        assert text in line


def test_a_page_of_omissions_says_each_of_them(report: dict[str, Any], tmp_path: Path) -> None:
    why = {"omitted": "there are too few"}
    report["fidelity"] = {"overall": why, "groups": {}, "spectrum": why}
    report["diversity"] = {"overall": why, "prompt": why, "class": why, "groups": {}}
    report |= {"alignment": why, "copies": why, "sensitivity": why, "fairness": {"sex": why}}
    page = write(tmp_path / "audit.html", report)
    assert page.count("there are too few") == 2 + 2 + 3 + 1 + 1 + 1 + 1
    assert summary(Audit.model_validate(report).as_json())[0].startswith("Fidelity: not measured")


def test_a_sheet_holds_the_pictures_in_their_places() -> None:
    flat = np.stack([np.full((8, 8), level, np.uint8) for level in (0, 120, 240)])
    data = base64.b64decode(drawing.sheet(flat, 2, 16).split(",")[1])
    pixels = np.asarray(Image.open(io.BytesIO(data), formats=("JPEG",)))
    assert pixels.shape == (32, 32)
    assert [pixels[8, 8], pixels[8, 24], pixels[24, 8]] == pytest.approx([0, 120, 240], abs=6)
