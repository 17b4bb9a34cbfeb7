"""A small world to audit: children and adults, real ones of three splits, and made ones."""

import csv
import shutil
from pathlib import Path

import pytest
import torch
from small_world import FIELDS, KINDS, SIDE, make_set, picture, save

from gen.models.cxr_classifier import CXRClassifier
from gen.models.cxr_encoder import CXREncoder
from jobs.audit import fidelity, sensitivity


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`real` with manifest.csv, `made`, `encoder`, `classifier`, and `cache` for features."""
    root = tmp_path_factory.mktemp("world")
    (root / "real").mkdir()
    with (root / "real/manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, (*FIELDS, "prompt"))
        writer.writeheader()
        splits = [("train", 60), ("test", 208), ("val", 8)]
        for seed, (split, i) in enumerate((s, i) for s, count in splits for i in range(count)):
            source, findings, view, sex, prompt = KINDS[i % len(KINDS)]
            name = f"{source}/{split}{i}.png"
            save(root / "real" / name, picture(i % len(KINDS), seed))
            row = (name, split, findings, view, "", sex, f"{split}{i}", SIDE, SIDE, prompt)
            writer.writerow(dict(zip((*FIELDS, "prompt"), row, strict=True)))
    make_set(root / "made", 136, 1000)
    torch.manual_seed(0)
    CXREncoder(32, (8, 16, 16), 8).save_pretrained(root / "encoder")
    outputs = ("Normal", "Viral pneumonia", "Effusion", "female", "child", "PA")
    CXRClassifier(outputs, 32, (8, 16), 8).save_pretrained(root / "classifier")
    return root


@pytest.fixture(autouse=True)
def less_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of fewer images, and fewer pairs that are compared."""
    monkeypatch.setattr(sensitivity, "MAX_IMAGES", 72)
    monkeypatch.setattr(fidelity, "MAX_PAIRS", 12)


@pytest.fixture
def made(world: Path, tmp_path: Path) -> Path:
    """A copy of the made set to change."""
    shutil.copytree(world / "made", tmp_path / "made")
    return tmp_path / "made"
