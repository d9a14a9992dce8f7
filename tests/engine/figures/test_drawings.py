"""Figures of drawn images: every number of the table in its panel, and a line on how to read it."""

import math

import numpy as np
import pandas as pd
import pytest

from engine.figures.drawings import LEVELS, NEURON_PANELS, SWEEP, level_strips, neuron_bars, strength_curves
from engine.figures.panels import Panel, panel_curves

SAID = {"concept": "star · 50", "subtitle": "energydps, 40 steps, n = 8 images a point"}


def table(columns, rows: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({column: rng.random(rows) for column in columns})


def test_a_sweep_has_a_panel_per_number_with_standard_errors_and_the_best_real_images():
    rows = table(["score_error", *(panel.column for panel in SWEEP)]).assign(strength=[0.0, 0.2, 0.8])
    rows.loc[2, "score"] = math.nan
    figure = strength_curves(rows, best=0.25, **SAID)
    for panel, line in zip(SWEEP, figure.data, strict=True):
        assert list(line.x) == [0, 0.2, 0.8]
        np.testing.assert_array_equal(line.y, rows[panel.column])
    np.testing.assert_array_equal(figure.data[0].error_y.array, rows["score_error"])
    assert [shape.y0 for shape in figure.layout.shapes] == [0.25]
    assert "star · 50" in figure.layout.title.text and figure.layout.title.subtitle.text == SAID["subtitle"]
    assert len(figure.layout.meta["how"]) > 30


def test_levels_show_every_sample_beside_its_real_image_and_where_they_were_aimed():
    rows = table(panel.column for panel in LEVELS).assign(share=[0.0, 0.5, 1.0], target=[math.nan, 0.2, 0.4])
    samples = table(["score", "real_score"], 6).assign(
        share=np.repeat(rows["share"], 2).to_numpy(), real_image=range(6)
    )
    figure = level_strips(rows, samples, **SAID)
    aim, drawn, real, *lines = figure.data
    assert [y for y in aim.y if y is not None][2:] == [0.2, 0.2, 0.4, 0.4] and math.isnan(aim.y[0])
    assert min(x for x in aim.x[3:6] if x is not None) < 0.5 < max(x for x in aim.x[3:6] if x is not None)
    np.testing.assert_array_equal(drawn.y, samples["score"])
    np.testing.assert_array_equal(real.y, samples["real_score"])
    assert (np.asarray(drawn.x) < np.asarray(real.x)).all() and list(real.customdata[:, 1]) == list(range(6))
    assert np.abs(np.asarray(drawn.x) - samples["share"]).max() < 0.1
    for panel, line in zip(LEVELS, lines, strict=True):
        np.testing.assert_array_equal(line.y, rows[panel.column])
    single = level_strips(rows.iloc[2:], samples.iloc[4:], **SAID)
    assert np.isfinite(single.data[1].x).all() and len(figure.layout.meta["how"]) > 30


def test_neurons_are_bars_in_the_table_s_order_and_the_concept_stands_out():
    rows = table(column for column, _ in NEURON_PANELS)
    rows = rows.assign(name=["concept 50", "neuron 3+", "neuron 9-"], chosen_by=["", "atom, map", "map"])
    figure = neuron_bars(rows, **SAID)
    assert [list(bars.x) for bars in figure.data] == [list(rows[column]) for column, _ in NEURON_PANELS]
    assert list(figure.data[0].y) == ["concept 50", "neuron 3+ (atom, map)", "neuron 9- (map)"]
    first, *others = figure.data[0].marker.color
    assert first not in others and len(set(others)) == 1 and figure.layout.yaxis.autorange == "reversed"


@pytest.mark.parametrize(("count", "titled"), [(1, [0]), (3, [1, 2]), (4, [2, 3])])
def test_the_axis_is_named_below_the_lowest_panel_of_each_column(count, titled):
    panels = [Panel("y", f"panel {number}", "#000000") for number in range(count)]
    figure = panel_curves(pd.DataFrame({"x": [0, 1], "y": [1, 2]}), "x", panels, columns=2, axis="push", hover="p")
    axes = [figure.layout[f"xaxis{number + 1 if number else ''}"].title.text for number in range(count)]
    assert [number for number, title in enumerate(axes) if title == "push"] == titled
