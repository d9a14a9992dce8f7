from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BlindspotError
from engine.samplers.base import Samples
from engine.samplers.calibration import calibrate_strength, mean_of_best
from engine.samplers.energy_dps import EnergyDPS
from tests.engine.priors.tiny import GaussianPrior


def brightness(images):
    return images[:, 0].mean(dim=(1, 2))


@dataclass(frozen=True)
class Curve:
    """A sampler whose mean score is a known function of its strength, with given deviations of its samples."""

    mean: float
    deviations: tuple[float, ...] = (-0.01, 0.01)

    def sample(self, score, n, seed=0, on_step=None):
        scores = self.mean + torch.tensor(self.deviations).repeat(n)[:n]
        return Samples(torch.zeros(n, 3, 1, 1), scores, scores[None])


def saturating(strength):
    return Curve(10 * strength / (1 + strength))


@pytest.mark.parametrize("target", [0.3, 0.9])
def test_a_gaussian_s_strength_is_the_one_its_formula_says(target):
    """The tilt of N(0, 0.5) by the mean of 4 pixels moves that mean by beta / 8; 60 steps are a sixth short of it."""
    prior = GaussianPrior(0.0, 0.5)

    def factory(strength):
        return EnergyDPS(prior, 60, strength, gradient="raw", together=None)

    match = calibrate_strength(factory, brightness, target, start=1.0, n=40)
    assert match.mean == pytest.approx(target, abs=max(0.5 * match.standard_error, 0.01 * target) + 1e-6)
    assert match.strength == pytest.approx(8 * target * 7 / 6, abs=8 * 4 * match.standard_error)
    assert match.samples == 40 and match.evaluations <= 8
    fresh = factory(match.strength).sample(brightness, 100, seed=9).scores.mean().item()
    assert fresh == pytest.approx(target, abs=4 * match.standard_error)


@given(st.floats(0.05, 9.0), st.floats(0.2, 10.0))
def test_any_reachable_target_is_matched_from_any_start(target, start):
    match = calibrate_strength(saturating, brightness, target, start=start, n=2)
    assert match.mean == pytest.approx(target, rel=0.011, abs=0.006)
    assert match.strength == pytest.approx(target / (10 - target), rel=0.15, abs=0.002)


def test_the_search_stops_within_the_noise():
    loose = calibrate_strength(lambda beta: Curve(beta, (-1.0, 1.0)), brightness, 1.15, start=1.0, n=8)
    assert loose.evaluations == 1 and loose.standard_error == pytest.approx(7**-0.5)
    tight = calibrate_strength(lambda beta: Curve(beta, (-1.0, 1.0)), brightness, 1.15, start=1.0, n=8, slack=0.01)
    assert tight.evaluations > 1 and tight.mean == pytest.approx(1.15, abs=0.012)


def test_a_jump_is_answered_with_its_nearest_side():
    match = calibrate_strength(lambda beta: Curve(1.0 if beta < 0.7 else 3.0, (0.0,)), brightness, 1.5, start=1.0, n=2)
    assert match.mean == 1.0 and match.strength < 0.7 and match.evaluations == 16


def test_a_target_out_of_reach_is_one_sentence_with_the_largest_reached():
    with pytest.raises(BlindspotError, match=r"12 is out of reach: the largest reached is 9\.84\d*, at strength 64"):
        calibrate_strength(saturating, brightness, 12.0, start=1.0, n=2)


def test_a_target_below_the_unpushed_samples_is_refused():
    with pytest.raises(BlindspotError, match="-3 lies below what the samples have without a push, 1"):
        calibrate_strength(lambda beta: Curve(1 + beta), brightness, -3.0, n=2)


@pytest.mark.parametrize(("target", "start"), [(float("nan"), 1.0), (1.0, 0.0), (1.0, float("inf"))])
def test_senseless_searches_are_refused(target, start):
    with pytest.raises(BlindspotError):
        calibrate_strength(saturating, brightness, target, start=start)


def test_the_default_target_is_the_mean_of_the_four_best_real_images():
    assert mean_of_best([1.0, 9.0, 3.0, 7.0, 5.0]) == 6.0
    assert mean_of_best([2.0]) == 2.0
    with pytest.raises(BlindspotError, match="name a target score"):
        mean_of_best([])
