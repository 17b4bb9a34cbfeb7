"""The image: built from the lock in stages, from nothing but the source, run as nobody special."""

import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    return [
        (word, rest.strip())
        for word, _, rest in (s.partition(" ") for s in text.split("\n"))
        if word
    ]


def arguments(word: str) -> list[str]:
    """Arguments of every instruction of a kind, in order."""
    return [rest for instruction, rest in instructions() if instruction == word]


def image_user() -> int:
    """The number of the image's user."""
    (user,) = arguments("USER")
    uid, gid = user.split(":")
    assert uid == gid
    return int(uid)


def copied() -> set[str]:
    """What the build takes from the repository."""
    return {p for line in arguments("COPY") if "--from" not in line for p in line.split()[:-1]}


def test_the_image_is_built_in_stages_on_a_pinned_python_and_runs_as_nobody_special() -> None:
    (base,) = arguments("ARG")
    wanted = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert re.fullmatch(rf"BASE=python:{re.escape(wanted)}\.\d+-slim-\w+", base)
    assert arguments("FROM") == ["${BASE} AS build", "${BASE} AS runtime"]
    assert image_user() >= 1000
    words = [word for word, _ in instructions()]
    assert "RUN" not in words[words.index("USER") :]
    assert arguments("EXPOSE") == ["8000"]
    assert "/health/live" in arguments("HEALTHCHECK")[0]
    # SIGTERM would end `serve run` before its replicas
    assert arguments("STOPSIGNAL") == ["SIGINT"]


def test_the_image_starts_without_a_shell_and_holds_no_secret() -> None:
    for word in ("ENTRYPOINT", "CMD"):
        (line,) = arguments(word)
        assert json.loads(line)
    start = json.loads(arguments("CMD")[0])
    assert start[:2] == ["serve", "run"]
    assert Path(start[2]).name in {Path(path).name for path in copied()}
    names = re.findall(r"(\w+)=", " ".join([*arguments("ENV"), *arguments("ARG")]))
    assert not [name for name in names if re.search("PASSWORD|SECRET|TOKEN|_KEY", name)]


def test_the_image_installs_what_the_lock_says_and_no_more() -> None:
    syncs = re.findall(r"uv sync (.*)", "\n".join(arguments("RUN")))
    assert len(syncs) == 2
    for options in syncs:
        assert {"--frozen", "--no-dev"} <= set(options.split())
        extras = re.findall(r"--extra (\w+)", options)
        assert set(extras) == {"serve", "jobs"} <= set(PROJECT["project"]["optional-dependencies"])


def test_nothing_gets_into_the_build_but_what_it_copies() -> None:
    rules = [
        line
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied()
    assert all((ROOT / path).exists() for path in copied())
    assert set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= copied()
