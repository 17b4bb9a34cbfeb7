"""`medphantom train RECIPE CONFIG`: train a model, or go on where a run stopped."""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from gen.errors import InvalidInput

if TYPE_CHECKING:  # torch is imported when a recipe runs
    from gen.training.loop import LoopConfig, Report, StepInfo

LINE_EVERY_S = 20  # where there is no terminal to draw a bar on

commands = typer.Typer(no_args_is_help=True, help="Train a model from a YAML config; resumable.")
ConfigFile = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="YAML file with the recipe's settings")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Replace a setting of the file; repeatable"),
]


def read_config(path: Path, kind: type[BaseModel], changes: Sequence[str] = ()) -> Any:
    """A recipe's config from YAML, with `changes` of the form NAME=VALUE laid over it.

    Raises:
        InvalidInput: not YAML, an unknown setting, or a value out of range.
    """
    try:
        fields = {**yaml.safe_load(path.read_text()), **_parse(changes)}
        return kind.model_validate(fields)
    except yaml.YAMLError as error:
        raise InvalidInput(f"{path} is no valid YAML: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        known = ", ".join(kind.model_fields)
        raise InvalidInput(f"{path}: {wrong}; the settings are {known}") from error


def _parse(changes: Sequence[str]) -> dict[str, Any]:
    wrong = [change for change in changes if "=" not in change]
    if wrong:
        raise InvalidInput(f"--set is {wrong[0]!r}, but must be NAME=VALUE, such as num_steps=100")
    pairs = (change.split("=", 1) for change in changes)
    return {name: yaml.safe_load(value) for name, value in pairs}


def run_train(
    recipe: "Callable[[Any, Report], Path]", config: "LoopConfig", report: "Report"
) -> dict[str, Any]:
    """Train and keep the config, the versions and the code's revision beside the weights."""
    import torch

    config.output.mkdir(parents=True, exist_ok=True)
    run = {
        "config": config.model_dump(mode="json"),
        "revision": revision(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
    (config.output / "run.json").write_text(json.dumps(run, indent=1) + "\n")
    return {"model": str(recipe(config, report)), **run}


def revision() -> str:
    """The git commit of the code, or "unknown" outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _train(recipe: "Callable[[Any, Report], Path]", config: "LoopConfig") -> None:
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("train", total=config.num_steps, note="reading images")
        printed = 0.0

        def report(info: "StepInfo") -> None:
            nonlocal printed
            losses = "  ".join(f"{name} {value:.4f}" for name, value in info.losses.items())
            rest = f"{info.images_per_second:.1f} images/s  {info.eta_s / 60:.0f} min left"
            bar.update(task, completed=info.step, note=f"{rest}  {losses}")
            if not console.is_terminal and time.monotonic() - printed > LINE_EVERY_S:
                console.print(f"step {info.step}/{info.num_steps}  {rest}  {losses}")
                printed = time.monotonic()

        result = run_train(recipe, config, report)
    typer.echo(json.dumps(result))


@commands.command()
def autoencoder(config: ConfigFile, changes: Set = None) -> None:
    """Train an autoencoder: pixels to latents and back."""
    from gen.training.autoencoder import AutoencoderConfig, train_autoencoder

    _train(train_autoencoder, read_config(config, AutoencoderConfig, changes or ()))


@commands.command("text-to-image")
def text_to_image(config: ConfigFile, changes: Set = None) -> None:
    """Train text-to-image: U-Net, text encoder or LoRA, from scratch or from a folder."""
    from gen.training.text_to_image import TextToImageConfig, train_text_to_image

    _train(train_text_to_image, read_config(config, TextToImageConfig, changes or ()))


@commands.command()
def inpainting(config: ConfigFile, changes: Set = None) -> None:
    """Train a text-to-image model to paint parts of healthy images, shown what is kept."""
    from gen.training.inpainting import InpaintingConfig, train_inpainting

    _train(train_inpainting, read_config(config, InpaintingConfig, changes or ()))


@commands.command("ssl-encoder")
def ssl_encoder(config: ConfigFile, changes: Set = None) -> None:
    """Train an image encoder without labels: features for distances and copies."""
    from gen.training.ssl_encoder import SSLEncoderConfig, train_ssl_encoder

    _train(train_ssl_encoder, read_config(config, SSLEncoderConfig, changes or ()))


@commands.command("finding-classifier")
def finding_classifier(config: ConfigFile, changes: Set = None) -> None:
    """Train a classifier of findings, view, sex and age: the judge of generated images."""
    from gen.training.finding_classifier import FindingClassifierConfig, train_finding_classifier

    _train(train_finding_classifier, read_config(config, FindingClassifierConfig, changes or ()))


@commands.command("ssl-conditioned")
def ssl_conditioned(config: ConfigFile, changes: Set = None) -> None:
    """Train patches of tissue from an encoder's embeddings: the model of large images."""
    from gen.training.ssl_conditioned import SSLConditionedConfig, train_ssl_conditioned

    _train(train_ssl_conditioned, read_config(config, SSLConditionedConfig, changes or ()))


@commands.command("embedding-prior")
def embedding_prior(config: ConfigFile, changes: Set = None) -> None:
    """Train grids of embeddings from text, beside a model of ssl-conditioned."""
    from gen.training.embedding_prior import EmbeddingPriorConfig, train_embedding_prior

    _train(train_embedding_prior, read_config(config, EmbeddingPriorConfig, changes or ()))


@commands.command("minority-classifier")
def minority_classifier(config: ConfigFile, changes: Set = None) -> None:
    """Train what tells rare images from common ones through noise, beside a text-to-image model."""
    from gen.training.minority_classifier import (
        MinorityClassifierConfig,
        train_minority_classifier,
    )

    _train(train_minority_classifier, read_config(config, MinorityClassifierConfig, changes or ()))
