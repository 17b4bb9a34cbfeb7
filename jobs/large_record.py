"""The record of a large image, whoever makes it: the command or the service."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.minority_record import minority_settings

if TYPE_CHECKING:  # torch is imported when images are made
    from gen.data.provenance import Record
    from gen.known_region import KnownRegion
    from pipelines.large_image import LargeImagePipeline
    from pipelines.minority import MinoritySampling


def large_record(
    pipeline: "LargeImagePipeline",
    *,
    model: str,
    source: str,
    text: str,
    source_digests: Sequence[bytes],
    seed: int,
    method: str,
    num_inference_steps: int,
    guidance_scale: float,
    microns_per_pixel: float,
    height: int,
    width: int,
    keep: "KnownRegion | None" = None,
    minority: "MinoritySampling | None" = None,
    mixed_precision: str = "no",
) -> "Record":
    """Where a large image comes from.

    Args:
        source: "like", "variation", "text", or "keep" where nothing but a kept part says what is
            shown.
        text: the words, "" for other sources.
        source_digests: SHA-256 of each picture's file; the record has the hash of them in a row.
        height, width: in pixels.
        keep: the real part, which the record owns up to.
        minority: what led to the rare, if anything did.
    """
    from gen.data.provenance import Record

    kept = {}
    if keep is not None:
        share = float(keep.kept.sum()) / (height * width)
        kept = {"kept_top": keep.top, "kept_left": keep.left, "real_share": round(share, 6)}
    together = hashlib.sha256(b"".join(source_digests)).hexdigest()
    return Record(
        task="large_image",
        model=model,
        weight_sha256=pipeline.weight_sha256,
        prompt=text,
        seed=seed,
        scheduler=type(pipeline.scheduler).__name__,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        height=height,
        width=width,
        settings={
            "source": source,
            "method": method,
            "microns_per_pixel": microns_per_pixel,
            "encoder": pipeline.config.encoder,
            **kept,
            **({} if mixed_precision == "no" else {"mixed_precision": mixed_precision}),
            **({} if minority is None else minority_settings(minority)),
        },
        source_sha256=together if source_digests else None,
    )
