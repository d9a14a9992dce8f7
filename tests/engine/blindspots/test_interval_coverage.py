"""The small version of `python -m precompute benchmark coverage`: do intervals and q-values mean what they say?"""

import pytest

from benchmarks.coverage import CHANGES, false_discoveries, interval_coverage


@pytest.mark.parametrize("change", ["equal", "half as often"])
def test_95_percent_intervals_of_concepts_in_one_percent_of_images_hold_the_truth_that_often(change):
    found = interval_coverage(3, 10_000, 0.01, CHANGES[change], 1500)
    for name in ("gap, normal", "gap", "share"):
        assert 0.93 <= found[name] <= 0.97, (name, found)


def test_unpaired_intervals_hold_it_too():
    found = interval_coverage(4, 10_000, 0.01, CHANGES["twice as often"], 1500, paired=False)
    assert 0.93 <= found["gap"] <= 0.97


def test_a_rare_concepts_interval_is_closer_to_its_level_than_the_normal_one():
    found = interval_coverage(7, 10_000, 0.0007, CHANGES["half as often"], 1500)
    assert found["gap, normal"] < 0.94 <= found["gap"] <= 0.97


def test_a_model_that_changes_nothing_has_no_discoveries_more_often_than_allowed():
    assert false_discoveries(5, 8, 100, real_images=2000, model_images=2000)["stored"] <= 0.05


def test_a_model_with_fewer_images_needs_the_null_error():
    found = false_discoveries(6, 8, 200, real_images=5000, model_images=1000, paired=False)
    assert found["null error"] <= 0.05 < found["stored"]
