"""What audit.json holds. `medphantom audit --schema` prints it as JSON Schema.

Names and meanings stay; later versions may add to them. A section that could not be measured is
`{"omitted": "why"}` instead.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gen.metrics.intervals import Estimate

VERSION = 1


class Model(BaseModel):
    """A part of audit.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Omitted(Model):
    """A part that could not be measured."""

    omitted: str = Field(description="Why, and what would help")


class Interval(Model):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, estimate: Estimate) -> "Interval":
        """From `gen.metrics`."""
        return cls(value=estimate.value, low=estimate.low, high=estimate.high)


class Figure(Interval):
    """A figure of synthetic images beside the same figure of real ones."""

    floor: Interval | None = Field(None, description="Real images against other patients' ones")

    @classmethod
    def beside(cls, estimate: Estimate, floor: Estimate | None) -> "Figure":
        """From `gen.metrics`."""
        real = None if floor is None else Interval.of(floor)
        return cls(value=estimate.value, low=estimate.low, high=estimate.high, floor=real)


class SetOfImages(Model):
    """One of the sets that were compared."""

    name: str = Field(description="Last part of its path")
    images: int = Field(description="That were read and used")
    patients: int | None = Field(None, description="Whose they are; None for synthetic ones")


class Sets(Model):
    """The images of an audit."""

    synthetic: SetOfImages
    real: SetOfImages
    train: SetOfImages | None


class Group(Model):
    """Figures of one group of images."""

    images: int = Field(description="Synthetic ones")
    real: int = Field(description="Real ones")
    size: int | None = Field(None, description="Images of each set that a figure is from")
    figures: dict[str, Figure]


Groups = dict[str, Group | Omitted]


class Fidelity(Model):
    """Do they look like real images? frechet, kernel (x 1000), precision, recall, density, ..."""

    overall: Group | Omitted
    groups: dict[str, Groups] = Field(description="By axis (finding, view, ...) and group")
    spectrum: dict[str, list[float]] | Omitted = Field(
        description="By age group: power over that of real images in 16 bands up to half Nyquist"
    )


class Diversity(Model):
    """Do they differ among themselves? `floor` is real images' own figure."""

    overall: Group | Omitted = Field(description="spread (of features) and vendi")
    prompt: Groups | Omitted = Field(description="ms_ssim within one prompt, by class and in all")
    label_class: Groups | Omitted = Field(alias="class", description="ms_ssim within a class")
    groups: dict[str, Groups] = Field(description="spread and vendi by axis and group")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Label(Model):
    """How well the images that shall show a label stand out from those that shall not."""

    generated: Interval = Field(description="AUROC of images asked for it against the others")
    real: Interval | None = Field(description="On real images; None of fewer than five")
    num_positive: int
    num_images: int
    num_real_positive: int


class Confusion(Model):
    """How high images asked for one finding rank in another; 0.5 is no higher than others."""

    rows: list[str] = Field(description="Findings that were asked for")
    columns: list[str] = Field(description="Findings that were judged")
    mean_rank: list[list[float]]


class Alignment(Model):
    """Do they show what was asked for? A classifier trained on real images judges."""

    classifier: str
    labels: dict[str, Label] = Field(description='By "finding among children" and alike')
    too_few: list[str] = Field(description="Labels that fewer than five images shall show, or not")
    phrases: dict[str, Label] = Field(description='By "wording among children" and alike')
    confusion: Confusion
    followed: Figure | Omitted = Field(
        description="Mean rank of images in the findings asked for; 0.5 is chance"
    )
    image_text: dict[str, Interval] | Omitted = Field(
        description="Cosine of image and prompt: matched, shuffled, margin"
    )


class Planted(Interval):
    """The share of planted copies of one kind that was found."""

    images: int


class Pair(Model):
    """A synthetic image and the training image it resembles most."""

    synthetic: str
    training: str
    similarity: float


class Copies(Model):
    """Is a training image among them? What was looked for and found; no proof of privacy."""

    flagged: list[str] = Field(description="Synthetic files above the threshold")
    rate: Interval
    floor: Interval = Field(description="Rate of real images of patients not trained on")
    threshold: Interval
    false_alarm_rate: float = Field(description="That the threshold was chosen for")
    held_out: int = Field(description="Real images the threshold was chosen on")
    searched: str = Field(description="The set that was searched: train or real")
    tried: str
    planted: dict[str, Planted] = Field(description="Recall of copies made for the purpose")
    pairs: list[Pair] = Field(description="The most suspicious ones, first the most similar")
    histogram: dict[str, list[float]] = Field(description="edges; density of synthetic, of real")


class Gap(Interval):
    """How far apart the worst and the best served group are."""

    best: str
    worst: str
    floor: Interval | None = Field(
        None, description="The same gap among real images; None where floors are taken off"
    )


Fairness = dict[str, dict[str, Gap] | Omitted]


class Harmed(Model):
    """How the figures answer to one kind of harm done to real images."""

    strengths: list[float]
    figures: dict[str, list[float]]
    monotonic: dict[str, float] = Field(description="Spearman's rank correlation with the harm")
    moves: list[str] = Field(description="Figures that move one way only, beyond chance")
    noticed: list[str] = Field(description="Those of them that leave their floor")


class Sensitivity(Model):
    """Which figure would notice which harm, measured on the real images themselves."""

    images: int
    harms: dict[str, Harmed]


class Audit(Model):
    """The whole of audit.json."""

    version: int = VERSION
    software: str
    encoder: str
    sets: Sets
    fidelity: Fidelity
    diversity: Diversity
    alignment: Alignment | Omitted
    copies: Copies | Omitted
    fairness: Fairness
    sensitivity: Sensitivity | Omitted
    omissions: list[str] = Field(description="What was left out or assumed, a line each")

    def as_json(self) -> dict[str, Any]:
        """As it is written."""
        return self.model_dump(mode="json", by_alias=True)
