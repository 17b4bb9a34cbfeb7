"""The models that ship: whole, small, and honest about themselves."""

from pathlib import Path

import pytest

from gen.store import catalogue
from gen.store.catalogue import list_models, resolve
from gen.store.loading import load_components

MB = 1_000_000
WEIGHTS = Path(catalogue.__file__).parent / "weights"
IDS = [card.id for card in list_models()]


def test_the_models_that_commands_default_to_are_there() -> None:
    assert {"cxr-mini", "cxr-encoder-mini"} <= set(IDS)


def test_they_stay_inside_the_budget() -> None:
    sizes = [path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(sizes) < 48 * MB
    assert max(sizes) < 16 * MB


@pytest.mark.parametrize("model_id", IDS)
def test_every_file_is_the_one_the_card_names_and_loads(model_id: str) -> None:
    resolve(model_id).check()
    components = load_components(model_id)
    assert any(hasattr(component, "parameters") for component in components.values())


@pytest.mark.parametrize("card", list_models(), ids=IDS)
def test_a_card_says_where_the_model_comes_from(card: catalogue.Card) -> None:
    assert card.images_seen > 0
    assert card.limits
    assert all(data.licence and data.images for data in card.training_data)
    root = Path(catalogue.__file__).parents[2]
    recipes = [name.strip() for name in card.recipe.split(",")]
    folder = (root / recipes[0]).parent
    assert all((folder / Path(name).name).exists() for name in recipes)
