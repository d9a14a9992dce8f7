from dataclasses import replace

import pytest
import torch

from engine.errors import BlindspotError
from engine.samplers.candidates import CandidateSelection
from engine.samplers.energy_dps import EnergyDPS
from engine.samplers.models import ModelBundle
from engine.samplers.registry import SAMPLERS, SamplerSettings, create
from engine.samplers.retrieval import Retrieval
from engine.samplers.scores import ConceptScore
from engine.samplers.smc import EnergySMC


def test_each_name_makes_its_sampler(atlas):
    models = ModelBundle(atlas, "cpu")
    made = {name: create(name, models, SamplerSettings(steps=7, strength=0.5, score_cap=2.0)) for name in SAMPLERS}
    many = CandidateSelection(0.5 * 400 / 2.0, 32, (0.28, 0.6), approach=5)
    assert made["energydps"] == EnergyDPS(models.prior, 7, 0.5 * 32 / 2.0, "raw", score_cap=2.0)
    step = create("energydps", models, SamplerSettings(steps=7, strength=0.5, gradient="raw", zeta=0.1, score_cap=2.0))
    assert step == replace(made["energydps"], zeta=0.1)
    unit = create("energydps", models, SamplerSettings(steps=7, strength=0.5, gradient="unit", score_cap=2.0))
    assert unit == replace(made["energydps"], gradient="unit", strength=0.5)
    assert made["energy-guidance"] == EnergyDPS(
        models.prior, 7, 0.5, score_cap=2.0, guidance_window=(0.0, 0.85), selection=many
    )
    early = create("energy-guidance", models, SamplerSettings(steps=7, strength=0.5, score_cap=2.0, guidance_end=0.6))
    assert early == replace(made["energy-guidance"], guidance_window=(0.0, 0.6))
    assert made["energy-guidance-light"] == replace(
        made["energy-guidance"],
        guidance="light",
        guidance_interval=3,
        selection=replace(many, candidates=8, batch=2),
    )
    assert made["prior"].strength == 0
    assert made["energydps-smc"] == EnergySMC(models.prior, 7, 0.5 * 32 / 2.0, particles=4)
    assert isinstance(made["retrieval"], Retrieval)
    assert made["retrieval-soft"].strength == 0.5 * 32 / 2.0
    assert (made["maco"].steps, made["maco"].strength, made["maco"].spectrum.size) == (35, 0.05, 32)
    assert (made["optimisation"].size, made["optimisation"].strength) == (32, 0.25)
    assert (made["accentuation"].strength, made["accentuation"].score_cap) == (2.5, 2.0)
    assert (made["soft-prompt"].steps, made["soft-prompt"].strength) == (7, 5.0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_method_draws_a_concept(atlas, name):
    models = ModelBundle(atlas, "cpu")
    score = ConceptScore(models.encoder, models.dictionary, [2])
    sampler = create(name, models, SamplerSettings(steps=2, strength=0.3, score_cap=1.0, particles=2))
    if name == "soft-prompt":
        sampler = replace(sampler, iterations=2)
    samples = sampler.sample(score, 2)
    assert samples.images.shape == (2, 3, 32, 32) and samples.images.min() >= 0 and samples.images.max() <= 1
    torch.testing.assert_close(score(samples.images).detach(), samples.scores, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [SamplerSettings(steps=7, strength=0.5, candidates=1), SamplerSettings(steps=7, strength=0.0, candidates=16)],
)
def test_one_state_or_no_push_is_guidance_alone(atlas, settings):
    assert create("energy-guidance", ModelBundle(atlas, "cpu"), settings).selection is None


def test_without_a_cap_the_filter_s_strength_is_the_tilt_s_own(atlas):
    assert (
        create("energydps-smc", ModelBundle(atlas, "cpu"), SamplerSettings(steps=7, strength=0.5, particles=8)).strength
        == 0.5
    )


def test_an_unknown_name_is_answered_with_the_known_ones(atlas):
    with pytest.raises(
        BlindspotError, match="no sampling method 'magic': choose one of energy-guidance, energy-guidance-light"
    ):
        create("magic", ModelBundle(atlas, "cpu"), SamplerSettings(steps=10, strength=1.0))
