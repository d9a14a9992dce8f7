"""Of few images, or of images without spread, nothing is found, and no number is infinite or missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from engine.blindspots.composition import change_evidence, changed_pairs
from engine.blindspots.cooccurrence import cooccurrence_matrix
from engine.blindspots.correlation import correlate_models
from engine.blindspots.delta import ESTIMATORS, delta_columns
from engine.blindspots.significance import Moments, measure_gap

ENERGY = st.one_of(st.just(0.0), st.floats(2**-20, 1e6, width=32))


def columns(real: np.ndarray, model: np.ndarray, paired: bool, estimator: str) -> dict[str, np.ndarray]:
    """What an atlas says of the concepts of two sources [images, K]."""
    rows = np.arange(len(real) if paired else 0)
    sides = sparse.csr_matrix(real), sparse.csr_matrix(model)
    moments, active = [Moments.of(side) for side in sides], tuple((side > 0).sum(axis=0) for side in (real, model))
    gap, live = measure_gap(*sides, rows, rows), active[0] + active[1] > 0
    return delta_columns(
        *moments, gap.se, live=live, active=active, paired=paired, estimator=estimator, temperature=None
    )


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.sampled_from(sorted(ESTIMATORS)))
def test_every_number_is_finite_and_in_its_range(data, real_images, model_images, paired, estimator):
    paired &= real_images == model_images
    real = data.draw(arrays(np.float32, (real_images, 3), elements=ENERGY))
    model = data.draw(arrays(np.float32, (model_images, 3), elements=ENERGY))
    found = columns(real, model, paired, estimator)
    for name, values in found.items():
        assert np.isfinite(values).all(), name
    for name in ("delta", "ci_low", "ci_high", "p", "q"):
        assert ((found[name] >= 0) & (found[name] <= 1)).all(), name
    assert (found["ci_low"] <= found["delta"]).all() and (found["delta"] <= found["ci_high"]).all()
    silent = (real == 0).all(axis=0) & (model == 0).all(axis=0)
    assert (found["delta"][silent] == 0.5).all() and (found["q"][silent] == 1).all()


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
@pytest.mark.parametrize("paired", [True, False])
def test_nothing_is_found_in_one_image_or_in_copies_of_one(estimator: str, paired: bool):
    random = np.random.default_rng(0)
    real, model = random.uniform(0, 5, (2, 1, 6)).astype(np.float32)
    real[0, 0] = model[0, 1] = 0
    for copies in (1, 3, 50):
        found = columns(np.tile(real, (copies, 1)), np.tile(model, (copies, 1)), paired, estimator)
        assert (found["q"] == 1).all() and (found["p"] == 1).all()
        assert (found["ci_low"] <= 0.1).all() and (found["ci_high"] >= 0.9).all()


@pytest.mark.parametrize("images", [2, 3, 5])
def test_chance_alone_makes_few_findings_in_few_images(images: int):
    random = np.random.default_rng(0)
    real, model = (random.normal(5, 1, (images, 4000)) for _ in range(2))
    for paired in (True, False):
        assert (columns(real, model, paired, "gap")["p"] < 0.05).mean() < 0.06


def test_changes_of_pairs_in_one_image_or_two_are_no_finding():
    random = np.random.default_rng(0)
    for images in (1, 2):
        real, model = (sparse.csr_matrix(random.uniform(0, 3, (images * 50, 4))) for _ in range(2))
        changes = changed_pairs(cooccurrence_matrix(real), cooccurrence_matrix(model), 6, least=1)
        rows = np.arange(images)
        evidence = change_evidence(changes, real, model, 50, rows, rows)
        assert (evidence.corrected > 0.05).all() and np.isfinite(evidence.p).all()


def test_models_that_do_not_vary_have_no_correlation():
    found = correlate_models(np.array([[0.5, 0.5, 0.5, 0.5], [0.1, 0.2, 0.9, 0.4]]))
    assert np.isnan(found.matrix[0]).all() and found.matrix[1, 1] == 1
    assert np.isnan(correlate_models(np.array([[0.1], [0.4]])).matrix).all()
