"""`medphantom evaluate utility`: planted help and planted harm are found, and nothing twice."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner
from utility_world import SIDE, sample, texture, write_image_folder, write_real, write_shards

from gen.data.samples import write_tar
from gen.errors import InvalidInput
from jobs.bars import bars
from jobs.cli import app
from jobs.utility import classical
from jobs.utility.arms import ARMS, MIXED, PRETRAINED, REAL, SYNTHETIC
from jobs.utility.command import run_utility
from jobs.utility.config import UtilityConfig, parse_arms
from jobs.utility.figures import verdicts
from jobs.utility.report import summary
from jobs.utility.sets import read_sets
from jobs.utility.trained import draw_shares


def mirror(pixels: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Stands for a classical transform; the stripes stay what they are."""
    return np.roll(pixels, seed, 0)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_real(tmp_path_factory.mktemp("real") / "data")


@pytest.fixture(scope="module")
def helpful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("helpful") / "set")


@pytest.fixture(scope="module")
def config(real: Path, helpful: Path, tmp_path_factory: pytest.TempPathFactory) -> UtilityConfig:
    out = tmp_path_factory.mktemp("out") / "kept"
    return UtilityConfig(real, helpful, out, (REAL, SYNTHETIC, MIXED, PRETRAINED), (0.5, 1.0),
                         num_seeds=3, image_size=SIDE, num_training_steps=60, widths=(8, 16),
                         learning_rate=0.01)  # fmt: skip


def measure(config: UtilityConfig) -> dict[str, Any]:
    with bars() as drawn:
        return run_utility(config, drawn, mirror)


@pytest.fixture(scope="module")
def figures(config: UtilityConfig) -> dict[str, Any]:
    return measure(config)


def macro(figures: dict[str, Any], name: str, fraction: float = 1.0) -> dict[str, float]:
    """The gap or arm's macro AUROC."""
    (result,) = (each for each in figures["results"] if each["fraction"] == fraction)
    found: dict[str, float] = (result["gaps"] | result["arms"])[name]["macro"]["auroc"]
    return found


def test_more_of_what_is_right_helps_and_the_interval_says_so(figures: dict[str, Any]) -> None:
    assert macro(figures, REAL)["value"] < 0.8
    for arm in (SYNTHETIC, MIXED):
        gap = macro(figures, f"{arm} - {REAL}")
        assert gap["low"] > 0, arm
        expected = macro(figures, arm)["value"] - macro(figures, REAL)["value"]
        assert gap["value"] == pytest.approx(expected)
    better = [each for each in figures["verdicts"] if each["verdict"] == "better"]
    assert {each["gap"] for each in better} >= {f"{MIXED} - {REAL}", f"{SYNTHETIC} - {REAL}"}
    assert any(line.startswith("Real and synthetic in each batch: higher by +") for line in
               summary(figures))  # fmt: skip


def test_what_is_labelled_wrongly_hurts(config: UtilityConfig, tmp_path: Path) -> None:
    wrong = write_shards(tmp_path / "wrong", wrong=True)
    arms = (REAL, SYNTHETIC, MIXED)
    found = measure(
        replace(config, synthetic=wrong, out=tmp_path / "out", fractions=(1.0,), arms=arms)
    )
    assert macro(found, SYNTHETIC)["high"] < 0.5
    assert macro(found, f"{SYNTHETIC} - {REAL}")["high"] < 0
    assert macro(found, f"{MIXED} - {REAL}")["value"] < 0
    assert not [each for each in found["verdicts"] if each["verdict"] == "better"]
    said = summary(found)
    assert "clearly higher in 0" in said[0]
    assert any(line.startswith("Synthetic only: lower by -") for line in said)


