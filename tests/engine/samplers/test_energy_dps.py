import itertools

import pytest
import torch
from diffusers import DDPMScheduler

from engine.errors import BlindspotError
from engine.jobs import Cancelled
from engine.priors.loading import load_prior
from engine.priors.pixel import PixelPrior
from engine.samplers.base import sample_generators
from engine.samplers.energy_dps import EnergyDPS
from tests.engine.priors.tiny import GaussianPrior, tiny_pipeline, tiny_unet


def brightness(images):
    """The mean of the first channel: linear, so that the tilted Gaussian is known exactly."""
    return images[:, 0].mean(dim=(1, 2))


def redness(images):
    """How much redder than green and blue, in [-1, 1]."""
    return (images[:, 0] - images[:, 1:].mean(dim=1)).mean(dim=(1, 2))


@pytest.fixture(scope="module")
def latent_prior(tmp_path_factory):
    return load_prior(tiny_pipeline(tmp_path_factory.mktemp("prior") / "base"))


@pytest.mark.parametrize("strength", [-4.0, 0.0, 4.0])
def test_raw_guidance_draws_from_the_exact_tilt_of_a_gaussian(strength):
    """p exp(beta s) of N(m, v) with s = <a, x> is N(m + beta v a, v), so here a red pixel moves by beta v / 4."""
    sampler = EnergyDPS(GaussianPrior(0.2, 0.5), steps=300, strength=strength, gradient="raw", together=None)
    images = sampler.sample(brightness, 200, seed=1).images
    assert images[:, 0].mean().item() == pytest.approx(0.2 + strength * 0.5 / 4, abs=0.07)
    assert images[:, 1:].mean().item() == pytest.approx(0.2, abs=0.05)
    assert images[:, 0].var().item() == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("guidance", ["full", "light"])
@pytest.mark.parametrize("gradient", ["eps", "unit"])
def test_guidance_raises_the_score_by_a_lot(gradient, guidance):
    prior = GaussianPrior(variance=0.1, size=4)
    strength = 0.5 if gradient == "eps" else 3.0
    free = EnergyDPS(prior, 30, strength=0, together=None).sample(redness, 8).scores
    led = EnergyDPS(prior, 30, strength, gradient=gradient, guidance=guidance, together=None).sample(redness, 8).scores
    assert (led > free + 5 * free.std()).all()


@pytest.mark.parametrize("guidance", ["full", "light"])
def test_guidance_works_through_a_decoder(latent_prior, guidance):
    free = EnergyDPS(latent_prior, 10, strength=0).sample(redness, 2).scores
    led = EnergyDPS(latent_prior, 10, strength=1.0, guidance=guidance).sample(redness, 2).scores
    assert (led > free).all()


def test_guidance_works_in_pixel_space():
    prior = PixelPrior(tiny_unet(), DDPMScheduler())
    free = EnergyDPS(prior, 20, strength=0).sample(redness, 2).scores
    led = EnergyDPS(prior, 20, strength=1.0).sample(redness, 2).scores
    assert (led > free + 0.2).all()


def test_eps_guidance_does_not_depend_on_the_score_s_unit():
    sampler = EnergyDPS(GaussianPrior(), 10, strength=0.3)
    small, large = (sampler.sample(lambda x, unit=unit: unit * redness(x), 2).images for unit in (1e-3, 1e3))
    torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-4)


def test_light_and_full_agree_where_the_denoiser_only_scales():
    """For an isotropic Gaussian the denoiser's Jacobian is a multiple of one, which normalising removes."""
    images = [
        EnergyDPS(GaussianPrior(), 10, strength=0.5, guidance=guidance).sample(redness, 2).images
        for guidance in ("full", "light")
    ]
    torch.testing.assert_close(*images)


