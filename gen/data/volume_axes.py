"""How the voxels of a volume become upright slices, and how slices go back to voxels."""

from dataclasses import dataclass

import nibabel
import numpy as np
from numpy.typing import NDArray

from gen.errors import UnsafeFile

Floats = NDArray[np.float32]

# World axes of an affine: 0 to the patient's right or left, 1 front or back, 2 up or down. A slice
# is shown as radiologists do: the patient's right at the left, front or head at the top; slices
# run towards left to right, back to front or feet to head.
_AXIAL = 2


@dataclass(frozen=True)
class VolumeAxes:
    """A permutation and reflections of three voxel axes, nothing interpolated.

    Args:
        order: voxel axes that become slices, rows and columns.
        flipped: whether each of them runs backwards.
    """

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    @classmethod
    def of(cls, name: str, affine: NDArray[np.floating], axis: int | None = None) -> "VolumeAxes":
        """Choose the axes by an affine (4, 4) from voxels to world (right, front, up positive).

        Args:
            name: for messages.
            affine: any rotation; each voxel axis counts for the world axis nearest to it.
            axis: voxel axis to cut along; None: the one that runs up or down, for axial slices.

        Raises UnsafeFile if the affine is singular.
        """
        affine = np.asarray(affine, np.float64)
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise UnsafeFile(f"{name} has a singular affine, so its axes are unknown; correct it")
        world, direction = nibabel.io_orientation(affine).T.astype(int).tolist()
        slices = world.index(_AXIAL) if axis is None else axis
        columns, rows = sorted({0, 1, 2} - {slices}, key=lambda each: world[each])
        order = (slices, rows, columns)
        # slices run with the world axis, rows and columns against it
        flipped = (direction[slices] < 0, direction[rows] > 0, direction[columns] > 0)
        return cls(order, flipped)

    def to_slices(self, voxels: Floats) -> Floats:
        """Turn voxels of three axes into slices (N, H, W)."""
        return np.ascontiguousarray(voxels.transpose(self.order)[self._steps])

    def to_voxels(self, slices: Floats) -> Floats:
        """Turn slices (N, H, W) back into voxels of three axes."""
        return np.ascontiguousarray(slices[self._steps].transpose(np.argsort(self.order)))

    @property
    def _steps(self) -> tuple[slice, slice, slice]:
        first, second, third = (slice(None, None, -1 if each else 1) for each in self.flipped)
        return first, second, third
