"""Same seed, same image, to the last bit, whatever the batch: on the demo's own models and with every method.

Tiny networks do not show what real ones do: kernels round by the size of a batch, and guidance scales the tiny
gradients of early steps to a length, which once made another image of image 0 when a second one was drawn with it.
One method looks through the whole encoder, the others through its first two blocks, as wide and a quarter of the work.
"""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from engine.atlas.reader import Atlas
from engine.samplers import feature_visualization, retrieval
from engine.samplers.models import ModelBundle, real_images
from engine.samplers.registry import SAMPLERS, SamplerSettings, create
from engine.samplers.scores import ConceptScore
from engine.samplers.smc import EnergySMC
from tests.test_demo import DEMO

CONCEPT = 68


@pytest.fixture(scope="module")
def demo():
    """The demo's models, its score of a concept, and that score seen through the first two blocks of the encoder."""
    models = ModelBundle(Atlas.open(DEMO / "atlas"), "cpu")
    brief = deepcopy(models.encoder)
    brief.backbone.encoder.layer = brief.backbone.encoder.layer[:2]
    return models, *(ConceptScore(encoder, models.dictionary, [CONCEPT]) for encoder in (models.encoder, brief))


@pytest.mark.parametrize("name", SAMPLERS)
def test_image_0_is_the_same_alone_and_among_three(demo, name, monkeypatch):
    models, whole, brief = demo
    score = whole if name == "energy-guidance" else brief
    monkeypatch.setattr(retrieval, "real_images", lambda atlas: real_images(atlas)[:24])
    corpus = feature_visualization.corpus_seeds
    monkeypatch.setattr(feature_visualization, "corpus_seeds", lambda *of: corpus(*of)[:24])
    settings = SamplerSettings(steps=4, strength=0.2, score_cap=0.4, particles=2, candidates=2)
    if name == "energydps":
        settings = replace(settings, steps=6)
    sampler = create(name, models, settings)
    if name == "soft-prompt":
        sampler = replace(sampler, iterations=1)
    if name == "accentuation":
        sampler = replace(sampler, encoder=brief.encoder)
    alone, three = (sampler.sample(score, count, seed=5) for count in (1, 3))
    assert torch.equal(three.images[:1], alone.images)
    assert torch.equal(three.scores[:1], alone.scores)
    assert torch.equal(three.trace[:, :1], alone.trace)


def test_a_filter_s_law_does_not_depend_on_how_many_run(demo):
    models, _, score = demo
    sampler = EnergySMC(models.prior, 4, 20.0, particles=2)
    one, two = (sampler.filter(score, count, seed=1) for count in (1, 2))
    for part in ("images", "scores", "log_weights", "log_partition"):
        assert torch.equal(getattr(two, part)[:1], getattr(one, part))
