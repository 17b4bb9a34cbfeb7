"""A calibration of a tiny model: what is kept in its card, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gen.errors import InvalidInput
from gen.guidance.minority import MinorityCalibration, ScoreSettings
from gen.store.card import read_card, write_card
from gen.store.catalogue import resolve
from jobs import minority_calibration
from jobs.bars import bars
from jobs.cli import app
from jobs.minority_calibration import CalibrationConfig, kept_scores, measure, rising
from jobs.minority_scores import ScoresConfig, score_images
from pipelines.minority import MinoritySampling


@pytest.fixture
def scores(chests: Path, tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model's scores of the pictures."""
    table = tmp_path / "scores.csv"
    config = ScoresConfig(chests, table, str(tiny_folder), distance="latent", num_draws=1)
    with bars() as drawn:
        score_images(config, drawn)
    return table


def add_card(folder: Path) -> None:
    write_card(
        folder, id="tiny", task="text-to-image", modality="DX", image_size=16,
        pixel_range=(-1.0, 1.0), channels=3, licence="CC0-1.0", training_data=(), recipe="none",
        device="cpu", images_seen=0, evaluation={}, calibration={"kept": 1}, limits=("random",),
    )  # fmt: skip


def test_the_card_says_which_strength_reaches_which_level(
    chests: Path, scores: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_card(tiny_folder)
    strengths = {"boost_and_skip": (1.0, 1.5), "self_guided": (0.0, 0.5), "classifier": (0.0,)}
    monkeypatch.setattr(minority_calibration, "LEAST_RANGE", -1.0)  # of random networks none rises
    monkeypatch.setattr(minority_calibration, "STRENGTHS", {**strengths, "prompt": (0.0, 0.1)})
    arguments = ["--data", str(chests), "--scores", str(scores), "--model", str(tiny_folder)]
    arguments = ["train", "minority-calibration", "--split", "train", "--steps", "4", *arguments]
    few = CliRunner().invoke(app, [*arguments, "-n", "9"])
    assert few.exit_code == 2
    assert "has only 8 prompts" in few.stderr
    done = CliRunner().invoke(app, [*arguments, "-n", "8"])
    assert done.exit_code == 0, done.output
    resolve(tiny_folder).check()  # hashes are still those of the files
    card = read_card(tiny_folder)
    assert card is not None
    assert card.calibration["kept"] == 1
    calibration = MinorityCalibration.model_validate(card.calibration["minority"])
    # the model has no classifier
    assert set(calibration.strengths) == {"boost_and_skip", "self_guided", "prompt"}
    assert calibration.strengths["boost_and_skip"][0][1] == 1.0
    # doing nothing reaches the same level by any method
    plain = {pairs[0][0] for pairs in calibration.strengths.values()}
    assert max(plain) - min(plain) < 0.15
    assert json.loads(done.stdout)["strengths"].keys() == calibration.strengths.keys()
    monkeypatch.setattr(minority_calibration, "STRENGTHS", {"boost_and_skip": (1.0,)})
    again = CliRunner().invoke(app, [*arguments, "-n", "8", "--method", "boost_and_skip"])
    strengths_again = json.loads(again.stdout)["strengths"]
    assert len(strengths_again["boost_and_skip"]) == 1
    assert strengths_again["prompt"] == [list(pair) for pair in calibration.strengths["prompt"]]


def test_what_cannot_be_calibrated_is_refused(
    chests: Path, scores: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    arguments = ["train", "minority-calibration", "--data", str(chests)]
    bare = CliRunner().invoke(
        app, [*arguments, "--scores", str(scores), "--model", str(tiny_folder)]
    )
    assert bare.exit_code == 2
    assert "has no card" in bare.stderr
    add_card(tiny_folder)
    scores.with_suffix(".json").unlink()
    alone = CliRunner().invoke(
        app, [*arguments, "--scores", str(scores), "--model", str(tiny_folder)]
    )
    assert alone.exit_code == 2
    assert "train minority-scores" in alone.stderr
    empty = tmp_path / "empty.csv"
    empty.write_text("file,group,score\n")
    with pytest.raises(InvalidInput, match="it has no rows"):
        kept_scores(empty)


def test_scores_are_kept_of_each_kind_and_of_all(tmp_path: Path) -> None:
    table = tmp_path / "scores.csv"
    rows = [("adult: Mass", i) for i in range(5)] + [("other", 10 + i) for i in range(5)]
    lines = [f"{i}.png,{kind},{score},0.5,0.5" for i, (kind, score) in enumerate(rows)]
    table.write_text("\n".join(["file,group,score,quantile,group_quantile", *lines]))
    kept = kept_scores(table)
    assert set(kept) == {"adult: Mass", "all"}
    assert (kept["adult: Mass"][0], kept["adult: Mass"][10], kept["adult: Mass"][-1]) == (0, 2, 4)
    assert (kept["all"][0], kept["all"][-1]) == (0, 14)


def test_strengths_are_kept_for_as_long_as_levels_rise() -> None:
    pairs = [(0.3, -1.0), (0.5, 0.0), (0.8, 1.0), (0.7, 2.0), (0.9, 3.0)]
    assert rising(pairs) == ((0.3, -1.0), (0.5, 0.0), (0.8, 1.0))


class Unmoved:
    """Draws images that boost_and_skip leaves as they are; there is no classifier."""

    num_images = 2
    has_classifier = False

    def levels(self, calibration: MinorityCalibration, sampling: MinoritySampling) -> list[float]:
        moved = 0.1 * sampling.strength if sampling.method == "self_guided" else 0.001
        return [0.4 + moved, 0.4 + moved]


def test_a_method_that_moves_nothing_is_left_out(tmp_path: Path) -> None:
    score = ScoreSettings(distance="latent", noise_level=0.6, num_draws=1)
    calibration = MinorityCalibration(score=score, scores={"all": (0.0, 1.0)}, strengths={})
    config = CalibrationConfig(tmp_path, tmp_path / "scores.csv", "tiny")
    tried: Any = {"boost_and_skip": (1.0, 2.0), "classifier": (0.0,), "self_guided": (0.0, 2.0)}
    with bars() as drawn:
        strengths = measure(Unmoved(), calibration, config, tried, drawn)
    assert set(strengths) == {"self_guided"}
    levels, kept = zip(*strengths["self_guided"], strict=True)
    assert kept == (0.0, 2.0)
    assert levels == pytest.approx((0.4, 0.6))


def test_scores_beside_the_table_say_how_they_were_made(scores: Path) -> None:
    figures: dict[str, Any] = json.loads(scores.with_suffix(".json").read_text())
    assert (figures["distance"], figures["num_draws"], figures["num_images"]) == ("latent", 1, 7)
