"""What an image's record says of the rarity that was asked for, and how it is asked for again."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch is imported where images are made
    from pipelines.minority import MinoritySampling


def minority_settings(
    sampling: "MinoritySampling", reached: float
) -> dict[str, str | float | None]:
    """Settings of a record: level, method, strength, and the level that was measured."""
    return {
        "minority": sampling.level,
        "minority_method": sampling.method,
        "minority_strength": sampling.strength,
        "minority_reached": round(reached, 4),
    }


def minority_of(settings: Mapping[str, Any]) -> "MinoritySampling | None":
    """What made the image; its strength is kept, since a model may be calibrated anew."""
    from gen.guidance.minority import check_method
    from pipelines.minority import MinoritySampling

    if "minority_method" not in settings:
        return None
    method = check_method(str(settings["minority_method"]))
    level = settings.get("minority")
    return MinoritySampling(
        method, float(settings["minority_strength"]), None if level is None else float(level)
    )
