"""The gates of a job: taught once by the driver, loaded by each worker."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gen.data.atomic import atomic_file
from gen.errors import InvalidInput
from jobs.runner.spec import Job, JobSpec

if TYPE_CHECKING:
    from gen.gates.gate import Gate
    from jobs.bars import Bars
    from jobs.gates.config import GatesConfig

TAUGHT = "taught.json"  # in OUT: where what the gates have learnt lies
CACHE = Path.home() / ".cache" / "medphantom"


def check_gates(spec: JobSpec) -> "GatesConfig | None":
    """The settings of a job's gates; None if it has none.

    Raises:
        InvalidInput: one is wrong, or the task makes nothing that gates can look at.
    """
    if spec.gates is None:
        return None
    if spec.task in ("large", "anomaly"):
        raise InvalidInput(f"gates are given, but cannot judge what {spec.task} makes; drop them")
    from jobs.gates.config import gates_config

    return gates_config(spec.gates)


def teach(job: Job, out: Path, drawn: "Bars") -> None:
    """Have the gates learn what real images are like, unless a cache knows; keep it with the job.

    Images of patients stay in the cache, which all hosts of a cluster must see.
    """
    config = check_gates(job.spec)
    if config is None:
        return
    from jobs.gates.calibrate import calibrate_gates
    from jobs.gates.report import keep_calibration

    folder = calibrate_gates(config, CACHE / "gates", drawn)
    keep_calibration(folder, out)
    with atomic_file(out / TAUGHT, overwrite=True) as stream:
        stream.write(json.dumps({"folder": str(folder)}).encode())


def judges_of(job: Job, out: Path, device: str) -> "Sequence[Gate]":
    """The gates of a job, with their networks."""
    config = check_gates(job.spec)
    if config is None:
        return ()
    from jobs.gates.factory import load_gates

    folder = json.loads((out / TAUGHT).read_bytes())["folder"]
    return load_gates(config, Path(folder), device)
