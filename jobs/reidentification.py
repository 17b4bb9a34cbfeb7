"""`medphantom evaluate reidentification`: are patients recognised in images of their prompts?

Images made from a patient's prompt may look like that patient; they say something of the training
set only where they do so more than other patients with the same labels.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gen.errors import InvalidInput
from jobs.bars import Bars, Report, bars
from jobs.generate import GenerateConfig, default_batch_size, load_pipeline
from jobs.targets import Data, Drawn, Model, Out, Pictures, Seed, give, interval, shuffled

if TYPE_CHECKING:  # torch is imported when something is measured
    from torch import Tensor

    from gen.data.captions import Labels
    from gen.data.collection import Item
    from gen.metrics.reidentification import PairScore, PromptRisk
    from pipelines.text_to_cxr import TextToCXRPipeline


@dataclass(frozen=True)
class ReidentificationConfig:
    """Which prompts images are made from, how, and who compares them; None is aligned pixels."""

    data: Path
    model: str = "cxr-mini"
    split: str = "train"
    num_prompts: int = 50
    seeds_per_prompt: int = 10
    reidentifier: str | None = None
    encoder: str = "cxr-encoder-mini"
    num_inference_steps: int = 25
    guidance_scale: float = 1.5
    seed: int = 0


@dataclass(frozen=True)
class Target:
    """A training image, and images of as many other patients of its kind."""

    own: Drawn
    others: list[Drawn]


def measure_reidentification(config: ReidentificationConfig, drawn: Bars) -> dict[str, Any]:
    """How near images made from prompts come to the prompts' patients, beside other patients.

    Each figure stands for images `made` from a prompt against its training image; for as many real
    images of `other_patients` of the same kind against it; as the `gap` between the two; and as
    `gap_to_stranger`: the made images against it less the same made images against one of those
    other patients, since blurred images are near everybody and close the first gap alone.

    Raises:
        InvalidInput: the model makes no images from text, the split is missing, the re-identifier
            or the encoder is none, or there are too few prompts or patients.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    import numpy as np

    from gen.data.collection import read_collection
    from gen.encoders.loading import load_encoder
    from gen.metrics.aligned import pair_similarity
    from gen.metrics.reidentification import mean_risk
    from gen.metrics.reidentifier import load_reidentifier

    score = load_reidentifier(config.reidentifier) if config.reidentifier else pair_similarity
    encoder = load_encoder(config.encoder)
    # precision and scheduler of `medphantom generate`, whatever the model came with
    pipeline = load_pipeline(GenerateConfig(items=(), out=Path(), model=config.model))
    collection = read_collection(config.data, config.split)
    pictures = Pictures(pipeline.default_size)
    targets = draw_targets(collection.items, config, pictures, drawn.bar("reading images"))
    made = made_images(pipeline, [target.own.item.prompt or "" for target in targets], config)
    report = drawn.bar("making and comparing images")
    risks = compare(targets, made, score, encoder, report)
    patients = [patient_of(target.own.item) for target in targets]
    means = {name: mean_risk(column, patients) for name, column in risks.items()}
    same_prompt = [o.item.prompt == t.own.item.prompt for t in targets for o in t.others]
    return {
        **asdict(config),
        "data": str(config.data),
        "reidentifier": config.reidentifier or "aligned pixels",
        "weight_sha256": pipeline.weight_sha256,
        "figures": {
            figure: {name: asdict(mean[figure]) for name, mean in means.items()}
            for figure in means["made"]
        },
        "share_of_others_with_same_prompt": float(np.mean(same_prompt)),
        "omissions": collection.omissions + pictures.lines(),
    }


def compare(
    targets: Sequence[Target],
    made: "Iterable[Tensor]",
    score: "PairScore",
    encoder: "Callable[[Tensor], Tensor]",
    report: Report,
) -> "dict[str, list[PromptRisk]]":
    """The figures of each target by name, see `measure_reidentification`.

    Of every prompt as many images are `made`, (K, 1, S, S) uint8, as its target has others;
    `score` and `encoder` are as in `gen.metrics.reidentification.prompt_risk`.
    """
    import torch

    from gen.metrics.reidentification import prompt_risk

    risks: dict[str, list[PromptRisk]] = defaultdict(list)
    for done, (target, images) in enumerate(zip(targets, made, strict=True), 1):
        own, stranger = target.own.pixels, target.others[0].pixels
        others = torch.stack([each.pixels for each in target.others])
        of_made = prompt_risk(own, images, score, encoder)
        of_others = prompt_risk(own, others, score, encoder)
        to_stranger = prompt_risk(stranger, images, score, encoder)
        risks["made"].append(of_made)
        risks["other_patients"].append(of_others)
        risks["gap"].append(_gap(of_made, of_others))
        risks["gap_to_stranger"].append(_gap(of_made, to_stranger))
        report(done, len(targets))
    return risks


def _gap(made: "PromptRisk", others: "PromptRisk") -> "PromptRisk":
    first, second = asdict(made), asdict(others)
    return type(made)(**{name: first[name] - second[name] for name in first})


def patient_of(item: "Item") -> str:
    """Whose an image is; one of nobody known counts as a patient of its own."""
    return item.patient or item.name


