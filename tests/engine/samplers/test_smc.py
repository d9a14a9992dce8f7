import itertools
import math

import pytest
import torch
from diffusers import DDPMScheduler

from engine.errors import BlindspotError
from engine.jobs import Cancelled
from engine.priors.loading import load_prior
from engine.priors.pixel import PixelPrior
from engine.samplers.base import sample_generators
from engine.samplers.energy_dps import EnergyDPS
from engine.samplers.smc import EnergySMC
from tests.engine.priors.tiny import GaussianPrior, tiny_pipeline, tiny_unet


def brightness(images):
    """The mean of the first channel: linear, so that the tilted Gaussian is known exactly."""
    return images[:, 0].mean(dim=(1, 2))


def energy(images):
    """Sum of squares: the tilt of N(0, v) is N(0, v / (1 - 2 beta v)) in every pixel, and EnergyDPS misses it."""
    return images.square().sum(dim=(1, 2, 3))


def variance_of(cloud):
    """Weighted variance of the pixels of a cloud whose mean is 0."""
    weights = cloud.log_weights.exp()[:, :, None, None, None]
    return (weights * cloud.images**2).sum(dim=1).mean().item()


def chain(prior, steps):
    """Mean and variance of the prior's own samples in few steps, by the recursion of its affine reverse steps."""
    levels, mean, variance = [*prior.timesteps(steps).tolist(), -1], 0.0, 1.0
    for t, t_prev in itertools.pairwise(levels):
        ends = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, *prior.shape)
        moved, sigma = prior.transition(prior.denoise(ends, t), t, t_prev)
        offset, gain = moved[0, 0, 0, 0].item(), (moved[1] - moved[0])[0, 0, 0].item()
        mean, variance = offset + gain * mean, gain**2 * variance + sigma**2
    return mean, variance


@pytest.mark.parametrize("strength", [-4.0, 4.0])
def test_the_law_of_a_linear_score_is_the_exact_tilt_of_a_gaussian(strength):
    """p exp(beta <a, x>) of N(m, v) is N(m + beta v a, v); here a is a quarter for each of the red pixels."""
    prior = GaussianPrior(0.2, 0.5)
    mean, variance = chain(prior, 30)
    samples = EnergySMC(prior, 30, strength, particles=16, together=None).sample(brightness, 150, seed=1)
    assert samples.images[:, 0].mean().item() == pytest.approx(mean + strength * variance / 4, abs=0.08)
    assert samples.images[:, 1:].mean().item() == pytest.approx(mean, abs=0.06)
    torch.testing.assert_close(samples.scores, brightness(samples.images))


def test_where_energydps_misses_the_tilt_particles_find_it():
    """exp(beta |x|^2) widens N(0, v) to N(0, v / (1 - 2 beta v)), of which EnergyDPS goes a part of the way."""
    prior = GaussianPrior(0.0, 0.5, size=1)
    _, variance = chain(prior, 30)
    law = variance / (1 - 2 * 0.5 * variance)
    plain = EnergyDPS(prior, 30, strength=0.5, gradient="raw", together=None).sample(energy, 1000).images.var().item()
    many = variance_of(EnergySMC(prior, 30, 0.5, particles=64, together=None).filter(energy, 60))
    assert abs(many - law) < 0.04 < abs(plain - law) / 2


@pytest.mark.parametrize(("tempering", "threshold"), [(0.0, 0.5), (1.0, 1.0), (1.0, 0.0)])
def test_the_mean_weight_estimates_the_partition_without_bias(tempering, threshold):
    """E_p exp(beta <a, x>) = exp(beta m + beta^2 v |a|^2 / 2), whatever the twists and the resampling."""
    prior = GaussianPrior(0.2, 0.5)
    mean, variance = chain(prior, 20)
    sampler = EnergySMC(prior, 20, 2.0, particles=8, tempering=tempering, threshold=threshold, together=None)
    estimates = sampler.filter(brightness, 200, seed=2).log_partition.exp()
    noise = estimates.std().item() / math.sqrt(len(estimates))
    assert estimates.mean().item() == pytest.approx(math.exp(2 * mean + 4 * variance / 8), abs=4 * noise)


def test_weights_are_those_of_each_filter():
    cloud = EnergySMC(GaussianPrior(), 10, 1.0, particles=5).filter(brightness, 3)
    assert cloud.images.shape == (3, 5, 3, 2, 2) and cloud.scores.shape == (3, 5) and cloud.trace.shape == (10, 3)
    torch.testing.assert_close(cloud.log_weights.exp().sum(dim=1), torch.ones(3))