def test_a_sample_is_the_same_in_any_batch_and_differs_between_seeds(latent_prior):
    sampler = EnergyDPS(latent_prior, 5, strength=0.5)
    four, two = sampler.sample(redness, 4, seed=3), sampler.sample(redness, 2, seed=3)
    assert torch.equal(four.images[:2], two.images)
    other = sampler.sample(redness, 2, seed=4)
    assert not torch.allclose(four.images[1], other.images[0], atol=1e-2)


def test_no_strength_is_the_prior_itself():
    prior = GaussianPrior()
    free = EnergyDPS(prior, 10, strength=0).sample(redness, 2, seed=0)
    assert torch.equal(free.images, EnergyDPS(prior, 10, strength=0).sample(brightness, 2, seed=0).images)


def test_a_capped_sample_is_left_alone_while_the_others_are_guided():
    prior = GaussianPrior(variance=0.1, size=4)
    free = EnergyDPS(prior, 50, strength=0).sample(redness, 8)
    led = EnergyDPS(prior, 50, strength=1.0).sample(redness, 8)
    capped = EnergyDPS(prior, 50, strength=1.0, score_cap=0.3).sample(redness, 8)
    assert (capped.scores < led.scores).all() and (capped.scores > free.scores).all()
    unreached = EnergyDPS(prior, 50, strength=1.0, score_cap=100.0).sample(redness, 8)
    assert torch.equal(unreached.images, led.images)
    passed = EnergyDPS(prior, 50, strength=1.0, score_cap=-100.0).sample(redness, 8)
    assert torch.equal(passed.images, free.images)


def test_a_window_leaves_the_other_steps_unguided():
    prior = GaussianPrior()
    late = EnergyDPS(prior, 20, strength=1.0, guidance_window=(0.5, 1.0)).sample(redness, 2)
    free = EnergyDPS(prior, 20, strength=0).sample(redness, 2)
    assert torch.equal(late.trace[:10], free.trace[:10])
    assert not torch.equal(late.trace[12:], free.trace[12:])


def test_every_step_is_reported_with_a_preview_and_scores():
    events = []
    samples = EnergyDPS(GaussianPrior(), 6, strength=0.2).sample(redness, 3, on_step=events.append)
    assert [event.step for event in events] == [1, 2, 3, 4, 5, 6] and {event.steps for event in events} == {6}
    previews = [event.images for event in events]
    assert all(preview.shape == samples.images.shape and not preview.requires_grad for preview in previews)
    torch.testing.assert_close(redness(previews[2]), events[2].scores)
    torch.testing.assert_close(torch.stack([event.scores for event in events]), samples.trace)
    torch.testing.assert_close(previews[-1], samples.images)


def test_returning_false_or_raising_cancels():
    steps = []

    def stop(event):
        steps.append(event.step)
        return event.step < 3

    with pytest.raises(Cancelled):
        EnergyDPS(GaussianPrior(), 10).sample(redness, 1, on_step=stop)
    assert steps == [1, 2, 3]

    def abort(event):
        raise Cancelled

    with pytest.raises(Cancelled):
        EnergyDPS(GaussianPrior(), 10).sample(redness, 1, on_step=abort)


@pytest.mark.filterwarnings("ignore")
def test_leaving_the_real_numbers_is_one_sentence():
    def explode(images):
        return images.sum(dim=(1, 2, 3)) ** 9 * 1e30

    with pytest.raises(BlindspotError, match=r"Sample 1 became infinite at step 1 of 10 with strength 1e\+30") as error:
        EnergyDPS(GaussianPrior(), 10, strength=1e30, gradient="raw").sample(explode, 2)
    assert "\n" not in str(error.value)


def test_a_flat_score_moves_nothing():
    prior = GaussianPrior()
    flat = EnergyDPS(prior, 10, strength=5.0).sample(lambda images: 0 * redness(images), 2)
    assert torch.equal(flat.images, EnergyDPS(prior, 10, strength=0).sample(redness, 2).images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gradient": "sign"}, "gradient 'sign' is unknown"),
        ({"guidance": "heavy"}, "Guidance 'heavy'"),
        ({"strength": float("nan")}, "finite number, not nan"),
        ({"guidance_window": (0.8, 0.2)}, "two growing numbers between 0 and 1"),
        ({"together": 0}, "At least 1 sample is guided at a time, not 0"),
    ],
)
def test_senseless_settings_are_refused(settings, message):
    with pytest.raises(BlindspotError, match=message):
        EnergyDPS(GaussianPrior(), **settings)


