"""`medphantom models`: what is embedded, what a card says, whether a model passes its checks.

Records go to stdout as JSON lines; a table for people goes to stderr.
"""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gen.store.card import Card
from gen.store.catalogue import ResolvedModel, list_models, resolve

commands = typer.Typer(
    no_args_is_help=True,
    help="List, describe and check models.\n\nA model is an embedded id, a folder in diffusers "
    "layout, a Stable Diffusion .safetensors file, a LoRA adapter, or a Hugging Face id "
    "owner/name[@revision] that is in the local cache.",
)

ModelId = Annotated[str, typer.Argument(help="Embedded id, folder, .safetensors file or hub id")]
COLUMNS = ("id", "task", "modality", "image_size", "licence", "weight_sha256")


@commands.command("list")
def list_command() -> None:
    """List the embedded models, which need no network.

    Example: medphantom models list | jq .id
    """
    records = run_list()
    for record in records:
        typer.echo(json.dumps(record))
    table = Table(*COLUMNS)
    for record in records:
        table.add_row(*(str(record[column])[:20] for column in COLUMNS))
    Console(stderr=True).print(table)


@commands.command("show")
def show_command(model: ModelId) -> None:
    """Print what is known of a model: data, licence, evaluation, limits, hashes.

    Example: medphantom models show cxr-mini
    """
    typer.echo(json.dumps(run_show(model)))


@commands.command("verify")
def verify_command(model: ModelId) -> None:
    """Check a model as loading does: no pickle, no code, no foreign class, right hashes.

    Exit code 2 and a reason where a check fails. No weight is read into a network.

    Example: medphantom models verify ./my-model
    """
    typer.echo(json.dumps(run_verify(model)))


def run_list() -> list[dict[str, Any]]:
    """One record for each embedded model."""
    return [{column: getattr(card, column) for column in COLUMNS} for card in list_models()]


def run_show(model_id: str) -> dict[str, Any]:
    """Where a model lies and what its card says."""
    model = resolve(model_id)
    return _place(model) | {"card": _card(model.card), "weight_sha256": model.weight_sha256}


def run_verify(model_id: str) -> dict[str, Any]:
    """Check a model.

    Raises:
        ModelRefused: the first rule that it breaks.
    """
    model = resolve(model_id)
    model.check()
    hashes = "match the card" if model.card else "not compared: the model has no card"
    return _place(model) | {"ok": True, "hashes": hashes, "weight_sha256": model.weight_sha256}


def _place(model: ResolvedModel) -> dict[str, Any]:
    return {"id": model.id, "kind": model.kind, "path": str(model.path)}


def _card(card: Card | None) -> dict[str, Any] | None:
    return None if card is None else card.model_dump(mode="json")
