import pytest
import torch
from diffusers import DiTPipeline

from engine.errors import BlindspotError
from engine.priors.dit import DiTPrior
from engine.priors.loading import load_prior
from tests.engine.priors.sampling import generators, run
from tests.engine.priors.tiny import tiny_dit_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_dit_pipeline(tmp_path_factory.mktemp("dit") / "pipeline")


def test_a_class_is_drawn_as_the_pipeline_draws_it(folder):
    pipeline = DiTPipeline.from_pretrained(folder, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae.register_to_config(shift_factor=0.0)
    prior = DiTPrior(pipeline, label=7, guidance=4.0, eta=0.0)
    source = torch.Generator().manual_seed(5)
    expected = pipeline([7], guidance_scale=4.0, generator=source, num_inference_steps=10, output_type="pt").images
    with torch.no_grad():
        found = prior.decode(run(prior, [5], 10))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_no_class_is_the_null_class(folder):
    prior = load_prior(folder, "dit", guidance=4.0)
    assert prior.labels == (1000,)
    assert load_prior(folder, "dit", label=7).labels == (7,)


def test_the_variance_channels_are_the_given_class_s(folder):
    prior, alone = load_prior(folder, "dit", guidance=4.0, label=7), load_prior(folder, "dit", label=7)
    null = load_prior(folder, "dit")
    state = prior.noise(generators(0))
    with torch.no_grad():
        guided, given, free = (each.denoise(state, 500) for each in (prior, alone, null))
    assert guided.spread.shape == state.shape
    torch.testing.assert_close(guided.spread, given.spread)
    torch.testing.assert_close(guided.eps, free.eps + 4 * (given.eps - free.eps), rtol=1e-4, atol=1e-4)


def test_without_variance_channels_the_variance_is_fixed(tmp_path):
    prior = load_prior(tiny_dit_pipeline(tmp_path / "fixed", learned=False), "dit")
    with torch.no_grad():
        assert prior.denoise(prior.noise(generators(0)), 500).spread is None


def test_a_class_that_is_not_there_is_refused(folder):
    with pytest.raises(BlindspotError, match="This DiT has no class 1000: choose 0 to 999"):
        load_prior(folder, "dit", label=1000)
