"""Detectors of anomalies by name: rivals trained on healthy images, and methods of a pipeline."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen.anomaly.calibration import HEALTHY_PROMPT
from gen.errors import InvalidInput
from jobs.bars import Bars
from jobs.counted import counted
from jobs.device import Precision, precise
from jobs.window import windowed

if TYPE_CHECKING:  # torch is imported when something is measured
    import torch
    from torch import Tensor

    from gen.anomaly.calibration import MethodName
    from gen.anomaly.detections import Detections, Detector
    from gen.types import Process
    from pipelines.anomaly import AnomalyPipeline

_CODE_SIDE = 4  # of an autoencoder's narrowest layer


@dataclass(frozen=True)
class DetectorConfig:
    """What detectors are made of.

    Args:
        names: which, in the order they are shown; the others are compared with the first.
        image_size: side in pixels of what they are given.
        folder: where what is trained is kept, and not trained twice.
        model: for the methods that need one.
        noise_level: of AnoDDPM, a share of the schedule.
        num_inference_steps: solver steps of the whole schedule, of which it takes its part.
        num_components: of PCA.
        num_training_steps: of the autoencoder.
        seed: of what is trained.
        mixed_precision: of the model's methods and of AnoDDPM.
    """

    names: tuple[str, ...]
    image_size: int
    folder: Path
    model: str = "cxr-mini"
    noise_level: float = 0.25
    num_inference_steps: int = 25
    num_components: int = 64
    num_training_steps: int = 600
    seed: int = 0
    mixed_precision: Precision = Precision.NO


def detectors(
    config: DetectorConfig, healthy: "Callable[[], Tensor]", drawn: Bars
) -> "dict[str, Detector]":
    """The detectors that are asked for, by name.

    Args:
        config: see there.
        healthy: reads the healthy training images (N, 1, S, S) uint8; called if any is trained.
        drawn: shows how far training is.

    Raises:
        InvalidInput: there is no detector of a name, or the model does not suit.
        ModelRefused: see `gen.store.loading.load_components`.
    """
    from gen.anomaly.calibration import METHODS

    loaded = cache(lambda: load_anomaly_pipeline(config))  # once for its methods and AnoDDPM
    makers: dict[str, Callable[[], Detector]] = {
        "pca": lambda: principal_components(config, healthy()),
        "autoencoder": lambda: autoencoder(config, healthy(), drawn),
        "anoddpm": lambda: anoddpm(config, loaded),
        **{name: partial(of_pipeline, config, loaded, name) for name in METHODS},
    }
    unknown = [name for name in config.names if name not in makers]
    if unknown or not config.names:
        raise InvalidInput(
            f"detectors are {','.join(config.names)!r}, but must be some of: {', '.join(makers)}"
        )
    return {name: makers[name]() for name in config.names}


def principal_components(config: DetectorConfig, healthy: "Tensor") -> "Detector":
    """PCA of healthy images, found once."""
    from gen.anomaly.pca import PrincipalComponents, fit_components

    count = min(config.num_components, len(healthy) - 1)
    file = _kept(config, "pca", healthy, count)
    if not file.exists():
        fit_components(healthy, count, config.seed).save(file)
    return PrincipalComponents.load(file)


def autoencoder(config: DetectorConfig, healthy: "Tensor", drawn: Bars) -> "Detector":
    """An autoencoder of healthy images, trained once."""
    import torch
    from safetensors.torch import load_file, save

    from gen.anomaly.autoencoder import (
        CHANNELS,
        AutoencoderConfig,
        autoencoder_detector,
        make_autoencoder,
        train_autoencoder,
    )
    from gen.data.atomic import atomic_file

    halvings = (config.image_size // _CODE_SIDE).bit_length() - 1
    training = AutoencoderConfig(channels=CHANNELS[-halvings:], num_steps=config.num_training_steps)
    file = _kept(config, "autoencoder", healthy, training.model_dump_json())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not file.exists():
        report = drawn.bar("training the autoencoder")
        network = train_autoencoder(healthy, training, config.seed, device, report)
        with atomic_file(file, overwrite=True) as stream:
            stream.write(save({k: v.cpu().contiguous() for k, v in network.state_dict().items()}))
    network = make_autoencoder(training, config.image_size)
    network.load_state_dict(load_file(file))
    return autoencoder_detector(network.to(device).eval())


def _kept(config: DetectorConfig, name: str, healthy: "Tensor", settings: Any) -> Path:
    """A file named by the hash of all that is in it."""
    digest = hashlib.sha256(f"{settings} {config.seed} {tuple(healthy.shape)}".encode())
    digest.update(healthy.numpy().tobytes())
    return config.folder / f"{name}-{digest.hexdigest()[:32]}.safetensors"


def anoddpm(config: DetectorConfig, loaded: "Callable[[], AnomalyPipeline]") -> "Detector":
    """Partial noise and denoising in the latents of a text-to-image model, healthy by prompt."""
    from gen.anomaly.detections import Detections, residual_map
    from gen.denoising import make_generators
    from gen.engine import run

    pipeline = loaded()

    def detect(images: "Tensor", seeds: Sequence[int]) -> "Detections":
        networks, rows = counted(precise(pipeline.networks, config.mixed_precision))
        process = noised_and_denoised(pipeline, images, make_generators(seeds), config)
        healthy = run(process, networks).cpu()
        return Detections(residual_map(images, healthy), healthy, rows.total())

    return detect


def noised_and_denoised(
    pipeline: "AnomalyPipeline",
    images: "Tensor",
    generators: "list[torch.Generator]",
    config: DetectorConfig,
) -> "Process[Tensor]":
    """What the model makes of images (N, 1, S, S) in [-1, 1], of the same shape and range."""
    from gen.anomaly.partial_noise import partial_noise

    condition, _ = yield from pipeline.text_to_image.encode_prompts([HEALTHY_PROMPT], [])
    prior = pipeline.healthy_prior(condition, generators[0])
    latents = yield from prior.encode(images.to(pipeline.device))
    steps = prior.steps(config.num_inference_steps)
    restored = yield from partial_noise(
        latents, steps, prior.predict, generators, config.noise_level
    )
    return (yield from prior.decode(restored))


def load_anomaly_pipeline(config: DetectorConfig) -> "AnomalyPipeline":
    """The model's own methods, as its card calibrates them."""
    import torch

    from pipelines.anomaly import AnomalyPipeline

    pipeline = AnomalyPipeline.from_pretrained(config.model, torch_dtype=torch.float32)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    _check_size(config, pipeline.size)
    return pipeline


