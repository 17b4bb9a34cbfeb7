"""A manifest is read once into items whose names and seeds their ids decide."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_process import write_prompts

from gen.data.samples import Sample
from gen.errors import Conflict, InvalidInput
from jobs.runner.freeze import freeze
from jobs.runner.items import Item, from_line, items_of, key_of, read_items
from jobs.runner.rows import Row
from jobs.runner.spec import Job, JobSpec, checked, read_job, read_spec, refuse_other


def spec_of(manifest: Path, out: Path, **fields: Any) -> JobSpec:
    task = {"task": "null", "model": "null"}
    return checked({**task, "manifest": {"path": str(manifest)}, "out": str(out), **fields})


def items_in(out: Path, job: Job) -> list[Item]:
    return [item for shard in range(job.num_shards) for item in read_items(out, shard)]


@given(st.text(max_size=300))
def test_any_id_gives_a_key_that_every_format_takes(name: str) -> None:
    assert Sample(key_of(name), {}, {}).key == key_of(name)
    assert key_of(name) != key_of(name + "#1")


@given(st.text(min_size=1), st.text(), st.dictionaries(st.text(), st.integers()))
def test_items_survive_their_file(name: str, prompt: str, fields: dict[str, int]) -> None:
    item = Item(name, key_of(name), prompt=prompt, labels=("Mass",), fields=fields)
    assert from_line(item.to_line()) == item


def test_the_order_of_rows_decides_no_seed() -> None:
    one, other = (next(items_of(Row(number, "x"), 1)) for number in (1, 99))
    assert one == other
    assert one.seed(7, 0) == other.seed(7, 0)


def test_seeds_differ_between_results_attempts_and_jobs() -> None:
    items = list(items_of(Row(1, "x"), 50))
    seeds = [item.seed(job, attempt) for item in items for job in (0, 1) for attempt in (0, 1, 2)]
    assert len(set(seeds)) == 300


def test_a_row_may_set_its_number_and_first_seed() -> None:
    items = list(items_of(Row(1, "x", n=3, seed=41), 1))
    assert [item.seed(0, 0) for item in items] == [41, 42, 43]
    assert items[0].seed(0, 1) not in (41, 42, 43)


def test_shards_hold_all_items_in_order(tmp_path: Path) -> None:
    job = freeze(spec_of(write_prompts(tmp_path, 7), tmp_path / "out", shard_size=3, n=2), tmp_path)
    assert (job.num_rows, job.num_items, job.num_shards) == (7, 14, 5)
    assert [item.id for item in items_in(tmp_path, job)][:3] == ["item-0", "item-0#1", "item-1"]
    assert read_job(tmp_path) == job


def test_the_same_manifest_freezes_to_the_same_items(tmp_path: Path) -> None:
    manifest = write_prompts(tmp_path, 20)
    digests = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        job = freeze(spec_of(manifest, tmp_path / name, shard_size=3), tmp_path / name)
        digests.append(job.items_sha256)
    assert digests[0] == digests[1]


def test_a_repeated_id_is_named_with_both_rows(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("id,prompt\na,1\nb,2\na,3\nb,4\n")
    with pytest.raises(InvalidInput, match=r"row 3 .* the id 'a', which row 1 has already"):
        freeze(spec_of(table, tmp_path / "out"), tmp_path)
    assert read_job(tmp_path) is None


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"num_inference_steps": 0}, "params.num_inference_steps"),
        ({"steps": 3}, "params.steps is given"),
        ({"seed": 3}, "params.seed is given"),
    ],
)
def test_wrong_params_are_refused_whole(params: Any, said: str, tmp_path: Path) -> None:
    spec = spec_of(write_prompts(tmp_path, 2), tmp_path / "out", params=params)
    with pytest.raises(InvalidInput, match=said):
        freeze(spec, tmp_path)


def test_another_job_in_the_same_folder_is_told_what_differs(tmp_path: Path) -> None:
    manifest = write_prompts(tmp_path, 2)
    job = freeze(spec_of(manifest, tmp_path, params={"side": 16}), tmp_path)
    refuse_other(job, spec_of(manifest, tmp_path / "moved", params={"side": 16}), tmp_path)
    other = spec_of(manifest, tmp_path, params={"side": 32}, seed=3)
    with pytest.raises(Conflict, match=r"params.side is 16 there and 32 here; seed is 0 .* 3"):
        refuse_other(job, other, tmp_path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"task": "paint"}, "task"),
        ({"manifest": {"path": "x", "form": "csv"}}, "manifest.form"),
        ({"shard_size": 0}, "shard_size"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_wrong_field_of_a_spec_is_named(
    fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    whole = {"task": "generate", "manifest": {"path": "x"}, "out": "y"}
    (tmp_path / "job.json").write_text(json.dumps({**whole, **fields}))
    with pytest.raises(InvalidInput, match=said):
        read_spec(tmp_path / "job.json")


def test_a_spec_may_be_json_or_yaml(tmp_path: Path) -> None:
    whole = {"task": "generate", "manifest": {"path": "x"}, "out": "y"}
    (tmp_path / "job.json").write_text(json.dumps(whole))
    (tmp_path / "job.yaml").write_text("task: generate\nmanifest: {path: x}\nout: y\n")
    assert read_spec(tmp_path / "job.json") == read_spec(tmp_path / "job.yaml")
    assert read_spec(tmp_path / "job.yaml", "z").out == "z"
