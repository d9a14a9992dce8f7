"""EnergyDPS on each kind of prior: guidance works, the same seed is the same image, settings reach the prior."""

from types import SimpleNamespace

import pytest
import torch

from engine.priors.loading import load_prior
from engine.samplers.energy_dps import EnergyDPS
from engine.samplers.models import ModelBundle
from tests.engine.priors.test_every_prior import MAKERS
from tests.engine.priors.tiny import tiny_dit_pipeline

KINDS = ("pixel", "adm", "latent", "xl", "lcm", "turbo", "dit of a class")


def redness(images):
    """How much redder than green, [B]."""
    return (images[:, 0] - images[:, 1]).mean(dim=(1, 2))


@pytest.fixture(scope="module", params=KINDS)
def prior(request, tmp_path_factory):
    return MAKERS[request.param](tmp_path_factory.mktemp("prior") / "pipeline")


@pytest.mark.parametrize("guidance", ["full", "light"])
def test_guidance_raises_the_score(prior, guidance):
    plain = EnergyDPS(prior, steps=4, strength=0.0).sample(redness, 2)
    guided = EnergyDPS(prior, steps=4, strength=0.5, guidance=guidance).sample(redness, 2)
    assert (guided.scores > plain.scores).all()


def test_a_guided_image_does_not_depend_on_its_batch(prior):
    sampler = EnergyDPS(prior, steps=4, strength=0.5)
    pair, alone = sampler.sample(redness, 2), sampler.sample(redness, 1)
    assert torch.equal(pair.images[:1], alone.images)


def test_an_atlas_s_settings_reach_its_prior(tmp_path):
    folder = tiny_dit_pipeline(tmp_path / "dit")
    described = {"id": "dit", "kind": "dit", "prompt": "", "label": 7, "guidance": 4.0, "scheduler": "DDIMScheduler"}
    info = SimpleNamespace(name="a", prior=described, priors={})
    atlas = SimpleNamespace(path=tmp_path, info=info, resolve=lambda ref: tmp_path / ref)
    found, expected = ModelBundle(atlas, "cpu").prior, load_prior(folder, "dit", label=7)
    assert (found.guidance, found.labels, found.eta) == (4.0, (1000, 7), 0.0)
    assert (expected.labels, expected.eta) == ((7,), 1.0)
