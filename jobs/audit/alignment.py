"""Alignment: a classifier trained on real images says whether prompts were followed."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gen.data.captions import Labels
from gen.errors import InvalidInput
from gen.metrics.alignment import (
    Asked,
    Classifier,
    Separation,
    beside_real,
    confusion,
    followed,
    load_classifier,
    phrasings,
    separations,
)
from gen.metrics.feature_cache import encode_collection, read_thumbnails
from gen.metrics.image_text import image_text_score, load_image_text_model
from gen.metrics.intervals import bootstrap_mean
from jobs.audit.schema import Alignment, Confusion, Figure, Interval, Label, Model, Omitted
from jobs.audit.sets import ImageSet, Inputs

MAX_IMAGE_TEXT = 1000
MIN_SHOWN = 5  # of fewer images an interval by resampling says too little


class Judged(Model):
    """The section, and how well each image of both sets follows its labels; None: not judged."""

    alignment: Alignment | Omitted
    synthetic: list[float | None]
    real: list[float | None]


def alignment(inputs: Inputs, classifier_id: str, image_text_id: str | None) -> Judged:
    """Judge synthetic images by what their prompts asked for, real ones by their labels."""
    ours, theirs = _labelled(inputs.synthetic), _labelled(inputs.real)
    if not ours:
        nobody = [None] * len(inputs.synthetic), [None] * len(inputs.real)
        why = "no synthetic image has a prompt or labels: audit the folder that has metadata.jsonl"
        return Judged(alignment=Omitted(omitted=why), synthetic=nobody[0], real=nobody[1])
    judge = load_classifier(classifier_id)
    generated = _probabilities(inputs, "synthetic", inputs.synthetic, judge)
    real = _probabilities(inputs, "real", inputs.real, judge)
    asked, stated = _labels(inputs.synthetic, ours), _labels(inputs.real, theirs)
    found = separations(generated[ours], asked, judge.outputs)
    own = separations(real[theirs], stated, judge.outputs)
    ranks = followed(generated[ours], asked, judge.outputs)
    real_ranks = followed(real[theirs], stated, judge.outputs)
    section = Alignment(
        classifier=judge.encoder.id,
        labels=_labels_judged(beside_real(found, own)),
        too_few=[
            f"{each.output} among {each.among}: {each.num_shown} of"
            f" {each.num_shown + each.num_not_shown}"
            for each in found
            if not _is_enough(each)
        ],
        phrases=_phrases(inputs.synthetic, ours, generated, judge),
        confusion=_confusion(generated[ours], asked, judge),
        followed=_followed(ranks, real_ranks),
        image_text=_image_text(inputs, image_text_id),
    )
    return Judged(
        alignment=section,
        synthetic=_spread_out(ranks, ours, len(inputs.synthetic)),
        real=_spread_out(real_ranks, theirs, len(inputs.real)),
    )


def _labelled(images: ImageSet) -> list[int]:
    return [row for row, labels in enumerate(images.labels) if labels is not None]


def _labels(images: ImageSet, rows: Sequence[int]) -> list[Labels]:
    return [labels for row in rows if (labels := images.labels[row]) is not None]


def _probabilities(
    inputs: Inputs, what: str, images: ImageSet, judge: Classifier
) -> NDArray[np.float32]:
    report = inputs.bars.bar(f"judging {what} images")
    return encode_collection(images.items, judge.encoder, inputs.cache, report).features


def _labels_judged(pairs: Sequence[Asked]) -> dict[str, Label]:
    """By output and population, of those that enough images shall show, and shall not."""
    return {
        f"{each.generated.output} among {each.generated.among}": _label(each.generated, each.real)
        for each in pairs
        if _is_enough(each.generated)
    }


def _is_enough(each: Separation) -> bool:
    return min(each.num_shown, each.num_not_shown) >= MIN_SHOWN


def _label(generated: Separation, real: Separation | None) -> Label:
    assert generated.auroc is not None
    enough = real is not None and real.auroc is not None and _is_enough(real)
    known = Interval.of(real.auroc) if enough else None  # type: ignore[union-attr, arg-type]
    return Label(
        generated=Interval.of(generated.auroc),
        real=known,
        num_positive=generated.num_shown,
        num_images=generated.num_shown + generated.num_not_shown,
        num_real_positive=0 if real is None else real.num_shown,
    )


def _phrases(
    images: ImageSet, rows: Sequence[int], probabilities: NDArray[np.float32], judge: Classifier
) -> dict[str, Label]:
    prompts = [images.items[row].prompt or "" for row in rows]
    found = phrasings(probabilities[rows], prompts, _labels(images, rows), judge.outputs)
    return {
        f"{phrase} among {each.among}": _label(each, None)
        for phrase, several in found.items()
        for each in several
        if _is_enough(each)
    }


def _confusion(
    probabilities: NDArray[np.float32], asked: list[Labels], judge: Classifier
) -> Confusion:
    table = confusion(probabilities, asked, judge.outputs)
    return Confusion(
        rows=[f"{name} ({count})" for name, count in zip(table.rows, table.num_asked, strict=True)],
        columns=list(table.columns),
        mean_rank=table.mean_rank.tolist(),
    )


def _followed(ranks: NDArray[np.float64], real: NDArray[np.float64]) -> Figure | Omitted:
    means = []
    for each in (ranks, real):
        known = each[~np.isnan(each)]
        means.append(bootstrap_mean(known) if len(known) >= 4 else None)
    if means[0] is None:
        return Omitted(omitted="fewer than four images were asked for a finding that is judged")
    return Figure.beside(means[0], means[1])


def _spread_out(values: NDArray[np.float64], rows: Sequence[int], count: int) -> list[float | None]:
    spread: list[float | None] = [None] * count
    for row, value in zip(rows, values, strict=True):
        spread[row] = None if np.isnan(value) else float(value)
    return spread


def _image_text(inputs: Inputs, model_id: str | None) -> dict[str, Interval] | Omitted:
    if model_id is None:
        return Omitted(omitted="no model that embeds images and texts was named (--image-text)")
    model = load_image_text_model(model_id)
    written = [item for item in inputs.synthetic.items if item.prompt]
    chosen = np.random.default_rng(inputs.seed).permutation(len(written))[:MAX_IMAGE_TEXT]
    items = [written[row] for row in sorted(chosen)]
    if not items:
        return Omitted(omitted="no synthetic image has a prompt")
    pictures = read_thumbnails(
        items, model.network.config.vision_config.image_size, inputs.bars.bar("image and text")
    )
    prompts = [items[row].prompt or "" for row in pictures.rows]
    try:
        score = image_text_score(
            model.embed_images(pictures.images), model.embed_texts(prompts), prompts
        )
    except InvalidInput as error:
        return Omitted(omitted=str(error))
    return {
        "matched": Interval.of(score.matched),
        "shuffled": Interval.of(score.shuffled),
        "margin": Interval.of(score.margin),
    }
