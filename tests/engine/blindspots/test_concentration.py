import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.blindspots.concentration import gap_reach, hoeffding_delta, images_needed, images_needed_hoeffding
from engine.blindspots.delta import delta_of_gap
from engine.blindspots.significance import normal_quantile
from engine.errors import BlindspotError


@given(st.floats(0.001, 0.999), st.floats(-8, 8), st.floats(0.1, 4))
def test_the_reach_solves_its_equation(width, gap, temperature):
    reach = gap_reach(width, gap, temperature)
    low, high = delta_of_gap(np.array([gap - reach, gap + reach]), temperature)
    assert high - low == pytest.approx(width, abs=1e-7)


def test_at_no_gap_the_reach_is_the_closed_form():
    assert gap_reach(0.2, 0.0, 0.8) == pytest.approx(2 * 0.8 * np.arctanh(0.2))


@given(st.floats(0.01, 0.9), st.floats(0.1, 50), st.floats(-3, 3))
def test_as_many_images_as_needed_and_not_one_less(width, deviation, gap):
    def wide(n):
        reach = normal_quantile(0.95) * deviation / np.sqrt(n)
        return np.diff(delta_of_gap(np.array([gap - reach, gap + reach])))[0]

    n = int(images_needed(width, deviation, gap=gap))
    assert wide(n) <= width + 1e-7
    assert n == 2 or wide(n - 1) > width - 1e-7


@given(st.floats(0.01, 0.9), st.floats(0.5, 50), st.floats(-3, 3), st.booleans())
def test_the_promise_for_any_energies_takes_as_many_images_as_its_interval_says(width, span, gap, paired):
    n = int(images_needed_hoeffding(width, span, gap=gap, paired=paired))
    low, high = hoeffding_delta(np.array([gap]), n, span, paired=paired)
    assert high[0] - low[0] <= width + 1e-7
    if n > 1:
        low, high = hoeffding_delta(np.array([gap]), n - 1, span, paired=paired)
        assert high[0] - low[0] > width - 1e-7


def test_the_mapped_interval_is_never_wider_than_the_lipschitz_form_of_theorem_4():
    gap, n, span = np.linspace(-5, 5, 41), 500, 6.0
    low, high = hoeffding_delta(gap, n, span)
    epsilon = span / (4 * 0.8) * np.sqrt(np.log(2 / 0.05) / n)
    delta = delta_of_gap(gap)
    assert (delta - low <= epsilon + 1e-12).all() and (high - delta <= epsilon + 1e-12).all()
    assert (high - low)[0] < 0.2 * (high - low)[20]


def test_the_bound_holds_far_oftener_than_it_promises():
    rng = np.random.default_rng(0)
    real, model = rng.random((2000, 40)) < 0.3, rng.random((2000, 40)) < 0.5
    low, high = hoeffding_delta(model.mean(1) - real.mean(1), 40, 1.0, level=0.9)
    assert np.mean((low <= delta_of_gap(0.2)) & (delta_of_gap(0.2) <= high)) > 0.95


def test_ten_thousand_images_bound_a_concept_of_span_ten_less_tightly_than_the_paper_says():
    """Theorem 4 as printed would need half as many images; the corrected form halves the exponent."""
    assert int(images_needed_hoeffding(0.1, 10.0)) == 14_314
    assert int(images_needed_hoeffding(0.1, 10.0, paired=True)) == 28_628


def test_a_far_gap_needs_hardly_any_images_and_no_overflow():
    assert images_needed(0.05, 3.0, gap=np.array([0.0, 3.0, 1e6])).tolist()[2] == 2
    assert images_needed(0.05, 0.0) == 2


def test_a_width_that_delta_cannot_have_is_refused():
    with pytest.raises(BlindspotError, match=r"between 0 and 1 wide, not 1\.5"):
        images_needed(1.5, 1.0)
