"""A plan as the spec of a job: what a data set lacks, made after real images, row by row."""

import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from gen.data.atomic import atomic_file
from gen.data.captions import Labels, canonical, caption
from gen.data.collection import Item, read_collection
from gen.data.images import stored_size
from gen.errors import InvalidInput
from jobs.augment.planning import Target, counts_of, followed
from jobs.device import Precision
from jobs.runner.runner import Crew, run_job
from jobs.runner.spec import JobSpec, ManifestSpec


class How(StrEnum):
    """From words, from real images, or both in turns."""

    SYNTHESISE = "synthesise"
    VARY = "vary"
    BOTH = "both"


SMALLEST = 128  # pixels: what is varied stays as large as it was, and less is of little use
TIMED = 4  # images of the timing run, of which the first ones warm up


@dataclass(frozen=True)
class PlanConfig:
    """What is wanted of which data set, and where the plan goes.

    Args:
        data: collection of real images, see `gen.data.collection.read_collection`.
        target: how many images each class shall have.
        how: from words, from real images, or both in turns; small images are not varied.
        minority: level of rarity of what is made from words; None leaves it to chance.
        spec: file of the job's spec; its rows lie beside it.
        out: folder that the job will write.
        gates: whether made images are judged, by the same data set.
    """

    data: Path
    target: Target
    spec: Path
    out: Path
    split: str | None = "train"
    how: How = How.SYNTHESISE
    model: str = "cxr-mini"
    minority: float | None = None
    strength: float | None = None
    num_inference_steps: int = 25
    seed: int = 0
    gates: bool = True
    mixed_precision: Precision = Precision.NO
    shard_size: int = 50


@dataclass(frozen=True)
class Plan:
    """What will be made.

    Args:
        before, after: images of each class.
        rows: of the job, one an image.
        spec: of the job.
    """

    before: dict[str, int]
    after: dict[str, int]
    rows: list[dict[str, Any]]
    spec: JobSpec
    notes: list[str]


def make_plan(config: PlanConfig) -> Plan:
    """Say what is to be made, and write nothing.

    Raises:
        InvalidInput: the data set has no labels, lacks nothing, or cannot be read.
    """
    collection = read_collection(config.data, config.split)
    items = [each for each in collection.items if each.labels is not None and each.labels.findings]
    if not items:
        raise InvalidInput(
            f"{config.data} has no labels, but a plan is made of how many images show what; name a"
            " data set whose manifest has findings, such as one with manifest.csv"
        )
    if config.minority is not None and config.how is not How.SYNTHESISE:
        raise InvalidInput(
            f"minority is {config.minority}, but images made by {config.how.value} are as rare as"
            " their sources; leave it out, or choose synthesise"
        )
    labels = [each.labels for each in items if each.labels is not None]
    before = counts_of(labels)
    donors = followed(labels, config.target.wanted(before), config.seed)
    if not donors:
        raise InvalidInput("nothing is lacking: every class has what is wanted; raise the target")
    after = before + counts_of(labels[donor] for donor in donors)
    return Plan(
        dict(before.most_common()),
        {name: after[name] for name, _ in before.most_common()},
        list(_rows(config, items, donors)),
        _spec(config, collection.root),
        collection.omissions,
    )


def _rows(
    config: PlanConfig, items: Sequence[Item], donors: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """One for each image; its id says which image it follows and how often that was followed."""
    times: Counter[int] = Counter()
    sizes: dict[int, tuple[int, int]] = {}
    for index, donor in enumerate(donors):
        item = items[donor]
        assert item.labels is not None
        times[donor] += 1
        how = (How.SYNTHESISE, How.VARY)[index % 2] if config.how is How.BOTH else config.how
        if how is How.VARY and min(sizes.setdefault(donor, stored_size(item.file))) < SMALLEST:
            how = How.SYNTHESISE
        row = {
            "id": f"{item.name}+{times[donor]}",
            "labels": list(item.labels.findings),
            "prompt": _sentence(item.labels, how, f"{config.seed}/{item.name}/{times[donor]}"),
            **_whom(item.labels),
            "patient_id": item.patient,
        }
        if how is How.VARY:
            row["image"] = item.name
        if config.how is not How.SYNTHESISE:
            row["params"] = {"operation": how.value}
        yield {name: value for name, value in row.items() if value is not None}


def _sentence(labels: Labels, how: How, drawn_by: str) -> str:
    """One of many phrasings where only words tell images apart, or the plainest one."""
    return caption(labels, random.Random(drawn_by)) if how is How.SYNTHESISE else canonical(labels)


def _whom(labels: Labels) -> dict[str, Any]:
    age = 5 if labels.child and labels.age is None else labels.age
    return {"view": labels.view, "sex": labels.sex, "age": age}


def _spec(config: PlanConfig, root: Path) -> JobSpec:
    rare = {"minority": config.minority, "num_inference_steps": config.num_inference_steps}
    made: dict[str, Any] = {"num_inference_steps": config.num_inference_steps}
    if config.how is How.SYNTHESISE:
        made["operation"] = config.how.value
    if config.strength is not None:
        made["strength"] = config.strength
    return JobSpec(
        task="augment" if config.minority is None else "generate",
        model=config.model,
        manifest=ManifestSpec(
            path=str(rows_file(config.spec).resolve()), format="jsonl", root=str(root.resolve())
        ),
        params=made if config.minority is None else rare,
        seed=config.seed,
        mixed_precision=config.mixed_precision,
        shard_size=config.shard_size,
        gates={"reference": str(config.data.resolve())} if config.gates else None,
        out=str(config.out.resolve()),
    )


def rows_file(spec: Path) -> Path:
    """Where the rows of a plan lie, beside its spec."""
    return spec.with_suffix(".rows.jsonl")


def write_plan(plan: Plan, spec: Path) -> None:
    """Write the rows, and then the spec that names them.

    Raises:
        InvalidInput: the spec exists.
    """
    if spec.exists():
        raise InvalidInput(f"{spec} exists and is not overwritten; choose another name")
    spec.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(rows_file(spec), overwrite=True) as stream:
        stream.writelines((json.dumps(row) + "\n").encode() for row in plan.rows)
    with atomic_file(spec) as stream:
        stream.write(yaml.safe_dump(plan.spec.model_dump(mode="json"), sort_keys=False).encode())


@dataclass(frozen=True)
class Cost:
    """What one image takes, found by making a few without gates."""

    seconds: float
    num_bytes: float


def timed(plan: Plan) -> Cost:
    """Make the first rows of a plan twice over, in a folder that is thrown away."""
    with TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        few = [plan.rows[index % len(plan.rows)] for index in range(2 * TIMED)]
        lines = [json.dumps({**row, "id": str(index)}) + "\n" for index, row in enumerate(few)]
        rows.write_text("".join(lines))
        manifest = plan.spec.manifest.model_copy(update={"path": str(rows)})
        spec = plan.spec.model_copy(
            update={
                "manifest": manifest,
                "gates": None,
                "shard_size": TIMED // 2,
                "out": f"{folder}/out",
            }
        )
        ends: list[float] = []
        report = run_job(spec, crew=Crew(0), on_outcome=lambda _: ends.append(time.perf_counter()))
    if report["failed"]:
        why = next(iter(report["reasons"]), "unknown")
        raise InvalidInput(f"the first images of the plan cannot be made: {why}")
    # two shards are made at once, and with the first two the model comes
    return Cost((ends[3] - ends[1]) / TIMED, report["bytes"] / report["made"])
