"""Features are computed once, from whole files, and a damaged cache is never believed."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from torch import Tensor

from gen.data.collection import Item, read_collection
from gen.data.dicom import write_dicom
from gen.data.provenance import Record
from gen.data.transforms import fit
from gen.encoders import encoder as encoder_module
from gen.encoders.encoder import Encoder
from gen.errors import InvalidInput
from gen.metrics import feature_cache
from gen.metrics.feature_cache import _in_order, encode_collection, read_thumbnails

SIDE = 16


class Counting:
    """A network whose features are the pixels themselves."""

    def __init__(self, fails_at: int = 10**9) -> None:
        self.seen = 0
        self.fails_at = fails_at

    def __call__(self, images: Tensor) -> Tensor:
        if self.seen >= self.fails_at:
            raise KeyboardInterrupt
        self.seen += len(images)
        return images.flatten(1)


def encoder(network: Counting, name: str = "pixels@1", side: int = SIDE) -> Encoder:
    return Encoder(name, side, side, network, "cpu")


def picture(seed: int, size: tuple[int, int] = (40, 40)) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=size, dtype=np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Ten pictures of noise."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(10):
        Image.fromarray(picture(i)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images a batch, four a chunk."""
    monkeypatch.setattr(encoder_module, "_BATCH_PIXELS", 2 * SIDE**2)
    monkeypatch.setattr(feature_cache, "CHUNK", 4)


def items_of(folder: Path) -> list[Item]:
    return read_collection(folder).items


def encode(folder: Path, network: Counting, name: str = "pixels@1") -> np.ndarray:
    return encode_collection(items_of(folder), encoder(network, name), folder.parent / "c").features


def chunks(folder: Path) -> list[Path]:
    return sorted((folder.parent / "c").rglob("*.safetensors"))


def test_features_are_of_one_resize_of_each_file_in_order(images: Path) -> None:
    features = encode(images, Counting())
    expected = [fit(picture(i) / np.float32(255), SIDE).ravel() for i in range(10)]
    assert features.dtype == np.float32
    assert np.array_equal(features, np.stack(expected))


def test_a_second_run_computes_nothing_and_gives_the_same(images: Path) -> None:
    first = encode(images, Counting())
    network = Counting()
    assert np.array_equal(encode(images, network), first)
    assert network.seen == 0


def test_what_changes_is_computed_and_what_moves_is_not(images: Path) -> None:
    encode(images, Counting())
    (images / "3.png").rename(images / "z.png")
    Image.fromarray(picture(99)).save(images / "5.png")
    network = Counting()
    features = encode(images, network)
    assert network.seen == 1
    assert np.array_equal(features[-1], fit(picture(3) / np.float32(255), SIDE).ravel())
    assert np.array_equal(features[4], fit(picture(99) / np.float32(255), SIDE).ravel())


