"""Figures of samplers and their studies: every number of the table in its panel, and a line on how to read it."""

import math

import numpy as np
import pandas as pd
import pytest

from engine.figures.samplers import (
    LEVEL_PANELS,
    NEURON_PANELS,
    STRENGTH_PANELS,
    Panel,
    distance_diversity,
    level_strips,
    nearest,
    neuron_bars,
    panel_curves,
    strength_curves,
)

CHANCE = {"the encoder": 0.2, "DINOv2": 0.1}
SAID = {"concept": "star · 50", "subtitle": "energy-guidance, 40 steps, n = 8 images a point"}


def rows(**frechet: tuple[float, float]) -> pd.DataFrame:
    """Methods with their Fréchet distances by the encoder and by DINOv2."""
    return pd.DataFrame(
        {"judge": judge, "method": method, "matched": 30, "frechet": values[i], "diversity": 0.1 * (i + 1)}
        for i, judge in enumerate(CHANCE)
        for method, values in frechet.items()
    )


def test_every_judge_has_a_panel_with_a_mark_per_method_and_the_line_of_chance():
    figure = distance_diversity(rows(plain=(0.8, 0.5), maco=(0.9, 1.5)), CHANCE, concepts=32, count=4)
    marks = [(trace.name, trace.xaxis, trace.x[0], trace.y[0]) for trace in figure.data]
    assert marks == [
        ("plain", "x", 0.8, 0.1), ("maco", "x", 0.9, 0.1), ("plain", "x2", 0.5, 0.2), ("maco", "x2", 1.5, 0.2)
    ]  # fmt: skip
    assert [trace.showlegend for trace in figure.data] == [True, True, False, False]
    assert figure.data[0].marker.symbol == figure.data[2].marker.symbol != figure.data[1].marker.symbol
    assert [(line.x0, line.xref) for line in figure.layout.shapes] == [(0.2, "x"), (0.1, "x2")]
    assert [figure.layout[f"xaxis{n}"].title.text for n in ("", "2")] == [
        f"Fréchet distance, seen by {judge}" for judge in CHANCE
    ]
    assert "n = 32 concepts of the demo atlas x 4 images" in figure.layout.title.subtitle.text


def test_on_a_phone_the_panels_stand_below_each_other():
    narrow = distance_diversity(rows(plain=(1, 2)), CHANCE, concepts=1, count=4).layout.meta["narrow"]
    assert narrow["xaxis"]["domain"] == narrow["xaxis2"]["domain"] == [0, 1]
    assert narrow["yaxis"]["domain"][0] > narrow["yaxis2"]["domain"][1] + 0.1 and narrow["yaxis2"]["domain"][0] == 0


def test_the_sentence_names_whoever_is_lowest_and_by_how_much():
    said = nearest(rows(plain=(0.75, 0.5), maco=(1.0, 0.4)), 32)
    assert said == (
        "Lowest Fréchet distance by the encoder: plain (0.750), 0.250 or 25 % below the next, maco (1.000); it reached "
        "the target for 30 of 32 concepts. Lowest Fréchet distance by DINOv2: maco (0.400), 0.100 or 20 % below the "
        "next, plain (0.500); it reached the target for 30 of 32 concepts."
    )
    figure = distance_diversity(rows(plain=(0.75, 0.5), maco=(1.0, 0.4)), CHANCE, concepts=32, count=4)
    assert figure.layout.meta["how"].startswith(said)


@pytest.mark.parametrize("other", [{}, {"maco": (float("nan"), float("nan"))}])
def test_a_method_without_a_rival_is_only_named(other):
    said = nearest(rows(plain=(0.75, 0.5), **other), 32)
    assert "by the encoder: plain (0.750); it reached" in said and "next" not in said and "nan" not in said


def random_table(columns, rows: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({column: rng.random(rows) for column in columns})


def test_a_sweep_has_a_panel_per_number_with_standard_errors_and_the_best_real_images():
    rows = random_table(["score_error", *(panel.column for panel in STRENGTH_PANELS)]).assign(strength=[0.0, 0.2, 0.8])
    rows.loc[2, "score"] = math.nan
    figure = strength_curves(rows, best=0.25, **SAID)
    for panel, line in zip(STRENGTH_PANELS, figure.data, strict=True):
        assert list(line.x) == [0, 0.2, 0.8]
        np.testing.assert_array_equal(line.y, rows[panel.column])
    np.testing.assert_array_equal(figure.data[0].error_y.array, rows["score_error"])
    assert [shape.y0 for shape in figure.layout.shapes] == [0.25]
    assert "star · 50" in figure.layout.title.text and figure.layout.title.subtitle.text == SAID["subtitle"]
    assert len(figure.layout.meta["how"]) > 30


def test_levels_show_every_sample_beside_its_real_image_and_where_they_were_aimed():
    rows = random_table(panel.column for panel in LEVEL_PANELS).assign(
        share=[0.0, 0.5, 1.0], target=[math.nan, 0.2, 0.4]
    )
    samples = random_table(["score", "real_score"], 6).assign(
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
    for panel, line in zip(LEVEL_PANELS, lines, strict=True):
        np.testing.assert_array_equal(line.y, rows[panel.column])
    single = level_strips(rows.iloc[2:], samples.iloc[4:], **SAID)
    assert np.isfinite(single.data[1].x).all() and len(figure.layout.meta["how"]) > 30


def test_neurons_are_bars_in_the_table_s_order_and_the_concept_stands_out():
    rows = random_table(column for column in NEURON_PANELS)
    rows = rows.assign(name=["concept 50", "neuron 3+", "neuron 9-"], chosen_by=["", "atom, map", "map"])
    figure = neuron_bars(rows, **SAID)
    assert [list(bars.x) for bars in figure.data] == [list(rows[column]) for column in NEURON_PANELS]
    assert list(figure.data[0].y) == ["concept 50", "neuron 3+ (atom, map)", "neuron 9- (map)"]
    first, *others = figure.data[0].marker.color
    assert first not in others and len(set(others)) == 1 and figure.layout.yaxis.autorange == "reversed"


@pytest.mark.parametrize(("count", "titled"), [(1, [0]), (3, [1, 2]), (4, [2, 3])])
def test_the_axis_is_named_below_the_lowest_panel_of_each_column(count, titled):
    panels = [Panel("y", f"panel {number}", "#000000") for number in range(count)]
    figure = panel_curves(pd.DataFrame({"x": [0, 1], "y": [1, 2]}), "x", panels, columns=2, axis="push", hover="p")
    axes = [figure.layout[f"xaxis{number + 1 if number else ''}"].title.text for number in range(count)]
    assert [number for number, title in enumerate(axes) if title == "push"] == titled
