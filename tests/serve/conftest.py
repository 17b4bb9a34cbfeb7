"""A running service that tests of routes share."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from local_service import Running, running


@pytest.fixture(scope="session")
def tiny_model(tiny_parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model as a folder."""
    from pipelines.text_to_cxr import TextToCXRPipeline

    folder = tmp_path_factory.mktemp("model") / "tiny"
    TextToCXRPipeline(**tiny_parts).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def local(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Without keys."""
    with running(tiny_model, tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
def client(local: Running) -> Iterator[httpx.Client]:
    """A client of the service without keys."""
    with httpx.Client(base_url=local.url, timeout=60) as client:
        yield client
