"""Methods brought to one mean score: what is reached says so, what is not keeps its nearest trial and a reason."""

import math
from dataclasses import replace

import pytest
import torch

from engine.errors import BlindspotError
from engine.samplers.calibration import Timed, mean_of_best, timed
from engine.samplers.models import ModelBundle
from engine.samplers.registry import SAMPLERS, SamplerSettings
from engine.samplers.retrieval import score_pool
from engine.samplers.scores import ConceptScore
from precompute.studies.methods import METHODS, STARTS, ComparisonSettings, compare_method


@pytest.fixture
def models(atlas):
    return ModelBundle(atlas, "cpu")


@pytest.fixture
def comparison(atlas, models):
    score = ConceptScore(models.encoder, models.dictionary, [2])
    scores = score_pool(atlas, score, models.encoder.spec).scores
    settings = SamplerSettings(steps=4, strength=0.0, candidates=4)
    return ComparisonSettings(score, mean_of_best(scores.tolist()), settings, count=4, evaluations=4)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_images_and_what_they_took(models, comparison, name):
    watched = []

    def watch(work):
        watched.append(timed(work))
        return watched[-1]._replace(gigabytes=0.5)

    entry = compare_method(name, models, comparison, watch)
    assert entry.images.shape == (4, 3, 32, 32) and entry.gigabytes == 0.125 and entry.seconds > 0
    with torch.no_grad():
        assert comparison.score(entry.images).mean().item() == pytest.approx(entry.score, rel=1e-3, abs=1e-4)
    assert entry.matched == (abs(entry.score - comparison.target) <= 0.05 * comparison.target)
    assert bool(entry.note) != entry.matched and entry.trials <= len(watched)


def test_retrieval_draws_from_the_best_real_images(models, comparison):
    entry = compare_method("retrieval", models, comparison)
    assert entry.matched and entry.strength == 4 and math.isnan(entry.gigabytes)
    assert len({image.numpy().tobytes() for image in entry.images}) == 4


def test_a_target_beyond_all_is_a_note(models, comparison):
    far = replace(comparison, target=100.0)
    for name in ("energy-guidance", "retrieval"):
        entry = compare_method(name, models, far)
        assert not entry.matched and "out of reach" in entry.note
    assert len(entry.images) == 0 and math.isnan(entry.score)


def test_what_has_no_strength_cannot_be_compared(models, comparison):
    assert set(STARTS) < set(SAMPLERS) and Timed(1, 2.0).result == 1
    with pytest.raises(BlindspotError, match="'prior' cannot be compared: choose among retrieval, energy-guidance"):
        compare_method("prior", models, comparison)