def draw_targets(
    items: "Sequence[Item]", config: ReidentificationConfig, pictures: Pictures, report: Report
) -> list[Target]:
    """Draw distinct prompts, for each one of its images, and other patients of its kind.

    Raises:
        InvalidInput: there are fewer prompts or other patients than asked for, or all prompts are
            of fewer than four patients.
    """
    import numpy as np

    from gen.metrics.intervals import MIN_COUNT

    rng = np.random.default_rng(config.seed)
    candidates = shuffled(items, rng)
    of_prompt: dict[str, list[Item]] = defaultdict(list)
    for item in candidates:
        of_prompt[item.prompt or ""].append(item)
    targets: list[Target] = []
    prompts = shuffled(sorted(of_prompt), rng)
    one_each = (each for p in prompts for each in islice(pictures.usable(of_prompt[p]), 1))
    for own in islice(one_each, config.num_prompts):
        targets.append(Target(own, _others(own, candidates, config, pictures)))
        report(len(targets), config.num_prompts)
    patients = {patient_of(target.own.item) for target in targets}
    if len(targets) < config.num_prompts or len(patients) < MIN_COUNT:
        raise InvalidInput(
            f"num_prompts is {config.num_prompts}, but {config.data} has {len(targets)} usable"
            f" distinct prompts of {len(patients)} patients in split {config.split!r}, and at least"
            f" {MIN_COUNT} patients are needed ({'; '.join(pictures.lines()) or 'all are usable'});"
            " ask for fewer or name a folder with more"
        )
    return targets


def _others(
    own: Drawn, candidates: "Sequence[Item]", config: ReidentificationConfig, pictures: Pictures
) -> list[Drawn]:
    """Images of other patients, one of each, the most alike in prompt and labels."""

    def alike(item: "Item") -> tuple[float, ...]:
        return item.prompt == own.item.prompt, *_likeness(item.labels, own.item.labels)

    patients = {patient_of(own.item)}
    chosen: list[Drawn] = []
    for item in sorted(candidates, key=alike, reverse=True):
        if patient_of(item) not in patients and (other := pictures.read(item)) is not None:
            patients.add(patient_of(item))
            chosen.append(other)
        if len(chosen) == config.seeds_per_prompt:
            return chosen
    raise InvalidInput(
        f"seeds_per_prompt is {config.seeds_per_prompt}, but {config.data} has usable images of"
        f" only {len(chosen)} other patients in split {config.split!r}; ask for fewer or name"
        " a folder with more"
    )


def _likeness(one: "Labels | None", other: "Labels | None") -> tuple[float, ...]:
    """Of first importance: child or adult; then the findings they share; then view and sex."""
    if one is None or other is None:
        return 0, 0, 0
    first, second = set(one.findings), set(other.findings)
    shared = len(first & second) / len(first | second)
    return one.child == other.child, shared, (one.view == other.view) + (one.sex == other.sex)


def made_images(
    pipeline: "TextToCXRPipeline", prompts: Sequence[str], config: ReidentificationConfig
) -> "Iterator[Tensor]":
    """For each prompt its images (K, 1, S, S) uint8; prompts share batches, never a seed."""
    import torch

    from gen.denoising import make_generators

    count, size = config.seeds_per_prompt, default_batch_size(pipeline)
    wanted = [prompt for prompt in prompts for _ in range(count)]
    ready: list[Tensor] = []
    for start in range(0, len(wanted), size):
        batch = wanted[start : start + size]
        seeds = range(config.seed + start, config.seed + start + len(batch))
        images = pipeline(
            batch,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            generator=make_generators(seeds),
            output_type="pt",
        ).images
        grey = images.float().mean(1, keepdim=True)
        ready.extend((grey * 255).round().to("cpu", torch.uint8))
        while len(ready) >= count:
            yield torch.stack(ready[:count])
            del ready[:count]


def reidentification(
    data: Data,
    model: Model = "cxr-mini",
    split: Annotated[str, typer.Option(help="Rows the model was trained on")] = "train",
    num_prompts: Annotated[int, typer.Option(min=4, help="Distinct prompts, drawn")] = 50,
    seeds_per_prompt: Annotated[int, typer.Option(min=1, help="Images of each prompt")] = 10,
    reidentifier: Annotated[
        str | None,
        typer.Option(
            help="Siamese ResNet-50 (safetensors) or encoder; aligned pixels if not given"
        ),
    ] = None,
    encoder: Annotated[str, typer.Option(help="Encoder of the distances")] = "cxr-encoder-mini",
    num_inference_steps: Annotated[int, typer.Option(min=1, help="Solver steps")] = 25,
    guidance_scale: Annotated[float, typer.Option(help="1 = off")] = 1.5,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """Whether patients are recognised in images made from their own prompts.

    Scores and distances between a training image and images made from its prompt, beside the same
    of as many real images of other patients with the same prompt or the most similar labels. Only
    gaps say something, and both together: made images that are nearer to the patient than other
    patients are, and nearer to the patient than to another one, keep more than the labels.
    """
    config = ReidentificationConfig(
        data, model, split, num_prompts, seeds_per_prompt, reidentifier, encoder,
        num_inference_steps, guidance_scale, seed,
    )  # fmt: skip
    with bars() as drawn:
        figures = measure_reidentification(config, drawn)
    table = Table("figure", "made", "other patients", "gap", "gap to a stranger", title=model)
    for name, each in figures["figures"].items():
        table.add_row(name.replace("_", " "), *(interval(value) for value in each.values()))
    give(table, figures, out)
