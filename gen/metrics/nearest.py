"""Nearest neighbours among many vectors, in memory that does not grow with their number."""

import torch
from torch import Tensor

from gen.errors import InvalidInput

QUERIES, REFERENCES = 1024, 8192  # similarities held at a time: 32 MB


@torch.no_grad()
def nearest(queries: Tensor, references: Tensor, count: int) -> Tensor:
    """Rows (N, count) of the references with the largest inner product, best first.

    With rows of unit length that is the largest cosine and the smallest distance.

    Args:
        queries: (N, D).
        references: (M, D).
        count: how many; all M if there are fewer.

    Raises:
        InvalidInput: there are no references, or the widths differ.
    """
    if not len(references) or queries.shape[1] != references.shape[1]:
        raise InvalidInput(
            f"queries have the shape {tuple(queries.shape)} and references"
            f" {tuple(references.shape)}, but there must be at least one reference, and rows of one"
            " width; describe both by the same encoder"
        )
    return torch.cat([_nearest(each, references, count) for each in queries.split(QUERIES)])


def _nearest(queries: Tensor, references: Tensor, count: int) -> Tensor:
    best = queries.new_empty(len(queries), 0)
    rows = torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(references), REFERENCES):
        products = queries @ references[start : start + REFERENCES].T
        found, columns = products.topk(min(count, products.shape[1]))
        best, rows = torch.cat([best, found], 1), torch.cat([rows, columns + start], 1)
        best, kept = best.topk(min(count, best.shape[1]))
        rows = rows.gather(1, kept)
    return rows
