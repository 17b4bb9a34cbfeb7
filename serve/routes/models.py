"""The models that are served."""

from functools import lru_cache

from fastapi import APIRouter

from gen.guidance.minority import calibration_in
from gen.store.catalogue import resolve
from jobs.tasks.anomaly_map import anomaly_calibration
from jobs.tasks.served import task_of
from jobs.worker import in_thread
from serve.auth import Generating
from serve.errors import RESPONSES
from serve.routes.jobs import TheService
from serve.schemas import ModelAnswer, ModelList

router = APIRouter(tags=["models"], responses=RESPONSES)


@router.get("/v1/models")
async def list_models(
    caller: Generating,
    service: TheService,
) -> ModelList:
    """Models by the names requests may use, with licence and the hash of their weights."""
    data = [await in_thread(_describe, model) for model in service.args.models]
    return ModelList(data=data)


@lru_cache(maxsize=64)
def _describe(model: str) -> ModelAnswer:
    resolved = resolve(model)
    card = resolved.card
    calibration = calibration_in(card.calibration) if card else None
    anomalies = anomaly_calibration(model)
    return ModelAnswer(
        id=model,
        task=task_of(model),
        modality=card.modality if card else None,
        image_size=card.image_size if card else None,
        licence=card.licence if card else None,
        weight_sha256=resolved.weight_sha256,
        minority_levels=calibration.levels if calibration else None,
        anomaly_rates=anomalies.rates if anomalies else None,
    )
