"""The task of augmentation: what may be asked, what it costs, and what a picture becomes."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from gen.data.bundle import unpack
from gen.data.captions import PHRASES
from gen.data.prompt_labels import labels_in
from gen.data.provenance import Record
from gen.engine import Engine, run
from jobs.counted import counted
from jobs.model_pool import ModelPool
from jobs.tasks import TASKS
from jobs.tasks.augment import AugmentSpec

TASK = TASKS["augment"]
DEVICE = torch.device("cpu")
PROMPT = "a child with pneumonia"


def chest(height: int = 40, width: int = 50, seed: int = 0) -> Any:
    coarse = np.random.default_rng(seed).integers(60, 256, (5, 5), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def marked(height: int = 40, width: int = 50, value: int = 255) -> Any:
    mask = np.zeros((height, width), np.uint8)
    mask[10:30, 12:34] = value
    return mask


def b64(pixels: Any = None, kind: str = "PNG") -> str:
    stream = io.BytesIO()
    Image.fromarray(chest() if pixels is None else pixels).save(stream, kind)
    return base64.b64encode(stream.getvalue()).decode()


def spec(operation: str = "vary", *images: str, **fields: Any) -> AugmentSpec:
    body: dict[str, Any] = {"operation": operation, "num_inference_steps": 4, **fields}
    if operation != "synthesise":
        body["images"] = images or [b64()]
    checked: AugmentSpec = TASK.check(body)
    return checked


@pytest.fixture(scope="module")
def pipeline(tiny_model: str) -> Any:
    return TASK.load(tiny_model, DEVICE, torch.float32)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"operation": "flip"}, "vary"),
        ({"images": []}, "vary starts from a picture"),
        ({"images": [b64()] * 17}, "at most 16 items"),
        ({"images": ["aGVsbG8="]}, "no PNG, JPEG or DICOM"),
        ({"prompt": None}, "needs words"),
        ({"labels": {"findings": ["Mass"]}}, "prompt and labels are given"),
        (
            {"prompt": None, "labels": {"findings": ["Gout"]}},
            "finding that has no words; use Normal",
        ),
        ({"prompt": None, "labels": {"findings": ["Normal", "Mass"]}}, "stands beside other"),
        ({"prompt": ["a", "b"]}, "prompt has 2 entries for 1 pictures"),
        ({"masks": [b64(marked())]}, "vary takes no mask or box"),
        ({"operation": "insert", "masks": []}, "masks has 0 entries for 1 pictures"),
        ({"operation": "insert", "masks": [b64(marked(50, 40))]}, r"mask has the shape \(50, 40\)"),
        ({"operation": "insert", "masks": [b64(marked(), "JPEG")]}, "is no PNG"),
        ({"operation": "insert", "boxes": [(30, 0, 30, 10)]}, "within the picture of 40 x 50"),
        (
            {"operation": "insert", "boxes": [(0, 0, 9, 9)], "masks": [b64(marked())]},
            r"masks\[0\] and boxes\[0\] are given",
        ),
        ({"operation": "remove", "prompt": None}, "needs to know where"),
        ({"operation": "synthesise"}, "takes no picture"),
        ({"operation": "classical", "prompt": None}, "does nothing without classical steps"),
        ({"classical": [{"name": "flip"}]}, "affine"),
        ({"classical": [{"name": "gamma", "amount": 9}]}, "less than or equal to 4"),
        ({"strength": 0}, "greater than 0"),
        ({"strength": 1.5}, "less than or equal to 1"),
        ({"n": 1001}, "less than or equal to 1000"),
        ({"images": [b64()] * 2, "n": 501}, "1002 results are asked for"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"url": "http://x"}, "Extra inputs are not permitted"),
    ],
)
def test_what_breaks_a_rule_is_refused_and_the_rule_is_named(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        TASK.check({"operation": "vary", "images": [b64()], "prompt": PROMPT, **fields})


def test_each_result_is_an_item_with_its_seed_and_sentence() -> None:
    two = spec("vary", b64(), b64(), prompt=["a", "b"], n=2, seed=2**63 - 2)
    assert TASK.items(two, "r") == [
        {"row": 0, "prompt": "a", "seed": 2**63 - 2},
        {"row": 0, "prompt": "a", "seed": 2**63 - 1},
        {"row": 1, "prompt": "b", "seed": 0},
        {"row": 1, "prompt": "b", "seed": 1},
    ]
    drawn = [TASK.items(spec(prompt=PROMPT), request)[0]["seed"] for request in ("r", "r", "s")]
    assert drawn[0] == drawn[1] != drawn[2]
    assert TASK.items(spec("classical", classical=[{"name": "gamma"}]), "r")[0]["prompt"] is None


def test_labels_become_sentences_that_say_them() -> None:
    labels = [{"findings": ["Effusion", "Mass"], "sex": "F", "view": "AP"}, {"child": True}]
    varied = TASK.items(spec("vary", b64(), b64(), labels=labels, seed=1), "r")
    assert varied[0]["prompt"] == (
        "Anteroposterior chest X-ray of a female. Findings: effusion, mass."
    )
    written = TASK.items(spec("synthesise", labels=labels[0], n=20, seed=1), "r")
    sentences = [item["prompt"] for item in written]
    assert len(set(sentences)) > 10
    assert all(labels_in(each).findings == ("Effusion", "Mass") for each in sentences)
    for name in PHRASES:
        spec("synthesise", labels={"findings": [name]})


def test_a_spec_survives_its_journey_and_the_store_gets_no_picture() -> None:
    full = spec(
        "insert", b64(), b64(chest(40, 50, 1)), prompt=PROMPT, masks=[b64(marked()), None],
        boxes=[None, (1, 2, 30, 20)], classical=[{"name": "gamma", "amount": 0.5}],
    )  # fmt: skip
    assert TASK.check(full.model_dump(mode="json")) == full
    light, files = TASK.detach(full)
    assert "iVBOR" not in json.dumps(light)
    assert len(files) == 3
    assert TASK.check(TASK.attach(light, files.__getitem__)) == full
    words = spec("synthesise", prompt=PROMPT)
    assert TASK.check(TASK.attach(TASK.detach(words)[0], {}.__getitem__)) == words


def result_of(pipeline: Any, asked: AugmentSpec, index: int = 0) -> Any:
    item = TASK.items(asked, "r")[index]
    return run(TASK.process(pipeline, asked, item, lambda *_: None), TASK.networks(pipeline))


def made(pipeline: Any, asked: AugmentSpec, index: int = 0) -> Any:
    item = TASK.items(asked, "r")[index]
    return TASK.encode(pipeline, asked, item, result_of(pipeline, asked, index), {"rows": 4})


def image(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_variation_is_a_png_that_says_what_it_was_made_from(
    pipeline: Any, tmp_path: Path
) -> None:
    asked = spec(prompt=PROMPT, seed=4, model="m", classical=[{"name": "gamma", "amount": 0.5}])
    file = made(pipeline, asked)
    assert file.media_type == "image/png"
    assert image(file.data).shape == (40, 50)
    (tmp_path / "a.png").write_bytes(file.data)
    record = Record.from_file(tmp_path / "a.png")
    assert record.model_dump(mode="json") == file.record
    assert (record.task, record.seed, record.prompt) == ("augment", 4, PROMPT)
    assert record.synthetic is True
    assert record.source_sha256 == asked.images[0].digest
    assert record.weight_sha256 == pipeline.weight_sha256
    assert record.settings == {
        "operation": "vary", "strength": 0.5, "classical": "gamma:0.5", "device": "cpu", "rows": 4,
    }  # fmt: skip
    assert record.describe().startswith("Synthetic image, made from another image")


@pytest.mark.parametrize("operation", ["insert", "remove"])
@pytest.mark.parametrize("value", [1, 255])
def test_a_lesion_comes_with_its_mask_and_the_rest_stays(
    pipeline: Any, operation: str, value: int
) -> None:
    prompt = PROMPT if operation == "insert" else None
    asked = spec(operation, prompt=prompt, masks=[b64(marked(value=value))], model="m")
    file = made(pipeline, asked)
    files = unpack(file.data)
    assert list(files) == ["image.png", "mask.png", "record.json"] == file.record["files"]
    assert json.loads(files["record.json"]) == json.loads(json.dumps(file.record))
    inside = marked() > 0
    assert np.array_equal(image(files["image.png"])[~inside], chest()[~inside])
    label = marked() if operation == "insert" else np.zeros_like(marked())
    assert np.array_equal(image(files["mask.png"]), label)
    settings = file.record["settings"]
    assert (settings["operation"], settings["area"]) == (operation, "mask")
    assert settings["change"] > 0
    record = Record.model_validate({k: v for k, v in file.record.items() if k != "files"})
    assert record.describe().startswith("Partly synthetic image, painted over a real one")


def test_boxes_and_places_of_its_own_are_owned_up_to(pipeline: Any) -> None:
    areas = [
        made(pipeline, spec("insert", prompt=PROMPT, model="m", **fields)).record["settings"]
        for fields in ({"boxes": [(5, 5, 30, 20)]}, {})
    ]
    assert [each["area"] for each in areas] == ["box", "drawn"]


def test_classical_steps_are_no_synthesis(pipeline: Any) -> None:
    steps = [{"name": "affine"}]
    alone = made(pipeline, spec("classical", classical=steps, model="m"))
    assert alone.media_type == "image/png"
    record = Record.model_validate(alone.record)
    assert "not drawn by a model" in record.describe()
    assert (record.scheduler, record.num_inference_steps) == ("none", 1)
    both = unpack(
        made(pipeline, spec("classical", masks=[b64(marked())], classical=steps, model="m")).data
    )
    assert set(np.unique(image(both["mask.png"]))) == {0, 255}
    assert not np.array_equal(image(both["mask.png"]), marked())


def test_from_words_alone_comes_a_picture_of_no_other(pipeline: Any) -> None:
    file = made(pipeline, spec("synthesise", labels={"findings": ["Mass"]}, model="m"))
    assert file.record["source_sha256"] is None
    assert labels_in(file.record["prompt"]).findings == ("Mass",)


def test_gates_see_the_picture_that_is_delivered(pipeline: Any) -> None:
    asked = spec(prompt=PROMPT, seed=1, model="m")
    seen = TASK.picture(result_of(pipeline, asked))
    assert seen is not None
    assert seen.shape == (1, 1, 40, 50)
    shown = image(made(pipeline, asked).data)
    assert np.abs(seen[0, 0].numpy() * 255 - shown).max() <= 0.51
    drawing = TASKS["text-to-cxr"]
    drawn = drawing.picture((torch.rand(1, 3, 8, 8), None))
    assert drawn is not None
    assert drawn.shape == (1, 1, 8, 8)
    assert TASKS["large-images"].picture(object()) is None


def test_sixteen_bits_stay_so(pipeline: Any) -> None:
    pixels = chest().astype(np.uint16) * 257
    assert image(made(pipeline, spec("vary", b64(pixels), prompt="a", model="m")).data).dtype == (
        np.uint16
    )


@pytest.mark.parametrize(
    ("operation", "fields"),
    [("vary", {"strength": 0.5}), ("vary", {"strength": 1.0}), ("insert", {}), ("synthesise", {})],
)
def test_work_is_what_the_network_is_asked(
    pipeline: Any, operation: str, fields: dict[str, Any]
) -> None:
    asked = spec(operation, prompt=PROMPT, **{**fields, "num_inference_steps": 10})
    networks, rows = counted(TASK.networks(pipeline))
    item = TASK.items(asked, "r")[0]
    run(TASK.process(pipeline, asked, item, lambda *_: None), networks)
    square = 256 * 256 / 1e6
    assert rows["unet"] == pytest.approx(TASK.work(asked) / square, abs=2)
    assert TASK.work(asked.model_copy(update={"n": 3})) == pytest.approx(3 * TASK.work(asked))


def test_the_warm_up_is_a_valid_spec_of_little_work(pipeline: Any) -> None:
    asked = TASK.check(TASK.warm_up())
    assert TASK.work(asked) < 1
    assert made(pipeline, asked.model_copy(update={"model": "m"})).media_type == "image/png"


def test_variations_share_forwards_with_images_of_the_same_model(tiny_model: str) -> None:
    drawing = TASKS["text-to-cxr"]
    pool = ModelPool((tiny_model,), DEVICE, torch.float32)
    first = pool.acquire(drawing, tiny_model)
    both = pool.acquire(TASK, tiny_model)
    assert both is first
    forwards: list[tuple[str, int]] = []
    engine = Engine({}, 16, False, on_forward=lambda name, rows, _: forwards.append((name, rows)))
    sentence = drawing.check({"prompt": "a", "num_inference_steps": 4})
    asked = spec(prompt="b", strength=1)
    tickets = [
        engine.submit(
            task.process(both.pipeline, each, task.items(each, "r")[0], lambda *_: None),
            components=both.networks,
        )
        for task, each in ((drawing, sentence), (TASK, asked))
    ]
    engine.drain()
    for ticket in tickets:
        ticket.result()
    assert ("unet", 4) in forwards
