"""Levels of rarity and the strengths that reach them."""

import pytest
from pydantic import ValidationError

from gen.errors import InvalidInput
from gen.guidance.minority import MinorityCalibration, ScoreSettings, check_level, check_method

SETTINGS = ScoreSettings(distance="latent", noise_level=0.6, num_draws=2)
CALIBRATION = MinorityCalibration(
    score=SETTINGS,
    scores={"all": (1.0, 2.0, 4.0, 8.0, 16.0), "child: Normal": (10.0, 20.0)},
    strengths={"boost_and_skip": ((0.4, 1.0), (0.8, 1.2), (0.9, 1.4))},
)


def test_scores_and_quantiles_and_strengths_are_read_between_what_was_measured() -> None:
    assert CALIBRATION.quantile(4.0) == 0.5
    assert CALIBRATION.quantile(6.0) == pytest.approx(0.625)
    assert CALIBRATION.quantile(15.0, "child: Normal") == 0.5
    assert CALIBRATION.quantile(4.0, "adult: Mass") == 0.5
    assert (CALIBRATION.quantile(0.0), CALIBRATION.quantile(99.0)) == (0.0, 1.0)
    assert CALIBRATION.strength("boost_and_skip", 0.85) == pytest.approx(1.3)


def test_it_comes_back_from_a_card() -> None:
    dumped = CALIBRATION.model_dump(mode="json")
    assert MinorityCalibration.model_validate(dumped) == CALIBRATION


def test_without_scores_of_all_it_is_refused() -> None:
    with pytest.raises(ValidationError, match="scores have no 'all', only adult: Mass"):
        MinorityCalibration(score=SETTINGS, scores={"adult: Mass": (0.0, 1.0)}, strengths={})


def test_what_a_model_cannot_reach_is_refused_with_what_would_help() -> None:
    with pytest.raises(InvalidInput, match=r"minority is 0\.95.*reaches 0\.40 to 0\.90"):
        CALIBRATION.strength("boost_and_skip", 0.95)
    with pytest.raises(InvalidInput, match=r"no calibration.*minority-calibration"):
        CALIBRATION.strength("classifier", 0.9)


@pytest.mark.parametrize("level", [-0.1, 1.1, float("nan")])
def test_levels_are_quantiles(level: float) -> None:
    with pytest.raises(InvalidInput, match=r"quantile from 0 to 1; try 0\.9"):
        check_level(level, allow_common=True)


def test_pushing_the_rare_away_must_be_meant_and_methods_must_exist() -> None:
    with pytest.raises(InvalidInput, match=r"pushes rare images away.*allow_common"):
        check_level(0.3, allow_common=False)
    check_level(0.3, allow_common=True)
    check_level(0.5, allow_common=False)
    with pytest.raises(InvalidInput, match="one of: boost_and_skip, classifier"):
        check_method("boost")


def test_the_cheapest_method_that_reaches_a_level_is_taken() -> None:
    strengths = {
        "self_guided": ((0.1, 0.0), (0.9, 1.0)),
        "classifier": ((0.3, 0.0), (0.8, 1.0)),
        "boost_and_skip": ((0.3, 1.0), (0.5, 1.1)),
    }
    calibration = MinorityCalibration.model_validate(
        {
            "score": {"distance": "latent", "noise_level": 0.6, "num_draws": 1},
            "scores": {"all": (0.0, 1.0)},
            "strengths": strengths,
        }
    )
    taken = [calibration.cheapest(level) for level in (0.1, 0.4, 0.6, 0.85)]
    assert taken == ["self_guided", "boost_and_skip", "classifier", "self_guided"]
    with pytest.raises(InvalidInput, match="no method reaches"):
        calibration.cheapest(0.95)
