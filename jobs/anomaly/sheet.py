"""Pictures of what a detector answered, since means hide blur."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.anomaly.sets import Sets

if TYPE_CHECKING:  # torch is imported when something is measured
    from gen.anomaly.detections import Detections

SHEET_ROWS = 6


def write_sheet(
    file: Path, sets: Sets, found: "Mapping[str, Detections]", threshold: float
) -> None:
    """A row an image: before the lesion, with it, its mask, the healthy image, the map.

    The map is grey at the threshold and white at twice of it. Of boxed images nobody knows what
    came before, so their mask is their boxes and the first picture is the second.
    """
    import numpy as np
    import torch

    from gen.metrics.anomaly_boxes import box_mask
    from gen.training.pictures import save_grid

    planted, rows = sets.planted, SHEET_ROWS
    before, after = planted.originals[:rows], planted.lesioned.images[:rows]
    masks = torch.from_numpy(planted.masks[:rows])
    answers = [(found["planted"].healthy[:rows], found["planted"].maps[:rows])]
    if sets.boxed:
        boxed = sets.boxed.examined.images[:rows]
        side = boxed.shape[-1]
        drawn = np.stack([box_mask(each, side).any(0) for each in sets.boxed.boxes[:rows]])
        before, after = torch.cat([before, boxed]), torch.cat([after, boxed])
        masks = torch.cat([masks, torch.from_numpy(drawn)])
        answers.append((found["boxed"].healthy[:rows], found["boxed"].maps[:rows]))
    healthy, maps = (torch.cat(each) for each in zip(*answers, strict=True))
    shown = (maps / max(threshold, 1e-9) - 1)[:, None]
    columns = [before, after, masks[:, None] * 2.0 - 1, healthy, shown]
    save_grid(torch.stack(columns, 1).flatten(0, 1), file, len(columns))
