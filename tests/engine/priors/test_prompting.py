"""Prompted, distilled and larger pipelines against diffusers' own way of calling them."""

import pytest
import torch
from diffusers import LatentConsistencyModelPipeline, StableDiffusionXLPipeline

from engine.errors import BlindspotError
from engine.priors.latent import LatentPrior, encode_prompt
from engine.priors.loading import load_prior
from tests.engine.priors.sampling import generators, run
from tests.engine.priors.tiny import tiny_conditional_unet, tiny_lcm_pipeline, tiny_pipeline, tiny_xl_pipeline


def opened(kind, folder):
    pipeline = kind.from_pretrained(folder, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae.register_to_config(shift_factor=0.0)
    return pipeline


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_an_xl_pipeline_is_called_as_it_calls_itself(tmp_path, guidance):
    pipeline = opened(StableDiffusionXLPipeline, tiny_xl_pipeline(tmp_path / "xl"))
    prior = LatentPrior(pipeline, "d o", guidance, eta=0.0)
    start = prior.noise(generators(5))
    expected = pipeline(
        "d o", latents=start.clone(), num_inference_steps=20, guidance_scale=guidance, output_type="latent"
    ).images

    assert prior.context.shape == (1 if guidance == 1 else 2, 8, 16)
    found = run(prior, [5], 20)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("zeros", [True, False])
def test_no_prompt_is_what_the_model_was_trained_with(tmp_path, zeros):
    condition = encode_prompt(opened(StableDiffusionXLPipeline, tiny_xl_pipeline(tmp_path / "xl", zeros)), "", 5.0, 16)
    assert len(condition.context) == 1
    assert bool((condition.context == 0).all()) == bool((condition.added["text_embeds"] == 0).all()) == zeros
    assert condition.added["time_ids"].tolist() == [[16, 16, 0, 0, 16, 16]]


def test_a_distilled_pipeline_is_told_the_guidance_scale(tmp_path):
    pipeline = opened(LatentConsistencyModelPipeline, tiny_lcm_pipeline(tmp_path / "lcm"))
    prior = LatentPrior(pipeline, "d o", guidance=8.0)
    source = torch.Generator().manual_seed(5)
    expected = pipeline("d o", num_inference_steps=4, guidance_scale=8.0, generator=source, output_type="pt").images
    with torch.no_grad():
        torch.testing.assert_close(prior.decode(run(prior, [5], 4)), expected, rtol=0, atol=2e-3)
    assert len(prior.context) == 1


def test_guidance_costs_nothing_where_there_is_no_prompt(tmp_path):
    folder = tiny_pipeline(tmp_path / "base")
    guided, plain = load_prior(folder, guidance=5.0), load_prior(folder)
    assert len(guided.context) == 1
    state = plain.noise(generators(0))
    with torch.no_grad():
        assert torch.equal(guided.denoise(state, 500).x0, plain.denoise(state, 500).x0)


def test_an_inpainting_network_is_refused(tmp_path):
    pipeline = opened(LatentConsistencyModelPipeline, tiny_lcm_pipeline(tmp_path / "lcm"))
    pipeline.unet = tiny_conditional_unet(in_channels=9)
    with pytest.raises(BlindspotError, match="4 channels, this one has 9"):
        LatentPrior(pipeline)
