"""A concept against single neurons: which are near it, how they answer to real images, and what they draw."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.dictionary.transcoder import Transcoder
from engine.errors import BlindspotError
from engine.samplers.generation import GenerationRequest
from engine.samplers.metrics import PriorReference
from engine.samplers.models import ModelBundle, real_images, thumbnails
from engine.samplers.retrieval import score_pool
from engine.samplers.scores import ConceptScore, NeuronScore
from precompute.studies.base import concept_subject
from precompute.studies.neurons import Choice, choose_neurons, compare_neurons, survey_neurons

REQUEST = GenerationRequest(2, count=4, steps=6, candidates=2)


@pytest.fixture(scope="module")
def setting(drawable):
    from engine.atlas import Atlas

    atlas = Atlas.open(drawable)
    subject = concept_subject(atlas, REQUEST, "cpu")
    return atlas, subject, survey_neurons(atlas, subject.score)


def test_a_survey_scores_every_real_image_by_the_concept_and_by_every_neuron(setting):
    atlas, subject, survey = setting
    spec = subject.models.encoder.spec
    np.testing.assert_allclose(survey.pool.scores, score_pool(atlas, subject.score, spec).scores, atol=1e-5)
    images = thumbnails(atlas, real_images(atlas), spec)
    for neuron, sign in ((0, 1), (7, -1)):
        with torch.no_grad():
            expected = NeuronScore(subject.models.encoder, neuron, sign)(images)
        np.testing.assert_allclose(survey.scores(neuron, sign), expected, atol=1e-5)
    best = survey.references(survey.scores(7, -1))
    assert [reference.score for reference in best] == sorted(survey.scores(7, -1), reverse=True)[:4]


def test_its_correlations_are_pearsons_over_all_patches(setting, monkeypatch):
    atlas, subject, survey = setting
    images = thumbnails(atlas, real_images(atlas), subject.models.encoder.spec)
    with torch.no_grad():
        patches = subject.models.encoder(images).patches.flatten(0, 2)
        concept = subject.models.dictionary.preactivate(patches, torch.tensor([2]))
    expected = np.corrcoef(torch.cat([patches, concept], dim=1).double().T.numpy())[-1, :-1]
    np.testing.assert_allclose(survey.correlation, expected, atol=1e-5)
    monkeypatch.setattr("precompute.studies.neurons.BATCH", 4)
    counted = []
    again = survey_neurons(atlas, subject.score, report=lambda done, total: counted.append((done, total)))
    np.testing.assert_allclose(again.correlation, survey.correlation, atol=1e-5)
    assert counted == [(start, len(images)) for start in range(0, len(images), 4)]


def test_neurons_are_chosen_by_size_with_the_sign_in_which_the_concept_grows():
    atom, correlation = np.array([0.1, -0.9, 0.5, 0.0]), np.array([0.2, -0.8, 0.1, 0.6])
    assert choose_neurons(atom, correlation, 2) == [
        Choice(1, -1, "atom, map"),
        Choice(2, 1, "atom"),
        Choice(3, 1, "map"),
    ]
    assert choose_neurons(None, correlation, 1) == [Choice(1, -1, "map")]
    assert len(choose_neurons(atom, correlation, 99)) == 4
    with pytest.raises(BlindspotError, match="ask for at least 1"):
        choose_neurons(atom, correlation, 0)


def test_every_unit_is_drawn_at_the_concept_s_share_of_its_own_best_or_says_why_not(setting):
    atlas, subject, survey = setting
    heard = []
    reference = PriorReference.sample(ModelBundle(atlas, "cpu"), 6, 4)
    found = compare_neurons(subject, survey, reference, 1, lambda row: heard.append(row))
    concept, *neurons = found.rows
    assert [row.name for row in found.rows] == heard and concept.name == "concept 2" and neurons
    assert concept.share == pytest.approx(concept.concept_share) == pytest.approx(concept.score / subject.best)
    assert (concept.map_correlation, concept.score_correlation) == pytest.approx((1, 1)) and math.isnan(concept.atom)
    atom = subject.models.dictionary.atoms()[2].numpy()
    for row, references, images in zip(neurons, found.references[1:], found.images[1:], strict=True):
        neuron, sign = int(row.name.split()[1][:-1]), 1 if row.name.endswith("+") else -1
        assert row.atom == pytest.approx(sign * atom[neuron])
        assert (row.map_correlation if "map" in row.chosen_by else row.atom) >= 0
        scores = survey.scores(neuron, sign)
        own = np.mean([reference.score for reference in references])
        assert row.selectivity == pytest.approx((own - scores.mean()) / scores.std())
        assert row.score_correlation == pytest.approx(np.corrcoef(scores, survey.pool.scores)[0, 1])
        assert row.share == pytest.approx(row.score / own)
        assert row.note or abs(row.share - concept.share) <= max(0.05 * abs(concept.share), row.share_error)
        with torch.no_grad():
            drawn = NeuronScore(subject.models.encoder, neuron, sign)(images)
        assert float(drawn.mean()) == pytest.approx(row.score, rel=1e-4) and (drawn.diff() <= 1e-6).all()


def test_a_transcoder_s_atoms_are_no_directions_of_the_tokens_so_maps_alone_choose(setting):
    atlas, subject, _ = setting
    torch.manual_seed(0)
    transcoder = Transcoder(16, 24, 4, grid=(4, 4)).requires_grad_(False)
    other = replace(subject, score=ConceptScore(subject.models.encoder, transcoder, [2]), trials={})
    survey = survey_neurons(atlas, other.score)
    found = compare_neurons(other, survey, PriorReference.sample(subject.models, 6, 4), 1)
    assert [row.chosen_by for row in found.rows] == ["", "map"] and all(math.isnan(row.atom) for row in found.rows)
    assert f"neuron {np.abs(survey.correlation).argmax()}" in found.rows[1].name
