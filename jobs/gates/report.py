"""The report of a data set job: what its gates let pass, as figures and as one page."""

import io
import json
import shutil
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter

from gen.data.atomic import atomic_file
from gen.data.samples import Sample, read_tar
from gen.data.transforms import fit
from gen.errors import InvalidInput
from gen.gates.calibration import GateCalibration, read_calibration
from jobs import plots
from jobs.audit.schema import Planted
from jobs.gates.calibrate import CALIBRATION, PLANTED
from jobs.gates.figures import Acceptance, Quality, quality
from jobs.gates.log import SHARDS, read_judged
from jobs.pages import write_page
from jobs.runner.rejected import FOLDER, NUM_PICTURES

REPORT, PAGE = "report.json", "report.html"
GATES = "gates"  # in OUT
COLUMNS, SIDE = 6, 128
TEMPLATE = Path(__file__).with_name("page.html.jinja")
AXES = {"label": "finding", "sex": "sex", "age_group": "age group", "view": "view"}
_PLANTED: TypeAdapter[dict[str, Planted]] = TypeAdapter(dict[str, Planted])


def keep_calibration(calibrated: Path, out: Path) -> None:
    """Put beside a job's results what its gates were judged by, without any image.

    Args:
        calibrated: the folder of `jobs.gates.calibrate.calibrate_gates`.
        out: the job's folder.
    """
    folder = out / GATES
    folder.mkdir(parents=True, exist_ok=True)
    for name in (CALIBRATION, PLANTED):
        if (calibrated / name).is_file():
            shutil.copyfile(calibrated / name, folder / name)


def write_report(out: Path) -> Quality | None:
    """Write OUT/report.html, and `quality` into OUT/report.json beside what it holds already.

    Reads the notes of the shards, a few samples, OUT/gates (`keep_calibration`) and the pictures
    of `jobs.runner.rejected`.

    Returns:
        The figures; None if no gate judged anything, which the page then says.

    Raises:
        InvalidInput: the folder is of no data set job, or damaged.
    """
    calibration, planted = known_of(out / GATES)
    found = quality(read_judged(out), calibration, planted)
    counts = _counts(out / REPORT)
    whole = counts | {"quality": None if found is None else found.model_dump()}
    with atomic_file(out / REPORT, overwrite=True) as stream:
        stream.write((json.dumps(whole, indent=1, sort_keys=True) + "\n").encode())
    pictures = {"accepted": _accepted(out), "rejected": _rejected(out / FOLDER)}
    values = page_values(out.resolve().name, counts, found, calibration, pictures)
    write_page(out / PAGE, TEMPLATE, values)
    return found


def page_values(
    name: str,
    counts: Mapping[str, Any],
    found: Quality | None,
    calibration: GateCalibration | None,
    pictures: Mapping[str, str | None],
) -> dict[str, Any]:
    """What `TEMPLATE` takes.

    Args:
        name: of the job.
        counts: such as task, model, items, made and failed.
        pictures: what `picture_sheet` gives, of images that were accepted and rejected.
    """
    return {
        "name": name,
        "counts": counts,
        "quality": None if found is None else found.model_dump(),
        "calibration": None if calibration is None else calibration.model_dump(),
        "axes": AXES,
        "summary": summary(found),
        "pictures": pictures,
        "plots": [] if found is None else _forests(found),
    }


def summary(found: Quality | None) -> list[str]:
    """What a reader in a hurry should know, a sentence each."""
    if found is None:
        return ["No gate judged these images."]
    all_ = found.overall
    lines = [
        f"{all_.items - all_.given_up} of {all_.items} items were kept, {all_.given_up} given up"
        f" after all attempts; {all_.first.value:.0%} passed at the first"
        f" [{all_.first.low:.0%}, {all_.first.high:.0%}]."
    ]
    for axis, gap in found.gaps.items():
        sure = "clear" if gap.low > 0 else "not sure"
        lines.append(
            f"By {AXES[axis]}, {gap.best} passes more often than {gap.worst} by {gap.value:.0%}"
            f" [{gap.low:.0%}, {gap.high:.0%}]: {sure}."
        )
    lines += [
        f"The gate {name} judged nothing of {', '.join(each.unjudged)}: these passed it unseen."
        for name, each in found.gates.items()
        if each.unjudged
    ]
    if found.planted and found.false_alarms is not None:
        worst = min(found.planted, key=lambda name: found.planted[name].value)
        lines.append(
            f"Of known copies at least {found.planted[worst].value:.0%} are found (fewest of those"
            f" changed by {worst}), and {found.false_alarms.value:.1%} of real images of others are"
            " called so."
        )
    return lines


def known_of(folder: Path) -> tuple[GateCalibration | None, dict[str, Planted]]:
    """What gates were judged by, of a folder that may hold none of it."""
    if not (folder / CALIBRATION).is_file():
        return None, {}
    path = folder / PLANTED
    planted = _PLANTED.validate_json(path.read_bytes()) if path.is_file() else {}
    return read_calibration(folder / CALIBRATION), planted


def _counts(path: Path) -> dict[str, Any]:
    """What the runner has written, without an older `quality`."""
    if not path.is_file():
        return {}
    try:
        counts: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidInput(f"{path} is damaged; remove it and write the report again") from error
    return {name: each for name, each in counts.items() if name != "quality"}


def _forests(found: Quality) -> list[str]:
    return [plots.forest(_rows(groups), f"passed at the first attempt, by {AXES[axis]}")
            for axis, groups in found.by.items()]  # fmt: skip


def _rows(groups: dict[str, Acceptance]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{name} ({each.items})", each.first.model_dump()) for name, each in groups.items()]


def _accepted(out: Path) -> str | None:
    """A few samples of the first shards, which differ as the manifest does."""
    tars = sorted((out / SHARDS).glob("shard-*.tar"))
    chosen = [tars[i] for i in np.linspace(0, len(tars) - 1, min(4, len(tars))).astype(int)]
    share = -(-NUM_PICTURES // max(1, len(chosen)))
    samples = (sample for path in chosen for sample in islice(read_tar(path), share))
    return picture_sheet(_picture(sample) for sample in samples)


def _picture(sample: Sample) -> bytes:
    return sample.files[sample.picture] if sample.picture == "png" else b""


def _rejected(folder: Path) -> str | None:
    files = sorted(folder.glob("*.png"))[:NUM_PICTURES] if folder.is_dir() else []
    return picture_sheet(path.read_bytes() for path in files)


def picture_sheet(pngs: Iterable[bytes]) -> str | None:
    """Grey pictures side by side; None of none."""
    images = [_grey(each) for each in islice(pngs, NUM_PICTURES) if each]
    return plots.sheet(np.stack(images), COLUMNS, SIDE) if images else None


def _grey(png: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as picture:
        pixels = np.asarray(picture.convert("L"), np.float32) / 255
    return np.round(fit(pixels, SIDE) * 255).astype(np.uint8)
