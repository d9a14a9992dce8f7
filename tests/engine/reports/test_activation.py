"""Energies of a concept by source, and the tilt of the real images towards it, against sums over all of them."""

import numpy as np
import pytest

from engine.atlas import Atlas
from engine.figures.activation import activation_histograms
from engine.reports.activation import image_energies, tilt_images
from tests.test_demo import DEMO

CONCEPT = 78
"""Discs, which `no-disc` does not draw."""


@pytest.fixture(scope="module")
def demo():
    return Atlas.open(DEMO / "atlas")


def test_energies_are_the_atlas_s_column(demo):
    for source in ("real", "no-disc"):
        whole = demo.energy(source)[:, [CONCEPT]].toarray()[:, 0]
        np.testing.assert_array_equal(image_energies(demo, source, CONCEPT), whole)


@pytest.mark.parametrize("strength", [0.0, 1.5, 12.0])
def test_the_tilt_is_the_weighted_sum_over_all_real_images(demo, strength):
    scores = image_energies(demo, "real", CONCEPT)
    found = tilt_images(demo, CONCEPT, strength)
    weights = np.exp(strength * (scores - scores.max()) / scores.std())
    weights /= weights.sum()
    assert found.mean == pytest.approx(weights @ scores) and found.prior_mean == pytest.approx(scores.mean())
    assert found.effective == pytest.approx(1 / (weights**2).sum())
    assert found.kl == pytest.approx((weights * np.log(weights * len(scores))).sum(), abs=1e-9)
    assert found.hardest[0] == int(scores.argmax()) and len(set(found.drawn)) == 8


def test_draws_follow_the_tilt_and_a_silent_concept_has_none(demo):
    scores = image_energies(demo, "real", CONCEPT)
    first = [tilt_images(demo, CONCEPT, 1.0, 1, seed).drawn[0] for seed in range(400)]
    expected = tilt_images(demo, CONCEPT, 1.0).mean
    error = scores[first].std() / 20
    assert abs(scores[first].mean() - expected) < 4 * error
    dead = np.flatnonzero(np.asarray(demo.energy("real").max(axis=0).toarray())[0] == 0)
    if len(dead):
        assert tilt_images(demo, int(dead[0]), 1.0) is None


def test_bars_are_shares_of_all_images_of_their_source(demo):
    real, drawn = image_energies(demo, "real", CONCEPT), image_energies(demo, "no-disc", CONCEPT)
    figure = activation_histograms(real, {"no-disc": drawn}, {"no-disc": 0.06}, concept=CONCEPT)
    assert [sum(bars.y) for bars in figure.data] == pytest.approx([np.mean(real > 0), np.mean(drawn > 0)])
    assert (
        figure.layout.annotations[0].text
        == f"no-disc: active in {np.mean(drawn > 0):.0%}, real {np.mean(real > 0):.0%}"
    )
