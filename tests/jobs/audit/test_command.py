"""`medphantom audit` on a small world: figures, copies, what is left out, and going on."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_world import KINDS, audit, make_set, picture, run, save

from jobs.audit import alignment
from jobs.audit.schema import Audit


def figures(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((out / "audit.json").read_text())
    Audit.model_validate(loaded)
    return loaded


@pytest.fixture(scope="module")
def whole(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world's audit."""
    out = tmp_path_factory.mktemp("audit")
    result = audit(world, world / "made", out)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout.splitlines()[-1])
    assert record["figures"] == str(out / "audit.json")
    return out


def test_an_audit_gives_every_section_with_floors_and_intervals(whole: Path) -> None:
    found = figures(whole)
    sizes = {name: each["images"] for name, each in found["sets"].items()}
    assert sizes == {"synthetic": 136, "real": 208, "train": 60}
    overall = found["fidelity"]["overall"]["figures"]
    for figure in (*overall.values(), *found["diversity"]["overall"]["figures"].values()):
        assert figure["low"] <= figure["value"] <= figure["high"]
        assert figure["floor"]["low"] <= figure["floor"]["high"]
    # the same distribution: no worse than the floor
    assert overall["frechet"]["low"] <= overall["frechet"]["floor"]["high"]
    assert overall["coverage"]["value"] > 0.8
    assert set(found["fidelity"]["groups"]) == {"finding", "view", "sex", "age group"}
    adults = found["fidelity"]["groups"]["age group"]["adult"]
    assert (adults["images"], adults["real"], adults["size"]) == (68, 104, 34)
    assert found["fidelity"]["spectrum"]["child"] == pytest.approx([1] * 16, rel=0.3)
    within = found["diversity"]["prompt"]["adult: Effusion"]["figures"]["ms_ssim"]
    assert abs(within["value"] - within["floor"]["value"]) < 0.1
    labels = found["alignment"]["labels"]["Effusion among adults"]
    assert (labels["num_positive"], labels["num_images"]) == (34, 68)
    assert found["fairness"]["sex"]["followed"]["best"] in ("male", "female")
    assert found["fairness"]["age group"]["frechet"]["high"] >= 0
    assert found["sensitivity"]["harms"]["mode dropping"]["moves"]
    assert len(found["copies"]["flagged"]) <= 4  # 1 % of images are more alike than usual
    assert found["copies"]["floor"]["value"] <= 0.03
    assert found["copies"]["planted"]["flip"]["images"] == 4
    assert any("only the rows of split test" in line for line in found["omissions"])


def test_the_page_stands_alone_and_shows_pictures_first(whole: Path) -> None:
    page = (whole / "audit.html").read_text()
    assert page.index("<img") < page.index("In short") < page.index("Fidelity:")
    assert 'src="data:image/' in page
    assert "http" not in page.replace("http-equiv", "")
    for words in ("Synthetic, drawn at random", "most suspicious pairs", "Viral pneumonia", "blur"):
        assert words in page


def test_copies_that_were_slipped_in_are_named_and_nothing_else_is(
    world: Path, made: Path, tmp_path: Path
) -> None:
    train = sorted((world / "real").rglob("train*.png"))[:6]
    for i, path in enumerate(train):
        copy = Image.open(path)
        if i % 2:
            copy = copy.transpose(Image.Transpose.FLIP_LEFT_RIGHT).point(lambda v: 0.8 * v + 20)
        copy.convert("L").save(made / f"{i:03d}.png", quality=70)
    result = audit(world, made, tmp_path / "out", "--no-sensitivity")
    assert result.exit_code == 0, result.output
    copies = figures(tmp_path / "out")["copies"]
    assert copies["flagged"][:6] == [f"{i:03d}.png" for i in range(6)]
    assert len(copies["flagged"]) <= 6 + 4
    assert {pair["training"] for pair in copies["pairs"][:6]} == {
        path.relative_to(world / "real").as_posix() for path in train
    }
    assert copies["rate"]["value"] == pytest.approx(len(copies["flagged"]) / 136)
    parts = run(
        world, "evaluate", "copies", made, "--data", world / "real", "--planted", 4, depth=2
    )
    assert json.loads(parts.stdout)["copies"] == copies


