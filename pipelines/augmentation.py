"""Training pictures from training pictures: varied, with lesions painted in or out, or from words.

Variation is SDEdit (arXiv 2108.01073), painting is Blended Latent Diffusion (arXiv 2206.02779), of
which the difference is laid over the picture. See `gen.augmentation`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gen.anomaly.calibration import HEALTHY_PROMPT
from gen.anomaly.regions import Mask
from gen.augmentation.areas import area_of_box, drawn_area, given_area, same_shape
from gen.augmentation.classical import Step, transformed
from gen.augmentation.operations import (
    NUM_INFERENCE_STEPS,
    RULES,
    Operation,
    check_needs,
    check_operation,
)
from gen.data.model_square import ModelSquare
from gen.data.prompt_labels import without_findings
from gen.engine import Engine
from gen.errors import InvalidInput
from gen.types import Component, Process
from pipelines.outputs import Augmented
from pipelines.over_text_to_image import OverTextToImage
from pipelines.pictures import picture_networks
from pipelines.redrawing import Area, OnDone, Sampling, Source, painted, synthesised, varied

ROWS = 16  # of a forward


class AugmentationPipeline(OverTextToImage):
    """Augmentation by any Stable-Diffusion-shaped model of the kind of picture.

    Args:
        vae, text_encoder, tokenizer, unet, scheduler: see `TextToCXRPipeline`.
    """

    @property
    def networks(self) -> dict[str, Component]:
        """What this pipeline's model calls name."""
        return picture_networks(self.text_to_image)

    def __call__(
        self,
        operation: str,
        pictures: Sequence[NDArray[np.floating]] | None = None,
        prompts: str | Sequence[str] | None = None,
        areas: Sequence[Area | None] | None = None,
        negative_prompt: str | None = None,
        strength: float | None = None,
        guidance_scale: float | None = None,
        num_inference_steps: int = NUM_INFERENCE_STEPS,
        classical: Sequence[Step] = (),
        seeds: Sequence[int] | None = None,
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Augmented]:
        """Make one picture of each, many at a time.

        Args:
            operation: "vary", "insert", "remove", "synthesise" or "classical".
            pictures: (H, W) each, in [0, 1], bright where X-rays are absorbed; None of
                "synthesise".
            prompts: what is to be seen: one for all, or one for each. Of "vary" these are the
                picture's own words, of "insert" the lesion's; None of "remove" is a healthy chest.
            areas: where to "insert" or "remove", one for each picture: a mask (H, W) or a box (x,
                y, w, h), of which the ellipse is painted. None draws a place in the lungs to
                "insert". Of "classical" steps they are masks that move with their pictures.
            negative_prompt: what guidance moves away from; None is the empty sentence, but of
                "insert" the prompt's person in health.
            strength: above 0, at most 1: the share of the noise schedule that is gone through.
                None is the operation's own.
            guidance_scale: classifier-free guidance, 1.0 = off; None is the operation's own.
            num_inference_steps: solver steps of the whole schedule.
            classical: steps that follow, or all that is done.
            seeds: one a picture; None counts from 0.
            report: told how many pictures are done, of all.

        Raises:
            InvalidInput: an argument breaks a rule.
        """
        listed = None if isinstance(prompts, str) else prompts
        count = count_of(pictures=pictures, prompts=listed, areas=areas, seeds=seeds)
        engine = Engine(self.networks, max_rows=ROWS)
        tickets = [
            engine.submit(
                self.process(
                    operation,
                    None if pictures is None else pictures[row],
                    prompts if isinstance(prompts, str) or prompts is None else prompts[row],
                    None if areas is None else areas[row],
                    negative_prompt=negative_prompt,
                    strength=strength,
                    guidance_scale=guidance_scale,
                    num_inference_steps=num_inference_steps,
                    classical=classical,
                    seed=row if seeds is None else seeds[row],
                )
            )
            for row in range(count)
        ]
        while engine.num_live:
            engine.step()
            report(sum(ticket.done() for ticket in tickets), len(tickets))
        return [ticket.result() for ticket in tickets]

    def process(
        self,
        operation: str,
        picture: NDArray[np.floating] | None = None,
        prompt: str | None = None,
        area: Area | None = None,
        *,
        negative_prompt: str | None = None,
        strength: float | None = None,
        guidance_scale: float | None = None,
        num_inference_steps: int = NUM_INFERENCE_STEPS,
        classical: Sequence[Step] = (),
        seed: int = 0,
        on_step: OnDone | None = None,
    ) -> Process[Augmented]:
        """The algorithm of `__call__` for one picture, for an engine.

        Arguments are checked before the first step. `on_step` is told after each one.
        """
        name = check_operation(operation)
        check_needs(
            name,
            picture=picture is not None,
            prompt=prompt is not None,
            mask=area is not None,
            strength=strength,
            steps=bool(classical),
        )
        rules = RULES[name]
        sampling = Sampling(
            HEALTHY_PROMPT if prompt is None else prompt,
            negative_of(name, prompt, negative_prompt),
            (rules.strength or 1.0) if strength is None else strength,
            (rules.guidance_scale or 1.0) if guidance_scale is None else guidance_scale,
            num_inference_steps,
            seed,
            on_step,
        )
        if picture is None:
            made = self._synthesised(sampling)
        else:
            pixels = np.asarray(picture, np.float32)
            source = Source(pixels, ModelSquare(len(pixels), pixels.shape[-1], self.size))
            made = self._from_picture(name, source, area, sampling)
        return followed(made, classical, seed)

    def _synthesised(self, sampling: Sampling) -> Process[Augmented]:
        drawing = synthesised(self.text_to_image, sampling)

        def draw() -> Process[Augmented]:
            image = yield from drawing
            return Augmented(image, None, "synthesise", sampling.prompt)

        return draw()

    def _from_picture(
        self, operation: Operation, source: Source, area: Area | None, sampling: Sampling
    ) -> Process[Augmented]:
        """What is done to a picture. Arguments are checked at once."""
        source.square.to_model(source.pixels)  # says what is wrong with the shape
        mask = self.mask_of(operation, source, area, sampling.seed)
        if operation == "classical":
            return kept(Augmented(source.pixels, mask, operation, ""))
        if mask is None:
            drawing = varied(self.text_to_image, source, sampling)
        else:
            drawing = painted(self.text_to_image, source, mask, sampling)

        def draw() -> Process[Augmented]:
            image = yield from drawing
            if mask is None:
                return Augmented(image, None, operation, sampling.prompt)
            change = float(np.abs(image - source.pixels)[mask].mean())
            label = mask if operation == "insert" else np.zeros_like(mask)
            return Augmented(image, label, operation, sampling.prompt, change)

        return draw()

    def mask_of(
        self, operation: Operation, source: Source, area: Area | None, seed: int
    ) -> Mask | None:
        """The mask (H, W) that an area stands for, or one that is drawn where it may be.

        Raises:
            InvalidInput: the area does not fit the picture, or it shows no lungs to draw one in.
        """
        shape = (source.square.height, source.square.width)
        if isinstance(area, np.ndarray):
            if operation == "classical":  # labels may be empty, or all of the picture
                return same_shape(area, shape)
            return given_area(area, shape)
        if area is not None:
            return area_of_box(area, shape)
        return drawn_area(source.pixels, source.square, seed) if operation == "insert" else None


