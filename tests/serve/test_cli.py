"""The entry point teaches, starts fast and exits with the documented codes."""

import subprocess
import sys

import pytest

from serve.cli import main


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["medphantom", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_help_teaches_the_first_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    assert "medphantom models list" in text
    assert "none is for diagnosis" in text


def test_no_argument_shows_the_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch) == 2
    captured = capsys.readouterr()
    assert "Usage" in captured.out + captured.err


def test_a_refused_model_ends_with_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "models", "show", "no-such-model") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Error: model 'no-such-model' is unknown")


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    code = "import sys, serve.cli; sys.exit(str({'torch', 'diffusers'} & set(sys.modules) or ''))"
    started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert started.stderr.strip() == ""
