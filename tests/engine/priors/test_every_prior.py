"""What holds for each kind of prior, whatever is behind it."""

import pytest
import torch

from engine.priors.adm import ADMPrior
from engine.priors.loading import load_prior
from tests.engine.priors.sampling import generators, run
from tests.engine.priors.tiny import (
    tiny_adm_unet,
    tiny_dit_pipeline,
    tiny_lcm_pipeline,
    tiny_pipeline,
    tiny_pixel_pipeline,
    tiny_xl_pipeline,
)

MAKERS = {
    "pixel": lambda folder: load_prior(tiny_pixel_pipeline(folder), "pixel"),
    "adm": lambda folder: ADMPrior(tiny_adm_unet()),
    "adm of a class": lambda folder: ADMPrior(tiny_adm_unet(classes=3), label=1),
    "latent": lambda folder: load_prior(tiny_pipeline(folder)),
    "prompted": lambda folder: load_prior(tiny_pipeline(folder), prompt="d o", guidance=3.0),
    "xl": lambda folder: load_prior(tiny_xl_pipeline(folder), prompt="d o", guidance=3.0),
    "lcm": lambda folder: load_prior(tiny_lcm_pipeline(folder), prompt="d o", guidance=8.0),
    "turbo": lambda folder: load_prior(tiny_pipeline(folder), scheduler="EulerAncestralDiscreteScheduler"),
    "dit": lambda folder: load_prior(tiny_dit_pipeline(folder), "dit"),
    "dit of a class": lambda folder: load_prior(tiny_dit_pipeline(folder), "dit", guidance=4.0, label=7),
}


@pytest.fixture(scope="module", params=MAKERS)
def prior(request, tmp_path_factory):
    return MAKERS[request.param](tmp_path_factory.mktemp("prior") / "pipeline")


def test_the_same_seed_is_the_same_image_in_any_batch(prior):
    together, alone = run(prior, [1, 2, 3], 3), run(prior, [2], 3)
    assert (together[0] - together[1]).abs().max() > 0.01
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)


def test_one_to_four_steps_end_in_an_image(prior):
    for steps in (1, 2, 4):
        assert len(prior.timesteps(steps)) == steps
        with torch.no_grad():
            images = prior.decode(run(prior, [0], steps))
        assert images.shape == (1, 3, prior.image_size, prior.image_size)
        assert images.isfinite().all() and images.min() >= 0 and images.max() <= 1


def test_a_gradient_reaches_the_noisy_state_through_network_and_decoder(prior):
    state = prior.noise(generators(0, 1)).requires_grad_()
    images = prior.decode(0.1 * prior.denoise(state, 300).x0)
    (gradient,) = torch.autograd.grad(images[0].sum(), state)
    assert gradient.isfinite().all() and gradient[0].abs().sum() > 0
    assert gradient[1].abs().sum() == 0


def test_a_prediction_explains_the_state(prior):
    state = prior.noise(generators(0))
    with torch.no_grad():
        found = prior.denoise(state, 500)
    signal = prior.schedule.signal(500)
    torch.testing.assert_close(signal**0.5 * found.x0 + (1 - signal) ** 0.5 * found.eps, state, rtol=0, atol=1e-4)
