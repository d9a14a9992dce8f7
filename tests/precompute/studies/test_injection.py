"""Task injection: the law it draws from, on the toy mixture where linear scores have closed forms, and its report."""

import math

import numpy as np
import pytest
import torch

from benchmarks.oracle import MIXTURE, OraclePrior, concept_score
from engine.errors import BlindspotError
from engine.figures.samplers import drift_table, object_drift
from engine.samplers.energy_dps import EnergyDPS
from engine.samplers.generation import GenerationRequest
from engine.samplers.models import ModelBundle
from engine.samplers.registry import TaskSettings
from engine.samplers.scores import ConceptScore
from engine.samplers.smc import EnergySMC
from engine.samplers.tasks import InjectedScore, TaskInjection
from precompute.studies.base import StudyInputs
from precompute.studies.injection import (
    concept_drift,
    injection_study,
    least_distortion,
    measure_drift,
    other_energies,
)
from tests.engine.vision.tiny_text import MAKERS

ALONG, ACROSS = (0.6, 0.8), (0.0, 1.0)


def linear(direction):
    return lambda points: points.flatten(1) @ torch.tensor(direction)


def tilted_mean(push: np.ndarray) -> np.ndarray:
    """E x of the mixture times exp(push . x): each Gaussian moves by spread^2 push and gains exp(push . mean)."""
    means = np.array(MIXTURE.means)
    weights = np.exp(means @ push - (means @ push).max())
    return (weights / weights.sum()) @ means + MIXTURE.spread**2 * push


def test_particles_draw_from_p_exp_beta_s_plus_eta_f():
    beta, ratio = 0.3, -1.5
    score = InjectedScore(linear(ALONG), linear(ACROSS), ratio)
    cloud = EnergySMC(OraclePrior(), 200, beta, 64, together=None).filter(score, 60)
    points, weights = cloud.images.flatten(2), cloud.log_weights.exp()
    mean = (weights[..., None] * points).sum(dim=(0, 1)) / len(points)
    exact = tilted_mean(beta * np.array(ALONG) + beta * ratio * np.array(ACROSS))
    np.testing.assert_allclose(mean, exact, atol=0.2)


def test_samples_are_scored_by_the_score_alone_and_a_ratio_of_nothing_changes_nothing():
    sampler = EnergyDPS(OraclePrior(), 50, 0.3, gradient="raw", together=None)
    plain = sampler.sample(concept_score, 200)
    without = TaskInjection(sampler, linear(ACROSS), 0.0).sample(concept_score, 200)
    served = TaskInjection(sampler, linear(ACROSS), 5.0).sample(concept_score, 200)
    assert torch.equal(plain.images, without.images) and torch.equal(plain.scores, without.scores)
    torch.testing.assert_close(served.scores, concept_score(served.images))
    assert linear(ACROSS)(served.images).mean() > linear(ACROSS)(plain.images).mean() + 1


def test_the_bound_of_correlated_normal_scores_is_half_the_excess_squared():
    correlation, target, level = 0.5, 0.6, 1.0
    s, other = np.random.default_rng(0).standard_normal((2, 200_000))
    f = correlation * s + math.sqrt(1 - correlation**2) * other
    excess = level - correlation * target
    assert least_distortion(s, f, target, level) == pytest.approx(excess**2 / 2, rel=0.03)
    assert least_distortion(s, f, target, 0.0) == 0
    assert math.isnan(least_distortion(s, f, target, 99.0)) and math.isnan(least_distortion(s, f, 99.0, level))


def test_at_a_matched_score_a_task_grows_with_its_ratio_and_so_do_drift_and_bound():
    prior = torch.tensor(MIXTURE.sample(20_000, np.random.default_rng(0)), dtype=torch.float32)[:, :, None, None]

    def corners(points: torch.Tensor) -> np.ndarray:
        places = (points.flatten(1) > 0).long() @ torch.tensor([1, 2])
        return torch.nn.functional.one_hot(places, 4).numpy()

    def factory(strength: float, ratio: float) -> EnergyDPS:
        return EnergyDPS(OraclePrior(), 50, strength, gradient="raw", together=None)

    rows = measure_drift(
        factory, concept_score, linear(ACROSS), corners, 5.0, [0.5, 1.0, 2.0], prior=prior, start=0.1, n=2000
    ).rows  # fmt: skip
    assert [row.ratio for row in rows] == [0, 0.5, 1, 2]
    assert all(abs(row.score - 5) <= max(row.score_error / 2, 0.05) for row in rows)
    for name in ("task", "drift", "bound"):
        values = [getattr(row, name) for row in rows]
        assert values == sorted(values) and values[-1] > values[0] + 0.05, name
    assert 0 < rows[0].drift < 0.1 and rows[0].task_error == pytest.approx(2 / 2000**0.5, rel=0.3)


