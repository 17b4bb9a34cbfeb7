"""The first model is warmed up by a task that it fits, and the row budget of all is kept."""

from pathlib import Path

import pytest
import torch

from gen.types import Components
from jobs.model_pool import ModelPool
from jobs.row_budget import RowBudget
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


def test_exact_work_has_the_rows_that_every_models_bits_need(
    tiny_model: str, tiny_large_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def measured(
        process: object, components: Components, device: torch.device, max_rows: int | None
    ) -> RowBudget:
        tried.append(max_rows)
        return RowBudget(8, 2 if len(tried) == 1 else 4, 2)

    monkeypatch.setattr("serve.warm_up.measure_rows", measured)
    models = (tiny_model, str(tiny_large_model))
    args = AppArgs(models=models, store=f"sqlite:///{tmp_path}/a.db", results=str(tmp_path))
    pool = ModelPool(models, torch.device("cpu"), torch.float32)
    assert find_rows(args, pool) == find_rows(args, pool) == RowBudget(8, 4, 2)
    assert tried == [None, 8]
    assert tiny_model in pool.memory()
