"""The README's snippets run, and it names every command."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from serve.cli import app

README = (Path(__file__).parents[1] / "README.md").read_text()
SHELL = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
COMMANDS = [line for line in SHELL if line.startswith("medphantom ")]
RUNNABLE = [line for line in COMMANDS if line.split()[1] in ("generate", "models")]


def arguments(line: str) -> list[str]:
    """A command line without its program."""
    return shlex.split(line)[1:]


def test_the_python_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippets) >= 2
    for snippet in snippets:
        exec(snippet, {})
    assert (tmp_path / "normal.png").exists()


def test_the_commands_that_need_no_data_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.csv").write_text("prompt\nchest x-ray of a child with pneumonia\n")
    assert len(RUNNABLE) >= 6
    for line in RUNNABLE:
        result = CliRunner().invoke(app, arguments(line))
        assert result.exit_code == 0, f"{line}\n{result.output}"
    first, again = (tmp_path / name for name in ("pneumonia/000002.png", "again/000000.png"))
    assert first.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_line_has_known_options(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = arguments(line)
    while hasattr(command, "commands"):
        words = command.named(words, []) if hasattr(command, "named") else words
        command = command.commands[words.pop(0)]
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


def test_every_command_is_named() -> None:
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        for part in getattr(command, "commands", {"": None}):
            assert f"medphantom {name} {part}".strip() in README


@pytest.mark.parametrize("target", ["demo", "test", "faults", "check", "bench"])
def test_every_make_target_is_named(target: str) -> None:
    assert f"make {target}" in README


def test_every_file_it_sends_people_to_exists() -> None:
    root = Path(__file__).parents[1]
    for path in re.findall(r"`((?:gen|pipelines|jobs|serve|deploy)/[^`]*)`", README):
        assert (root / path).exists(), path
