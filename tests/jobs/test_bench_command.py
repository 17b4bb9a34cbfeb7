"""`medphantom bench engine` compares two ways that must give the same images."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gen.anomaly.calibration import METHODS as ANOMALY_METHODS
from gen.data.samples import read_tar
from gen.errors import InvalidInput
from gen.guidance.minority import METHODS
from jobs.bench import mixed_requests
from jobs.bench_jobs import BareEngine, null_spec, rate_of
from jobs.cli import app
from jobs.runner.runner import Crew, run_job
from jobs.runner.worker import Outcome


def test_requests_differ_in_all_they_may_differ_in() -> None:
    requests = mixed_requests(16)
    for field in ("prompt", "scheduler", "num_inference_steps"):
        assert len({getattr(each, field) for each in requests}) == 4
    assert len({each.seed for each in requests}) == 16


def test_it_gives_the_ratio_and_the_largest_difference(tiny_folder: Path) -> None:
    options = ["--model", str(tiny_folder), "--requests", "4", "--rounds", "1", "--json"]
    result = CliRunner().invoke(app, ["bench", "engine", *options])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout.splitlines()[-1])
    assert figures["ratio"] > 0
    assert figures["max_abs_diff"] <= 1e-4
    assert figures["rounds"] == 1
    assert {"device", "commit"} <= figures.keys()


def test_the_cost_of_the_rare_is_that_of_each_method_over_plain_sampling(tiny_folder: Path) -> None:
    options = ["--model", str(tiny_folder), "--images", "1", "--steps", "9", "--rounds", "1"]
    result = CliRunner().invoke(app, ["bench", "minority", *options, "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout.splitlines()[-1])
    assert set(METHODS) <= figures["time_ratio"].keys()
    for name, ratio in figures["time_ratio"].items():
        of_round = figures["seconds"][name][0] / figures["seconds"]["plain"][0]
        assert ratio == pytest.approx(of_round)
    assert {"device", "commit", "rounds"} <= figures.keys()


def test_the_cost_of_mapping_is_counted_in_network_calls(tiny_folder: Path) -> None:
    chosen = ("autopaint", "patchwise", "single_step")
    words = [word for name in chosen for word in ("--method", name)]
    options = ["--model", str(tiny_folder), "--images", "2", "--rounds", "2", "--json", *words]
    result = CliRunner().invoke(app, ["bench", "anomaly", *options])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout.splitlines()[-1])
    assert set(figures["network_calls"]) == set(chosen) <= set(ANOMALY_METHODS)
    # two levels of eight draws; the first look of autopaint is of sixteen, then it paints
    assert figures["network_calls"]["single_step"] == 16
    assert figures["network_calls"]["autopaint"] > 32
    for name in chosen:
        low, high = figures["seconds_range"][name]
        assert low <= figures["seconds"][name] <= high
    assert figures["rounds"] == 2
    assert {"device", "commit"} <= figures.keys()


def test_rates_count_only_while_all_workers_are_at_work() -> None:
    outcomes = [
        Outcome(0, made=10, began=0, ended=10, worker=1),
        Outcome(1, made=10, began=10, ended=20, worker=1),
        Outcome(2, made=10, began=8, ended=18, worker=2),
    ]
    # from 8 to 18: two tenths of the first, eight of the second, and the third
    assert rate_of(outcomes, 2) == pytest.approx((2 + 8 + 10) / 10)
    assert rate_of(outcomes[:2], 1) == pytest.approx(1.0)
    with pytest.raises(InvalidInput, match="never at work together"):
        rate_of(outcomes[:2], 2)


def test_the_bare_engine_and_a_job_make_the_same_files(tmp_path: Path) -> None:
    spec = null_spec(tmp_path, "job", 12, steps=3, shard_size=5)
    run_job(spec, crew=Crew(workers=0, threads=1))
    tars = sorted((tmp_path / "job/shards").glob("*.tar"))
    made = {each.key: each.files["png"] for tar in tars for each in read_tar(tar)}
    assert BareEngine(spec).make(12) == made
