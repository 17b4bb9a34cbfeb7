"""`medphantom evaluate membership`: does a model denoise what it was trained on better?"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gen.errors import InvalidInput
from jobs.bars import Bars, Report, bars
from jobs.targets import Data, Drawn, Model, Out, Pictures, Seed, give, interval, shuffled

if TYPE_CHECKING:  # torch is imported when something is measured
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from gen.data.collection import Item
    from gen.types import Process
    from pipelines.text_to_cxr import TextToCXRPipeline

MIN_PAIRS = 8  # of fewer, an interval says that all is certain when all happens to agree
_BATCH = 16  # images whose losses are computed together


@dataclass(frozen=True)
class MembershipConfig:
    """Which images of which splits a model is asked about; `data` as `read_collection` takes it."""

    data: Path
    model: str = "cxr-mini"
    train_split: str = "train"
    held_out_split: str = "test"
    n: int = 300
    seed: int = 0


def measure_membership(config: MembershipConfig, drawn: Bars) -> dict[str, Any]:
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
    from pipelines.text_to_cxr import TextToCXRPipeline

    if config.train_split == config.held_out_split:
        raise InvalidInput(
            f"train_split and held_out_split are both {config.train_split!r}; name two"
        )
    # losses of float16 differ by more than members
    pipeline = TextToCXRPipeline.from_pretrained(config.model, torch_dtype=torch.float32)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    splits = (config.train_split, config.held_out_split)
    train, held_out = (read_collection(config.data, split) for split in splits)
    pictures = Pictures(pipeline.default_size)
    rng = np.random.default_rng(config.seed)
    report = drawn.bar("reading images")
    pairs = draw_pairs(train.items, held_out.items, config.n, pictures, rng, report)
    losses = pair_losses(pipeline, pairs, config.seed, drawn.bar("measuring losses"))
    sources = np.array([source_of(own.item) for own, _ in pairs])
    return {
        "model": config.model,
        "weight_sha256": pipeline.weight_sha256,
        "train_split": config.train_split,
        "held_out_split": config.held_out_split,
        "seed": config.seed,
        "overall": _figures(losses, config.seed),
        "sources": {
            str(name): _figures(losses[sources == name], config.seed) for name in np.unique(sources)
        },
        "omissions": sorted({*train.omissions, *held_out.omissions}) + pictures.lines(),
    }


def _figures(losses: "NDArray[np.floating]", seed: int) -> dict[str, Any]:
    """Of the losses (N, 2) of pairs."""
    from gen.metrics.membership import membership

    if len(losses) < MIN_PAIRS:
        return {"num_each": len(losses), "auroc": None, "true_positive_rate": None}
    found = membership(losses[:, 0], losses[:, 1], seed=seed)
    return {"num_each": len(losses), **asdict(found)}


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
    report: Report,
) -> list[tuple[Drawn, Drawn]]:
    """Draw `n` held-out images, and for each a train image of the same source to go before it.

    Both sets then hold the sources in one proportion, and a loss cannot tell members by source.

    Raises:
        InvalidInput: there are fewer such pairs.
    """
    of_source: dict[str, list[Item]] = defaultdict(list)
    for item in shuffled(train, rng):
        of_source[source_of(item)].append(item)
    partners = {source: pictures.usable(items) for source, items in of_source.items()}
    pairs: list[tuple[Drawn, Drawn]] = []
    for other in pictures.usable(shuffled(held_out, rng)):
        own = next(partners.get(source_of(other.item), iter(())), None)
        if own is None:
            reason = "are held out, with no train image left of their source"
            pictures.leave_out(other.item, reason)
            continue
        pairs.append((own, other))
        report(len(pairs), n)
        if len(pairs) == n:
            return pairs
    raise InvalidInput(
        f"n is {n}, but there are only {len(pairs)} pairs of a train and a held-out image of one"
        f" source folder ({'; '.join(pictures.lines()) or 'no more images'}); lower n or name other"
        " splits"
    )


def pair_losses(
    pipeline: "TextToCXRPipeline", pairs: Sequence[tuple[Drawn, Drawn]], seed: int, report: Report
) -> "NDArray[np.floating]":
    """Losses (N, 2) of pairs with their own prompts; both of a pair get the same noise."""
    import numpy as np
    import torch

    from gen.engine import run

    rows = [(each, seed + index) for index, pair in enumerate(pairs) for each in pair]
    losses = []
    for start in range(0, len(rows), _BATCH):
        images, seeds = zip(*rows[start : start + _BATCH], strict=True)
        pixels = torch.stack([each.pixels for each in images])
        process = losses_of(pipeline, pixels, [each.item.prompt or "" for each in images], seeds)
        losses.append(run(process, pipeline.networks).cpu().numpy())
        report(start + len(images), len(rows))
    return np.concatenate(losses).reshape(len(pairs), 2)


def losses_of(
    pipeline: "TextToCXRPipeline", images: "Tensor", prompts: list[str], seeds: Sequence[int]
) -> "Process[Tensor]":
    """The model's loss (N,) on images (N, 1, S, S) uint8 under their prompts, without guidance."""
    from gen.denoising import make_generators
    from gen.metrics.membership import denoising_losses
    from gen.training.captioned import encode_images

    device = pipeline.unet.device
    latents = encode_images(pipeline.vae, images, device).to(device)
    condition, _ = yield from pipeline.encode_prompts(prompts, [])
    generators = make_generators(seeds)
    losses = denoising_losses(latents, condition, pipeline.predict, pipeline.scheduler, generators)
    return (yield from losses)


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
    config = MembershipConfig(data, model, train_split, held_out_split, n, seed)
    with bars() as drawn:
        figures = measure_membership(config, drawn)
    table = Table("source", "images of each", "AUROC", "named at 1 % false", title=model)
    for name, each in {**figures["sources"], "all": figures["overall"]}.items():
        rates = (interval(each[figure]) for figure in ("auroc", "true_positive_rate"))
        table.add_row(name, str(each["num_each"]), *rates)
    give(table, figures, out)
