from itertools import pairwise

import pytest
import torch
from diffusers import StableDiffusionPipeline

from engine.errors import BlindspotError
from engine.priors.latent import LatentPrior
from engine.priors.loading import load_prior
from tests.engine.priors.tiny import tiny_pipeline, tiny_pixel_pipeline


@pytest.fixture(scope="module", params=["tiny", "kl"])
def folder(request, tmp_path_factory):
    return tiny_pipeline(tmp_path_factory.mktemp(request.param) / "base", request.param)


def states(prior, n=2):
    return prior.noise([torch.Generator().manual_seed(seed) for seed in range(n)])


def test_latents_and_images_have_the_pipelines_sizes(folder):
    prior = load_prior(folder)
    with torch.no_grad():
        images = prior.decode(states(prior))
    assert prior.shape == (4, 8, 8)
    assert images.shape == (2, 3, prior.image_size, prior.image_size)
    assert images.min() >= 0 and images.max() <= 1


def test_decode_undoes_scale_and_shift(folder):
    prior = load_prior(folder)
    config = prior.vae.config
    latents = 0.1 * states(prior)
    with torch.no_grad():
        expected = (prior.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
        scaled = (latents - (config.get("shift_factor") or 0)) * config.scaling_factor
        torch.testing.assert_close(prior.decode(scaled), expected)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_ddim_draws_the_image_that_the_pipeline_draws(folder, guidance):
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae.register_to_config(shift_factor=0.0)
    prior = LatentPrior(pipeline, "a", guidance, eta=0.0)
    sources = [torch.Generator().manual_seed(5)]
    state = prior.noise(sources)
    expected = pipeline(
        "a", latents=state.clone(), num_inference_steps=10, guidance_scale=guidance, output_type="pt"
    ).images

    levels = [*prior.timesteps(10).tolist(), -1]
    with torch.no_grad():
        for t, t_prev in pairwise(levels):
            state = prior.step(prior.denoise(state, t), t, t_prev, state, sources)
        torch.testing.assert_close(prior.decode(state), expected, rtol=0, atol=2e-3)


def test_denoise_and_decode_carry_a_gradient_to_the_state(folder):
    prior = load_prior(folder)
    state = states(prior).requires_grad_()
    (gradient,) = torch.autograd.grad(prior.decode(prior.denoise(state, 300).x0).sum(), state)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in prior.unet.parameters())


def test_the_prompt_matters(folder):
    empty, prompted = load_prior(folder), load_prior(folder, prompt="d o")
    state = states(empty)
    with torch.no_grad():
        assert not torch.allclose(empty.denoise(state, 500).x0, prompted.denoise(state, 500).x0)


def test_half_precision_weights_keep_float32_states(folder):
    prior = load_prior(folder, dtype=torch.bfloat16)
    with torch.no_grad():
        prediction = prior.denoise(states(prior), 500)
        assert prediction.x0.dtype == prior.decode(prediction.x0).dtype == torch.float32


def test_a_pipeline_of_another_kind_is_refused(tmp_path):
    with pytest.raises(BlindspotError, match="DDPMPipeline, but a latent prior needs a StableDiffusionPipeline"):
        load_prior(tiny_pixel_pipeline(tmp_path / "pixel"))
