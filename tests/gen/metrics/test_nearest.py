"""Nearest neighbours, in chunks or at once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gen.errors import InvalidInput
from gen.metrics import nearest as module
from gen.metrics.nearest import nearest


@settings(max_examples=30, deadline=None)
@given(
    num_queries=st.integers(1, 9),
    num_references=st.integers(1, 23),
    count=st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_chunks_find_what_sorting_everything_finds(
    num_queries: int, num_references: int, count: int, seed: int
) -> None:
    generator = torch.manual_seed(seed)
    queries = torch.randn(num_queries, 4, generator=generator)
    references = torch.randn(num_references, 4, generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "QUERIES", 4)
        patch.setattr(module, "REFERENCES", 5)
        found = nearest(queries, references, count)
    expected = np.argsort(-(queries @ references.T).numpy(), axis=1)[:, :count]
    assert np.array_equal(found, expected)


def test_vectors_must_match() -> None:
    with pytest.raises(InvalidInput, match=r"\(2, 3\) and references \(5, 4\)"):
        nearest(torch.ones(2, 3), torch.ones(5, 4), 1)
    with pytest.raises(InvalidInput, match="at least one reference"):
        nearest(torch.ones(2, 3), torch.ones(0, 3), 1)
