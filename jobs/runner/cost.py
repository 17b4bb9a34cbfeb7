"""What the items of a data set job cost, told before any picture is read."""

import base64
import json
from collections.abc import Iterable
from dataclasses import replace

from gen.errors import InvalidInput
from jobs.runner.items import Item
from jobs.runner.kinds import kind_of
from jobs.runner.spec import JobSpec
from jobs.tasks.anomaly_map import grey_ramp


def work_of(job: JobSpec, items: Iterable[Item]) -> float:
    """Megapixel steps of all items, with as many attempts as gates may ask for.

    Any radiograph costs as much as another, so a small one stands for those that rows name. An
    item that can be told to fail costs nothing.
    """
    kind, picture = kind_of(job.task), base64.b64decode(grey_ramp())
    attempts = 1 if job.gates is None else job.max_attempts
    known: dict[str, float] = {}
    total = 0.0
    for item in items:
        if item.error is not None:
            continue
        boxed = {"boxes"} & {*item.fields, *job.params}
        fields = {name: each for name, each in item.fields.items() if name != "boxes"}
        files = {"image": picture}
        if item.mask is not None or boxed:
            files["mask"] = picture
        alike = json.dumps([fields, item.prompt is None, len(files)], sort_keys=True)
        if alike not in known:
            params = {name: each for name, each in job.params.items() if name != "boxes"}
            one = job.model_copy(update={"params": params})
            try:
                known[alike] = kind.task.work(kind.check(one, replace(item, fields=fields), files))
            except InvalidInput:
                known[alike] = 0.0
        total += known[alike] * attempts
    return total
