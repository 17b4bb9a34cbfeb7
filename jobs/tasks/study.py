"""A study in a PACS, in place of pictures that are sent."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_STUDY_PICTURES = 64  # of a job; a study of radiographs has fewer than ten

UID = Annotated[str, Field(pattern=r"^[0-9]+([.][0-9]+)*$", max_length=64)]


class Study(BaseModel):
    """Which pictures of which PACS; its address and credentials are its operator's alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pacs: str = Field(
        min_length=1, max_length=64, description="Name of a PACS that the service was configured by"
    )
    study_instance_uid: UID = Field(
        description=f"DICOM UID of the study, whose pictures are mapped; at most "
        f"{MAX_STUDY_PICTURES}"
    )
    series_instance_uid: UID | None = Field(None, description="Only of this series of the study")
    store: bool = Field(
        False,
        description="Store segmentation and overlay beside each picture, if that PACS takes them; "
        "once, however often they are made",
    )
