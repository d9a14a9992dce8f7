"""A concept under study: drawn once at a strength, at a wanted score or as near as the search came."""

import pytest
import torch

from engine.errors import BlindspotError
from engine.samplers.calibration import standard_error
from engine.samplers.generation import GenerationRequest, generate_images
from precompute.studies.base import concept_subject

REQUEST = GenerationRequest(2, count=4, steps=6, candidates=2)


@pytest.fixture
def subject(atlas):
    return concept_subject(atlas, REQUEST, "cpu")


def test_its_drawings_are_those_of_the_sample_command(atlas, subject):
    drawing = generate_images(atlas, GenerationRequest(2, count=4, steps=6, strength=0.4, candidates=2), device="cpu")
    drawn = subject.draw(0.4)
    torch.testing.assert_close(drawn.samples.images, drawing.samples.images)
    assert subject.best == pytest.approx(drawing.reference_score)
    assert drawn.mean == pytest.approx(float(drawing.samples.scores.mean())) and drawn.seconds > 0


def test_a_wanted_score_is_reached_and_nothing_is_drawn_twice(subject):
    reached = subject.reach(subject.best)
    assert reached.note == "" and abs(reached.trial.mean - subject.best) <= max(
        0.05 * subject.best, reached.trial.error
    )
    trials = dict(subject.trials[subject.best])
    again = subject.reach(subject.best)
    assert again.trial is reached.trial and subject.trials[subject.best] == trials
    assert subject.draw(0.4) is subject.draw(0.4)


def test_a_score_out_of_reach_gives_the_nearest_drawing_and_says_why(subject):
    reached = subject.reach(50 * subject.best)
    assert "is out of reach" in reached.note
    assert reached.trial.mean == max(drawn.mean for drawn in subject.trials[50 * subject.best].values())
    below = subject.reach(-50 * subject.best)
    assert "without a push" in below.note
    assert below.trial.mean == min(drawn.mean for drawn in subject.trials[-50 * subject.best].values())


def test_where_nothing_can_be_drawn_the_sentence_comes(atlas):
    with pytest.raises(BlindspotError, match="step"):
        concept_subject(atlas, GenerationRequest(2, count=4, steps=100_000), "cpu").reach(0.1)


def test_the_standard_error_is_that_of_a_mean():
    assert standard_error([1.0, 2.0, 3.0, 4.0]) == pytest.approx((5 / 3) ** 0.5 / 2)


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        (GenerationRequest(999), "There is no concept 999"),
        (GenerationRequest(2, method="magic"), "There is no sampling method 'magic'"),
        (GenerationRequest(2, method="prior"), "'prior' has no strength"),
        (GenerationRequest(2, count=3), "draw at least 4 samples, not 3"),
    ],
)
def test_what_cannot_be_studied_is_one_sentence(atlas, order, sentence):
    with pytest.raises(BlindspotError, match=sentence):
        concept_subject(atlas, order, "cpu")


def test_a_dead_concept_is_refused(atlas, monkeypatch):
    frame = atlas.concepts.assign(dead=lambda table: table.index == 2)
    monkeypatch.setattr(type(atlas), "concepts", property(lambda atlas: frame))
    with pytest.raises(BlindspotError, match="Concept 2 of atlas 'synthetic' is dead"):
        concept_subject(atlas, REQUEST, "cpu")
