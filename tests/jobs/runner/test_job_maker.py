"""What the maker hands to gates, and what it does with their verdicts."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from job_process import write_prompts
from PIL import Image
from torch import Tensor

from gen.data.samples import read_tar
from gen.gates.gate import Subject, Verdict
from gen.types import ModelCall, Process
from jobs.runner.freeze import freeze
from jobs.runner.ledger import SHARDS, tar_file
from jobs.runner.maker import Maker
from jobs.runner.rejected import Rejected
from jobs.runner.spec import Job, checked


class Bright:
    """Lets pass what a network finds brighter than a half: about every second picture."""

    name = "bright"

    def __init__(self) -> None:
        self.seen: list[Subject] = []
        self.networks = {"bright": lambda image: image.mean((1, 2, 3), keepdim=False)[:, None]}

    def judge(self, image: Tensor, about: Subject) -> Process[Verdict]:
        self.seen.append(about)
        score = float((yield ModelCall("bright", (image,))))
        passed = score > 0.5
        return Verdict(self.name, passed, score, 0.5, None if passed else "too dark")


def made(tmp_path: Path, gate: Bright, **fields: Any) -> tuple[Job, Any]:
    (tmp_path / "out" / SHARDS).mkdir(parents=True)
    spec = checked({"out": str(tmp_path / "out"), **fields})
    job = freeze(spec, tmp_path / "out")
    maker = Maker(tmp_path / "out", job, lambda *_: [gate], threads=1)
    note = maker.make(0)
    maker.close()
    return job, note


def test_refused_images_are_made_again_with_other_seeds_or_given_up(tmp_path: Path) -> None:
    manifest = {"path": str(write_prompts(tmp_path, 40))}
    _, note = made(tmp_path, Bright(), task="null", model="null", manifest=manifest, max_attempts=2)
    samples = list(read_tar(tar_file(tmp_path / "out", 0)))
    tries = {each.id: len(each.attempts) for each in note.judged}
    assert {1, 2} == set(tries.values())
    assert len(samples) == note.num_made == 40 - note.num_failed
    assert 0 < note.num_failed < 20
    for failure in note.failures:
        assert failure.attempts == 2
        assert failure.reason == "given up after 2 attempts; the last one: bright: too dark"
    for sample in samples:
        assert sample.meta["attempts"] == tries[sample.meta["id"]]
        (verdict,) = sample.meta["gates"]
        assert verdict["passed"]
    again = [each for each in note.judged if len(each.attempts) == 2]
    assert all(first[0]["score"] != second[0]["score"] for first, second in
               (each.attempts for each in again))  # fmt: skip


@pytest.mark.parametrize(("rows", "shard_size", "most"), [(40, 20, 6), (40, 2, 1)])
def test_a_few_refused_pictures_of_shards_all_over_are_kept(
    rows: int, shard_size: int, most: int, tmp_path: Path
) -> None:
    manifest = {"path": str(write_prompts(tmp_path, rows))}
    fields = {"task": "null", "model": "null", "manifest": manifest, "shard_size": shard_size}
    _, note = made(tmp_path, Bright(), **fields)
    kept = list((tmp_path / "out/rejected").glob("*.png"))
    refused = [each for each in note.judged if not each.attempts[0][0]["passed"]]
    assert len(kept) == min(most, len(refused))
    for path in kept:
        with Image.open(path) as picture:
            assert picture.text["Synthetic"] == "YES"
            assert np.asarray(picture).mean() <= 128


def test_shards_that_keep_refused_pictures_are_spread(tmp_path: Path) -> None:
    for num_shards in (1, 5, 12, 13, 24, 1000):
        job = cast("Job", SimpleNamespace(num_shards=num_shards))
        all_ = [Rejected(tmp_path, job, shard) for shard in range(num_shards)]
        keeping = [shard for shard, each in enumerate(all_) if not each.full]
        assert keeping[0] == 0
        assert keeping[-1] >= num_shards - -(-num_shards // 12)
        assert len(keeping) <= 12


def test_the_seed_kept_is_that_of_the_accepted_attempt(tmp_path: Path) -> None:
    manifest = {"path": str(write_prompts(tmp_path, 20))}
    made(tmp_path, Bright(), task="null", model="null", manifest=manifest)
    for sample in read_tar(tar_file(tmp_path / "out", 0)):
        generator = torch.Generator().manual_seed(sample.meta["seed"])
        picture = torch.randn(1, 1, 32, 32, generator=generator)
        network = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
        torch.nn.init.constant_(network.weight, -0.02)
        with torch.no_grad():
            for _ in range(4):
                picture = picture + network(picture)
        score = sample.meta["gates"][0]["score"]
        assert float(picture.sigmoid().mean()) == pytest.approx(score, abs=1e-6)


def test_an_augmented_row_brings_its_picture_labels_and_source(
    tiny_model: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
    coarse.resize((128, 128), Image.Resampling.BICUBIC).save(tmp_path / "1.png")
    row = {"image": "1.png", "labels": ["Pneumonia"], "sex": "F", "patient_id": "p1"}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    gate = Bright()
    params = {"operation": "vary", "num_inference_steps": 2, "strength": 1}
    manifest = {"path": str(tmp_path / "t.jsonl")}
    made(tmp_path, gate, task="augment", model=tiny_model, params=params, manifest=manifest)
    about = gate.seen[0]
    assert (about.labels, about.source, about.patient) == (("Pneumonia",), "1.png", "p1")
    assert about.group["sex"] == "female"
    assert about.source_image is not None
    assert about.source_image.shape == (1, 1, 128, 128)
    for sample in read_tar(tar_file(tmp_path / "out", 0)):
        assert sample.meta["operation"] == "vary"
        assert sample.meta["source_sha256"] == sample.meta["record"]["source_sha256"]
