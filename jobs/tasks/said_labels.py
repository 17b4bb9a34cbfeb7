"""What a caller knows of a radiograph, as labels instead of a sentence."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gen.data.captions import NORMAL, PHRASES, Labels


class SaidLabels(BaseModel):
    """Findings by their names, and of whom; see `gen.data.captions`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    findings: tuple[str, ...] = Field(
        (NORMAL,), min_length=1, max_length=len(PHRASES), description="Names; Normal is none"
    )
    view: Literal["PA", "AP"] | None = Field(None, description="Projection")
    age: float | None = Field(None, ge=0, le=120, description="Years")
    sex: Literal["M", "F"] | None = None
    child: bool = Field(False, description="Whether it is a young child's")

    @field_validator("findings")
    @classmethod
    def _are_known(cls, findings: tuple[str, ...]) -> tuple[str, ...]:
        if not PHRASES.keys() >= set(findings):  # the name itself may be somebody's text
            raise ValueError(f"names a finding that has no words; use {', '.join(PHRASES)}")
        if NORMAL in findings and len(set(findings)) > 1:
            raise ValueError(f"{NORMAL} stands beside other findings; leave it out")
        return tuple(sorted(set(findings)))

    @property
    def known(self) -> Labels:
        """As sentences are made of."""
        return Labels(self.findings, self.view, self.age, self.sex, self.child)
