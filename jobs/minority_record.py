"""What an image's record says of the rarity that was asked for, and how it is asked for again."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gen.errors import InvalidInput

if TYPE_CHECKING:  # torch is imported where images are made
    from gen.guidance.minority import MinorityCalibration
    from pipelines.minority import MinoritySampling


def sampling_asked(
    minority: float | None,
    minority_method: str | None,
    minority_strength: float | None,
    allow_common: bool,
    calibration: "Callable[[], MinorityCalibration]",
) -> "MinoritySampling | None":
    """What a level, or else a strength, of a method asks for; neither is None.

    Raises:
        InvalidInput: both are given, or the level cannot be reached.
    """
    from gen.guidance.minority import check_method
    from pipelines.minority import MinoritySampling, sampling_for

    if minority_strength is not None and minority is not None:
        raise InvalidInput(
            f"minority is {minority} and minority_strength {minority_strength}, but a level chooses"
            " its strength; give one of them"
        )
    if minority_strength is not None:
        if minority_method is None:
            raise InvalidInput(
                f"minority_strength is {minority_strength}, but of no method; add minority_method"
            )
        return MinoritySampling(check_method(minority_method), minority_strength)
    if minority is None:
        return None
    return sampling_for(calibration, minority, minority_method, allow_common)


def minority_settings(
    sampling: "MinoritySampling", reached: float | None = None
) -> dict[str, str | float | None]:
    """Settings of a record: level, method, strength, and the level that was measured, if it was."""
    return {
        "minority": sampling.level,
        "minority_method": sampling.method,
        "minority_strength": sampling.strength,
        "minority_distance": sampling.distance,
        **({} if reached is None else reached_settings(reached)),
    }


def reached_settings(reached: float) -> dict[str, float]:
    """The level that was measured, which large images know once they are drawn."""
    return {"minority_reached": round(reached, 4)}


def minority_of(settings: Mapping[str, Any]) -> "MinoritySampling | None":
    """What made the image; its strength is kept, since a model may be calibrated anew."""
    from gen.guidance.minority import check_method
    from pipelines.minority import MinoritySampling

    if "minority_method" not in settings:
        return None
    method = check_method(str(settings["minority_method"]))
    level = settings.get("minority")
    return MinoritySampling(
        method,
        float(settings["minority_strength"]),
        None if level is None else float(level),
        distance=settings.get("minority_distance", "latent"),
    )
