"""The plots of a dictionary's report: every concept is counted once, where it belongs, and said in words."""

import numpy as np
import pandas as pd
import plotly.io
import pytest

from engine.figures.dictionary import (
    coherence_histogram,
    frequency_histogram,
    hull_histogram,
    l0_histogram,
    most_alike,
    stability_histogram,
)

VALUES = np.array([0.0, 0.011, 0.5, 0.51, 1.0])


@pytest.mark.parametrize(
    "figure",
    [
        coherence_histogram(VALUES),
        hull_histogram(VALUES, points=64, own=True),
        stability_histogram(VALUES - 0.25, seeds=3),
        frequency_histogram(np.array([1e-6, 1e-4, 1e-4, 0.2, 1.0]), tokens=1000),
    ],
)
def test_every_concept_is_counted_and_the_figure_says_what_it_is(figure):
    assert sum(figure.data[0].y) == 5 and len(figure.data[0].customdata) == len(figure.data[0].x)
    assert figure.layout.title.text and len(figure.layout.meta["how"]) > 30
    assert len(plotly.io.to_json(figure, validate=False)) < 20_000


def test_frequencies_lie_on_a_log_axis_and_dead_concepts_are_named():
    figure = frequency_histogram(np.array([0.0, 0.0, 1e-3, 1e-3, 0.1]), tokens=5000)
    at = dict(zip(np.round(figure.data[0].x, 1), figure.data[0].y, strict=True))
    assert sum(figure.data[0].y) == 3 and max(at.values()) == 2
    assert "3 live and 2 dead concepts · 5,000 tokens" in figure.layout.title.subtitle.text
    assert list(figure.layout.xaxis.ticktext) == ["0.1 %", "1 %", "10 %", "100 %"]
    assert figure.layout.shapes[0].x0 == pytest.approx(-3)


def test_a_dictionary_in_which_nothing_fires_can_be_drawn():
    assert sum(frequency_histogram(np.zeros(4), tokens=9).data[0].y) == 0
    assert "mean 0.00" in l0_histogram([9]).layout.title.subtitle.text


def test_l0_is_in_percent_with_its_mean_and_a_rare_tail_drawn_together():
    figure = l0_histogram([1, 0, 3])
    assert list(figure.data[0].y) == [25, 0, 75] and "mean 1.50 · 4 tokens" in figure.layout.title.subtitle.text
    figure = l0_histogram([0, 5000, 4996, *([0] * 50), 2, 2])
    assert sum(figure.data[0].y) == pytest.approx(100) and figure.data[0].customdata[-1].startswith("≥")
    assert len(figure.data[0].x) < 10


def test_the_data_hull_is_named():
    assert "hull of its 64 candidates" in hull_histogram(VALUES, points=64, own=True).layout.title.subtitle.text
    assert "hull of 1,024 centroids" in hull_histogram(VALUES, points=1024, own=False).layout.title.subtitle.text


def test_a_pair_that_is_each_others_nearest_is_listed_once():
    report = pd.DataFrame({"coherence": [0.9, 0.9, 0.7, 0.95], "nearest": [1, 0, 0, 2]})
    assert most_alike(report, 5).to_dict("list") == {"a": [2, 0, 0], "b": [3, 1, 2], "coherence": [0.95, 0.9, 0.7]}
