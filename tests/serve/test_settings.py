"""Arguments of the service: safe defaults, no combination that cannot work, no open door."""

import stat
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from gen.errors import InvalidInput
from jobs.hosts import is_loopback
from jobs.settings import Settings
from serve.cli import app
from serve.settings import AppArgs, check_exposure

NAMES = ("MEDPHANTOM_DATA", "MEDPHANTOM_STORE", "MEDPHANTOM_RESULTS", "MEDPHANTOM_PACS")
SELF = ["127.0.0.1", "127.8.9.10", "::1", "localhost"]
WORLD = [
    "0.0.0.0",  # every address of this machine
    "::",
    "",
    "192.168.1.2",
    "8.8.8.8",
    "fe80::1",
    "example.org",
    "127.example.org",
    "localhost.example.org",
    "128.0.0.1",
]


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The data folder, and no other setting in the environment."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MEDPHANTOM_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def args(**fields: Any) -> AppArgs:
    return AppArgs.model_validate(fields)


@pytest.mark.parametrize("host", SELF)
def test_without_keys_only_this_machine_may_come_in(host: str) -> None:
    assert is_loopback(host)
    check_exposure(args(require_keys=False), host)


@pytest.mark.parametrize("host", WORLD)
def test_without_keys_others_are_not_let_in(host: str) -> None:
    assert not is_loopback(host)
    check_exposure(args(), host)
    with pytest.raises(InvalidInput, match="anybody could use this service"):
        check_exposure(args(require_keys=False), host)


def test_the_command_does_not_serve_strangers(data: Path, tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0"])
    assert answer.exit_code == 2
    assert "medphantom keys create NAME" in answer.output
    config = tmp_path / "open.yaml"
    config.write_text("require_keys: false\n")
    answer = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0", "--config", str(config)])
    assert answer.exit_code == 2
    assert "anybody could use this service" in answer.output
    config.write_text("job_slot: 3\n")
    answer = CliRunner().invoke(app, ["serve", "--config", str(config)])
    assert answer.exit_code == 2
    assert "job_slot" in answer.output


def test_keys_are_needed_unless_somebody_says_otherwise() -> None:
    assert args().require_keys
    assert not args(require_keys=False).require_keys


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"requier_keys": False}, "Extra inputs"),
        ({"models": []}, "at least 1 item"),
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas is 3, but max_replicas 2"),
        ({"target_ongoing_requests": 9, "max_live_requests": 8}, "overload would not be seen"),
        ({"precision": "fp8"}, "fp16"),
        ({"max_rows": 6}, "max_rows is 6, but must be a power of two; try 4"),
        ({"max_rows": 0}, "greater than or equal to 1"),
        ({"lease_s": 0}, "greater than 0"),
        ({"job_slots": 0}, "greater than or equal to 1"),
        ({"num_gpus": -1}, "greater than or equal to 0"),
        ({"max_live_requests_per_key": 0}, "greater than or equal to 1"),
        ({"max_body_bytes": 10}, "greater than or equal to 1024"),
        ({"result_ttl_hours": 0}, "greater than 0"),
    ],
)
def test_arguments_that_cannot_work_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        args(**fields)


def test_arguments_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        args().require_keys = False  # type: ignore[misc]


@pytest.mark.parametrize("rows", [None, 1, 2, 64, 1024])
def test_a_budget_of_rows_is_a_power_of_two_or_measured(rows: int | None) -> None:
    assert args(max_rows=rows).max_rows == rows


def test_a_sampler_gets_its_share_of_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert args().cpus == 8
    assert args(max_replicas=3).cpus == 2
    assert args(max_replicas=20).cpus == 1
    assert args(num_gpus=1).cpus == 1
    assert args(num_cpus=0.5).cpus == 0.5


def test_everything_is_kept_in_the_data_folder_that_only_its_owner_reads(data: Path) -> None:
    settings = args()
    assert settings.store == f"sqlite:///{data / 'medphantom.db'}"
    assert settings.results == str(data / "results")
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_the_environment_places_store_and_results_and_arguments_win(
    monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    monkeypatch.setenv("MEDPHANTOM_STORE", "postgresql+psycopg://db/jobs")
    monkeypatch.setenv("MEDPHANTOM_RESULTS", "s3://bucket/results")
    assert (args().store, args().results) == ("postgresql+psycopg://db/jobs", "s3://bucket/results")
    assert args(store="sqlite:///x.db").store == "sqlite:///x.db"
    assert not data.exists()  # it is made only where it is needed


def test_the_environment_names_pacs_and_no_error_repeats_their_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert args().pacs == {}
    monkeypatch.setenv("MEDPHANTOM_PACS", '{"archive": {"url": "https://pacs/dicom-web"}}')
    assert args().pacs["archive"].url == "https://pacs/dicom-web"
    assert args(pacs={}).pacs == {}
    for entry in ({"token": ["s3cret"]}, {"token": "s3 cret"}, {"key": "s3cret"}):
        with pytest.raises(ValidationError) as caught:
            args(pacs={"archive": {"url": "https://pacs", **entry}})
        assert "cret" not in str(caught.value)


def test_the_data_folder_is_in_the_home_folder_by_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MEDPHANTOM_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings().results_root == str(tmp_path / ".medphantom" / "results")
    monkeypatch.setenv("MEDPHANTOM_DATA", "~/elsewhere")
    assert Settings().results_root == str(tmp_path / "elsewhere" / "results")
