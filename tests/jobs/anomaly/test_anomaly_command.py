"""`medphantom anomaly` with a tiny model: what is written, gone on with, kept apart and refused."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from pydicom import dcmread, dcmwrite
from radiographs import radiograph
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from gen.anomaly.calibration import METHODS
from gen.data.provenance import Record
from gen.engine import Engine
from gen.errors import InvalidInput
from gen.types import ModelCall, Process
from jobs.anomaly.sources import list_sources, stem_of
from jobs.cli import app
from jobs.device import Precision, precise
from jobs.window import windowed

HEIGHT, WIDTH = 40, 30


def smooth(seed: int, *shape: int) -> np.ndarray:
    """Smooth noise of 8 bits."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape or (HEIGHT, WIDTH)), 3)
    return np.clip(130 + 50 * noise / noise.std(), 0, 255).astype(np.uint8)


def anomaly(model: Path, out: Path, *words: object) -> Any:
    options = ["--model", str(model), "--method", "single_step", "--threshold", "0"]
    return CliRunner().invoke(app, ["anomaly", *map(str, words), "--out", str(out), *options])


def rows_of(done: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two pictures of one name in two folders, a third, and one that is none."""
    folder = tmp_path / "scans"
    for name, seed in (("left/1.png", 1), ("right/1.png", 2), ("2.jpeg", 3)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth(seed)).save(folder / name)
    (folder / "broken.png").write_bytes(b"no picture of Canary^Carla")
    (folder / "notes.txt").write_text("not read")
    return folder


def test_a_folder_is_mapped_once_and_one_bad_file_does_not_stop_the_others(
    scans: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "maps"
    done = anomaly(tiny_folder, out, scans)
    assert done.exit_code == 1, done.output
    assert "failed: " in done.stderr
    assert "onlyPNG,JPEGandDICOMareread" in "".join(done.stderr.split())  # lines are wrapped
    assert "no acute finding" not in done.stderr  # the prompt
    rows = rows_of(done)
    assert {Path(row["source"]).relative_to(scans).as_posix() for row in rows} == {
        "left/1.png", "right/1.png", "2.jpeg"
    }  # fmt: skip
    assert {Path(row["map"]).name for row in rows} == {"1.npy", "right-1.npy", "2.npy"}
    for row in rows:
        found = np.load(row["map"])
        assert found.shape == (HEIGHT, WIDTH)
        assert found.dtype == np.float32
        assert row["method"] == "single_step"
        assert (row["threshold"], row["false_positive_rate"]) == (0, None)
        for box in row["boxes"]:
            assert 0 <= box["x"] < box["x"] + box["w"] <= WIDTH
            assert 0 <= box["y"] < box["y"] + box["h"] <= HEIGHT
        assert [box["score"] for box in row["boxes"]] == sorted(
            (box["score"] for box in row["boxes"]), reverse=True
        )
        record = Record.from_file(row["files"]["healthy"])
        assert (record.task, record.weight_sha256) == ("anomaly", row["weight_sha256"])
        assert record.source_sha256 == row["source_sha256"]
        with Image.open(row["files"]["healthy"]) as healthy:
            assert healthy.size == (WIDTH, HEIGHT)
            assert healthy.text["Synthetic"] == "YES"  # type: ignore[attr-defined]
            assert "not of a patient" not in healthy.text["Description"]  # type: ignore[attr-defined]
        with Image.open(row["files"]["overlay"]) as overlay:
            assert (overlay.size, overlay.mode) == ((WIDTH, HEIGHT), "RGB")
    assert any(row["boxes"] for row in rows)
    kept = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert kept == rows
    times = {file: file.stat().st_mtime_ns for file in out.iterdir()}
    again = anomaly(tiny_folder, out, scans)
    assert sorted(rows_of(again), key=str) == sorted(rows, key=str)
    assert {file: file.stat().st_mtime_ns for file in out.iterdir()} == times
    assert "3 were finished before, 1 failed" in " ".join(again.stderr.split())


def test_results_are_replaced_only_if_that_is_asked_for(
    scans: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    out, picture = tmp_path / "maps", scans / "2.jpeg"
    assert anomaly(tiny_folder, out, picture).exit_code == 0
    before = (out / "2.npy").read_bytes()
    other = anomaly(tiny_folder, out, picture, "--seed", 5)
    assert other.exit_code == 2
    assert "made with other settings" in " ".join(other.stderr.split())
    Image.fromarray(smooth(9)).save(picture)
    changed = anomaly(tiny_folder, out, picture)
    assert changed.exit_code == 1
    assert "it has changed since its results were made" in " ".join(changed.stderr.split())
    assert (out / "2.npy").read_bytes() == before
    assert anomaly(tiny_folder, out, picture, "--overwrite").exit_code == 0
    assert (out / "2.npy").read_bytes() != before
    # what was cut off is ours to finish, a file of somebody else is not
    (out / "results.jsonl").write_text('{"torn')
    assert anomaly(tiny_folder, out, picture).exit_code == 0
    (out / "1.overlay.png").write_bytes(b"mine")
    foreign = anomaly(tiny_folder, out, scans / "left/1.png")
    assert foreign.exit_code == 1
    assert "1.overlay.png exists" in " ".join(foreign.stderr.split())
    assert (out / "1.overlay.png").read_bytes() == b"mine"


def test_a_map_does_not_follow_from_what_shares_its_forwards(
    scans: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    anomaly(tiny_folder, tmp_path / "all", scans)
    done = anomaly(tiny_folder, tmp_path / "one", scans / "2.jpeg")
    [row] = rows_of(done)
    alone, together = np.load(row["map"]), np.load(tmp_path / "all/2.npy")
    assert alone.max() > 0
    assert np.allclose(alone, together, rtol=1e-3, atol=1e-6)


def test_a_dicom_object_gets_a_segmentation_and_an_overlay_on_its_pixels(
    tiny_folder: Path, tmp_path: Path
) -> None:
    source = radiograph(smooth(4).astype(np.uint16) * 16)
    dcmwrite(tmp_path / "scan.dcm", source, enforce_file_format=True)
    done = anomaly(tiny_folder, tmp_path / "maps", tmp_path / "scan.dcm")
    assert done.exit_code == 0, done.output
    [row] = rows_of(done)
    mask, overlay = (dcmread(row["files"][each]) for each in ("segmentation", "dicom_overlay"))
    for each in (mask, overlay):
        assert (each.Rows, each.Columns) == (HEIGHT, WIDTH)
        assert each.StudyInstanceUID == source.StudyInstanceUID
        assert each["SyntheticData"].value == "YES"
    marked = mask.pixel_array.astype(bool)
    assert marked.any()
    assert (np.load(row["map"])[marked] > 0).mean() > 0.9
    assert str(source.PatientName) not in done.output
    again = anomaly(tiny_folder, tmp_path / "maps", row["files"]["segmentation"])
    assert "is itself the result of an analysis" in " ".join(again.stderr.split())


def test_frames_are_mapped_each(tiny_folder: Path, tmp_path: Path) -> None:
    frames = np.stack([smooth(seed) for seed in range(3)]).astype(np.uint16) * 16
    dcmwrite(tmp_path / "scan.dcm", radiograph(frames), enforce_file_format=True)
    done = anomaly(tiny_folder, tmp_path / "maps", tmp_path / "scan.dcm", "--format", "dicom-seg")
    assert done.exit_code == 0, done.output
    [row] = rows_of(done)
    assert set(row["files"]) == {"map", "segmentation"}
    assert np.load(row["map"]).shape == (3, HEIGHT, WIDTH)
    assert dcmread(row["files"]["segmentation"]).NumberOfFrames == 3
    assert row["score"] == max(row["scores"]) == row["scores"][row["slice"]]


def test_a_volume_gets_a_map_on_its_own_voxels(tiny_folder: Path, tmp_path: Path) -> None:
    voxels = smooth(5, 30, 20, 4).astype(np.int16)  # right to left, front to back, up
    affine = np.array([[-2.0, 0, 0, 10], [0, 1.5, 0, -7], [0, 0, 3, 1], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "head.nii.gz")
    done = anomaly(tiny_folder, tmp_path / "maps", tmp_path / "head.nii.gz")
    assert done.exit_code == 0, done.output
    [row] = rows_of(done)
    assert Path(row["files"]["volume"]).name == "head.map.nii.gz"
    image: Any = nibabel.load(row["files"]["volume"])
    assert image.shape == voxels.shape
    assert np.allclose(image.affine, affine)
    slices = np.load(row["map"])
    assert slices.shape == (4, 20, 30)
    assert len(row["scores"]) == 4
    written = np.asarray(image.dataobj)
    for index in range(4):
        assert np.sort(written[..., index].ravel()) == pytest.approx(np.sort(slices[index].ravel()))


def test_every_method_is_offered(scans: Path, tiny_folder: Path, tmp_path: Path) -> None:
    for method in ("patchwise", "autopaint"):
        words = ["anomaly", scans / "2.jpeg", "--model", tiny_folder, "--method", method]
        words += ["--threshold", "0.1", "--out", tmp_path / method, "--mixed-precision", "bf16"]
        done = CliRunner().invoke(app, list(map(str, words)))
        assert done.exit_code == 0, done.output
        assert rows_of(done)[0]["method"] == method


def test_what_cannot_be_mapped_is_refused(scans: Path, tiny_folder: Path, tmp_path: Path) -> None:
    picture, model = str(scans / "2.jpeg"), ["--model", str(tiny_folder)]
    empty = tmp_path / "empty"
    empty.mkdir()
    for words, message in (
        ([picture, *model], "is not calibrated on healthy pictures; run medphantom anomaly"),
        ([picture, *model, "--method", "magic"], "method is 'magic'"),
        ([picture, "--format", "tiff"], "format is 'tiff', but must be some of: npy"),
        ([str(empty), *model], "no PNG, JPEG, DICOM or NIfTI file"),
        ([str(tmp_path / "gone.png")], "does not exist"),
        (["--out", "x"], "give either PATH... or --pacs"),
        ([picture, "--study", "1.2"], "are of a PACS"),
        (["--pacs", "nobody", "--study", "1.2"], "must be a configured name"),
    ):
        done = CliRunner().invoke(app, ["anomaly", *words])
        assert done.exit_code == 2, done.output
        assert message in " ".join(done.stderr.split())


def test_help_teaches_both_commands() -> None:
    text = CliRunner().invoke(app, ["anomaly", "--help"]).output
    assert "calibrate" in text
    assert "medphantom anomaly PATH..." in text
    assert "--threshold-fpr" in CliRunner().invoke(app, ["anomaly", "map", "--help"]).output
    assert CliRunner().invoke(app, ["anomaly", "calibrate", "--help"]).exit_code == 0


def test_sources_are_those_of_folders_without_results_and_each_once(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.nii.gz", "out/c.png", ".hidden/d.png", "e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM")
    found = list_sources([tmp_path, tmp_path / "b.PNG"], tmp_path / "out")
    assert [path.name for path in found] == ["IM0001", "a.nii.gz", "b.PNG"]
    assert [stem_of(path) for path in found] == ["IM0001", "a", "b"]


def test_few_processes_are_under_way_at_a_time_and_answers_keep_their_order() -> None:
    begun: list[int] = []

    def process(number: int) -> Process[int]:
        begun.append(number)
        for _ in range(3 if number % 2 else 1):
            yield ModelCall("double", (torch.tensor([[float(number)]]),))
        if number == 4:
            raise InvalidInput("four")
        return number

    def processes() -> Iterator[Process[int]]:
        yield from map(process, range(9))

    engine = Engine({"double": lambda row: 2 * row}, max_rows=4)
    for number, ticket in enumerate(windowed(engine, processes(), 3)):
        assert len(begun) <= number + 3
        if number == 4:
            with pytest.raises(InvalidInput, match="four"):
                ticket.result()
        else:
            assert ticket.result() == number
    assert begun == list(range(9))


def test_networks_alone_compute_in_less_precision() -> None:
    weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    networks = {"linear": lambda rows: rows @ weight}
    rows = torch.ones(2, 4)
    exact, rounded = (
        precise(networks, each)["linear"](rows) for each in (Precision.NO, Precision.BF16)
    )
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert torch.allclose(exact, rounded, atol=0.05)


def test_the_command_line_is_read_without_torch() -> None:
    code = "import sys, jobs.cli; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_all_methods_are_named_in_the_help() -> None:
    text = CliRunner().invoke(app, ["anomaly", "map", "--help"]).output
    assert all(method in text for method in METHODS)