def test_an_audit_that_was_killed_goes_on_behind_what_it_had_done(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    options = ("--cache", cache, "--no-sensitivity")
    with monkeypatch.context() as patched:
        patched.setattr(alignment, "separations", lambda *_: 1 / 0)
        assert isinstance(
            audit(world, world / "made", tmp_path, *options).exception, ArithmeticError
        )
    (kept,) = (cache / "stages").iterdir()
    before = kept.stat().st_mtime_ns
    result = audit(world, world / "made", tmp_path, *options)
    assert result.exit_code == 0, result.output
    assert "measuring likeness" not in result.stderr
    assert "measuring alignment" in result.stderr
    assert kept.stat().st_mtime_ns == before
    first = figures(tmp_path)
    assert audit(world, world / "made", tmp_path, *options).exit_code == 0
    assert figures(tmp_path) == first


def test_without_a_training_set_copies_of_the_real_one_are_looked_for(
    world: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for i, path in enumerate(sorted((world / "real").rglob("test*.png"))):
        shutil.copy(path, plain / f"{i}.png")
    made = make_set(tmp_path / "made", 12, 5000)
    shutil.copy(plain / "7.png", made / "000.png")
    result = audit(world, made, tmp_path / "out", "--real", plain, "--no-sensitivity")
    assert result.exit_code == 0, result.output
    found = figures(tmp_path / "out")
    assert (found["copies"]["searched"], found["copies"]["flagged"]) == ("real", ["000.png"])
    assert found["copies"]["pairs"][0]["training"] == "7.png"
    assert "12 synthetic images" in found["fidelity"]["overall"]["omitted"]
    assert any("no training set was named" in line for line in found["omissions"])
    assert any("no patients are named" in line for line in found["omissions"])


def test_one_image_of_another_size_without_a_prompt_is_searched_and_the_rest_left_out(
    world: Path, tmp_path: Path
) -> None:
    save(tmp_path / "one/a.png", picture(0, 9)[:100, :70])
    result = audit(world, tmp_path / "one", tmp_path / "out", "--no-sensitivity")
    assert result.exit_code == 0, result.output
    found = figures(tmp_path / "out")
    assert found["sets"]["synthetic"]["images"] == 1
    for section in ("fidelity", "diversity"):
        assert "1 synthetic images" in found[section]["overall"]["omitted"]
    assert "no synthetic image has a prompt" in found["alignment"]["omitted"]
    assert found["copies"]["flagged"] == []
    assert {*found["fairness"]["sex"]} == {"omitted"}
    page = (tmp_path / "out/audit.html").read_text()
    assert "no synthetic image has a prompt" in page


def test_what_cannot_be_read_is_said_and_never_measured(
    world: Path, made: Path, tmp_path: Path
) -> None:
    (made / "000.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    Image.new("L", (192, 192)).save(made / "001.png")
    save(made / "002.png", np.kron(picture(2, 1002), np.ones((2, 2))))
    result = audit(world, made, tmp_path / "out", "--no-sensitivity")
    assert result.exit_code == 0, result.output
    found = figures(tmp_path / "out")
    assert found["sets"]["synthetic"]["images"] == 134
    (line,) = [each for each in found["omissions"] if "could not be read" in each]
    assert "2 of 136" in line
    assert "000.png" in line
    assert "001.png" in line


@pytest.mark.parametrize(
    ("prepare", "options", "message"),
    [
        (lambda folder: None, (), "holds no picture"),
        (lambda folder: (folder / "a.png").write_bytes(b"x"), (), "none of 1 images could be read"),
        (
            lambda folder: (folder / "manifest.csv").write_text("file,colour\na.png,red\n"),
            (),
            "manifest.csv",
        ),
        (
            lambda folder: save(folder / "a.png", picture(0, 0)),
            ("--real-split", "tset"),
            "split is 'tset'",
        ),
        (
            lambda folder: save(folder / "a.png", picture(0, 0)),
            ("--classifier", "no"),
            "model 'no'",
        ),
    ],
)
def test_wrong_input_is_named_and_nothing_is_written(
    world: Path, tmp_path: Path, prepare: Any, options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "set").mkdir()
    prepare(tmp_path / "set")
    result = audit(world, tmp_path / "set", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out/audit.json").exists()


def test_the_schema_is_printed_and_holds_for_what_is_written(world: Path, whole: Path) -> None:
    printed = json.loads(run(world, "audit", "--schema").stdout)
    assert set(printed["required"]) <= set(figures(whole))
    assert {"fidelity", "diversity", "alignment", "copies", "fairness"} <= set(printed["required"])


def test_parts_give_what_the_whole_gives(world: Path, whole: Path, tmp_path: Path) -> None:
    expected = figures(whole)
    made, real = world / "made", world / "real"
    part = run(
        world, "evaluate", "fidelity", made, "--real", real, "--out", tmp_path / "f.json", depth=2
    )
    found = json.loads(part.stdout)
    assert found == json.loads((tmp_path / "f.json").read_text())
    assert found["fidelity"] == expected["fidelity"]
    assert found["diversity"] == expected["diversity"]
    judge = ("--classifier", world / "classifier")
    judged = run(world, "evaluate", "alignment", made, "--real", real, *judge, depth=2)
    assert json.loads(judged.stdout)["alignment"] == expected["alignment"]


def test_kinds_are_read_from_their_prompts_as_they_are_stored() -> None:
    from gen.data.captions import labels_of
    from gen.data.prompt_labels import labels_in

    for source, findings, _, sex, prompt in KINDS:
        stored = labels_of({"file": f"{source}/a.png", "findings": findings, "sex": sex})
        asked = labels_in(prompt)
        assert (asked.findings, asked.child) == (stored.findings, stored.child)
