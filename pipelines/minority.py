"""Sampling that moves to the rare: what each method does around a pipeline's own guidance.

Minority guidance (arXiv 2301.12334), self-guided (2407.11555), Boost-and-Skip (2502.06516) and
MinorityPrompt (2410.07838).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gen.errors import InvalidInput
from gen.guidance.boost_and_skip import boost, start_scale
from gen.guidance.learnt_word import make_room
from gen.guidance.minority import (
    CALIBRATE,
    DistanceKind,
    MinorityCalibration,
    MinorityMethod,
    calibration_in,
    check_level,
    check_method,
)
from gen.guidance.minority_score import Distance, squared_error
from gen.guidance.optimised_prompt import optimised_prompt
from gen.guidance.ordinal_classifier import towards_class
from gen.guidance.self_guided import BETWEEN, EVERY, self_guided
from gen.noising import Noising
from gen.store.card import read_card
from gen.store.catalogue import resolve
from gen.types import ModelCall, Predict, Process
from pipelines.rarity import distance_of, shown_by

if TYPE_CHECKING:
    from pipelines.text_to_cxr import TextToCXRPipeline

SKIPPED = 0.12  # of the steps: 3 of 25
LONG_WAVES = 2.0  # half-waves a side: the width of what boost_and_skip boosts


@dataclass(frozen=True)
class MinoritySampling:
    """A method and its strength.

    Of boost_and_skip the strength is the factor of the noise, of the others the scale of the
    gradient, and of prompt its learning rate: 1 or 0 changes nothing, less pushes the rare away.
    `level` is what it was chosen for, if it was. The gradient of classifier and self_guided is
    computed at every `every` steps; None is 1 and `gen.guidance.self_guided.EVERY`; that of
    self_guided acts `between` two shares of the schedule. What
    self_guided and prompt climb is measured in `distance`; of calibrated levels, that of the score.
    """

    method: MinorityMethod
    strength: float
    level: float | None = None
    every: int | None = None
    between: tuple[float, float] = BETWEEN
    distance: DistanceKind = "latent"

    @property
    def interval(self) -> int:
        """Steps from one gradient to the next."""
        return self.every or (EVERY if self.method == "self_guided" else 1)


def begin(
    sampling: MinoritySampling | None,
    noise: Tensor,
    scheduler: Any,
    long_waves: float | None = LONG_WAVES,
) -> tuple[Tensor, int]:
    """Latents (N, c, h, w) to start from, and how many steps are left out.

    `long_waves` are what boost_and_skip boosts, in half-waves a side; None is all noise.
    """
    if sampling is None or sampling.method != "boost_and_skip":
        return noise * scheduler.init_noise_sigma, 0
    skip = round(SKIPPED * len(scheduler.timesteps))
    scale = start_scale(scheduler, skip).to(noise)
    return boost(noise, sampling.strength, long_waves) * scale, skip


def read_calibration(model: str) -> MinorityCalibration:
    """What a model's card says of levels of rarity.

    Raises:
        InvalidInput: it says nothing of them.
    """
    card = read_card(resolve(model).path)
    found = None if card is None else calibration_in(card.calibration)
    if found is None:
        raise InvalidInput(
            f"minority cannot be asked of {model!r}, which is not calibrated for it; run"
            f" {CALIBRATE} on it"
        )
    return found


def sampling_for(
    calibration: Callable[[], MinorityCalibration],
    minority: float,
    minority_method: str | None = None,
    allow_common: bool = False,
) -> MinoritySampling:
    """What reaches a level of rarity.

    Args:
        calibration: of the model, read once the other arguments are found to be right.
        minority: a quantile in [0, 1] of the minority scores of the training data.
        minority_method: see `gen.guidance.minority.MinorityMethod`; None is the cheapest that
            reaches the level.
        allow_common: levels below 0.5, which push the rare away, are meant.

    Raises:
        InvalidInput: an argument breaks a rule, or the model lacks what it needs.
    """
    check_level(minority, allow_common)
    asked = None if minority_method is None else check_method(minority_method)
    found = calibration()
    method = asked or found.cheapest(minority)
    strength = found.strength(method, minority)
    return MinoritySampling(method, strength, minority, distance=found.score.distance)


def led(
    sampling: MinoritySampling,
    plain: Predict,
    probe: Predict,
    classifier: Any,
    condition: Tensor,
    noising: Noising,
    generators: Sequence[torch.Generator],
    distance: Distance = squared_error,
) -> Predict:
    """The guided network `plain`, led to the rare by gradients: "classifier" or "self_guided".

    Args:
        sampling: one of the two.
        plain: the network, guided or not.
        probe: the network under its condition alone, whose answers can be differentiated.
        classifier: see `gen.models.minority_classifier`, or None.
        condition: (N, L, D) of the rows, which the classifier sees.
        noising: of the model's scheduler.
        generators: one for each row.
        distance: that self_guided climbs.

    Raises:
        InvalidInput: there is no classifier, but it is asked for.
    """
    if sampling.method == "self_guided":
        return self_guided(
            plain,
            probe,
            noising,
            generators,
            distance,
            sampling.strength,
            sampling.interval,
            between=sampling.between,
        )
    if classifier is None:
        raise InvalidInput(
            "minority_method is 'classifier', which this model lacks; train it with medphantom"
            " train minority-classifier, or choose boost_and_skip"
        )

    def classify(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        rows = latents, timestep.to(latents.device).expand(len(latents)), condition
        return (yield ModelCall("minority_classifier", rows, needs_grad=True))

    rarest = classifier.config.num_classes - 1
    classes = torch.full((len(condition),), rarest if sampling.strength >= 0 else 0)
    scale = abs(sampling.strength)
    return towards_class(plain, classify, noising, classes, scale, sampling.interval)


@dataclass(frozen=True)
class Guided:
    """A text pipeline under classifier-free guidance, for prompts whose conditions are at hand."""

    pipeline: "TextToCXRPipeline"
    prompts: list[str]
    condition: Tensor
    null: Tensor
    guidance_scale: float
    guidance_interval: tuple[float, float]
    generators: Sequence[torch.Generator]

    def predict(self, sampling: MinoritySampling | None) -> Process[Predict]:
        """The guided network, led to the rare.

        Raises:
            InvalidInput: the model lacks what the method needs.
        """
        plain = self.by(self.condition)
        if sampling is None or sampling.method == "boost_and_skip":
            return plain
        noising = Noising(self.pipeline.scheduler)
        distance = distance_of(sampling.distance, shown_by(self.pipeline))
        if sampling.method == "prompt":
            return (yield from self.by_word(noising, distance, sampling.strength))
        classifier = self.pipeline.minority_classifier
        return led(
            sampling, plain, self.probe, classifier, self.condition, noising, self.generators,
            distance,
        )  # fmt: skip

    def by(self, condition: Tensor) -> Predict:
        """The network under a condition (N, L, D), away from the null."""
        return self.pipeline.guided(
            condition, self.null, self.guidance_scale, self.guidance_interval
        )

    def probe(self, latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        """The network under its condition alone, recorded if the latents are."""
        return (
            yield from self.pipeline.predict(
                latents, timestep, self.condition, latents.requires_grad
            )
        )

    def by_word(
        self, noising: Noising, distance: Distance, learning_rate: float
    ) -> Process[Predict]:
        """Under the prompt with a word that is learnt."""
        pipeline = self.pipeline
        ids = pipeline.tokenize(self.prompts)
        ids, places = make_room(ids, pipeline.tokenizer.eos_token_id)
        start = yield ModelCall("mean_word", (ids, places))

        def encode(words: Tensor) -> Process[Tensor]:
            states = yield ModelCall("word_encoder", (ids, places, words), needs_grad=True)
            return states.to(pipeline.unet.dtype)

        def probe(latents: Tensor, timestep: Tensor, condition: Tensor) -> Process[Tensor]:
            return (yield from pipeline.predict(latents, timestep, condition, needs_grad=True))

        return optimised_prompt(
            self.by,
            encode,
            probe,
            self.condition,
            start,
            noising,
            self.generators,
            distance,
            learning_rate,
        )
