"""Databases, and pictures of chests, that tests share."""

import csv
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from PIL import Image
from postgres_server import find_binaries, serve_postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """`postgresql+psycopg://...` of a server that lives as long as the tests."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: no /usr/lib/postgresql/*/bin/initdb")
    with serve_postgres(binaries) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: the test runs on each of the two kinds."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.db'}"
    server: str = request.getfixturevalue("postgres_url")
    schema = f"test_{uuid.uuid4().hex}"  # unlike a database, made in a moment
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    return f"{server}?options=-csearch_path%3D{schema}"


@pytest.fixture(scope="session")
def tiny_model(tiny_parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model as a folder."""
    from pipelines.text_to_cxr import TextToCXRPipeline

    folder = tmp_path_factory.mktemp("model") / "tiny"
    TextToCXRPipeline(**tiny_parts).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def chests(tmp_path: Path) -> Path:
    """Seven pictures of normal adults, one of another split, and one that is no picture."""
    folder = tmp_path / "chests"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = [(f"{i}.png", "train" if i else "test") for i in range(8)]
    for name, _ in rows:
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
        coarse.resize((128, 128), Image.Resampling.BICUBIC).save(folder / name)
    (folder / "broken.png").write_bytes(b"no picture")
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "split", "findings", "prompt", "patient_id"])
        for name, split in [*rows, ("broken.png", "train")]:
            writer.writerow([name, split, "No Finding", "a chest", name])
    return folder
