"""What is refused before a weight is read: code, pickles, foreign classes, paths, wrong hashes.

Nothing here imports torch or the folder's own words: a model names its classes, we only compare.
"""

import ast
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen.errors import ModelRefused
from gen.store.card import CARD_NAME, Card, combined_sha256, file_sha256, hash_folder
from gen.store.timm_folder import check_timm
from gen.store.weight_files import check_safetensors, read_json, read_object, weight_files

CODE_SUFFIXES = frozenset({".py", ".pyc", ".so", ".pyd", ".dll", ".dylib"})

# keys that make diffusers or transformers import or fetch what the folder names
CODE_KEYS = frozenset(
    {"auto_map", "trust_remote_code", "custom_pipeline", "custom_pipelines", "custom_generate"}
)
TOKEN_FILES = frozenset({"vocab.json", "tokenizer.json", "added_tokens.json"})
# entries of Stable Diffusion folders that we never run
IGNORED_COMPONENTS = frozenset({"safety_checker", "feature_extractor", "image_encoder"})

TOKENIZERS = frozenset({"CLIPTokenizer", "CLIPTokenizerFast", "BertTokenizer", "BertTokenizerFast"})
VISION = frozenset({"Dinov2Model", "Dinov2WithRegistersModel", "ViTModel", "ViTMAEModel"})
TEXT = frozenset({"CLIPTextModel", "CLIPTextModelWithProjection", "BertModel"})
IMAGE_TEXT = frozenset({"CLIPModel"})
TRANSFORMERS = VISION | TEXT | IMAGE_TEXT | TOKENIZERS
SCHEDULERS = frozenset(
    f"{name}Scheduler"
    for name in (
        *("DDIM", "DDIMInverse", "DDPM", "PNDM", "LCM", "LMSDiscrete", "UniPCMultistep"),
        *("DPMSolverMultistep", "DPMSolverMultistepInverse", "DPMSolverSinglestep"),
        *("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "DEISMultistep"),
        *("KDPM2Discrete", "KDPM2AncestralDiscrete", "EDMEuler", "EDMDPMSolverMultistep"),
        *("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete"),
    )
)
NETWORKS = frozenset({"UNet2DConditionModel", "UNet2DModel", "AutoencoderKL", "AutoencoderTiny"})
ALLOWED: Mapping[str, frozenset[str]] = {
    "transformers": TRANSFORMERS,
    "diffusers": NETWORKS | SCHEDULERS,
}
PIPELINES = frozenset({"StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"})

MODELS_FOLDER = Path(__file__).parents[1] / "models"


@dataclass(frozen=True)
class Part:
    """One component of a checked folder: which allowed class reads which weights."""

    name: str
    library: str
    class_name: str
    folder: Path
    variant: str | None = None

    @property
    def has_weights(self) -> bool:
        """Whether the component is a network."""
        return self.class_name not in TOKENIZERS | SCHEDULERS


def check_folder(folder: Path, card: Card | None) -> tuple[Part, ...]:
    """Check a model folder and return its components.

    Raises:
        ModelRefused: the first rule that the folder breaks.
    """
    check_tree(folder)
    for path in sorted(folder.rglob("*.json")):
        if path.name not in TOKEN_FILES:
            _check_keys(read_json(path), path)
    if card is not None:
        check_hashes(folder, card)
    parts = tuple(_parts(folder))
    return tuple(_check_part(part) for part in parts)


def check_tree(folder: Path) -> None:
    """Refuse code anywhere in the folder, and links that leave it, the hub cache's blobs aside."""
    blobs = _hub_blobs(folder)
    for root, directories, files in os.walk(folder):
        for name in (*directories, *files):
            path = Path(root) / name
            if path.is_symlink():
                _check_link(path, folder, blobs)
            if path.suffix.lower() in CODE_SUFFIXES and path.is_file():
                raise ModelRefused(
                    f"{path} is code inside a model; models are data, remove the file or "
                    f"copy only json, txt and safetensors files"
                )


def _hub_blobs(folder: Path) -> Path | None:
    """Where a snapshot of the Hugging Face cache keeps its files; None for any other folder."""
    resolved = folder.resolve()
    cached = resolved.parent.name == "snapshots" and resolved.parents[1].name.startswith("models--")
    return resolved.parents[1] / "blobs" if cached else None


def _check_link(path: Path, folder: Path, blobs: Path | None) -> None:
    target = path.resolve()
    inside = target.is_relative_to(folder.resolve())
    cached = blobs is not None and target.is_relative_to(blobs.resolve())
    if not (target.is_file() and (inside or cached)):
        raise ModelRefused(
            f"{path} is a symbolic link to {target}; links may only name files inside the folder, "
            f"copy the file instead"
        )


def _check_keys(value: Any, path: Path) -> None:
    """Refuse, at any depth, the keys by which a config asks for code or for a foreign file."""
    if isinstance(value, list):
        for item in value:
            _check_keys(item, path)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key in CODE_KEYS and item:
            raise ModelRefused(f"{path} asks for custom code by {key!r}; remove the key")
        if key in {"vocab_file", "merges_file", "tokenizer_file"} and _leaves(str(item)):
            raise ModelRefused(f"{path}: the path {item!r} under {key!r} leaves the folder")
        if key == "quantization_config" and item:
            raise ModelRefused(f"{path}: quantised weights are not read; save the model as float16")
        _check_keys(item, path)


def _leaves(path: str) -> bool:
    return path.startswith(("/", "~", "\\")) or ".." in re.split(r"[/\\]", path) or ":" in path


def check_hashes(folder: Path, card: Card) -> None:
    """Compare every file that loading may read with the card."""
    found = hash_folder(folder)
    for path, digest in card.weights.items():
        if path not in found:
            raise ModelRefused(f"{folder / path} is missing, though {CARD_NAME} lists it")
        if found[path] != digest:
            raise ModelRefused(
                f"{folder / path} has sha256 {found[path]}, but {CARD_NAME} says {digest}; "
                f"fetch the model again, or write a new card if you changed it"
            )
    unlisted = sorted(set(found) - set(card.weights))
    if unlisted:
        raise ModelRefused(f"{folder / unlisted[0]} is not listed in {CARD_NAME}; remove it")


def content_sha256(path: Path, card: Card | None = None) -> str:
    """Identify a model: the card's hash, or the same hash computed from its files."""
    if card is not None:
        return card.weight_sha256
    return file_sha256(path) if path.is_file() else combined_sha256(hash_folder(path))


def _parts(folder: Path) -> Iterator[Part]:
    """Name the components of a pipeline folder, or those of a bare network's folder."""
    if not (folder / "model_index.json").is_file():
        part = _bare_part(folder)
        yield part
        if part.class_name in IMAGE_TEXT:
            yield Part("tokenizer", "transformers", "CLIPTokenizer", folder)
        return
    index = read_object(folder / "model_index.json")
    _check_pipeline_class(index.get("_class_name"), folder)
    for name, entry in index.items():
        if not isinstance(entry, list) or name.startswith("_"):
            continue  # a plain configuration value of the pipeline
        if name in IGNORED_COMPONENTS or entry == [None, None]:
            continue
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ModelRefused(f"{folder}: the component path {name!r} leaves the folder")
        if len(entry) != 2 or not all(isinstance(word, str) for word in entry):
            raise ModelRefused(f"{folder}: component {name} is {entry}, not [library, class]")
        library, class_name = entry
        _check_class(library, class_name, folder / name)
        yield Part(name, library, class_name, folder / name)


def _bare_part(folder: Path) -> Part:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelRefused(f"{folder} holds neither model_index.json nor config.json: not a model")
    config = read_object(path)
    class_name = config.get("_class_name")
    if class_name is None and config.get("architectures"):
        class_name = config["architectures"][0]
        if class_name in VISION | IMAGE_TEXT:
            return Part("model", "transformers", class_name, folder)
    if class_name is None and "architecture" in config:
        check_timm(folder)
        return Part("model", "timm", config["architecture"], folder)
    for library in ("diffusers", *(f"gen.models.{file.stem}" for file in own_modules())):
        if class_name in _classes_of(library):
            return Part("model", library, class_name, folder)
    raise ModelRefused(f"{path}: the class {class_name!r} is not on the list; {_allowed_text()}")


def _check_pipeline_class(class_name: Any, folder: Path) -> None:
    known = PIPELINES | _pipeline_classes()
    if not (isinstance(class_name, str) and class_name in known):
        raise ModelRefused(
            f"{folder}: the pipeline class {class_name!r} is custom code or of another kind; "
            f"known are {', '.join(sorted(known))}"
        )


def _pipeline_classes() -> frozenset[str]:
    """Names of our own pipelines, read from the source: gen may not import the layer above."""
    sources = (Path(__file__).parents[2] / "pipelines").glob("[a-z]*.py")
    return frozenset().union(*(_classes_in(source) for source in sources))


def own_modules() -> list[Path]:
    """Our own architectures, one a file."""
    return sorted(MODELS_FOLDER.glob("[a-z]*.py"))


def _classes_in(source: Path) -> frozenset[str]:
    tree = ast.parse(source.read_bytes())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.ClassDef))