def test_a_sample_is_the_same_in_any_batch_and_differs_between_seeds(tmp_path):
    prior = load_prior(tiny_pipeline(tmp_path / "base"))
    sampler = EnergySMC(prior, 5, 3.0, particles=3)
    three, two = sampler.sample(brightness, 3, seed=3), sampler.sample(brightness, 2, seed=3)
    torch.testing.assert_close(three.images[:2], two.images, rtol=0, atol=1e-4)
    assert not torch.allclose(sampler.sample(brightness, 1, seed=4).images, two.images[:1], atol=1e-2)


def test_without_strength_it_draws_from_the_prior_with_equal_weights():
    cloud = EnergySMC(GaussianPrior(), 10, 0.0, particles=4).filter(brightness, 2)
    torch.testing.assert_close(cloud.log_weights, torch.full((2, 4), -math.log(4)))
    torch.testing.assert_close(cloud.log_partition, torch.zeros(2))


def test_a_single_light_particle_still_draws():
    samples = EnergySMC(GaussianPrior(), 10, 1.0, particles=1, guidance="light").sample(brightness, 2)
    assert samples.images.isfinite().all()


@pytest.mark.parametrize("kind", ["gaussian", "deterministic", "learned"])
def test_the_transition_is_the_law_of_the_prior_s_step(kind):
    prior = {
        "gaussian": GaussianPrior,
        "deterministic": lambda: GaussianPrior(eta=0.0),
        "learned": lambda: PixelPrior(tiny_unet(6), DDPMScheduler(variance_type="learned_range")),
    }[kind]()
    state = prior.noise(sample_generators(1, 3))
    with torch.no_grad():
        prediction = prior.denoise(state, 500)
    for t_prev in (480, -1):
        mean, sigma = prior.transition(prediction, 500, t_prev)
        drawn = prior.step(prediction, 500, t_prev, state, sample_generators(2, 3))
        torch.testing.assert_close(mean + sigma * prior.noise(sample_generators(2, 3)), drawn)


def test_every_step_is_reported_with_the_heaviest_particle_and_may_cancel():
    events = []
    samples = EnergySMC(GaussianPrior(), 6, 1.0, particles=3).sample(brightness, 2, on_step=events.append)
    assert [event.step for event in events] == [1, 2, 3, 4, 5, 6] and {event.steps for event in events} == {6}
    torch.testing.assert_close(brightness(events[3].images), events[3].scores)
    torch.testing.assert_close(torch.stack([event.scores for event in events]), samples.trace)
    with pytest.raises(Cancelled):
        EnergySMC(GaussianPrior(), 6).sample(brightness, 1, on_step=lambda event: event.step < 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guidance": "heavy"}, "Guidance 'heavy' is unknown"),
        ({"strength": float("inf")}, "finite number, not inf"),
        ({"particles": 0}, "A filter of 0 particles"),
        ({"tempering": -1.0}, "tempering -1"),
        ({"threshold": 1.5}, "threshold 1.5 makes no sense"),
        ({"together": -1}, "At least 1 filter goes at a time, not -1"),
    ],
)
def test_senseless_settings_are_refused(settings, message):
    with pytest.raises(BlindspotError, match=message):
        EnergySMC(GaussianPrior(), **settings)


def test_senseless_runs_are_one_sentence():
    with pytest.raises(BlindspotError, match="ask for at least 1"):
        EnergySMC(GaussianPrior()).sample(brightness, 0)
    with pytest.raises(BlindspotError, match=r"Sample 1 became infinite at step 1 of 10 with strength 1: lower the"):
        EnergySMC(GaussianPrior(), 10).sample(lambda images: brightness(images) / 0, 1)


def test_what_stands_beside_samples_is_the_tilt_s_own_law():
    """Of N(m, v) and s = <a, x>: log Z = beta m + beta^2 v |a|^2 / 2 and KL(q | p) = beta^2 v |a|^2 / 2."""
    prior, beta = GaussianPrior(0.2, 0.5), 2.0
    mean, variance = chain(prior, 20)
    tilt = EnergySMC(prior, 20, beta, particles=16, together=None).sample(brightness, 100, seed=2).tilt
    divergence = beta**2 * variance / 8
    assert tilt.log_partition == pytest.approx(beta * mean + divergence, abs=4 * tilt.standard_error)
    assert tilt.kl_to_prior == pytest.approx(divergence, abs=0.06) and tilt.standard_error < 0.03
    assert tilt.beta == beta and tilt.particles == 1600 and 100 < tilt.effective_particles <= 1600
    one = EnergySMC(prior, 20, beta, particles=4).sample(brightness, 1).tilt
    assert math.isnan(one.standard_error) and one.particles == 4
