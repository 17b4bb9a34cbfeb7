"""Which gates a data set job asks, and of which real images they learn: `gates` of its spec."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gen.errors import InvalidInput


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SanityConfig(_Part):
    """Are the pixels those of a picture?"""

    false_alarm_rate: float = Field(
        0.01, gt=0, le=0.5, description="Share of real images it may refuse"
    )


class CopiesConfig(_Part):
    """Is it a copy of a training image or of its source?"""

    encoder: str = Field("cxr-encoder-mini", min_length=1)
    false_alarm_rate: float = Field(
        0.01,
        gt=0,
        le=0.5,
        description="Share of real images of other patients that it may refuse; where too few are"
        " held out, the next of 0.01, 0.02, 0.05 and 0.1",
    )
    planted: int = Field(
        100, ge=0, description="Training images whose altered copies are slipped in, for the recall"
    )


class LabelsConfig(_Part):
    """Does a classifier of real images see what was asked for?"""

    classifier: str = Field("cxr-classifier-mini", min_length=1)
    true_positive_rate: float = Field(
        0.9, ge=0.5, lt=1, description="Share of real images that show a finding which must pass"
    )


def _switch(value: Any) -> Any:
    """true is the default settings, false is off."""
    return {} if value is True else None if value is False else value


class GatesConfig(_Part):
    """All gates are on unless one is false."""

    reference: Path = Field(
        description="Real images: folder with manifest.csv, or a table; training set and held out"
    )
    train_split: str = Field("train", description="Rows that nothing made may be a copy of")
    held_out_split: str = Field("val", description="Rows of other patients, for thresholds")
    sanity: Annotated[SanityConfig | None, BeforeValidator(_switch)] = SanityConfig()
    copies: Annotated[CopiesConfig | None, BeforeValidator(_switch)] = CopiesConfig()
    labels: Annotated[LabelsConfig | None, BeforeValidator(_switch)] = LabelsConfig()
    seed: int = Field(0, ge=0, description="Of draws for intervals and planted copies")


def gates_config(fields: Mapping[str, Any]) -> GatesConfig:
    """Settings from JSON values.

    Raises:
        InvalidInput: one is wrong; the message names it.
    """
    try:
        return GatesConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, ("gates", *first["loc"])))
        raise InvalidInput(f"{where}: {first['msg']}; mend it in the spec") from error
