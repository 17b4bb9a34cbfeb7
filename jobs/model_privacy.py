"""`medphantom evaluate membership` and `reidentification`: does a model betray its patients?

Membership asks whether the model denoises the images it was trained on better than others;
re-identification asks whether images made from a patient's prompt look like that patient, more
than other patients with the same labels do.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from gen.data.atomic import atomic_file, check_writable
from gen.errors import InvalidInput, MedphantomError

if TYPE_CHECKING:  # torch is imported when something is measured
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from gen.data.captions import Labels
    from gen.data.collection import Item
    from gen.metrics.reidentification import PairScore, PromptRisk
    from gen.types import Process
    from pipelines.text_to_cxr import TextToCXRPipeline

Report = Callable[[str, int, int], None]
"""Called with (what is done, how many are, of how many)."""

MIN_PAIRS = 8  # of fewer, an interval says that all is certain when all happens to agree
_BATCH = 16  # images whose losses, or pixels, are computed together


@dataclass(frozen=True)
class MembershipConfig:
    """Which images of which splits a model is asked about; `data` as `read_collection` takes it."""

    data: Path
    model: str = "cxr-mini"
    train_split: str = "train"
    held_out_split: str = "test"
    n: int = 300
    seed: int = 0


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
    guidance_scale: float = 2.0
    seed: int = 0


@dataclass(frozen=True)
class Drawn:
    """An image with its pixels (1, S, S) uint8."""

    item: "Item"
    pixels: "Tensor"


@dataclass(frozen=True)
class Target:
    """A training image, and images of as many other patients of its kind."""

    own: Drawn
    others: list[Drawn]


class Pictures:
    """Reads images at one size, in pixels a side, and remembers which it left out and why."""

    def __init__(self, side: int) -> None:
        self.side = side
        self._left_out: dict[str, str] = {}

    def usable(self, items: "Iterable[Item]") -> Iterator[Drawn]:
        """The images that have a prompt and at least the pixels that training asks for."""
        for item in items:
            if not item.prompt:
                self.leave_out(item, "have no prompt")
            elif item.name not in self._left_out and (pixels := self._read(item)) is not None:
                yield Drawn(item, pixels)

    def leave_out(self, item: "Item", reason: str) -> None:
        """Remember why an image is not used; the first reason counts."""
        self._left_out.setdefault(item.name, reason)

    def lines(self) -> list[str]:
        """A line for each reason, with the number of images and one of them."""
        first = {reason: name for name, reason in reversed(self._left_out.items())}
        counts = Counter(self._left_out.values())
        return [f"{counts[each]} image(s) {each}; the first: {first[each]}" for each in counts]

    def _read(self, item: "Item") -> "Tensor | None":
        import numpy as np
        import torch

        from gen.data.images import read_image
        from gen.data.transforms import fit
        from gen.training.dataset import MIN_STORED_SIDE

        try:
            stored = read_image(item.file).pixels
        except MedphantomError:
            self.leave_out(item, "cannot be read")
            return None
        if min(stored.shape) < MIN_STORED_SIDE:
            self.leave_out(item, f"are stored below {MIN_STORED_SIDE} pixels a side")
            return None
        pixels = np.round(fit(stored, self.side, item.orig_size) * 255).astype(np.uint8)
        return torch.from_numpy(pixels)[None]


def measure_membership(
    config: MembershipConfig, report: Report = lambda *_: None
) -> dict[str, Any]:
    """How well a model's loss tells images it was trained on, overall and for each source.

    Figures of fewer than `MIN_PAIRS` pairs are None.

    Raises:
        InvalidInput: the model makes no images from text, a split is missing or both are one, or
            there are too few images.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    import numpy as np
    import torch

    from gen.data.collection import read_collection
    from gen.metrics.membership import membership

    if config.train_split == config.held_out_split:
        raise InvalidInput(
            f"train_split and held_out_split are both {config.train_split!r}; name two"
        )
    pipeline = _load(config.model, torch.float32)  # losses of float16 differ by more than members
    splits = (config.train_split, config.held_out_split)
    train, held_out = (read_collection(config.data, split) for split in splits)
    pictures = Pictures(pipeline.default_size)
    rng = np.random.default_rng(config.seed)
    pairs = draw_pairs(train.items, held_out.items, config.n, pictures, rng, report)
    losses = pair_losses(pipeline, pairs, config.seed, report)
    sources = np.array([source_of(own.item) for own, _ in pairs])

    def figures(chosen: "NDArray[np.bool_]") -> dict[str, Any]:
        num_each = int(chosen.sum())
        if num_each < MIN_PAIRS:
            return {"num_each": num_each, "auroc": None, "true_positive_rate": None}
        found = membership(losses[chosen, 0], losses[chosen, 1], seed=config.seed)
        return {"num_each": num_each, **asdict(found)}

    return {
        "model": config.model,
        "weight_sha256": pipeline.weight_sha256,
        "train_split": config.train_split,
        "held_out_split": config.held_out_split,
        "seed": config.seed,
        "overall": figures(np.ones(len(pairs), bool)),
        "sources": {str(name): figures(sources == name) for name in np.unique(sources)},
        "omissions": sorted({*train.omissions, *held_out.omissions}) + pictures.lines(),
    }


