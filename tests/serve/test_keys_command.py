"""`medphantom keys`: a secret is shown once, and ends when it is revoked."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from gen.errors import NotAllowed
from jobs.keys import KeyStore, Scope
from serve.cli import app

Call = Callable[..., Result]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The database of the keys."""
    return f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture
def call(url: str) -> Call:
    """Run `medphantom keys ...` over that database."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["keys", *arguments, "--store", url])

    return run


@pytest.fixture
def keys(url: str) -> KeyStore:
    """The keys, as the service sees them."""
    return KeyStore(url)


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_secret_comes_once_on_stdout_and_opens_the_service(call: Call, keys: KeyStore) -> None:
    result = call("create", "dr-example")
    (record,) = lines(result)
    key = keys.check(record["secret"])
    assert (key.id, key.name) == (record["id"], "dr-example")
    assert record["secret"] not in result.stderr
    assert "not shown again" in result.stderr
    for later in (call("list"), call("revoke", key.id)):
        assert record["secret"] not in later.output
        assert record["secret"].split("_", 2)[2] not in later.output


def test_a_key_may_do_everything_but_read_figures_unless_told(call: Call, keys: KeyStore) -> None:
    (record,) = lines(call("create", "a"))
    assert keys.check(record["secret"]).scopes == {Scope.GENERATE, Scope.JOBS}
    assert record["work_per_hour"] is None
    (record,) = lines(
        call("create", "b", "--scope", "metrics", "--scope", "jobs", "--work-per-hour", "12.5")
    )
    key = keys.check(record["secret"])
    assert (key.scopes, key.work_per_hour) == ({Scope.METRICS, Scope.JOBS}, 12.5)
    assert record["scopes"] == ["jobs", "metrics"]


def test_the_list_has_every_key_with_its_times(call: Call, keys: KeyStore) -> None:
    secrets = {name: lines(call("create", name))[0]["secret"] for name in ("zebra", "ape")}
    keys.check(secrets["ape"])
    call("revoke", keys.list()[0].id)
    zebra, ape = lines(call("list"))
    assert (zebra["name"], ape["name"]) == ("zebra", "ape")
    assert zebra["last_used_at"] is ape["revoked_at"] is None
    for moment in (zebra["created_at"], zebra["revoked_at"], ape["last_used_at"]):
        assert datetime.fromisoformat(moment).tzinfo is not None
    assert "zebra" in call("list").stderr  # a table for people


def test_a_revoked_key_no_longer_passes(call: Call, keys: KeyStore) -> None:
    (record,) = lines(call("create", "a"))
    (revoked,) = lines(call("revoke", record["id"]))
    assert revoked["revoked_at"]
    with pytest.raises(NotAllowed, match="revoked"):
        keys.check(record["secret"])
    assert lines(call("revoke", record["id"])) == [revoked]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create", "a", "--scope", "admin"], "must be one of generate, jobs, metrics"),
        (["create", " "], "name is empty"),
        (["create", "a", "--work-per-hour", "0"], "must be above 0"),
        (["create", "a", "--work-per-hour", "nan"], "--work-per-hour"),
        (["create", "a", "--work-per-hour", "-1"], "--work-per-hour"),
        (["revoke", "ffffffffffff"], "there is no key ffffffffffff"),
    ],
)
def test_what_is_wrong_ends_with_code_2_and_makes_no_key(
    call: Call, keys: KeyStore, arguments: list[str], words: str
) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""
    assert not keys.any()


def test_a_database_that_cannot_be_used_is_named_without_its_password() -> None:
    url = "mysql://user:hunter2@host/db"
    result = CliRunner().invoke(app, ["keys", "list", "--store", url])
    assert result.exit_code == 2
    assert "give sqlite:///FILE or postgresql+psycopg://" in result.stderr.replace("\n", " ")
    assert "hunter2" not in result.output


def test_keys_are_kept_where_the_service_looks_for_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, keys: KeyStore
) -> None:
    monkeypatch.delenv("MEDPHANTOM_STORE", raising=False)
    monkeypatch.setenv("MEDPHANTOM_DATA", str(tmp_path / "data"))
    lines(CliRunner().invoke(app, ["keys", "create", "a"]))
    assert KeyStore(f"sqlite:///{tmp_path / 'data' / 'medphantom.db'}").any()
    monkeypatch.setenv("MEDPHANTOM_STORE", url)
    lines(CliRunner().invoke(app, ["keys", "create", "b"]))
    assert [key.name for key in keys.list()] == ["b"]