def of_pipeline(
    config: DetectorConfig, loaded: "Callable[[], AnomalyPipeline]", method: "MethodName"
) -> "Detector":
    """A method of `pipelines.anomaly`: healthy by prompt, its maps cleaned."""
    import torch

    from gen.anomaly.detections import Detections
    from gen.engine import Engine
    from jobs.device import rows_at_once

    pipeline = loaded()

    def detect(images: "Tensor", seeds: Sequence[int]) -> "Detections":
        networks, rows = counted(precise(pipeline.networks, config.mixed_precision))
        engine = Engine(networks, rows_at_once(), pad_rows=False)  # padding would be counted
        processes = (
            pipeline.process((image[0].numpy() + 1) / 2, method, HEALTHY_PROMPT, seed)
            for image, seed in zip(images.float().cpu(), seeds, strict=True)
        )
        found = [each.result() for each in windowed(engine, processes, len(images))]
        return Detections(
            torch.stack([torch.from_numpy(each.map) for each in found]),
            torch.stack([torch.from_numpy(each.healthy)[None] for each in found]),
            rows.total(),
        )

    return detect


def _check_size(config: DetectorConfig, side: int) -> None:
    if side != config.image_size:
        raise InvalidInput(
            f"image_size is {config.image_size}, but {config.model} makes images of {side} pixels"
            " a side; measure at that size"
        )
