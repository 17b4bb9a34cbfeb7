"""`medphantom evaluate large`: pictures whose defects are known, with a random encoder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner, Result

from gen.errors import InvalidInput
from gen.metrics import tile_copies
from jobs.cli import app
from jobs.large_sets import Spacings, files_of, read_rows

SIDE = 200
SMALL = ("--crop-size", "48", "--patch-size", "32", "--places", "16", "--planted", "2")


def tissue(seed: int, side: int = SIDE) -> NDArray[np.uint8]:
    """Dots on a ground whose colour changes from place to place (side, side, 3)."""
    rng = np.random.default_rng(seed)
    dots = gaussian_filter(rng.normal(size=(side, side, 1)), (1, 1, 0))
    ground = gaussian_filter(rng.normal(size=(side, side, 3)), (30, 30, 0))
    pixels = 140 + 30 * dots / dots.std() + 30 * ground / ground.std()
    return np.clip(pixels, 0, 255).astype(np.uint8)


def save(path: Path, pixels: NDArray[np.uint8]) -> Path:
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(autouse=True)
def few_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_copies, "BY_EMBEDDING", 6)
    monkeypatch.setattr(tile_copies, "WINDOWS", 2)


@pytest.fixture
def encoder(tiny_large_model: Path) -> Path:
    return tiny_large_model.parent / "encoder"


@pytest.fixture
def real(tmp_path: Path) -> Path:
    return save(tmp_path / "real.png", tissue(0))


def evaluate(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["evaluate", "large", *map(str, arguments)])


def figures(*arguments: Any) -> dict[str, Any]:
    done = evaluate(*arguments, *SMALL)
    assert done.exit_code == 0, done.output
    assert len([line for line in done.stderr.splitlines() if "Fréchet" in line]) == 1
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def test_all_figures_stand_beside_those_of_real_images(
    tmp_path: Path, real: Path, encoder: Path
) -> None:
    out = tmp_path / "figures.json"
    image = save(tmp_path / "made.png", tissue(1, 320))
    save(real, tissue(0, 320))
    found = figures(
        image, "--real", real, "--like", image, "--train", real, "--encoder", encoder,
        "--out", out,
    )  # fmt: skip
    assert json.loads(out.read_text()) == found
    assert found["crop_frechet"]["distance"]["value"] > 0
    assert found["crop_frechet"]["floor"]["value"] > 0
    # its own reference: nothing can agree better
    assert found["similarity"]["own"] == found["similarity"]["reference"]
    assert found["similarity"]["gap"]["value"] > 0
    assert found["sharpness"]["distance"]["value"] == pytest.approx(1, abs=0.3)
    assert set(found["seams"]) == {"32", "80"}
    assert found["copies"]["rate"]["value"] < 0.5
    assert found["copies"]["places"] == 16
    assert set(found["copies"]["recall"]) >= {"none", "everything"}
    assert len(found["copies"]["nearest"]) == 5
    assert found["cost"] == {}
    assumed, few = found["omissions"]
    assert assumed.startswith("3 image(s) do not say their magnification; taken as 0.5")
    assert few.startswith("of 16 real places 25 % are called copies")


def test_seams_blur_and_copies_are_seen(tmp_path: Path, real: Path, encoder: Path) -> None:
    steps = np.kron(np.indices((7, 7)).sum(0)[..., None] % 2, np.ones((32, 32, 1)))
    pixels = tissue(0)
    seamed = save(tmp_path / "seamed.png", (pixels * 0.8 + 40 * steps[:SIDE, :SIDE]).astype("u1"))
    soft = save(tmp_path / "soft.png", gaussian_filter(tissue(1), (2, 2, 0)))
    other = save(tmp_path / "other.png", tissue(2))
    of_seamed = figures(seamed, "--real", other, "--train", real, "--encoder", encoder)
    worst = of_seamed["seams"]["32"]["worst"]
    assert worst["distance"]["low"] > worst["floor"]["high"]
    assert of_seamed["seams"]["32"]["whole"]["images"]["phase"] == 0
    # stained otherwise and with seams, but the training image all the same
    assert of_seamed["copies"]["rate"]["value"] > 0.5
    assert of_seamed["copies"]["nearest"][0]["train"] == str(real)
    of_soft = figures(soft, "--real", other, "--encoder", encoder)
    assert of_soft["sharpness"]["distance"]["high"] < 0.5 < of_soft["sharpness"]["floor"]["low"]
    assert of_soft["copies"] is None
    assert of_soft["similarity"] is None
    assert [line.split(",")[0] for line in of_soft["omissions"][:2]] == [
        "without --like",
        "without --train",
    ]


def test_records_of_large_images_pass_their_costs_on(
    tmp_path: Path, real: Path, encoder: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = []
    for number, seconds in enumerate((2.0, 4.0)):
        save(tmp_path / f"{number}.png", tissue(number + 1))
        costs = {"seconds": seconds, "network_calls_per_megapixel": 100, "peak_memory_mb": None}
        lines.append(json.dumps({"file": f"{number}.png", **costs}))
    rows.write_text("\n".join(lines) + "\n\n")
    found = figures(rows, "--real", real, "--encoder", encoder)
    assert found["images"] == [str(tmp_path / "0.png"), str(tmp_path / "1.png")]
    assert found["cost"] == {"seconds": 3.0, "network_calls_per_megapixel": 100.0}


def test_all_are_compared_at_one_magnification(tmp_path: Path, encoder: Path) -> None:
    image = save(tmp_path / "made.png", tissue(1))
    real = save(tmp_path / "fine.png", tissue(0, 2 * SIDE))
    save(tmp_path / "coarse.png", tissue(3))
    (tmp_path / "train").mkdir()
    for name in ("fine.png", "none.png", "coarse.png"):
        save(tmp_path / "train" / name, tissue(4))
    spacings = ("--spacing", "fine.png=0.25", "--spacing", "coarse.png=2")
    found = figures(
        image, "--real", real, "--train", tmp_path / "train", "--encoder", encoder, *spacings
    )
    # 400 pixels at 0.25 microns are 200 at 0.5: as many blocks as the image's
    assert found["crop_frechet"]["size"] == 2
    assert found["copies"]["training_windows"] == 36
    said = " ".join(found["omissions"])
    assert "1 image(s) fit no --spacing and are left out" in said
    assert "1 image(s) have more than 0.5 microns a pixel and are left out" in said


def test_a_training_folder_has_its_split(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("file,split\na.png,train\nb.png,test\n")
    assert files_of(tmp_path, "train") == [tmp_path / "a.png"]
    with pytest.raises(InvalidInput, match="no image of split 'val'"):
        files_of(tmp_path, "val")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--spacing", "a"], "spacing is 'a', but must be PATTERN=MICRONS"),
        (["--spacing", "a=-1"], "spacing is 'a=-1'"),
        (["--crop-size", "150"], "crop_size is 150, but there is room for 1 blocks of 300"),
        (["--crop-size", "300"], "crop_size is 300, but made.png has 200 x 200 pixels"),
        (["--patch-size", "128", "--crop-size", "48"], "two periods"),
        (["--encoder", "nothing/of/that/name"], "nothing/of/that/name"),
    ],
)
def test_wrong_input_is_explained(
    tmp_path: Path, real: Path, encoder: Path, options: list[str], words: str
) -> None:
    image = save(tmp_path / "made.png", tissue(1))
    done = evaluate(image, "--real", real, "--encoder", encoder, *options)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.split())


def test_wrong_rows_are_explained(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    for text, words in (
        ("not json", "line 1, is no record"),
        ('\n{"seed": 1}', "line 2, is no record"),
        ('{"file": "gone.tif"}', "names gone.tif, which is not there"),
    ):
        rows.write_text(text)
        with pytest.raises(InvalidInput, match=words):
            read_rows([rows])


def test_the_first_spacing_that_fits_the_end_of_a_name_counts() -> None:
    spacings = Spacings.of(["tiles/a*=0.5", "*.png=1"])
    assert spacings.of_file(Path("/data/tiles/a=1.png")) == 0.5
    assert spacings.of_file(Path("/data/b.png")) == 1
    assert spacings.of_file(Path("/data/b.jpg")) is None