def _classes_of(library: str) -> frozenset[str]:
    """The classes of a library that a model may name."""
    if library in ALLOWED:
        return ALLOWED[library]
    for source in own_modules():
        if library == f"gen.models.{source.stem}":
            return _classes_in(source)
    return frozenset()


def _check_class(library: str, class_name: str, folder: Path) -> None:
    if class_name not in _classes_of(library):
        raise ModelRefused(
            f"{folder}: the class {library}.{class_name} is not on the list; {_allowed_text()}"
        )


def _allowed_text() -> str:
    names = sorted(NETWORKS | TRANSFORMERS)
    return f"known are {', '.join(names)}, the usual schedulers and the classes of gen.models"


def _check_part(part: Part) -> Part:
    """Check that a component's files are there and its weights are well-formed safetensors."""
    if part.class_name in TOKENIZERS:
        _check_tokenizer(part)
        return part
    config = "config.json" if part.has_weights else "scheduler_config.json"
    if not (part.folder / config).is_file():
        raise ModelRefused(f"{part.folder / config} is missing; fetch or save the model again")
    if not part.has_weights:
        return part
    if (part.folder / "adapter_config.json").exists():
        # transformers would load the adapter, and the base model it names, unasked
        raise ModelRefused(f"{part.folder} holds an adapter; keep it in a folder of its own")
    _check_scaling_factor(part)
    stem = "model" if part.library in ("transformers", "timm") else "diffusion_pytorch_model"
    variant, files = weight_files(part.folder, stem)
    for path in files:
        check_safetensors(path)
    return Part(part.name, part.library, part.class_name, part.folder, variant)


def _check_tokenizer(part: Part) -> None:
    alone = {"tokenizer.json"}
    words = {"vocab.json", "merges.txt"} if part.class_name.startswith("CLIP") else {"vocab.txt"}
    if not any(all((part.folder / name).is_file() for name in names) for names in (alone, words)):
        raise ModelRefused(f"{part.folder}: {' and '.join(sorted(words))} missing; save it again")


def _check_scaling_factor(part: Part) -> None:
    """The latent scale is part of the weights: guessing it is the commonest cause of artefacts."""
    if part.name != "vae" and "Autoencoder" not in part.class_name:
        return
    path = part.folder / "config.json"
    if not isinstance(read_object(path).get("scaling_factor"), int | float):
        raise ModelRefused(
            f"{path} has no scaling_factor; add the one the model was trained with, 1 / std of its "
            f'latents ("scaling_factor": 0.18215 for descendants of Stable Diffusion 1 and 2)'
        )
