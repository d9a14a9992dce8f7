import json

import numpy as np
import pandas as pd
import plotly.io
import pytest

from engine.figures.compare import delta_scatter
from engine.figures.distribution import delta_histogram, delta_intervals
from engine.figures.map import LEVELS, REACH, concept_map, maps_height, model_maps, quantise, quantise_positions
from engine.figures.style import Basis

BASIS = Basis("gap", 0.8, 0.1, 0.9, images=1000, paired=True)


def concepts(count: int, dead: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"x": rng.normal(size=count), "y": 3 * rng.normal(size=count), "cluster": rng.integers(-1, 20, count),
         "dead": np.arange(count) < dead, "delta": rng.random(count), "relative": 2 * rng.random(count) - 1,
         "frequency": rng.random(count), "q": rng.random(count) / 4}
    )  # fmt: skip


def figures() -> dict:
    table = concepts(30)
    rows = pd.DataFrame(
        {
            "delta": [0.2, 0.95],
            "ci_low": [0.1, 0.9],
            "ci_high": [0.3, 0.97],
            "q": [0.5, 0.01],
            "energy_real": [1.0, 1.0],
            "energy_model": [0.5, 3.0],
        },
        index=["a", "b"],
    )
    return {
        "map": concept_map(table, model="a", basis=BASIS),
        "maps": model_maps({"a": table, "b": table}, basis=BASIS),
        "scatter": delta_scatter(table, table, names=("a", "b"), basis=BASIS),
        "histogram": delta_histogram(table, model="a", basis=BASIS),
        "intervals": delta_intervals(rows, concept=3, basis=BASIS),
    }


@pytest.mark.parametrize(("name", "figure"), figures().items())
def test_every_figure_says_what_it_is_by_which_estimator_for_how_many_and_how_to_read_it(name, figure):
    assert figure.layout.title.text and len(figure.layout.meta["how"]) > 30
    assert "gap of mean energy, T = 0.8" in figure.layout.title.subtitle.text
    assert "n = 1,000 paired images" in figure.layout.title.subtitle.text


def test_positions_keep_proportions_and_rank_to_a_part_in_thirty_thousand():
    xy = np.random.default_rng(1).normal(size=(500, 2)) * [1, 3] + 7
    quantised = quantise_positions(xy)
    assert quantised.dtype == np.int16 and np.abs(quantised.astype(int)).max() == REACH
    centred = xy - (xy.max(0) + xy.min(0)) / 2
    assert np.allclose(quantised / REACH, centred / np.abs(centred).max(), atol=1 / REACH)


def test_one_point_and_no_points_do_not_break_the_map():
    assert quantise_positions(np.array([[3.0, 4.0]])).tolist() == [[0, 0]]
    assert quantise_positions(np.empty((0, 2))).shape == (0, 2)
    assert len(concept_map(concepts(3, dead=3), model="a", basis=BASIS).data[0].x) == 0


def test_colours_are_delta_to_half_a_percent_and_nan_is_neutral():
    values = np.array([0, 0.1, 0.5, 0.9, 1, np.nan])
    assert np.allclose(quantise(values, 0, 1) / LEVELS, [0, 0.1, 0.5, 0.9, 1, 0.5], atol=0.005)


def test_dead_concepts_are_not_on_the_map_and_every_point_knows_its_concept():
    trace = concept_map(concepts(30, dead=4), model="a", basis=BASIS).data[0]
    assert list(trace.customdata) == list(range(4, 30))


def test_a_paper_sized_map_stays_below_a_megabyte():
    text = plotly.io.to_json(concept_map(concepts(32_000), model="a", basis=BASIS), validate=False)
    assert len(text) < 1_000_000
    assert json.loads(text)["data"][0]["x"]["dtype"] == "i2"


def test_compared_maps_share_their_axes():
    figure = model_maps({name: concepts(9) for name in "abcd"}, basis=BASIS)
    assert all(figure.layout[f"xaxis{i}"].matches == "x" for i in (2, 3, 4))
    assert figure.layout.xaxis.matches is None
    stacked = model_maps({name: concepts(9) for name in "abcd"}, basis=BASIS, columns=1)
    assert stacked.layout.height == maps_height(4, 1) > maps_height(4)
    single = {"a": concepts(9)}
    heights = [model_maps(single, basis=BASIS, columns=columns).layout.height for columns in (None, 1)]
    assert heights == [maps_height(1), maps_height(1, 1)] and heights[0] > heights[1]  # as the page keeps free for it
    assert len({stacked.layout[f"xaxis{i}"].domain for i in (2, 3, 4)} | {stacked.layout.xaxis.domain}) == 1
    with pytest.raises(ValueError, match="one to four"):
        model_maps({name: concepts(9) for name in "abcde"}, basis=BASIS)


def test_the_histogram_counts_every_concept():
    random = np.random.default_rng(2)
    table = pd.DataFrame({"delta": random.random(777), "q": random.random(777) / 2})
    solid, pale = delta_histogram(table, model="a", basis=BASIS).data
    assert sum(solid.y) == (table["q"] < 0.05).sum() and sum(solid.y) + sum(pale.y) == 777
    assert solid.marker.opacity == 1 > pale.marker.opacity
    published = delta_histogram(table.assign(q=np.nan), model="a", basis=BASIS).data
    assert len(published) == 1 and sum(published[0].y) == 777


def test_intervals_reach_from_low_to_high():
    trace = figures()["intervals"].data[0]
    assert np.allclose(trace.x - trace.error_x.arrayminus, [0.9, 0.1])
    assert np.allclose(trace.x + trace.error_x.array, [0.97, 0.3])
