"""The options of `medphantom large`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Method(StrEnum):
    """How windows are laid."""

    SHIFT = "shift"
    OVERLAP = "overlap"


Like = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="Lay out tissue as this image")
]
Variation = Annotated[
    list[Path] | None,
    typer.Option(exists=True, dir_okay=False, help="Show such tissue anywhere; repeatable"),
]
Text = Annotated[str | None, typer.Option(help="Words, such as 'colorectal tumour epithelium'")]
Size = Annotated[
    str | None, typer.Option(metavar="WxH", help="Pixels; that of --like, or 2048x2048")
]
Keep = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Draw around this picture, which stays"),
]
KeepMask = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="White where --keep stays; all of it"),
]
KeepAt = Annotated[
    str | None, typer.Option(metavar="LEFT,TOP", help="Of --keep, in pixels; the middle")
]
Model = Annotated[str, typer.Option(help="Id, folder or hub id")]
Out = Annotated[Path, typer.Option(help="OME-TIFF to write")]
Windows = Annotated[
    Method, typer.Option(help="shift: moving windows; overlap: the paper's, 9 times the work")
]
Steps = Annotated[int, typer.Option(min=1, help="Solver steps")]
Guidance = Annotated[float, typer.Option(help="How strictly to follow; 1 = off")]
MicronsPerPixel = Annotated[float, typer.Option(help="Magnification: 0.5 is 20x")]
Minority = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="How rare: 0.9 is as the rarest tenth of training patches"),
]
MinorityMethod = Annotated[
    str | None,
    typer.Option(help="boost_and_skip, self_guided or classifier; the cheapest that reaches it"),
]
MinorityStrength = Annotated[
    float | None, typer.Option(help="Of the method, instead of --minority; try 1.1 or 0.2")
]
AllowCommon = Annotated[
    bool, typer.Option(help="Allow --minority below 0.5, which pushes the rare away")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Drawn if not given")]
DeepZoom = Annotated[bool, typer.Option(help="Also tiles for web viewers (.dzi)")]
Lossless = Annotated[bool, typer.Option(help="Deflate instead of JPEG tiles")]
Overwrite = Annotated[bool, typer.Option(help="Replace the file if it exists")]
AllowDownload = Annotated[bool, typer.Option(help="Fetch a hub model not at hand")]
