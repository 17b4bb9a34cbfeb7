"""The page of an audit: whole in one file, each figure beside its floor, and nothing unescaped."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jinja2 import UndefinedError

from jobs import audit_plots
from jobs.audit_report import summary, write_report

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (6, 32, 32), np.uint8)


def figure(value: float, floor: float | None = None) -> dict[str, Any]:
    """A figure as audit.json holds it."""
    own = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return own | {"floor": None if floor is None else figure(floor) | {"floor": None}}


@pytest.fixture
def report() -> dict[str, Any]:
    """A small audit."""
    group = {"images": 6, "figures": {"ms_ssim": figure(0.5, 0.4)}}
    return {
        "sets": {
            "synthetic": {"name": "<i>set</i>", "images": 6},
            "real": {"images": 9, "patients": 5},
            "train": {"images": 20},
        },
        "encoder": "cxr-encoder-mini",
        "software": "medphantom",
        "fidelity": {
            "overall": {"figures": {"frechet": figure(6, 2), "coverage": figure(0.4, 0.9)}}
        },
        "diversity": {"class": {"Normal": group}},
        "alignment": {
            "labels": {
                "Effusion": {
                    "generated": figure(0.6), "real": figure(0.9),
                    "num_positive": 3, "num_images": 6,
                }
            }
        },
        "copies": {
            "flagged": ["a.png"], "rate": figure(0.17), "floor": figure(0.01),
            "false_alarm_rate": 0.01, "tried": "features and pixels",
            "planted": {"flip": figure(0.95) | {"images": 40}},
        },
        "fairness": {
            "sex": {"frechet": figure(1.5) | {"best": "male", "worst": "female"}},
            "view": {"omitted": "only one view"},
        },
        "omissions": ["2 files could not be read"],
    }  # fmt: skip


def test_the_page_stands_alone_and_gives_every_figure(
    report: dict[str, Any], tmp_path: Path
) -> None:
    rows = [("overall", figure(6, 2)), ("men", figure(5))]
    scores = {"synthetic": RNG.normal(size=50), "real": RNG.normal(size=50)}
    plots = {
        "fidelity": [audit_plots.forest(rows, "Fréchet distance")],
        "spectrum": audit_plots.spectrum({"all": [1.0, 0.8, 0.5]}),
        "confusion": audit_plots.confusion(
            np.array([[0.9, 0.5], [0.2, 0.7]]), ["Mass", "Nodule"], ["Mass", "Nodule"]
        ),
        "copies": audit_plots.histogram(scores, 3.0, "similarity"),
    }
    sheet = audit_plots.sheet(PICTURES, 3, 16)
    pair = {"picture": audit_plots.pair(PICTURES[0], PICTURES[1]), "caption": "a.png"}
    pictures = {"synthetic": sheet, "real": sheet, "best": sheet, "worst": None, "pairs": [pair]}
    write_report(tmp_path / "audit.html", report, pictures, plots)
    page = (tmp_path / "audit.html").read_text()
    assert set(re.findall(r'(?:src|href)="([a-z]+):', page)) == {"data"}
    assert page.count("<img") == 4 + 1 + 4  # sheets, a pair, plots
    assert "&lt;i&gt;set" in page
    assert "<i>set" not in page
    for text in ("Fréchet distance", "6 <span", "2 <span", "only one view", "could not be read"):
        assert text in page


def test_the_summary_compares_with_the_floor(report: dict[str, Any]) -> None:
    lines = summary(report)
    assert "3.0 times its floor" in lines[0]
    assert "40 %" in lines[1]
    assert "90 %" in lines[1]
    assert "1 of 6 images suspiciously near" in lines[2]
    assert "1 show clearly less" in lines[3]


def test_a_figure_that_is_missing_is_no_blank(report: dict[str, Any], tmp_path: Path) -> None:
    del report["diversity"]["class"]["Normal"]["figures"]["ms_ssim"]["low"]
    with pytest.raises((UndefinedError, TypeError)):
        write_report(tmp_path / "audit.html", report, {}, {})
    assert not (tmp_path / "audit.html").exists()


def test_a_sheet_holds_the_pictures_in_their_places() -> None:
    import base64
    import io

    from PIL import Image

    flat = np.stack([np.full((8, 8), level, np.uint8) for level in (0, 120, 240)])
    data = base64.b64decode(audit_plots.sheet(flat, 2, 16).split(",")[1])
    pixels = np.asarray(Image.open(io.BytesIO(data), formats=("JPEG",)))
    assert pixels.shape == (32, 32)
    assert [pixels[8, 8], pixels[8, 24], pixels[24, 8]] == pytest.approx([0, 120, 240], abs=6)
