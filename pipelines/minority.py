"""Sampling that moves to the rare: what each method does to a text-to-image pipeline.

Minority guidance (arXiv 2301.12334), self-guided (2407.11555), Boost-and-Skip (2502.06516) and
MinorityPrompt (2410.07838), each around the pipeline's own guidance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gen.errors import InvalidInput
from gen.guidance.boost_and_skip import boost
from gen.guidance.learnt_word import make_room
from gen.guidance.minority import MinorityMethod
from gen.guidance.minority_score import squared_error
from gen.guidance.optimised_prompt import optimised_prompt
from gen.guidance.ordinal_classifier import towards_class
from gen.guidance.self_guided import EVERY, self_guided
from gen.noising import Noising
from gen.types import ModelCall, Predict, Process

if TYPE_CHECKING:
    from pipelines.text_to_cxr import TextToCXRPipeline

SKIPPED = 0.12  # of the steps: 3 of 25


@dataclass(frozen=True)
class MinoritySampling:
    """A method and its strength.

    Of boost_and_skip the strength is the factor of the noise, of the others the scale of the
    gradient, and of prompt its learning rate: 1 or 0 changes nothing, less pushes the rare away.
    `level` is what it was chosen for, if it was. The gradient of classifier and self_guided is
    computed at every `every` steps; None is 1 and `gen.guidance.self_guided.EVERY`.
    """

    method: MinorityMethod
    strength: float
    level: float | None = None
    every: int | None = None


def begin(sampling: MinoritySampling | None, noise: Tensor, scheduler: Any) -> tuple[Tensor, int]:
    """Latents (N, c, h, w) to start from, and how many steps are left out."""
    if sampling is None or sampling.method != "boost_and_skip":
        return noise * scheduler.init_noise_sigma, 0
    skip = round(SKIPPED * len(scheduler.timesteps))
    return boost(noise, scheduler, sampling.strength, skip), skip


@dataclass(frozen=True)
class Guided:
    """A pipeline under classifier-free guidance, for prompts whose conditions are at hand."""

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
        if sampling.method == "classifier":
            return self.by_classifier(plain, noising, sampling.strength, sampling.every or 1)
        if sampling.method == "self_guided":
            return self_guided(
                plain,
                self.probe,
                noising,
                self.generators,
                squared_error,
                sampling.strength,
                sampling.every or EVERY,
            )
        return (yield from self.by_word(noising, sampling.strength))

    def by(self, condition: Tensor) -> Predict:
        """The network under a condition (N, L, D), away from the null."""
        return self.pipeline.guided(
            condition, self.null, self.guidance_scale, self.guidance_interval
        )

    def probe(self, latents: Tensor, timestep: Tensor) -> Process[Tensor]:
        """The network under its condition alone, recorded for gradients."""
        return (
            yield from self.pipeline.predict(latents, timestep, self.condition, needs_grad=True)
        )

    def by_classifier(self, plain: Predict, noising: Noising, scale: float, every: int) -> Predict:
        """Towards the rarest class, or with a negative scale the commonest."""
        classifier = self.pipeline.minority_classifier
        if classifier is None:
            raise InvalidInput(
                "minority_method is 'classifier', which this model lacks; train it with medphantom"
                " train minority-classifier, or choose boost_and_skip"
            )

        def classify(latents: Tensor, timestep: Tensor) -> Process[Tensor]:
            rows = latents, timestep.to(latents.device).expand(len(latents)), self.condition
            return (yield ModelCall("minority_classifier", rows, needs_grad=True))

        wanted = classifier.config.num_classes - 1 if scale >= 0 else 0
        classes = torch.full((len(self.prompts),), wanted)
        return towards_class(plain, classify, noising, classes, abs(scale), every)

    def by_word(self, noising: Noising, learning_rate: float) -> Process[Predict]:
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
            self.by, encode, probe, self.condition, start, noising, self.generators, learning_rate
        )