def test_classes_and_groups_have_figures_and_who_was_compared_is_fixed(
    figures: dict[str, Any],
) -> None:
    assert set(figures["classes"]) == {"Normal", "Effusion"}
    assert figures["classes"]["Effusion"] == {"train": 6, "val": 20, "test": 40, "synthetic": 200}
    result = figures["results"][-1]
    assert (result["images"], result["patients"]) == (12, 6)
    assert set(result["arms"]) == {REAL, SYNTHETIC, MIXED, PRETRAINED}
    for found in result["arms"].values():
        assert set(found["classes"]["Effusion"]) == {"auroc", "average_precision", "accuracy"}
        assert set(found["groups"]) == {"female", "male", "adult", "over 60", "under 40"}
        missed = {name: each["missed"]["value"] for name, each in found["groups"].items()}
        assert found["fairness"]["sex"]["gap"]["value"] == pytest.approx(
            missed["female"] - missed["male"]
        )
        assert found["fairness"]["age"]["gap"]["value"] == pytest.approx(
            missed["over 60"] - missed["under 40"]
        )
        assert "age group" not in found["fairness"]  # there are no children
    # what synthetic images alone teach does not depend on how many real ones there are
    first = figures["results"][0]
    assert first["arms"][SYNTHETIC] == result["arms"][SYNTHETIC]


def test_nothing_is_trained_twice_and_a_lost_training_is_made_up_for(
    config: UtilityConfig, figures: dict[str, Any]
) -> None:
    kept = {path: path.stat().st_mtime_ns for path in (config.out / "runs").iterdir()}
    # of synthetic images alone there is one a seed, whatever the share
    assert len(kept) == 3 * (2 * 3 + 1)
    lost = min(kept)
    lost.unlink()
    assert measure(config) == figures
    assert lost.exists()
    assert all(path.stat().st_mtime_ns == kept[path] for path in kept if path != lost)


def test_the_page_is_whole(config: UtilityConfig, figures: dict[str, Any]) -> None:
    page = (config.out / "utility.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png;base64,") == 1 + 2 + 2 + 2
    assert page.count("data:image/jpeg;base64,") == 2
    assert "In short" in page
    assert "over 60, under 40" in page
    kept = json.loads((config.out / "figures.json").read_text())
    assert kept == json.loads(json.dumps(figures))


def test_all_arms_have_the_same_patients_whole_and_of_each_class(config: UtilityConfig) -> None:
    with bars() as drawn:
        sets = read_sets(config, drawn)
    shares = draw_shares(config, sets)
    for (fraction, seed), share in shares.items():
        patients = [sets.train.patients[row] for row in share.rows]
        assert sorted(patients) == sorted(2 * sorted(set(patients)))  # both images of each
        findings = {sets.train.labels[row].findings for row in share.rows}
        assert findings == {("Normal",), ("Effusion",)}
        assert share.num_patients == {0.5: 4, 1.0: 6}[fraction]
        assert set(share.rows) <= set(shares[1.0, seed].rows)
    assert len({tuple(shares[0.5, seed].rows) for seed in config.seeds}) > 1


def test_images_of_held_out_patients_are_not_trained_on(tmp_path: Path, helpful: Path) -> None:
    data = write_real(tmp_path / "data")
    manifest = data / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("train-5,", "test-1,"))
    config = UtilityConfig(data, helpful, tmp_path / "out", image_size=SIDE)
    with bars() as drawn:
        sets = read_sets(config, drawn)
    assert len(sets.train) == 10
    (line,) = (each for each in sets.omissions if "held out" in each)
    assert line.startswith("real: 2 image(s) of train are of patients that are held out")


