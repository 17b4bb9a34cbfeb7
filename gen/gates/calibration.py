"""What gates have learnt of real images, in one file."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gen.data.atomic import atomic_file
from gen.errors import InvalidInput
from gen.gates.copies import CopiesCalibration
from gen.gates.labels import LabelsCalibration
from gen.gates.sanity import SanityCalibration

VERSION = 1


class GateCalibration(BaseModel):
    """Of every gate; None where a gate is off or cannot be calibrated, as `notes` then say."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: int = Field(VERSION, ge=VERSION, le=VERSION)
    reference: str = Field(description="Name of the folder or table of real images")
    digest: str = Field(description="Of all that thresholds depend on")
    training: int = Field(description="Images that usual ranges and copies are looked up in")
    held_out: int = Field(description="Images of other patients, which set thresholds")
    sanity: SanityCalibration | None
    copies: CopiesCalibration | None
    labels: LabelsCalibration | None
    notes: tuple[str, ...] = Field((), description="What was assumed or left out")


def write_calibration(path: Path, calibration: GateCalibration) -> None:
    """Write it as JSON; an older file is replaced."""
    with atomic_file(path, overwrite=True) as stream:
        stream.write(calibration.model_dump_json(indent=1).encode())


def read_calibration(path: Path) -> GateCalibration:
    """Read it.

    Raises:
        InvalidInput: there is none, or it is damaged or of another version.
    """
    try:
        return GateCalibration.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidInput(
            f"{path} holds no calibration of gates of version {VERSION}; calibrate anew"
        ) from error
