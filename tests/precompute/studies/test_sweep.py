"""A strength sweep: one row per strength in growing order, all from the same noise."""

import math
from dataclasses import replace

import pytest
import torch

from engine.errors import BlindspotError
from engine.jobs import Cancelled
from engine.samplers.generation import GenerationRequest
from engine.samplers.metrics import PriorReference
from engine.samplers.models import ModelBundle
from precompute.studies.base import concept_subject
from precompute.studies.sweeps import sweep_strengths

REQUEST = GenerationRequest(2, count=4, steps=3, candidates=2)


@pytest.fixture
def reference(atlas):
    return PriorReference.sample(ModelBundle(atlas, "cpu"), 3, 4)


def test_rows_grow_and_hold_what_the_drawings_show(atlas, reference):
    subject, heard = concept_subject(atlas, REQUEST, "cpu"), []
    found = sweep_strengths(subject, [0.8, 0.0, 0.8, 0.2], reference, lambda row: heard.append(row))
    assert [row.strength for row in found.rows] == [0, 0.2, 0.8]
    assert heard == ["strength 0", "strength 0.2", "strength 0.8"]
    scores = [row.score for row in found.rows]
    assert scores == sorted(scores) and scores[2] > scores[0]
    for row, images in zip(found.rows, found.images, strict=True):
        with torch.no_grad():
            each = subject.score(images)
            assert row.codes_score == pytest.approx(float(subject.score.codes_score(images).mean()))
        assert row.score == pytest.approx(float(each.mean())) and row.note == ""
        assert row.score_error == pytest.approx(float(each.std() / 2), rel=1e-4)
        assert (row.diversity, row.slope, row.kid) == pytest.approx(reference.measure(images)[:3])
        assert row.seconds > 0


def test_a_strength_that_leaves_the_real_numbers_is_a_row_that_says_so(atlas, reference):
    found = sweep_strengths(concept_subject(atlas, replace(REQUEST, candidates=1), "cpu"), [0.0, 1e38], reference)
    assert found.images[1] is None and math.isnan(found.rows[1].score) and "strength" in found.rows[1].note
    assert found.rows[0].note == "" and found.images[0] is not None
    with pytest.raises(BlindspotError, match="strength"):
        sweep_strengths(concept_subject(atlas, replace(REQUEST, candidates=1), "cpu"), [1e38], reference)


@pytest.mark.parametrize("strengths", [[], [0.1, math.nan]])
def test_strengths_are_numbers(atlas, reference, strengths):
    with pytest.raises(BlindspotError, match="one or more finite strengths"):
        sweep_strengths(concept_subject(atlas, REQUEST, "cpu"), strengths, reference)


def test_a_listener_ends_the_sweep(atlas, reference):
    with pytest.raises(Cancelled):
        sweep_strengths(concept_subject(atlas, REQUEST, "cpu"), [0.1], reference, lambda row: lambda event: False)
