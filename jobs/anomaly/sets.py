"""The images that detectors of anomalies are measured on: healthy, boxed, and planted ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from gen.errors import InvalidInput
from jobs.targets import Drawn, Pictures, seed_of, shuffled

if TYPE_CHECKING:  # torch is imported when something is measured
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from gen.data.collection import Item


@dataclass(frozen=True)
class Examined:
    """`images` (N, 1, S, S) in [-1, 1], with a name for each, and whose each is."""

    images: "Tensor"
    names: list[str]
    patients: list[str]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class PlantedSet:
    """Healthy images before, and after a lesion was painted into each; `masks` (N, S, S)."""

    originals: "Tensor"
    lesioned: Examined
    masks: "NDArray[np.bool_]"
    kinds: list[str]


@dataclass(frozen=True)
class BoxedSet:
    """Images with boxes (B, 4), each (top, left, bottom, right) in pixels of the image."""

    examined: Examined
    boxes: "list[NDArray[np.float64]]"


@dataclass(frozen=True)
class Sets:
    """What every detector is given; `peers` (N,) are the healthy images beside the boxed ones."""

    calibration: Examined
    healthy: Examined
    planted: PlantedSet
    boxed: BoxedSet | None
    peers: "NDArray[np.bool_]"


class AnomalySets:
    """Reads the sets of a folder with manifest.csv at one size.

    Args:
        data: the folder.
        side: in pixels.
        seed: of what is drawn.
    """

    def __init__(self, data: Path, side: int, seed: int) -> None:
        from gen.data.manifest import read_manifest

        self.pictures = Pictures(side)
        self.omissions: list[str] = []
        self._data, self._seed = data, seed
        self._rows = {PurePath(row.file).as_posix(): row for row in read_manifest(data)}

    def healthy(self, split: str, at_most: int | None = None) -> list[Drawn]:
        """Images of a split whose only label is that nothing was found, in a drawn order.

        Raises:
            InvalidInput: there is none that can be used.
        """
        import numpy as np

        items = self._items(split)
        normal = [each for each in items if each.labels is not None and each.labels.normal]
        found = list(self.pictures.usable(shuffled(normal, np.random.default_rng(self._seed))))
        if not found:
            raise InvalidInput(
                f"data is {self._data}, whose split {split!r} has no usable healthy image, labelled"
                f" No Finding or normal; add some ({'; '.join(self.pictures.lines()) or 'none'})"
            )
        return found[:at_most]

    def boxed(self, split: str) -> BoxedSet | None:
        """Images of a split with the boxes that the square still holds; None if there is none."""
        import numpy as np

        from gen.data.images import stored_size
        from gen.data.transforms import fit_boxes

        kept, boxes = [], []
        items = [item for item in self._items(split) if self._rows[item.name].boxes]
        for each in self.pictures.usable(items):
            stored = np.array(
                [(b.y, b.x, b.y + b.h, b.x + b.w) for b in self._rows[each.item.name].boxes]
            )
            size = stored_size(each.item.file)
            fitted = fit_boxes(stored, size, self.pictures.side, each.item.orig_size)
            whole = fitted[(fitted[:, 2:] - fitted[:, :2]).min(1) >= 1]
            if len(whole):
                kept.append(each)
                boxes.append(whole)
            else:
                self.pictures.leave_out(each.item, "have boxes outside the square")
        return BoxedSet(self.examine(kept), boxes) if kept else None

    def _items(self, split: str) -> "list[Item]":
        from gen.data.collection import read_collection

        found = read_collection(self._data, split)
        self.omissions += [line for line in found.omissions if line not in self.omissions]
        return found.items

    def examine(self, drawn: Sequence[Drawn]) -> Examined:
        """The images as a detector is given them."""
        import torch

        from gen.training.dataset import to_unit

        names = [each.item.name for each in drawn]
        patients = [each.item.patient or each.item.name for each in drawn]
        return Examined(to_unit(torch.stack([each.pixels for each in drawn])), names, patients)

    def source(self, name: str) -> str | None:
        """The data set that an image is of: figures of images of several tell these apart."""
        return self._rows[name].original_dataset

    def planted(self, healthy: Examined, count: int) -> PlantedSet:
        """Lesions of all kinds in turn, in `count` of the images, which follow from their names.

        With more lesions than images, each has several, one at a time.

        Raises:
            InvalidInput: no image can hold a lesion.
        """
        import numpy as np
        import torch

        from gen.anomaly.planted import KINDS, plant

        pictures = healthy.images[:, 0].numpy()
        rows, found, refused = [], [], []
        for number in range(count):
            row = number % len(healthy)
            rng = np.random.default_rng(seed_of(self._seed, f"{number}/{healthy.names[row]}"))
            foreign = pictures[int(rng.integers(len(healthy)))]
            try:
                lesion = plant(KINDS[number % len(KINDS)], pictures[row], foreign, rng)
            except InvalidInput:
                refused.append(healthy.names[row])
                continue
            rows.append(row)
            found.append(lesion)
        if refused:
            self.omissions.append(f"{len(refused)} lesion(s) found no place; first {refused[0]}")
        if not found:
            raise InvalidInput(
                f"data is {self._data}, of whose {len(healthy)} healthy images none can hold a"
                " lesion; give chest X-rays"
            )
        lesioned = Examined(
            torch.from_numpy(np.stack([each.picture for each in found]))[:, None],
            [f"{number}/{healthy.names[row]}" for number, row in enumerate(rows)],
            [healthy.patients[row] for row in rows],
        )
        masks = np.stack([each.mask for each in found])
        return PlantedSet(healthy.images[rows], lesioned, masks, [each.kind for each in found])
