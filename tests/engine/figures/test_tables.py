import numpy as np
import pandas as pd
import pytest

from engine.figures.tables import (
    Filters,
    keep,
    most_different,
    pearson,
    status_of,
    summarise,
    where_to_start,
)


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "delta": [0.0, 0.05, 0.5, 0.95, 1.0, 0.0],
            "gap": [-9.0, -2.0, 0.0, 3.0, 8.0, -99.0],
            "q": [0.01, 0.2, 1, 0.03, 0.01, 0],
            "frequency": [0.5, 0.1, 0.3, 0.001, 0.2, 0.9],
            "dead": [False] * 5 + [True],
        }
    )


def test_thresholds_are_strict():
    assert status_of(np.array([0.099, 0.1, 0.9, 0.901]), 0.1, 0.9).tolist() == [
        "suppressed", "neutral", "neutral", "exaggerated"
    ]  # fmt: skip


def test_dead_concepts_never_pass(table):
    assert keep(table, Filters(), 0.1, 0.9).tolist() == [True] * 5 + [False]


def test_filters_combine(table):
    kept = keep(table, Filters(("suppressed", "exaggerated"), min_frequency=0.01, max_q=0.05), 0.1, 0.9)
    assert np.flatnonzero(kept).tolist() == [0, 4]


def test_top_differences_are_the_extreme_ones_in_order(table):
    assert most_different(table, "suppressed", 2).index.tolist() == [0, 1]
    assert most_different(table, "exaggerated", 2).index.tolist() == [4, 3]
    assert most_different(table, "both", 3).index.tolist() == [0, 4, 3]


def test_certain_differences_come_before_more_extreme_uncertain_ones(table):
    noisy = table.assign(q=[0.6, 0.01, 1, 0.03, 0.5, 0])
    assert most_different(noisy, "suppressed", 4).index.tolist() == [1, 0, 2, 4]
    assert most_different(noisy, "exaggerated", 4).index.tolist() == [3, 4, 2, 0]
    assert most_different(noisy, "both", 4).index.tolist() == [1, 3, 0, 4]


def test_without_published_q_only_delta_counts(table):
    bare = table.assign(q=np.nan)
    assert most_different(bare, "suppressed", 3).index.tolist() == [0, 1, 2]
    assert most_different(bare, "both", 3).index.tolist() == [0, 4, 1]


def test_summary_counts_live_concepts(table):
    summary = summarise(table, 0.1, 0.9)
    assert (summary.concepts, summary.suppressed, summary.exaggerated, summary.significant) == (5, 1, 2, 3)
    assert summary.median == 0.5 and abs(summary.skewness) < 1e-9


def test_summary_counts_what_may_be_chance_apart(table):
    """Of the four beyond a threshold one has q = 0.2; without published q all count."""
    assert summarise(table, 0.1, 0.9).uncertain == 1
    bare = summarise(table.assign(q=np.nan), 0.1, 0.9)
    assert (bare.suppressed, bare.exaggerated, bare.uncertain) == (2, 2, 0)


def test_a_tail_on_the_suppressed_side_is_negative_skewness(table):
    assert summarise(table.assign(delta=[0.0, 0.5, 0.5, 0.5, 0.5, 0.0]), 0.1, 0.9).skewness < -1


def test_one_starts_with_what_is_certain_and_with_another_model_for_each_side(table):
    named = table.assign(label=list("abcdef"), q=0.01)
    fewer = named.assign(delta=[0.02, 0.5, 0.5, 0.5, 0.5, 0.0])
    starts = where_to_start({"many": named, "fewer": fewer}, 0.1, 0.9)
    found = [(one.model, one.side, one.concept) for one in starts]
    assert found == [("many", "suppressed", 0), ("many", "exaggerated", 4)]
    only = where_to_start({"up": named.assign(delta=[0.5, 0.5, 0.5, 0.95, 1.0, 0.0]), "both": fewer}, 0.1, 0.9)
    assert [(one.model, one.side) for one in only] == [("both", "suppressed"), ("up", "exaggerated")]
    assert where_to_start({"many": named.assign(q=0.5)}, 0.1, 0.9) == []


def test_pearson_knows_a_line_and_a_constant():
    assert pearson(np.arange(5), 3 - 2 * np.arange(5)) == pytest.approx(-1)
    assert np.isnan(pearson(np.ones(5), np.arange(5)))
