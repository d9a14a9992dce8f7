import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import dblquad
from scipy.stats import multivariate_normal

from engine.klsc.mixture import AngularConcept, Mixture

LEVELS = (1.0, 0.97, 0.5, 0.02, 0.0)
ODD = Mixture(means=((1.0, 0.0), (-2.0, 0.5), (0.0, 3.0)), spread=0.6)
POINTS = np.random.default_rng(0).normal(size=(40, 2)) * 3


@pytest.mark.parametrize("mixture", [Mixture(), ODD])
@pytest.mark.parametrize("level", LEVELS)
def test_the_density_is_the_textbooks(mixture, level):
    variance = level * mixture.spread**2 + 1 - level
    parts = [multivariate_normal(math.sqrt(level) * np.array(mean), variance).pdf(POINTS) for mean in mixture.means]
    np.testing.assert_allclose(mixture.log_density(POINTS, level), np.log(np.mean(parts, axis=0)), rtol=1e-9)


@pytest.mark.parametrize("mixture", [Mixture(), ODD])
@pytest.mark.parametrize("level", LEVELS)
def test_the_score_is_the_gradient_of_the_log_density(mixture, level):
    x = torch.tensor(POINTS, requires_grad=True)
    (gradient,) = torch.autograd.grad(mixture.log_density(x, level).sum(), x)
    torch.testing.assert_close(mixture.noised_score(x, level), gradient)
    np.testing.assert_allclose(mixture.noised_score(POINTS, level), gradient.numpy(), atol=1e-9)


@pytest.mark.parametrize("level", LEVELS[:-1])
def test_the_denoiser_is_tweedies(level):
    tweedie = (POINTS + (1 - level) * ODD.noised_score(POINTS, level)) / math.sqrt(level)
    np.testing.assert_allclose(ODD.denoise(POINTS, level), tweedie, atol=1e-8)


def test_the_denoiser_is_the_posterior_mean_by_integration():
    level, seen = 0.4, np.array([0.7, -0.3])

    def joint(y: float, x: float) -> float:
        miss = seen - math.sqrt(level) * np.array([x, y])
        return math.exp(ODD.log_density(np.array([x, y])) - miss @ miss / (2 * (1 - level)))

    whole = dblquad(joint, -6, 6, -6, 6, epsabs=1e-7)[0]
    mean = [dblquad(lambda y, x, f=f: joint(y, x) * f(x, y), -6, 6, -6, 6, epsabs=1e-7)[0] for f in (_first, _second)]
    np.testing.assert_allclose(ODD.denoise(seen, level), np.array(mean) / whole, atol=1e-5)


def _first(x: float, y: float) -> float:
    return x


def _second(x: float, y: float) -> float:
    return y


def test_pure_noise_says_nothing_and_clean_points_say_all():
    np.testing.assert_allclose(ODD.denoise(POINTS, 0.0), np.tile(np.mean(ODD.means, axis=0), (40, 1)), atol=1e-12)
    np.testing.assert_allclose(ODD.denoise(POINTS, 1.0), POINTS, atol=1e-12)


def test_far_away_nothing_overflows():
    far = np.array([[1e4, -1e4], [0.0, 0.0]])
    assert np.isfinite(Mixture().log_density(far)).all() and np.isfinite(Mixture().noised_score(far, 0.5)).all()


def test_samples_have_the_mixtures_moments():
    points = ODD.sample(200_000, np.random.default_rng(1))
    means = np.array(ODD.means)
    np.testing.assert_allclose(points.mean(0), means.mean(0), atol=0.02)
    np.testing.assert_allclose(np.cov(points.T), np.cov(means.T, bias=True) + 0.36 * np.eye(2), atol=0.03)


def test_torch_keeps_dtype_shape_and_the_gradient_through_the_denoiser():
    x = torch.randn(3, 5, 2, requires_grad=True)
    clean = Mixture().denoise(x, 0.3)
    assert clean.shape == x.shape and clean.dtype == torch.float32
    assert Mixture().log_density(x, 0.3).shape == (3, 5)
    (gradient,) = torch.autograd.grad(AngularConcept()(clean).sum(), x)
    assert gradient.isfinite().all() and (gradient != 0).any()
    np.testing.assert_allclose(clean.detach().numpy(), Mixture().denoise(x.detach().numpy(), 0.3), atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(st.floats(-math.pi, math.pi), st.floats(0.01, 20))
def test_the_concept_is_the_angle_alone(theta, radius):
    x = radius * np.array([math.cos(theta), math.sin(theta)])
    assert AngularConcept()(x) == pytest.approx(4 * (1 - math.cos(theta - math.pi / 4)), abs=1e-9)


def test_the_concepts_gradient_is_autograds():
    x = torch.tensor(POINTS, requires_grad=True)
    concept = AngularConcept(angle=1.1, height=2.5)
    (gradient,) = torch.autograd.grad(concept(x).sum(), x)
    torch.testing.assert_close(concept.gradient(x), gradient)
    np.testing.assert_allclose(concept.gradient(POINTS), gradient.numpy(), atol=1e-9)


def test_the_origin_has_a_score_and_finite_gradients():
    x = torch.zeros(1, 2, requires_grad=True)
    concept = AngularConcept()
    (gradient,) = torch.autograd.grad(concept(x).sum(), x)
    assert concept(x).item() == 4 and gradient.isfinite().all()
    assert np.isfinite(concept.gradient(np.zeros((1, 2)))).all()