def patient_of(item: "Item") -> str:
    """Whose an image is; one of nobody known counts as a patient of its own."""
    return item.patient or item.name


def source_of(item: "Item") -> str:
    """The two uppermost folders of an image's name, such as images/nih, less its split's own."""
    folders = [part for part in PurePath(item.name).parts[:-1] if part != item.split]
    return "/".join(folders[:2]) or "."


def draw_pairs(
    train: "Sequence[Item]",
    held_out: "Sequence[Item]",
    n: int,
    pictures: Pictures,
    rng: "np.random.Generator",
    report: Report = lambda *_: None,
) -> list[tuple[Drawn, Drawn]]:
    """Draw `n` held-out images, and for each a train image of the same source.

    Both sets then hold the sources in one proportion, and a loss cannot tell members by source.

    Raises:
        InvalidInput: there are fewer such pairs.
    """
    of_source: dict[str, list[Item]] = defaultdict(list)
    for item in _shuffled(train, rng):
        of_source[source_of(item)].append(item)
    partners = {source: pictures.usable(items) for source, items in of_source.items()}
    pairs: list[tuple[Drawn, Drawn]] = []
    for item in _shuffled(held_out, rng):
        for other in pictures.usable([item]):
            own = next(partners.get(source_of(item), iter(())), None)
            if own is None:
                pictures.leave_out(item, "are held out, with no train image left of their source")
                continue
            pairs.append((own, other))
            report("reading images", len(pairs), n)
        if len(pairs) == n:
            return pairs
    raise InvalidInput(
        f"n is {n}, but there are only {len(pairs)} pairs of a train and a held-out image of one"
        f" source folder ({'; '.join(pictures.lines()) or 'no more images'}); lower n or name other"
        " splits"
    )


def pair_losses(
    pipeline: "TextToCXRPipeline",
    pairs: Sequence[tuple[Drawn, Drawn]],
    seed: int,
    report: Report = lambda *_: None,
) -> "NDArray[np.floating]":
    """Losses (N, 2) of pairs with their own prompts; both of a pair get the same noise."""
    import numpy as np
    import torch

    from gen.engine import run

    drawn = [(each, seed + index) for index, pair in enumerate(pairs) for each in pair]
    losses = []
    for start in range(0, len(drawn), _BATCH):
        batch = drawn[start : start + _BATCH]
        process = losses_of(
            pipeline,
            torch.stack([each.pixels for each, _ in batch]),
            [each.item.prompt or "" for each, _ in batch],
            [own_seed for _, own_seed in batch],
        )
        losses.append(run(process, pipeline.networks).cpu().numpy())
        report("measuring losses", start + len(batch), len(drawn))
    return np.concatenate(losses).reshape(len(pairs), 2)


def losses_of(
    pipeline: "TextToCXRPipeline", images: "Tensor", prompts: list[str], seeds: Sequence[int]
) -> "Process[Tensor]":
    """The model's loss (N,) on images (N, 1, S, S) uint8 under their prompts, without guidance."""
    from gen.denoising import make_generators
    from gen.metrics.membership import denoising_losses
    from gen.training.text_to_image import encode_images
    from gen.types import ModelCall

    device = pipeline.unet.device
    latents = encode_images(pipeline.vae, images, device).to(device)
    condition, _ = yield from pipeline.encode_prompts(prompts, [])

    def predict(latents: "Tensor", timestep: "Tensor", condition: "Tensor") -> "Process[Tensor]":
        return (yield ModelCall("unet", (latents, timestep.expand(len(latents)), condition)))

    generators = make_generators(seeds)
    return (
        yield from denoising_losses(latents, condition, predict, pipeline.scheduler, generators)
    )


