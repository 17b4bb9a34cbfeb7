"""From a model id to the folder or file that holds it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gen.errors import ModelRefused
from gen.store.card import CARD_NAME, Card, read_card
from gen.store.guard import check_folder, check_hashes, check_tree, content_sha256
from gen.store.weight_files import PICKLE_SUFFIXES, check_safetensors

WEIGHTS = Path(__file__).parent / "weights"
# what a download may bring: no pickle and no code ever reaches the disk
DOWNLOADED = ("*.json", "*.safetensors", "*.txt")
ADAPTER_FILES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")

Kind = Literal["pipeline", "component", "checkpoint", "adapter"]


@dataclass(frozen=True)
class ResolvedModel:
    """Where a model lies; nothing of it has been checked yet.

    `kind`: a diffusers folder, the folder of one network, a single-file Stable Diffusion
    checkpoint, or a LoRA adapter (folder or file).
    """

    id: str
    path: Path
    kind: Kind
    card: Card | None

    def check(self) -> None:
        """Run every check that needs no weights (see `gen.store.guard`)."""
        if self.kind in ("pipeline", "component"):
            check_folder(self.path, self.card)
        elif self.path.is_dir():
            check_tree(self.path)
            if self.card is not None:
                check_hashes(self.path, self.card)
            check_safetensors(adapter_file(self.path))
        else:
            check_safetensors(self.path)

    @property
    def weight_sha256(self) -> str:
        """The card's hash, or the hash of the files where there is no card."""
        return content_sha256(self.path, self.card)


def list_models() -> list[Card]:
    """The cards of the embedded models, sorted by id."""
    cards = (read_card(path.parent) for path in sorted(WEIGHTS.glob(f"*/{CARD_NAME}")))
    return [card for card in cards if card is not None]


def resolve(model_id: str | Path, allow_download: bool = False) -> ResolvedModel:
    """Find a model.

    Args:
        model_id: an embedded id, a folder, a safetensors file, or "owner/name[@revision]" of the
            Hugging Face hub.
        allow_download: fetch a hub model that is not in the local cache.

    Raises:
        ModelRefused: nothing of that name is known.
    """
    text = str(model_id)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) and (WEIGHTS / text / CARD_NAME).is_file():
        return _at(text, WEIGHTS / text)
    path = Path(model_id)
    if path.exists():
        return _at(text, path)
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.-]+)?", text) and ".." not in text:
        return _at(text, _hub_folder(text, allow_download))
    raise ModelRefused(f"model {text!r} is unknown; {_known()}")


def _known() -> str:
    embedded = ", ".join(card.id for card in list_models()) or "none"
    return (
        f"embedded models: {embedded}; or give a model folder, a .safetensors checkpoint, "
        f"or a Hugging Face id owner/name"
    )


def _at(model_id: str, path: Path) -> ResolvedModel:
    kind = _kind(path)
    card = read_card(path) if path.is_dir() else None
    return ResolvedModel(model_id, path, kind, card)


def _kind(path: Path) -> Kind:
    if path.is_file():
        return _file_kind(path)
    if (path / "model_index.json").is_file():
        return "pipeline"
    if (path / "adapter_config.json").is_file() or any((path / n).is_file() for n in ADAPTER_FILES):
        return "adapter"
    if (path / "config.json").is_file():
        return "component"
    raise ModelRefused(
        f"{path} holds no model: it has neither model_index.json, config.json nor a LoRA adapter; "
        f"{_known()}"
    )


def _file_kind(path: Path) -> Kind:
    if path.suffix in PICKLE_SUFFIXES:
        raise ModelRefused(
            f"{path} is a pickle, which can run code when read; convert it to safetensors on a "
            f"machine you can lose"
        )
    if path.suffix != ".safetensors":
        raise ModelRefused(f"{path} is not a .safetensors file; {_known()}")
    header: dict[str, Any] = check_safetensors(path)
    return "adapter" if any("lora" in name for name in header) else "checkpoint"


def adapter_file(folder: Path) -> Path:
    """The weights of an adapter folder."""
    for name in ADAPTER_FILES:
        if (folder / name).is_file():
            return folder / name
    raise ModelRefused(
        f"{folder} has none of {', '.join(ADAPTER_FILES)}; a LoRA adapter is read from safetensors "
        f"only, never from a pickle such as adapter_model.bin"
    )


def _hub_folder(text: str, allow_download: bool) -> Path:
    """The snapshot of a hub model in the local cache, downloaded only if allowed."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repo_id, _, revision = text.partition("@")
    try:
        return Path(
            snapshot_download(
                repo_id,
                revision=revision or None,
                allow_patterns=list(DOWNLOADED),
                local_files_only=not allow_download,
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        remedy = "check the name and the network" if allow_download else "allow the download"
        raise ModelRefused(
            f"model {text!r} is not in the Hugging Face cache; {remedy}, or: {_known()}"
        ) from error
