"""Crops of tissue that a patch model scores under their embeddings, and draws from embeddings."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gen.denoising import make_generators
from gen.embedding_field import EmbeddingField
from gen.engine import Engine, run
from gen.errors import InvalidInput
from gen.guidance.minority import MinorityCalibration
from gen.training.tissue import TilesConfig, read_tiles
from gen.training.tissue_crops import TissueCrop, draw_crops, pixels_of
from jobs.device import rows_at_once
from jobs.minority_subjects import Subject
from jobs.targets import seed_of
from jobs.train import read_config
from pipelines.large_image import GUIDANCE_SCALE, LargeImagePipeline
from pipelines.large_rarity import kind_of, score_patches

if TYPE_CHECKING:
    from gen.types import Process
    from jobs.minority_calibration import CalibrationConfig
    from jobs.minority_scores import ScoresConfig
    from pipelines.minority import MinoritySampling

DRAWN_TOGETHER = 16


class TissueScorer:
    """Crops as the recipe draws them of its training tiles, or of the tiles it held out.

    Raises:
        InvalidInput: the recipe is missing or none, the encoder is not the model's, or the data
            give no tile.
        ModelRefused: see `gen.store.loading.load_components`.
    """

    def __init__(self, config: "ScoresConfig") -> None:
        self._config = config
        self._pipeline = load_pipeline(config.model)
        self.weight_sha256 = self._pipeline.weight_sha256
        own = self._pipeline.config.encoder
        if config.encoder not in (None, own):
            raise InvalidInput(
                f"encoder is {config.encoder!r}, but {config.model!r} compares by the encoder whose"
                f" embeddings it knows, {own!r}; leave it out, or choose the distance pixel"
            )
        if config.recipe is None:
            raise InvalidInput(
                f"recipe is missing, but {config.model!r} draws patches of tissue, and it says how"
                " they are cut; name the YAML file of medphantom train ssl-conditioned, such as"
                " gen/training/recipes/histo-mini.yaml"
            )
        cutting: TilesConfig = read_config(config.recipe, TilesConfig)
        self._tiles = tiles_of(config.data, config.split, cutting)
        size = self._pipeline.patch_size
        crops = draw_crops(self._tiles, cutting.balance, size, config.crops, config.seed)
        self._crops = {crop.name: crop for crop in crops}
        self.subjects = [subject_of(crop) for crop in crops]
        self.settings: dict[str, Any] = {
            "encoder": own if config.distance == "encoder" else None,
            "tiles": cutting.model_dump(mode="json"),
        }

    def scores(self, names: Collection[str]) -> Iterator[dict[str, float]]:
        """See `Scorer`."""
        asked = [crop for name, crop in self._crops.items() if name in names]
        for start in range(0, len(asked), self._config.batch_size):
            batch = asked[start : start + self._config.batch_size]
            yield {crop.name: value for crop, value in zip(batch, self._score(batch), strict=True)}

    def omissions(self) -> list[str]:
        """See `Scorer`."""
        twice = self._config.crops - len(self._crops)
        return [f"{twice} crop(s) drawn twice"] if twice else []

    def _score(self, crops: Sequence[TissueCrop]) -> list[float]:
        config, pipeline = self._config, self._pipeline
        latents, embeddings = describe(pipeline, pixels_of(self._tiles, crops, pipeline.patch_size))
        process = score_patches(
            pipeline,
            latents,
            embeddings,
            torch.tensor([crop.microns_per_pixel for crop in crops]),
            make_generators([seed_of(config.seed, crop.name) for crop in crops]),
            config.distance,
            config.noise_level,
            config.num_draws,
        )
        return [float(value) for value in run(process, pipeline.networks)]


class TissueDrawer:
    """Images of one patch, each under the embedding of a crop of a tile that was held out.

    Raises:
        InvalidInput: the data give no tile, or too few crops.
        ModelRefused: see `gen.store.loading.load_components`.
    """

    def __init__(self, config: "CalibrationConfig", cutting: TilesConfig) -> None:
        self._config = config
        self._pipeline = load_pipeline(config.model)
        tiles = tiles_of(config.data, config.split, cutting)
        size = self._pipeline.patch_size
        self._crops = draw_crops(tiles, cutting.balance, size, config.n, config.seed)
        _, self._embeddings = describe(self._pipeline, pixels_of(tiles, self._crops, size))
        self.num_images = len(self._crops)
        self.has_classifier = self._pipeline.minority_classifier is not None

    def levels(self, calibration: MinorityCalibration, sampling: "MinoritySampling") -> list[float]:
        """See `Drawer`."""
        levels: list[float] = []
        for start in range(0, self.num_images, DRAWN_TOGETHER):
            engine = Engine(self._pipeline.networks, rows_at_once())
            last = min(start + DRAWN_TOGETHER, self.num_images)
            tickets = [
                engine.submit(self._draw(index, calibration, sampling))
                for index in range(start, last)
            ]
            engine.drain()
            levels += [level for ticket in tickets if (level := ticket.result()) is not None]
        return levels

    def _draw(
        self, index: int, calibration: MinorityCalibration, sampling: "MinoritySampling"
    ) -> "Process[float | None]":
        config, side = self._config, self._pipeline.patch_size
        scale = GUIDANCE_SCALE if config.guidance_scale is None else config.guidance_scale
        return self._pipeline.process(
            EmbeddingField(self._embeddings[index][None, None], (side, side)),
            lambda band: None,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=scale,
            microns_per_pixel=self._crops[index].microns_per_pixel,
            generator=torch.Generator().manual_seed(config.seed + index),
            minority=sampling,
            calibration=calibration,
        )


def load_pipeline(model: str) -> LargeImagePipeline:
    """In single precision, on the GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return LargeImagePipeline.from_pretrained(model, torch_dtype=torch.float32).to(device)


def tiles_of(data: Path, split: str, cutting: TilesConfig) -> Any:
    """The recipe's tiles to train on, or those held out.

    Raises:
        InvalidInput: the split is neither, or there are no tiles.
    """
    if split not in ("train", "val"):
        raise InvalidInput(
            f"split is {split!r}, but tiles of tissue are of 'train', or of 'val', held out"
        )
    return read_tiles(data, split, cutting.tile_size, cutting.tissue)  # type: ignore[arg-type]


@torch.no_grad()
def describe(pipeline: LargeImagePipeline, patches: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled latents and embeddings of patches (N, 3, S, S) in [-1, 1]."""
    patches = patches.to(pipeline.unet.device)
    latents = pipeline.vae.encode(patches).latent_dist.mean * pipeline.vae.config.scaling_factor
    return latents, pipeline.embedder.embed(patches)


def subject_of(crop: TissueCrop) -> Subject:
    """A crop in the table."""
    scale = crop.microns_per_pixel
    place = {"x": crop.x, "y": crop.y, "microns_per_pixel": scale}
    return Subject(crop.name, crop.file, kind_of(scale), place)


def cutting_of(table: Path, figures: dict[str, Any]) -> TilesConfig:
    """How the crops of a table of scores were cut, from the figures beside it.

    Raises:
        InvalidInput: they do not say it.
    """
    if "tiles" not in figures:
        raise InvalidInput(
            f"scores is {table}, whose .json does not say how tissue was cut; make both with"
            " medphantom train minority-scores of this model"
        )
    return TilesConfig.model_validate(figures["tiles"])