def test_classes_with_too_few_patients_are_named_and_in_no_mean(
    config: UtilityConfig, tmp_path: Path
) -> None:
    data = write_real(tmp_path / "data", num_test=40)
    manifest = data / "manifest.csv"
    for i in (2, 3):
        row = f"test-{i}.png,test,Effusion"
        manifest.write_text(manifest.read_text().replace(row, f"{row}|Mass"))
    few = replace(config, data=data, out=tmp_path / "out", min_positives=8)
    with bars() as drawn:
        sets = read_sets(few, drawn)
    assert sets.classes == ("Normal", "Effusion")
    assert sets.too_few == [
        {"class": "Mass", "test_patients_with": 1, "test_patients_without": 19,
         "train_images_with": 0}
    ]  # fmt: skip
    with bars() as drawn, pytest.raises(InvalidInput, match=r"min_positives is 11, but no finding"):
        read_sets(replace(few, min_positives=11), drawn)


def test_a_synthetic_set_with_a_held_out_image_is_refused(
    config: UtilityConfig, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    stolen = [texture(i // 2 % 2 == 1, rng) for i in range(12 + 40 + 3)][-1]
    tar = tmp_path / "set.tar"
    with tar.open("wb") as stream:
        write_tar(stream, [sample("a", texture(True, rng), True), sample("b", stolen, True)])
    with bars() as drawn, pytest.raises(InvalidInput, match=r"set.tar/b is the real image test-2"):
        read_sets(replace(config, synthetic=tar), drawn)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: write_image_folder(p / "s", "test"), "0.png of the split 'test', but only"),
        (lambda p: p, "holds no picture"),
    ],
)
def test_what_is_wrong_with_a_synthetic_set_is_named(
    config: UtilityConfig, tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    result = invoke(make(tmp_path), "--data", config.data, "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""


def invoke(*options: Any) -> Any:
    return CliRunner().invoke(app, ["evaluate", "utility", *map(str, options)])


def test_the_command_gives_one_line_to_programs_and_says_the_rest_to_people(
    config: UtilityConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classical, "classical_view", mirror)
    out = tmp_path / "out"
    result = invoke(
        config.synthetic, "--data", config.data, "--out", out, "--fractions", "1", "--seeds", 2,
        "--training-steps", 2, "--image-size", SIDE, "--arm", "real+classical+synthetic",
        "--arm", "real+classical",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    found = json.loads(line)
    assert set(found["results"][0]["arms"]) == {
        "real", "real+classical", "real+classical+synthetic"
    }  # fmt: skip
    assert "real+classical+synthetic - real+classical" in found["results"][0]["gaps"]
    assert found["settings"]["training"]["num_steps"] == 2
    said = " ".join(result.stderr.split())
    assert "training classifiers: 6 of 6" in said
    assert "transforming real images: 12 of 12" in said
    assert "minutes of training to go" in said
    assert f"report: {out / 'utility.html'}" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fractions", "2"), "shares above 0"),
        (("--arm", "real+nothing"), "must be one of: real, synthetic, real+synthetic"),
        (("--synthetic-share", "1"), "synthetic_share is 1.0, but must lie between"),
        (("--encoder", "cxr-mini", "--arm", "real"), "must name a CXREncoder"),
    ],
)
def test_what_is_wrong_with_an_option_is_named(
    config: UtilityConfig, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    base = (config.synthetic, "--data", config.data, "--out", tmp_path, "--image-size", SIDE)
    result = invoke(*base, *options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_arms_come_in_one_order_with_what_they_are_compared_with() -> None:
    assert parse_arms(("synthetic-then-real", "synthetic")) == (REAL, SYNTHETIC, PRETRAINED)
    assert parse_arms(()) == tuple(arm for arm in ARMS if arm != "real+classical+synthetic")


def test_a_verdict_is_what_the_interval_says() -> None:
    def gap(low: float, high: float) -> dict[str, Any]:
        return {"macro": {"auroc": {"value": (low + high) / 2, "low": low, "high": high}}}

    result = {"fraction": 0.2, "gaps": {"a - b": gap(0.1, 0.2), "c - b": gap(-0.1, 0.2),
                                        "d - b": gap(-0.2, -0.1)}}  # fmt: skip
    assert [each["verdict"] for each in verdicts(result)] == ["better", "unclear", "worse"]