def measure_reidentification(
    config: ReidentificationConfig, report: Report = lambda *_: None
) -> dict[str, Any]:
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
    import torch

    from gen.data.collection import read_collection
    from gen.denoising import DEFAULT_SCHEDULER, scheduler_named
    from gen.metrics.aligned import pair_similarity
    from gen.metrics.encoders import load_encoder
    from gen.metrics.reidentification import mean_risk
    from gen.metrics.reidentifier import load_reidentifier

    score = load_reidentifier(config.reidentifier) if config.reidentifier else pair_similarity
    encoder = load_encoder(config.encoder)
    pipeline = _load(config.model, torch.float16 if torch.cuda.is_available() else torch.float32)
    # of `medphantom generate`, whatever the model came with
    pipeline.scheduler = scheduler_named(DEFAULT_SCHEDULER, pipeline.scheduler.config)
    collection = read_collection(config.data, config.split)
    pictures = Pictures(pipeline.default_size)
    targets = draw_targets(collection.items, config, pictures, report)
    made = made_images(pipeline, [target.own.item.prompt or "" for target in targets], config)
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
    report: Report = lambda *_: None,
) -> "dict[str, list[PromptRisk]]":
    """The figures of each target by name, see `measure_reidentification`.

    Args:
        targets: P of them, with K other patients each.
        made: from the prompt of each, (K, 1, S, S) uint8.
        score: see `gen.metrics.reidentification.prompt_risk`.
        encoder: see `gen.metrics.reidentification.prompt_risk`.
        report: progress.
    """
    import torch

    from gen.metrics.reidentification import prompt_risk

    risks: dict[str, list[PromptRisk]] = defaultdict(list)
    for done, (target, images) in enumerate(zip(targets, made, strict=True), 1):
        own, stranger = target.own.pixels, target.others[0].pixels
        others = torch.stack([each.pixels for each in target.others])
        of_made = prompt_risk(own, images, score, encoder)
        of_others = prompt_risk(own, others, score, encoder)
        risks["made"].append(of_made)
        risks["other_patients"].append(of_others)
        risks["gap"].append(_gap(of_made, of_others))
        to_stranger = prompt_risk(stranger, images, score, encoder)
        risks["gap_to_stranger"].append(_gap(of_made, to_stranger))
        report("making and comparing images", done, len(targets))
    return risks


def draw_targets(
    items: "Sequence[Item]",
    config: ReidentificationConfig,
    pictures: Pictures,
    report: Report = lambda *_: None,
) -> list[Target]:
    """Draw distinct prompts, for each one of its images, and other patients of its kind.

    Raises:
        InvalidInput: there are fewer prompts or other patients than asked for, or all prompts are
            of fewer than four patients.
    """
    import numpy as np

    from gen.metrics.intervals import MIN_COUNT

    rng = np.random.default_rng(config.seed)
    shuffled = _shuffled(items, rng)
    of_prompt: dict[str, list[Item]] = defaultdict(list)
    for item in shuffled:
        of_prompt[item.prompt or ""].append(item)
    targets: list[Target] = []
    for prompt in _shuffled(sorted(of_prompt), rng):
        for own in islice(pictures.usable(of_prompt[prompt]), 1):
            targets.append(Target(own, _others(own, shuffled, config, pictures)))
            report("reading images", len(targets), config.num_prompts)
        if len(targets) == config.num_prompts:
            break
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
    own: Drawn, shuffled: "Sequence[Item]", config: ReidentificationConfig, pictures: Pictures
) -> list[Drawn]:
    """Images of other patients, one of each, the most alike in prompt and labels."""

    def alike(item: "Item") -> tuple[float, ...]:
        return item.prompt == own.item.prompt, *_likeness(item.labels, own.item.labels)

    own_patient = patient_of(own.item)
    chosen: dict[str, Drawn] = {}
    for item in sorted(shuffled, key=alike, reverse=True):
        if patient_of(item) != own_patient and patient_of(item) not in chosen:
            chosen.update({patient_of(item): other for other in pictures.usable([item])})
        if len(chosen) == config.seeds_per_prompt:
            return list(chosen.values())
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

    count = config.seeds_per_prompt
    wanted = [prompt for prompt in prompts for _ in range(count)]
    stream = _made_one_by_one(pipeline, wanted, config)
    return (torch.stack(list(islice(stream, count))) for _ in prompts)


