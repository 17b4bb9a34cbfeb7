"""The unmodified client of OpenAI."""

import base64
import io
from collections.abc import Iterator

import openai
import pytest
from local_service import Running
from PIL import Image

from gen.data.provenance import PNG_KEY


@pytest.fixture
def openai_client(local: Running) -> Iterator[openai.OpenAI]:
    """As users make it."""
    with openai.OpenAI(base_url=f"{local.url}/v1", api_key="none needed", max_retries=0) as client:
        yield client


def test_images_are_generated(openai_client: openai.OpenAI) -> None:
    answer = openai_client.images.generate(
        prompt="a chest x-ray of a child", n=2, size="auto", quality="low"
    )
    assert answer.data is not None
    assert len(answer.data) == 2
    for image in answer.data:
        picture = Image.open(io.BytesIO(base64.b64decode(image.b64_json or "")))
        assert picture.size == (16, 16)
        assert PNG_KEY in picture.info


def test_partial_images_are_streamed(openai_client: openai.OpenAI) -> None:
    stream = openai_client.images.generate(
        prompt="a chest x-ray", stream=True, partial_images=2, quality="high"
    )
    kinds = []
    for event in stream:
        kinds.append(event.type)
        Image.open(io.BytesIO(base64.b64decode(event.b64_json)))
    assert kinds[-1] == "image_generation.completed"
    assert set(kinds[:-1]) <= {"image_generation.partial_image"}


def test_errors_are_the_clients_own(openai_client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="model must be one of"):
        openai_client.images.generate(prompt="x", model="dall-e-3")
    with pytest.raises(openai.UnprocessableEntityError, match="style"):
        openai_client.images.generate(prompt="x", style="vivid")
    with pytest.raises(openai.UnprocessableEntityError, match="width 2000"):
        openai_client.images.generate(prompt="x", size="2000x16")  # type: ignore[call-overload]


def test_models_are_listed(openai_client: openai.OpenAI, local: Running) -> None:
    assert [model.id for model in openai_client.models.list()] == list(local.service.args.models)
