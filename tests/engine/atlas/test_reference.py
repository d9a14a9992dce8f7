"""Delta of a model against another model: numbers that scipy gives for the same image energies."""

import numpy as np
import pytest
from scipy import special, stats

from engine.atlas import Atlas
from engine.blindspots.significance import shared_pairs
from engine.errors import BlindspotError
from engine.reports import report
from tests.synthetic import build_synthetic_atlas


@pytest.fixture(scope="module")
def atlas(tmp_path_factory) -> Atlas:
    models = ("alpha", "beta", "gamma")
    path = build_synthetic_atlas(
        tmp_path_factory.mktemp("reference") / "atlas", models=models, concepts=24, pairs=40, unpaired=("gamma",)
    )
    return Atlas.open(path)


def energies(atlas: Atlas, *sources: str) -> list[np.ndarray]:
    return [atlas.energy(source).toarray().astype(np.float64) for source in sources]


def test_two_models_that_drew_the_same_captions_are_compared_pair_by_pair(atlas):
    before, after = energies(atlas, "alpha", "beta")
    found = atlas.delta("beta", "gap", 0.8, reference="alpha")
    np.testing.assert_allclose(found["gap"], (after - before).mean(0), atol=1e-9)
    assert found["paired"].all()
    firing = (before > 0).sum(0) + (after > 0).sum(0) > 40  # degrees of freedom are all the pairs' there
    oracle = stats.ttest_rel(after, before).confidence_interval()
    for name, end in (("ci_low", oracle.low), ("ci_high", oracle.high)):
        np.testing.assert_allclose(found[name][firing], special.expit(end / 0.8)[firing], rtol=1e-9)
    assert firing.sum() > 5


def test_models_that_drew_other_captions_are_compared_unpaired(atlas):
    before, after = energies(atlas, "alpha", "gamma")
    found = atlas.delta("gamma", "gap", 0.8, reference="alpha")
    assert not found["paired"].any()
    test = stats.ttest_ind(after, before, equal_var=False)
    firing, oracle = (before > 0).sum(0) + (after > 0).sum(0) - 1 >= test.df, test.confidence_interval()
    np.testing.assert_allclose(found["ci_low"][firing], special.expit(oracle.low / 0.8)[firing], rtol=1e-9)
    assert firing.sum() > 2


@pytest.mark.parametrize("estimator", ["gap", "share", "relative"])
def test_before_against_after_is_after_against_before_turned_round(atlas, estimator):
    one, other = atlas.delta("beta", estimator, reference="alpha"), atlas.delta("alpha", estimator, reference="beta")
    np.testing.assert_allclose(one["delta"], 1 - other["delta"], atol=1e-12)
    np.testing.assert_allclose(one["ci_low"], 1 - other["ci_high"], atol=1e-9)
    np.testing.assert_allclose(one["q"], other["q"], atol=1e-12)


def test_against_real_images_nothing_changed(atlas):
    assert atlas.delta("beta").equals(atlas.delta("beta", reference="real"))


def test_a_model_against_itself_or_nothing_is_one_sentence(atlas):
    for other in ("beta", "nobody"):
        with pytest.raises(BlindspotError, match=r"cannot be compared with .*: choose real, alpha, gamma"):
            atlas.delta("beta", reference=other)


def test_each_image_goes_into_one_pair_at_most():
    first, second = np.array([3, -1, 5, 3, 3]), np.array([5, 3, 3, -1, 9])
    rows = shared_pairs(first, second)
    assert [*zip(*map(np.ndarray.tolist, rows), strict=True)] == [(0, 1), (3, 2), (2, 0)]


def test_a_ranking_and_a_selection_against_a_model_say_so(atlas):
    ranked = report(atlas, "delta-ranking", model="beta", reference="alpha")
    assert "against alpha" in ranked.figure.layout.title.subtitle.text
    rows = report(atlas, "selection", model="beta", reference="alpha")
    assert rows.title.startswith("beta against alpha") and "q of gamma" in rows.table and "q of alpha" not in rows.table
    np.testing.assert_allclose(
        rows.table.set_index("concept")["ci_low of beta"],
        atlas.delta("beta", reference="alpha")["ci_low"][rows.table["concept"]],
    )
