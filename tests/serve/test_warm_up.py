"""The first model is warmed up by a task that it fits, and the row budget is kept."""

from pathlib import Path

import pytest
import torch

from jobs.model_pool import ModelPool
from serve.settings import AppArgs
from serve.warm_up import find_rows


@pytest.mark.parametrize("kind", ["chest", "tissue"])
def test_a_model_of_any_task_may_come_first(
    kind: str, tiny_model: str, tiny_large_model: Path, tmp_path: Path
) -> None:
    model = tiny_model if kind == "chest" else str(tiny_large_model)
    args = AppArgs(
        models=(model,), store=f"sqlite:///{tmp_path}/a.db", results=str(tmp_path), max_rows=4
    )
    pool = ModelPool(args.models, torch.device("cpu"), torch.float32)
    rows = find_rows(args, pool)
    assert (rows.max_rows, rows.exact_rows in (1, 2, 4)) == (4, True)
    assert find_rows(args, pool) == rows
    assert set(pool.memory()) == {model}