def negative_of(operation: Operation, prompt: str | None, negative_prompt: str | None) -> str:
    """What guidance moves away from: what is given, or a healthy chest where a lesion comes."""
    if negative_prompt is not None:
        return negative_prompt
    return without_findings(prompt or "") if operation == "insert" else ""


def kept(made: Augmented) -> Process[Augmented]:
    """A process that asks no network."""
    yield from ()
    return made


def followed(
    making: Process[Augmented], classical: Sequence[Step], seed: int
) -> Process[Augmented]:
    """What a process makes, after classical steps, its mask with it."""
    made = yield from making
    image, mask = transformed(made.image, made.mask, classical, seed)
    return replace(made, image=image, mask=mask)


def count_of(**given: Sequence[Any] | None) -> int:
    """How many pictures are asked for, by all lists that are given.

    Raises:
        InvalidInput: they are not of one length, or there is none.
    """
    lengths = {name: len(each) for name, each in given.items() if each is not None}
    if not lengths:
        raise InvalidInput(
            "nothing says how many pictures to make; give pictures, prompts or seeds"
        )
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise InvalidInput(f"there are {said}, but each picture needs one of each; give as many")
    count = next(iter(lengths.values()))
    if not count:
        raise InvalidInput(f"there are no {', '.join(lengths)}; give at least one")
    return count
