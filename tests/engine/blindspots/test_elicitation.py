"""Rates of a stress test: intervals that hold, a worked example, and verdicts that a known truth agrees with."""

from __future__ import annotations

import numpy as np
import pytest

from engine.blindspots.elicitation import (
    LINE,
    NOT_DECIDED,
    PROMPTABLE,
    TRUE_BLINDSPOT,
    Asked,
    Level,
    calibrate,
    clustered_rate,
    contrast,
    find,
    simple_rate,
    verdicts,
)
from engine.errors import BlindspotError


def drawn(rng: np.random.Generator, share: float, alike: float, prompts: int = 50, each: int = 5):
    """Images of prompts whose shares differ (beta-binomial; `alike` is the correlation of one prompt's images)."""
    spread = (1 - alike) / alike
    own = rng.beta(share * spread, (1 - share) * spread, prompts)
    return (rng.random((prompts, each)) < own[:, None]).ravel(), np.repeat(np.arange(prompts), each)


@pytest.mark.parametrize(("share", "alike"), [(0.05, 0.1), (0.3, 0.4), (0.9, 0.2)])
def test_intervals_clustered_by_prompt_cover_the_share(share: float, alike: float):
    rng, hits, trials = np.random.default_rng(0), 0, 600
    for _ in range(trials):
        low, high = clustered_rate(*drawn(rng, share, alike)).interval()
        hits += low <= share <= high
    assert hits / trials > 0.93


def test_images_of_one_prompt_that_are_all_alike_count_once():
    shown, prompts = np.repeat([True, False] * 10, 5), np.repeat(np.arange(20), 5)
    assert clustered_rate(shown, prompts).effective == pytest.approx(20, rel=0.06)
    assert clustered_rate(shown[:5], prompts[:5]).interval() == (0.0, 1.0)


def test_none_or_all_leave_room_for_chance():
    none = clustered_rate(np.zeros(50, bool), np.repeat(np.arange(10), 5))
    assert none.interval()[0] == 0 and 0.2 < none.interval()[1] < 0.4
    assert clustered_rate(np.ones(50, bool), np.repeat(np.arange(10), 5)).interval()[1] == 1


def test_a_difference_has_the_interval_of_newcombes_example():
    """56 of 70 against 48 of 80: 0.0524 to 0.3339 (Newcombe 1998, table II, method 10), with z for Student's t."""
    one, other = (simple_rate(np.arange(size) < count) for count, size in ((56, 70), (48, 80)))
    found = contrast([(1, one), (-1, other)])
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=0.004) and 0.005 < found.p < 0.05


def test_p_is_below_five_percent_exactly_where_the_interval_leaves_zero_out():
    rng = np.random.default_rng(1)
    for _ in range(60):
        rates = [simple_rate(rng.random(40) < rng.random()) for _ in range(3)]
        found = contrast([(1, rates[0]), (-0.5, rates[1]), (-0.5, rates[2])])
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_the_level_tells_real_images_apart_and_its_rates_are_those_of_images_that_did_not_set_it():
    rng = np.random.default_rng(2)
    named = rng.random(4000) < 0.2
    energies = np.maximum(0, rng.normal(np.where(named, 2.0, 0.0), 1))
    level = calibrate(energies, named)
    assert level.energy == pytest.approx(1.0, abs=0.25) and level.balanced == pytest.approx(0.841, abs=0.03)
    assert level.with_word.images + level.without.images == pytest.approx(2000, abs=2)
    with pytest.raises(BlindspotError, match="3 of 4000 captions of real images name it"):
        calibrate(energies, np.arange(4000) < 3)


def asked(rng: np.random.Generator, share: float, control: float = 0.1) -> Asked:
    return Asked(clustered_rate(*drawn(rng, share, 0.1)), simple_rate(rng.random(400) < control))


def test_verdicts_say_what_is_true_and_seldom_decide_a_model_on_the_line():
    rng = np.random.default_rng(3)
    level = Level(1.0, simple_rate(rng.random(80) < 0.95), simple_rate(rng.random(300) < 0.05))
    wrong = 0
    for _ in range(100):
        models = {"able": asked(rng, 0.9), "blind": asked(rng, 0.11), "line": asked(rng, 0.1 + LINE * 0.8)}
        order = ["blind", "able", "line"]
        found = [find(level, models, name, None, order) for name in models]
        assert [one.against for one in found] == ["real", "able", "able"]
        _, said = verdicts(*(np.array(part) for part in zip(*[(f.p, f.blind, f.usable) for f in found], strict=True)))
        assert said[:2] == [PROMPTABLE, TRUE_BLINDSPOT]
        wrong += said[2] != NOT_DECIDED
    assert wrong <= 10


def test_what_fires_unasked_is_no_success_and_a_level_that_tells_nothing_decides_nothing():
    rng = np.random.default_rng(4)
    real = Level(1.0, simple_rate(rng.random(80) < 0.9), simple_rate(rng.random(300) < 0.05))
    found = find(real, {"loud": asked(rng, 0.5, control=0.5)}, "loud", None, ["loud"])
    assert found.blind and found.p < 0.05 and found.share < LINE
    poor = Level(1.0, simple_rate(rng.random(80) < 0.5), simple_rate(rng.random(300) < 0.4))
    assert not find(poor, {"loud": asked(rng, 0.5)}, "loud", None, ["loud"]).usable
    q, said = verdicts(np.array([1e-9, 1e-9]), np.array([True, True]), np.array([False, True]))
    assert said == [NOT_DECIDED, TRUE_BLINDSPOT] and q[0] == 1
