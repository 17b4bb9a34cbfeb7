"""Where a picture departs from healthy anatomy: a diffusion model paints it healthy, and compares.

AutoPaint (arXiv 2305.12358) by default; pDDPM (2303.03758), AutoDDPM (2305.19643) and THOR
(2403.08464) behind the same argument. See `gen.anomaly`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gen.anomaly.autoddpm import autoddpm
from gen.anomaly.autopaint import DRAWING_STEPS, autopaint, first_look
from gen.anomaly.body import body_mask
from gen.anomaly.calibration import (
    CALIBRATE,
    HEALTHY_PROMPT,
    AnomalyCalibration,
    MethodName,
    calibration_in,
    check_anomaly_method,
)
from gen.anomaly.healthy_prior import Departure, HealthyPrior, Method
from gen.anomaly.patchwise import NUM_STEPS as PATCHWISE_STEPS
from gen.anomaly.patchwise import patchwise
from gen.anomaly.regions import Map, Region, cleaned, mask_over, picture_score, regions
from gen.anomaly.single_step import single_step
from gen.anomaly.thor import thor
from gen.data.model_square import ModelSquare
from gen.denoising import make_generators
from gen.encoders.encoder import Encoder
from gen.encoders.loading import load_encoder
from gen.engine import Engine
from gen.errors import InvalidInput
from gen.noising import Noising
from gen.store.card import read_card
from gen.store.catalogue import resolve
from gen.types import Component, ModelCall, Process
from pipelines.outputs import AnomalyMap
from pipelines.over_text_to_image import OverTextToImage
from pipelines.pictures import (
    decode_pictures,
    encode_pictures,
    paint_all,
    painter,
    picture_networks,
)

METHOD: MethodName = "autopaint"
FALSE_POSITIVE_RATE = 0.05  # of healthy pictures, in which something is marked
ENCODER = "cxr-encoder-mini"
ROWS = 32  # of a forward

OnEstimate = Callable[[Tensor], None]
"""Told, after each call of the U-Net, what it takes the first of its rows for (1, c, h, w)."""


@dataclass(frozen=True)
class SquareDeparture:
    """A cleaned map (S, S), the healthy square (S, S) in [-1, 1] and where it is painted anew."""

    map: Map
    healthy: NDArray[np.float32]
    painted: NDArray[np.float32]


class AnomalyPipeline(OverTextToImage):
    """Anomaly maps by any Stable-Diffusion-shaped model that knows what healthy looks like.

    Args:
        vae, text_encoder, tokenizer, unet, scheduler: see `TextToCXRPipeline`.
    """

    @cached_property
    def calibration(self) -> AnomalyCalibration | None:
        """Of the model's card; None if there is none, or it says nothing of anomalies."""
        card = None if self.model_id is None else read_card(resolve(self.model_id).path)
        return None if card is None else calibration_in(card.calibration)

    @cached_property
    def encoder(self) -> Encoder:
        """What pictures are compared by, beside their pixels."""
        return load_encoder(ENCODER, self.device.type)

    @property
    def networks(self) -> dict[str, Component]:
        """What this pipeline's model calls name."""
        return {
            **picture_networks(self.text_to_image),
            "features": lambda pictures: self.encoder.fine_tokens(pictures),
        }

    def __call__(
        self,
        pictures: Sequence[NDArray[np.floating]],
        method: str = METHOD,
        prompt: str = HEALTHY_PROMPT,
        threshold: float | None = None,
        threshold_fpr: float = FALSE_POSITIVE_RATE,
        seeds: Sequence[int] | None = None,
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[AnomalyMap]:
        """Map where each picture departs from healthy anatomy.

        Args:
            pictures: (H, W) each, in [0, 1], bright where X-rays are absorbed.
            method: "autopaint", "patchwise", "autoddpm", "thor" or "single_step".
            prompt: what healthy looks like, in the model's words.
            threshold: what maps must exceed to be marked; None takes it from the card.
            threshold_fpr: share of healthy pictures in which anything would be marked.
            seeds: one a picture; None counts from 0.
            report: told how many pictures are done, of all.

        Raises:
            InvalidInput: an argument breaks a rule, or no threshold is known for the model.
        """
        name = check_anomaly_method(method)
        limit = self.threshold(name, threshold, threshold_fpr)
        seeds = range(len(pictures)) if seeds is None else seeds
        if len(seeds) != len(pictures):
            raise InvalidInput(
                f"seeds has {len(seeds)} numbers for {len(pictures)} pictures; give one for each"
            )
        squares = [ModelSquare(len(each), each.shape[1], self.size) for each in pictures]
        engine = Engine(self.networks, max_rows=ROWS)
        tickets = [
            engine.submit(self.process(square.to_model(each), name, prompt, seed, square))
            for each, square, seed in zip(pictures, squares, seeds, strict=True)
        ]
        while engine.num_live:
            engine.step()
            report(sum(ticket.done() for ticket in tickets), len(tickets))
        return [
            on_source(each, square, ticket.result(), limit)
            for each, square, ticket in zip(pictures, squares, tickets, strict=True)
        ]

    def threshold(self, method: MethodName, threshold: float | None, threshold_fpr: float) -> float:
        """The one that is given, or that of a share of false alarms by the card.

        Raises:
            InvalidInput: neither is known.
        """
        if threshold is not None:
            if not threshold >= 0:
                raise InvalidInput(f"threshold is {threshold}, but must be at least 0")
            return threshold
        if self.calibration is None:
            raise InvalidInput(
                f"threshold_fpr is {threshold_fpr}, but model {self.model_id!r} is not"
                f" calibrated on healthy pictures; run {CALIBRATE} on it, or give a threshold"
            )
        return self.calibration.threshold(method, threshold_fpr)

    def process(
        self,
        square: Map,
        method: MethodName,
        prompt: str,
        seed: int,
        padded: ModelSquare | None = None,
        suspicious: float | None = None,
        on_estimate: OnEstimate | None = None,
    ) -> Process[SquareDeparture]:
        """The algorithm of `__call__` for a square (S, S) in [0, 1], for an engine.

        `padded` tells where the square is padding: networks, which know no black bars, see the
        picture's mirror image there. `suspicious` is where "autopaint" paints; None takes it from
        the card. `on_estimate` is told what each call of the U-Net takes the latents (1, C, h, w)
        for.
        """
        prior, picture = yield from self.looked_at(square, prompt, seed, padded, on_estimate)
        body = body_mask(square * 2 - 1)
        paintable = torch.from_numpy(body)[None, None].to(self.device)
        found = yield from self.methods(suspicious, paintable)[method](prior, picture)
        map_ = cleaned(as_array(found.map), body)
        painted = torch.zeros_like(found.map) if found.painted is None else found.painted
        return SquareDeparture(map_, as_array(found.healthy), as_array(painted))

    def first_look(
        self, square: Map, prompt: str, seed: int, padded: ModelSquare | None = None
    ) -> Process[NDArray[np.float32]]:
        """What "autopaint" begins with, at the pixels of the body: (N,), at least 0."""
        prior, picture = yield from self.looked_at(square, prompt, seed, padded)
        found = yield from first_look(prior, picture)
        body = body_mask(square * 2 - 1)
        return as_array(found)[body]

    def looked_at(
        self,
        square: Map,
        prompt: str,
        seed: int,
        padded: ModelSquare | None = None,
        on_estimate: OnEstimate | None = None,
    ) -> Process[tuple[HealthyPrior, Tensor]]:
        """What methods are given: the model, and the square as (1, 1, S, S) in [-1, 1]."""
        (generator,) = make_generators([seed])
        condition, _ = yield from self.text_to_image.encode_prompts([prompt], [])
        shown = square if padded is None else padded.mirrored(square)
        picture = torch.from_numpy(shown)[None, None] * 2 - 1
        return self.healthy_prior(condition, generator, on_estimate), picture.to(self.device)

    @property
    def suspicious(self) -> float | None:
        """Where "autopaint" paints, by the card; None if it does not say."""
        points = self.calibration.methods if self.calibration else {}
        return points["autopaint"].suspicious if "autopaint" in points else None

    @property
    def num_inference_steps(self) -> dict[MethodName, int]:
        """Of the whole schedule, of which each method takes its part."""
        published = int(self.scheduler.config.num_train_timesteps)
        return {
            "autopaint": DRAWING_STEPS,
            "patchwise": PATCHWISE_STEPS,
            "autoddpm": published,
            "thor": published,
            "single_step": 1,
        }

    def methods(
        self, suspicious: float | None = None, body: Tensor | None = None
    ) -> dict[MethodName, Method]:
        """By name; `suspicious` as `process` takes it, `body` as `autopaint` does."""
        suspicious = self.suspicious if suspicious is None else suspicious

        def paint(prior: HealthyPrior, picture: Tensor) -> Process[Departure]:
            return (yield from autopaint(prior, picture, suspicious, body=body))

        return {
            "autopaint": paint,
            "patchwise": patchwise,
            "autoddpm": autoddpm,
            "thor": thor,
            "single_step": single_step,
        }

    def healthy_prior(
        self,
        condition: Tensor,
        generator: torch.Generator,
        on_estimate: OnEstimate | None = None,
    ) -> HealthyPrior:
        """The model under a condition (1, L, D); one that inpaints is shown what is kept."""
        drawn = self.text_to_image
        noising = Noising(self.scheduler)

        def ask(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
            rows = condition.expand(len(latents), -1, -1)
            output = yield from drawn.predict(latents, timestep, rows)
            if on_estimate is not None:
                noisy = latents[:1, : output.shape[1]]
                on_estimate(noising.clean(noisy, output[:1], timestep.reshape(-1)[:1]))
            return output

        def features(pictures: Tensor) -> Process[Tensor]:
            return (yield ModelCall("features", (pictures,)))

        return HealthyPrior(
            paint_all(drawn, ask),
            partial(encode_pictures, drawn),
            partial(decode_pictures, drawn),
            self.scheduler,
            generator,
            features,
            partial(painter, drawn, ask),
        )


def as_array(values: Tensor) -> NDArray[np.float32]:
    """(S, S) of (1, 1, S, S)."""
    array: NDArray[np.float32] = values[0, 0].float().cpu().numpy()
    return array


def on_source(
    picture: NDArray[np.floating], square: ModelSquare, found: SquareDeparture, threshold: float
) -> AnomalyMap:
    """What was found in the square, on the pixels of the picture (H, W) it was made of."""
    mask = mask_over(found.map, threshold)
    placed = (
        Region(box, region.score)
        for region in regions(found.map, mask)
        if (box := square.box_from_model(region.box)) is not None
    )
    healthy = (found.healthy + 1) / 2
    # the difference is laid over the picture, so that its detail stays, but for what is painted
    change = picture + square.from_model(healthy - square.to_model(picture))
    painted = square.from_model(found.painted)
    whole = change + painted * (square.from_model(healthy) - change)
    return AnomalyMap(
        map=square.from_model(found.map),
        healthy=np.clip(whole, 0, 1).astype(np.float32),
        mask=square.from_model(mask.astype(np.float32)) > 0.5,
        regions=tuple(placed),
        score=picture_score(found.map),
        threshold=threshold,
    )
