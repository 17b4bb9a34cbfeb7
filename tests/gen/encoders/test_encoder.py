"""An encoder resizes once, keeps or makes grey as its network needs, and gives directions."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from gen.encoders.encoder import Encoder
from gen.errors import InvalidInput

PIXELS = Encoder("pixels@1", 224, 224, lambda images: images.flatten(1), "cpu")
GREY = torch.rand(2, 1, 8, 8, generator=torch.manual_seed(0)) * 2 - 1
COLOUR = torch.rand(2, 3, 8, 8, generator=torch.manual_seed(0)) * 2 - 1


def means(images: Tensor) -> Tensor:
    """(N, C), of each channel."""
    return images.mean((2, 3))


def encoder_of(channels: int) -> Encoder:
    return Encoder("means@1", 8, 8, means, "cpu", channels)


@pytest.mark.parametrize("wide", [True, False])
def test_a_picture_twice_as_long_as_wide_is_cropped_on_its_long_axis(wide: bool) -> None:
    """Elsewhere a crop of (N, C, H, W) cut channels and height: nothing, or the wrong axis."""
    pixels = np.full((448, 896), 0.5, np.float32)
    pixels[:, :216] = pixels[:, -216:] = 1  # beyond the square in the middle, less 8 pixels
    pixels[:16] = pixels[-16:] = 0  # inside it
    square = PIXELS.prepare(pixels if wide else pixels.T)
    square = square if wide else square.T
    assert square.shape == (224, 224)
    assert square.max() < 0.6
    assert np.allclose(square[[0, 4, -5, -1]], 0, atol=0.02)
    assert np.allclose(square[16:-16], 0.5, atol=0.02)


def test_an_encoder_gets_one_resize_of_the_original() -> None:
    """Elsewhere pictures are made 299 pixels a side first, which blurs them."""
    noise = np.random.default_rng(1).random((600, 600), np.float32)
    original = Image.fromarray(noise)
    once = original.resize((224, 224), Image.Resampling.LANCZOS)
    twice = original.resize((299, 299), Image.Resampling.LANCZOS).resize(
        (224, 224), Image.Resampling.LANCZOS
    )
    prepared = PIXELS.prepare(noise)
    assert np.array_equal(prepared, np.clip(np.asarray(once), 0, 1))
    assert np.abs(prepared - np.asarray(twice)).max() > 0.02


def test_a_squashed_picture_gets_its_shape_back_in_the_same_resize() -> None:
    squashed = np.tile(np.linspace(0, 1, 224, dtype=np.float32), (224, 1))
    whole = PIXELS.prepare(squashed)
    middle = PIXELS.prepare(squashed, orig_size=(500, 1000))
    assert np.allclose(middle, np.linspace(0.25, 0.75, 224), atol=0.01)
    assert np.ptp(whole) > 0.98


def test_grey_is_repeated_for_a_network_of_colours() -> None:
    expected = means(GREY / 2 + 0.5).expand(-1, 3)
    assert torch.allclose(encoder_of(3)(GREY), expected, atol=1e-6)
    assert torch.allclose(encoder_of(3).encode(GREY / 2 + 0.5), expected, atol=1e-6)


def test_colour_reaches_a_network_of_colours_as_it_is() -> None:
    assert torch.allclose(encoder_of(3)(COLOUR), means(COLOUR / 2 + 0.5), atol=1e-6)


def test_colour_becomes_the_luma_that_grey_reading_gives() -> None:
    pixels = np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)
    luma = np.asarray(Image.fromarray(pixels).convert("L"), np.float32) / 255
    network = Encoder("pixels@1", 8, 8, lambda images: images.flatten(1), "cpu")
    images = torch.from_numpy(pixels).movedim(-1, 0)[None] / 127.5 - 1
    assert np.allclose(network(images).reshape(8, 8), luma, atol=0.6 / 255)


def test_a_grey_picture_is_the_same_to_a_grey_network_in_one_channel_or_three() -> None:
    in_three = GREY.expand(-1, 3, -1, -1)
    assert torch.allclose(encoder_of(1)(in_three), encoder_of(1)(GREY), atol=1e-6)


def test_embeddings_are_features_over_their_length() -> None:
    features, embeddings = encoder_of(3)(COLOUR), encoder_of(3).embed(COLOUR)
    assert torch.allclose(embeddings, F.normalize(features, dim=1), atol=1e-6)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
def test_features_without_a_direction_are_refused(value: float) -> None:
    broken = Encoder("broken@1", 8, 8, lambda images: means(images) * 0 + value, "cpu")
    with pytest.raises(InvalidInput, match="broken@1 answers zeros, NaN or infinity"):
        broken.embed(GREY)


@pytest.mark.parametrize(
    ("shape", "word"),
    [
        ((1, 2, 8, 8), "2 channels"),
        ((1, 4, 8, 8), "4 channels"),
        ((1, 3, 8, 9), "cut squares out"),
        ((3, 8, 8), "cut squares out"),
    ],
)
def test_what_is_no_batch_of_squares_is_refused(shape: tuple[int, ...], word: str) -> None:
    with pytest.raises(InvalidInput, match=word):
        encoder_of(3).embed(torch.zeros(shape))


def test_tokens_are_of_unit_length_and_stay_where_their_patches_are() -> None:
    def patches(images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 2).movedim(1, -1)

    network = Encoder("patches@1", 8, 12, means, "cpu", 3, patches)
    images = torch.rand(2, 3, 12, 12, generator=torch.manual_seed(1)) * 2 - 1
    tokens = network.tokens(images)
    assert tokens.shape == (2, 4, 4, 3)
    corner = images[1, :, 2:4, 8:10].mean((1, 2)) / 2 + 0.5  # after a crop of 2 at each edge
    assert torch.allclose(tokens[1, 0, 3], F.normalize(corner, dim=0), atol=1e-6)


def test_a_network_without_patches_has_no_tokens() -> None:
    with pytest.raises(InvalidInput, match="name a vision transformer"):
        encoder_of(3).tokens(COLOUR)