def test_senseless_numbers_of_samples_and_steps_are_refused():
    with pytest.raises(BlindspotError, match="ask for at least 1"):
        EnergyDPS(GaussianPrior()).sample(redness, 0)
    with pytest.raises(BlindspotError, match="5000 sampling steps"):
        EnergyDPS(GaussianPrior(), steps=5000).sample(redness, 1)


@pytest.mark.parametrize(("zeta", "cap"), [(None, None), (0.01, None), (0.01, -2.0), (None, 2.0)])
def test_algorithm_1_is_as_printed(zeta, cap):
    """All steps by the equations of arXiv:2605.17504, Algorithm 1, in plain torch with DDPM's own constants.

    Line 6 is read as the posterior mean of DDPM, eq. 7: the paper prints its two coefficients the wrong way round.
    """
    network, beta = tiny_unet().double(), 3.0
    prior = PixelPrior(tiny_unet(), DDPMScheduler(clip_sample=False))
    sampler = EnergyDPS(prior, 5, beta, gradient="raw", zeta=zeta, score_cap=cap)
    found = sampler.sample(redness, 1, seed=7)

    generator = sample_generators(7, 1)[0]
    levels = [*prior.timesteps(5).tolist(), -1]
    signal = torch.cat([DDPMScheduler().alphas_cumprod.double(), torch.ones(1, dtype=torch.float64)])
    x = torch.randn(prior.shape, generator=generator)[None].double()
    for level, below in itertools.pairwise(levels):
        now, then = signal[level], signal[below]
        x.requires_grad_()
        clean = (x - (1 - now).sqrt() * network(x, level).sample) / now.sqrt()
        score = redness((clean / 2 + 0.5).clamp(0, 1))
        (gradient,) = torch.autograd.grad(score.sum(), x)
        step = 1 - now / then
        mean = (now / then).sqrt() * (1 - then) / (1 - now) * x + then.sqrt() * step / (1 - now) * clean
        variance = step * (1 - then) / (1 - now)
        x = mean.detach()
        if below >= 0:
            x = x + variance.sqrt() * torch.randn(prior.shape, generator=generator)[None].double()
        if cap is None or score.item() <= cap:
            x = x + (variance if zeta is None else zeta) * beta * gradient
    torch.testing.assert_close(found.images, (x / 2 + 0.5).clamp(0, 1).float(), atol=2e-4, rtol=1e-3)


def test_energy_guidance_is_no_tilt():
    """Its push does not change when s becomes 4 s; that of the raw gradient grows fourfold, as the tilt's does."""
    prior = GaussianPrior(0.2, 0.5)

    def mean(gradient, factor):
        sampler = EnergyDPS(prior, 100, 1.0, gradient=gradient, together=None)
        return sampler.sample(lambda images: factor * brightness(images), 100, seed=1).images[:, 0].mean().item()

    assert mean("eps", 1) == pytest.approx(mean("eps", 4), abs=1e-4)
    unmoved = EnergyDPS(prior, 100, 0.0, together=None).sample(brightness, 100, seed=1).images[:, 0].mean().item()
    assert mean("raw", 4) - unmoved == pytest.approx(4 * (mean("raw", 1) - unmoved), rel=0.05)


@pytest.mark.parametrize("settings", [{"zeta": 0.1}, {"zeta": -1.0, "gradient": "raw"}, {"zeta": float("nan")}])
def test_a_step_size_goes_with_the_raw_gradient(settings):
    with pytest.raises(BlindspotError, match="step size zeta"):
        EnergyDPS(GaussianPrior(), **settings)
