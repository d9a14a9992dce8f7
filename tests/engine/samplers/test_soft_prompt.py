from dataclasses import replace

import pytest
import torch

from engine.errors import BlindspotError
from engine.priors.latent import LatentPrior
from engine.priors.loading import open_pipeline
from engine.samplers.base import sample_generators
from engine.samplers.energy_dps import EnergyDPS
from engine.samplers.models import ModelBundle
from engine.samplers.soft_prompt import LEARNING_SEED, SoftPrompt, SoftTokens
from tests.engine.priors.tiny import tiny_pipeline, tiny_xl_pipeline
from tests.engine.samplers.peers import assert_batches_agree, assert_previews, redness

BRIEF = {"steps": 3, "iterations": 4, "path": 3, "through": 2, "prefix": "a"}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A pipeline that hears its prompt: a random text encoder is nearly constant, so its embeddings are enlarged."""
    made = open_pipeline(tiny_pipeline(tmp_path_factory.mktemp("prior") / "base"), "cpu", torch.float32)
    made.text_encoder.get_input_embeddings().weight.data *= 30
    return made


def test_written_words_in_the_soft_places_are_the_written_prompt(pipeline):
    words = SoftTokens(pipeline, "a", 2)
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    ids = tokenizer("a y o", padding="max_length", max_length=8, return_tensors="pt").input_ids
    soft = encoder.get_input_embeddings().weight[ids[0, words.places]]
    torch.testing.assert_close(words.context(soft), encoder(ids)[0])


def test_a_long_prefix_is_cut_and_too_many_tokens_are_refused(pipeline):
    assert SoftTokens(pipeline, "a d i o y a d i o y", 5).places == slice(2, 7)
    with pytest.raises(BlindspotError, match="7 soft tokens do not fit into a prompt of 8"):
        SoftTokens(pipeline, "a", 7)


def test_learning_raises_the_score_of_what_is_drawn(pipeline):
    sampler = SoftPrompt(pipeline, steps=3, strength=1.0, iterations=10, rate=1.0, path=3, through=3, prefix="a")
    learned = sampler.learn(redness)
    words = SoftTokens(pipeline, "a", 5)
    with torch.no_grad():
        start = words.context(words.random(sample_generators(LEARNING_SEED, 1)[0]))
    drawn = [replace(sampler, learned=context).sample(redness, 8).scores.mean() for context in (start, learned)]
    assert drawn[1] > drawn[0]


def test_no_strength_is_the_prior_itself(pipeline):
    drawn = SoftPrompt(pipeline, **BRIEF, strength=0.0).sample(redness, 2)
    free = EnergyDPS(LatentPrior(pipeline), 3, strength=0.0).sample(redness, 2)
    torch.testing.assert_close(drawn.images, free.images, atol=1e-5, rtol=0)


def test_a_learned_prompt_is_not_learned_again(pipeline):
    sampler = SoftPrompt(pipeline, **BRIEF)
    learned = replace(sampler, learned=sampler.learn(redness, seed=2))
    torch.testing.assert_close(learned.sample(redness, 2, 2).images, sampler.sample(redness, 2, 2).images)
    assert learned.sample(redness, 1).trace.shape == (3, 1)


def test_same_seed_same_image_in_any_batch_with_previews(pipeline):
    assert_batches_agree(SoftPrompt(pipeline, **BRIEF))
    assert_previews(SoftPrompt(pipeline, **BRIEF), 7)


def test_learning_leaves_no_trace_in_the_pipeline(pipeline):
    SoftPrompt(pipeline, **BRIEF).sample(redness, 1)
    assert not pipeline.text_encoder.get_input_embeddings()._forward_hooks
    assert not pipeline.unet.is_gradient_checkpointing
    assert all(parameter.grad is None for parameter in pipeline.unet.parameters())


def test_an_atlas_whose_prior_hears_no_prompts_is_one_sentence(atlas):
    atlas.info = replace(atlas.info, prior={"id": "../prior", "kind": "pixel"})
    with pytest.raises(BlindspotError, match="names no text-to-image prior to write prompts for"):
        ModelBundle(atlas, "cpu").pipeline


def test_pipelines_of_two_text_encoders_and_senseless_settings_are_refused(pipeline, tmp_path):
    xl = open_pipeline(tiny_xl_pipeline(tmp_path / "xl"), "cpu", torch.float32)
    with pytest.raises(BlindspotError, match="one text encoder, not a StableDiffusionXLPipeline"):
        SoftPrompt(xl)
    with pytest.raises(BlindspotError, match="through 9 of 8 levels"):
        SoftPrompt(pipeline, through=9)
    with pytest.raises(BlindspotError, match="finite number, not nan"):
        SoftPrompt(pipeline, strength=float("nan"))
    with pytest.raises(BlindspotError, match="0 samples"):
        SoftPrompt(pipeline, **BRIEF).sample(redness, 0)