def test_encoders_and_preparations_do_not_share_features(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(images, Counting())
    network = Counting()
    encode(images, network, "pixels@2")
    assert network.seen == 10
    monkeypatch.setattr(feature_cache, "PREPARATION", feature_cache.PREPARATION + 1)
    encode(images, network, "pixels@2")
    assert network.seen == 20


def test_the_true_shape_is_part_of_what_is_remembered(images: Path) -> None:
    item = items_of(images)[0]
    squashed = Item(item.file, item.name, None, None, None, None, (100, 200))
    cache = images.parent / "c"
    whole, middle = (
        encode_collection([each], encoder(Counting()), cache).features for each in (item, squashed)
    )
    expected = fit(picture(0) / np.float32(255), SIDE, (100, 200)).ravel()
    assert np.array_equal(middle[0], expected)
    assert not np.allclose(whole, middle)


def test_a_killed_run_goes_on_where_it_was(images: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        encode(images, Counting(fails_at=8))
    assert len(chunks(images)) == 2
    network = Counting()
    features = encode(images, network)
    assert network.seen == 2
    assert np.array_equal(features, encode(images, Counting(), "fresh@1"))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_chunk_is_computed_again(images: Path, damage: str) -> None:
    first = encode(images, Counting())
    chunk = chunks(images)[0]
    data = bytearray(chunk.read_bytes())
    data[-1] ^= 1
    chunk.write_bytes({"flip": bytes(data), "cut": bytes(data[:-7]), "empty": b""}[damage])
    network = Counting()
    assert np.array_equal(encode(images, network), first)
    assert network.seen in (2, 4)
    network.seen = 0
    encode(images, network)
    assert network.seen == 0


def test_an_unreadable_file_is_an_error_with_its_name_and_no_black_sample(images: Path) -> None:
    (images / "sub").mkdir()
    (images / "sub/broken.png").write_bytes((images / "2.png").read_bytes()[:200])
    (images / "4.png").write_bytes(b"not a picture")
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(
        images / "6.png"
    )  # a blank one shows nothing
    encoded = encode_collection(items_of(images), encoder(Counting()), images.parent / "c")
    assert encoded.rows.tolist() == [0, 1, 2, 3, 5, 7, 8, 9]
    assert len(encoded.features) == 8
    assert (encoded.features.max(1) > 0.3).all()
    names = ["4.png:", "6.png:", "sub/broken.png:"]
    assert [line.split()[0] for line in encoded.errors] == names
    thumbnails = read_thumbnails(items_of(images), 8)
    assert thumbnails.rows.tolist() == encoded.rows.tolist()
    assert [line.split()[0] for line in thumbnails.errors] == names


def test_a_collection_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(b"not a picture")
    with pytest.raises(InvalidInput, match=r"none of 1 images could be read; the first: a\.png: "):
        encode(tmp_path / "images", Counting())
    with pytest.raises(InvalidInput, match=r"none of 1 images could be read; the first: a\.png: "):
        read_thumbnails(items_of(tmp_path / "images"), 8)


def test_features_that_are_no_numbers_are_refused_and_not_kept(images: Path) -> None:
    broken = Encoder("nan@1", SIDE, SIDE, lambda images: images.flatten(1) / 0 - 1, "cpu")
    with pytest.raises(InvalidInput, match="nan@1 answers NaN or infinity"):
        encode_collection(items_of(images), broken, images.parent / "c")
    assert chunks(images) == []


def test_a_cache_that_is_a_file_is_refused(images: Path) -> None:
    (images.parent / "c").write_text("x")
    with pytest.raises(InvalidInput, match="where no folder can be made"):
        encode(images, Counting())


def test_sixteen_bits_and_turned_dicom_give_the_same_features(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    levels = picture(0)
    Image.fromarray(levels).save(folder / "0.png")
    Image.fromarray(levels.astype(np.uint16) * 257).save(folder / "1.png")
    record = Record(
        model="m", weight_sha256="0" * 64, seed=0, scheduler="s", num_inference_steps=1,
        guidance_scale=1, height=40, width=40,
    )  # fmt: skip
    write_dicom(folder / "2.dcm", levels / np.float32(255), record)
    dataset = pydicom.dcmread(folder / "2.dcm")
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.PresentationLUTShape = "INVERSE"
    dataset.PixelData = (65535 - dataset.pixel_array).tobytes()
    dataset.save_as(folder / "3.dcm")
    first, *others = encode(folder, Counting())
    assert len(others) == 3
    for each in others:
        assert np.allclose(each, first, atol=1e-4)


def test_thumbnails_are_of_one_resize_and_say_which_were_enlarged(images: Path) -> None:
    Image.fromarray(picture(50, (20, 200))).save(images / "5.png")
    thumbnails = read_thumbnails(items_of(images), 32)
    expected = np.round(fit(picture(4) / np.float32(255), 32) * 255)
    assert thumbnails.images.shape == (10, 1, 32, 32)
    assert thumbnails.images.dtype == torch.uint8
    assert np.array_equal(thumbnails.images[4, 0], expected)
    assert np.flatnonzero(thumbnails.enlarged).tolist() == [5]
    with pytest.raises(InvalidInput, match="side is 0"):
        read_thumbnails(items_of(images), 0)


def test_progress_counts_every_image(images: Path) -> None:
    (images / "4.png").write_bytes(b"not a picture")
    counts: list[tuple[int, int]] = []
    expected = [(i + 1, 10) for i in range(10)]
    network = encoder(Counting())
    for _ in range(2):
        counts.clear()
        encode_collection(
            items_of(images), network, images.parent / "c", lambda *count: counts.append(count)
        )
        assert counts == expected
    counts.clear()
    read_thumbnails(items_of(images), 8, lambda *count: counts.append(count))
    assert counts == expected


def test_few_images_are_read_ahead(images: Path) -> None:
    items = items_of(images) * 50
    begun: list[Item] = []
    results = _in_order(items, lambda item: begun.append(item) or item.name)
    seen = [next(results)[1] for _ in range(5)]
    assert len(begun) <= 5 + 2 * feature_cache._THREADS
    results.close()
    assert seen == [item.name for item in items[:5]]


def test_mirrored_features_are_of_the_mirrored_picture_and_kept_apart(images: Path) -> None:
    network = Counting()
    items, cache = items_of(images), images.parent / "c"
    straight = encode_collection(items, encoder(network), cache).features
    flipped = encode_collection(items, encoder(network), cache, flipped=True).features
    shape = (10, SIDE, SIDE)
    assert np.array_equal(flipped.reshape(shape), straight.reshape(shape)[..., ::-1])
    again = encode_collection(items, encoder(network), cache, flipped=True).features
    assert np.array_equal(again, flipped)
    assert network.seen == 20