def test_other_energies_are_sums_of_codes_without_the_concept_itself(atlas):
    models = ModelBundle(atlas, "cpu")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = other_energies(models.encoder, models.dictionary, [2])(images)
    codes = models.dictionary.encode(models.encoder(images[1:]).flat().flatten(0, 1))
    dense = np.zeros(atlas.count)
    np.add.at(dense, codes.indices.numpy(), codes.values.numpy())
    dense[2] = 0
    np.testing.assert_allclose(found[1], dense, rtol=1e-4)
    assert found.shape == (2, atlas.count) and (found[:, 2] == 0).all()


def test_the_report_of_a_concept_becomes_a_table_and_a_figure(atlas):
    inputs = StudyInputs(atlas, GenerationRequest(2, count=4, steps=6, candidates=2), prior_samples=4)
    rows, images = concept_drift(inputs, TaskSettings(like="0"), ratios=[0.5])
    models = ModelBundle(atlas, "cpu")
    score = ConceptScore(models.encoder, models.dictionary, [2])
    with torch.no_grad():
        assert [float(score(drawn).mean()) for drawn in images] == pytest.approx([row.score for row in rows])
    table = drift_table(rows)
    np.testing.assert_allclose(table["eta"], table["ratio"] * table["strength"])
    assert table["score"].iloc[1] == pytest.approx(table["score"].iloc[0], rel=0.2) and (table["drift"] > 0).all()
    figure = object_drift(table, task="like image 0", images=4)
    assert len(figure.data) == 4 and list(figure.data[1].y) == list(table["task"])
    assert "n = 4 images" in figure.layout.title.subtitle.text and len(figure.layout.meta["how"]) > 30


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"like": "0", "ratios": [0.0]}, "finite numbers other than 0"),
        ({"like": "0", "ratios": [math.nan]}, "finite numbers other than 0"),
        ({"like": "10000"}, "image 10000"),
        ({"text": "a red ring"}, "cannot say how well an image fits a text: give a CLIP or SigLIP by --text-encoder"),
        ({"text": "a red ring", "text_encoder": "/nowhere"}, "There is no encoder folder /nowhere"),
        ({}, "A task is needed"),
        ({"like": "0", "method": "retrieval"}, "'retrieval' has no strength"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(atlas, settings, sentence):
    with pytest.raises(BlindspotError, match=sentence):
        request = GenerationRequest(2, settings.pop("method", "energy-guidance"), count=4, steps=3)
        inputs, ratios = StudyInputs(atlas, request, prior_samples=4), settings.pop("ratios", None)
        concept_drift(inputs, TaskSettings(**settings), ratios)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_text_shifts_a_concept_s_drawings_by_clip_and_siglip(atlas, kind, tmp_path):
    inputs = StudyInputs(atlas, GenerationRequest(2, "energydps", count=4, steps=4), prior_samples=4)
    serving = TaskSettings(text="a ring", text_encoder=str(MAKERS[kind](tmp_path / kind)))
    study = injection_study(inputs, serving, [0.5], None)
    table = study.tables["table"]
    assert list(table["ratio"]) == [0, 0.5] and table["task"].between(-1, 1).all()
    assert study.settings["text"] == "a ring" and study.settings["device"] == "cpu"
    assert study.settings["prior"]["kind"] == "latent" and "fit “a ring”" in study.figure.layout.title.text


def test_a_reference_by_its_pixels_is_a_study_too(atlas, tmp_path):
    inputs = StudyInputs(atlas, GenerationRequest(2, count=4, steps=4), prior_samples=4)
    atlas.image(3).save(tmp_path / "goal.png")
    serving = TaskSettings(like=str(tmp_path / "goal.png"), like_by="pixels")
    study = injection_study(inputs, serving, [1.0], None)
    assert study.tables["table"]["task"].between(-1, 0).all() and study.settings["like_by"] == "pixels"
    assert "resemble goal.png by its pixels" in study.figure.layout.title.text


def test_a_task_that_keeps_the_score_out_of_reach_is_marked_and_a_score_out_of_reach_alone_is_refused():
    prior = torch.randn(200, 2, 1, 1, generator=torch.Generator().manual_seed(0))

    def against(points: torch.Tensor) -> torch.Tensor:
        return -concept_score(points)

    def report(target: float) -> list:
        return measure_drift(
            lambda strength, ratio: EnergyDPS(OraclePrior(), 20, strength, gradient="raw", together=None),
            concept_score, against, lambda points: np.ones((len(points), 1)), target, [3.0],
            prior=prior, start=0.1, n=50,
        ).rows  # fmt: skip

    plain, marked = report(5.0)
    assert plain.ratio == 0 and plain.score == pytest.approx(5, abs=0.2)
    assert marked.ratio == 3 and all(math.isnan(value) for value in marked[1:])
    with pytest.raises(BlindspotError, match="is out of reach"):
        report(9.0)