def _made_one_by_one(
    pipeline: "TextToCXRPipeline", prompts: list[str], config: ReidentificationConfig
) -> "Iterator[Tensor]":
    import torch

    from gen.denoising import make_generators
    from jobs.generate import default_batch_size

    size = default_batch_size(pipeline)
    for start in range(0, len(prompts), size):
        batch = prompts[start : start + size]
        seeds = range(config.seed + start, config.seed + start + len(batch))
        images = pipeline(
            batch,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            generator=make_generators(seeds),
            output_type="pt",
        ).images
        grey = images.float().mean(1, keepdim=True)
        yield from (grey * 255).round().to("cpu", torch.uint8)


def _gap(made: "PromptRisk", others: "PromptRisk") -> "PromptRisk":
    first, second = asdict(made), asdict(others)
    return type(made)(**{name: first[name] - second[name] for name in first})


def _load(model: str, dtype: Any) -> "TextToCXRPipeline":
    """The pipeline, on the GPU if there is one."""
    import torch

    from pipelines.text_to_cxr import TextToCXRPipeline

    pipeline = TextToCXRPipeline.from_pretrained(model, torch_dtype=dtype)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


def _shuffled(items: Sequence[Any], rng: "np.random.Generator") -> list[Any]:
    return [items[index] for index in rng.permutation(len(items))]


Data = Annotated[
    Path, typer.Option(exists=True, help="Real images with prompts and splits: folder or table")
]
Model = Annotated[str, typer.Option(help="Id, folder, hub id or checkpoint")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the draws and of all noise")]
Out = Annotated[Path | None, typer.Option(help="Also write the figures to this file")]


def membership(
    data: Data,
    model: Model = "cxr-mini",
    train_split: Annotated[str, typer.Option(help="Rows the model was trained on")] = "train",
    held_out_split: Annotated[str, typer.Option(help="Rows it has never seen")] = "test",
    n: Annotated[int, typer.Option("--n", "-n", min=MIN_PAIRS, help="Images of each split")] = 300,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """Whether a model's loss tells the images it was trained on.

    AUROC of the denoising loss, train against held-out images, both with their own prompts and
    with the sources (the folders below the data) in one proportion: 0.5 tells nothing. Beside it
    the share of train images that can be named while 1 % of held-out ones are named wrongly.
    """
    _check(out)
    config = MembershipConfig(data, model, train_split, held_out_split, n, seed)
    with _progress() as report:
        figures = measure_membership(config, report)
    table = Table("source", "images of each", "AUROC", "named at 1 % false", title=model)
    for name, each in {**figures["sources"], "all": figures["overall"]}.items():
        rates = (_interval(each[figure]) for figure in ("auroc", "true_positive_rate"))
        table.add_row(name, str(each["num_each"]), *rates)
    _give(table, figures, out)


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
    guidance_scale: Annotated[float, typer.Option(help="1 = off")] = 2.0,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """Whether patients are recognised in images made from their own prompts.

    Scores and distances between a training image and images made from its prompt, beside the same
    of as many real images of other patients with the same prompt or the most similar labels. Only
    gaps say something, and both together: made images that are nearer to the patient than other
    patients are, and nearer to the patient than to another one, keep more than the labels.
    """
    _check(out)
    config = ReidentificationConfig(
        data,
        model,
        split,
        num_prompts,
        seeds_per_prompt,
        reidentifier,
        encoder,
        num_inference_steps,
        guidance_scale,
        seed,
    )
    with _progress() as report:
        figures = measure_reidentification(config, report)
    table = Table("figure", "made", "other patients", "gap", "gap to a stranger", title=model)
    for name, each in figures["figures"].items():
        table.add_row(name.replace("_", " "), *(_interval(value) for value in each.values()))
    _give(table, figures, out)


@contextmanager
def _progress() -> Iterator[Report]:
    """A bar on stderr for each thing that is done."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        yield report


def _check(out: Path | None) -> None:
    """Raise InvalidInput before anything is measured if the figures could not be written."""
    if out is not None:
        check_writable(out, overwrite=True)


def _interval(estimate: dict[str, float] | None) -> str:
    if estimate is None:
        return "too few images"
    return "{value:.3f}  [{low:.3f}, {high:.3f}]".format(**estimate)


def _give(table: Table, figures: dict[str, Any], out: Path | None) -> None:
    console = Console(stderr=True)
    console.print(table)
    for line in figures["omissions"]:
        console.print(f"left out or assumed: {line}", markup=False)
    if out is not None:
        with atomic_file(out, overwrite=True) as stream:
            stream.write((json.dumps(figures, indent=1) + "\n").encode())
    typer.echo(json.dumps(figures))
