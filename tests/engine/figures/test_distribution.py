import itertools

import numpy as np
import pandas as pd
import pytest

from engine.blindspots.correlation import correlate_models
from engine.blindspots.distribution import delta_distribution, frequency_bands
from engine.figures.compare import correlation_heat, scatter_matrix
from engine.figures.distribution import delta_densities, delta_ranking, frequency_scatter
from engine.figures.style import Basis

BASIS = Basis("gap", 0.8, 0.1, 0.9, images=1000, paired=True)
MODELS = ["sd15", "sd21", "pixart"]
DELTAS = pd.DataFrame(np.random.default_rng(0).beta(0.8, 1, (500, 3)), columns=MODELS)
RANKING = pd.DataFrame(
    {"label": ["disc", None, "disc"], "delta": [0.02, 0.5, 0.97], "ci_low": [0.01, 0.4, 0.9], "ci_high": [0.1, 0.6, 1]},
    index=[7, 8, 9],
)


def densities():
    found = {model: delta_distribution(DELTAS[model]) for model in MODELS}
    table = pd.DataFrame({model: one.density for model, one in found.items()}, index=found["sd15"].centres)
    names = ("concepts", "median", "skewness", "suppressed", "exaggerated")
    summary = pd.DataFrame({model: {name: getattr(one, name) for name in names} for model, one in found.items()}).T
    return delta_densities(table, summary, basis=BASIS)


def correlation():
    found = correlate_models(DELTAS.to_numpy().T, method="spearman")
    parts = [pd.DataFrame(part, MODELS, MODELS) for part in (found.matrix, found.low, found.high)]
    return correlation_heat(*parts, quantity="delta", method="Spearman", concepts=found.concepts, basis=BASIS)


def frequency():
    fires = np.random.default_rng(1).integers(0, 9999, 500)
    found = frequency_bands(fires, DELTAS["sd15"])
    bands = pd.DataFrame(found.bands.T, index=found.centres, columns=["low", "middle", "high"])
    table = pd.DataFrame({"fires": fires, "value": DELTAS["sd15"]})
    return frequency_scatter(table, bands, model="sd15", spearman=found.spearman, basis=BASIS)


FIGURES = {
    "densities": densities,
    "ranking": lambda: delta_ranking(RANKING, model="sd15", basis=BASIS),
    "correlation": correlation,
    "matrix": lambda: scatter_matrix(DELTAS, quantity="delta", basis=BASIS),
    "frequency": frequency,
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_says_what_it_is_by_which_estimator_for_how_many_and_how_to_read_it(name):
    figure = FIGURES[name]()
    assert figure.layout.title.text and len(figure.layout.meta["how"]) > 30
    assert "gap of mean energy, T = 0.8 · n = 1,000 paired images" in figure.layout.title.subtitle.text
    assert figure.layout.xaxis.title.text or name in ("correlation", "matrix")


def test_densities_have_a_log_axis_with_empty_bins_at_its_bottom():
    figure = densities()
    assert figure.layout.yaxis.type == "log" and len(figure.data) == 3
    bottom = 10 ** figure.layout.yaxis.range[0]
    for trace in figure.data:
        drawn, density = np.asarray(trace.y, float), np.asarray(trace.customdata, float).ravel()
        assert density.sum() / 100 == pytest.approx(1)
        np.testing.assert_allclose(drawn, np.where(density > 0, density, bottom))
    assert all(low < high for low, high in itertools.pairwise(figure.layout.yaxis.tickvals))
    assert "skewness" in figure.data[0].hovertemplate and "suppressed" in figure.data[0].hovertemplate


def test_concepts_of_the_same_label_keep_a_row_each():
    trace = FIGURES["ranking"]().data[0]
    assert list(trace.y) == ["disc · 7", "concept 8", "disc · 9"]
    np.testing.assert_allclose(trace.x - trace.error_x.arrayminus, [0.01, 0.4, 0.9])


def test_the_matrix_holds_every_pair_once_and_counts_every_concept():
    figure = FIGURES["matrix"]()
    assert len(figure.data) == 3
    assert all(np.sum(trace.customdata) == 500 for trace in figure.data)
    last_row = [figure.layout[f"xaxis{number}"].title.text for number in (3, 4)]
    assert last_row == ["sd15", "sd21"]
    assert {tuple(axis.tickvals) for axis in figure.select_xaxes()} == {(0.25, 0.75)}
    with pytest.raises(ValueError, match="two or more"):
        scatter_matrix(DELTAS[["sd15"]], quantity="delta", basis=BASIS)


def test_cells_of_the_matrix_lie_where_the_concepts_are():
    one = pd.DataFrame({"a": [0.9], "b": [0.1]})
    trace = scatter_matrix(one, quantity="delta", basis=BASIS).data[0]
    row, column = np.argwhere(np.asarray(trace.customdata) == 1)[0]
    assert trace.x[column] == pytest.approx(0.9, abs=0.02) and trace.y[row] == pytest.approx(0.1, abs=0.02)


def test_the_heat_map_writes_every_interval_but_its_own():
    text = np.array(correlation().data[0].text)
    assert text[0, 0] == "1.00" and "[" in text[0, 1]


def test_concepts_that_never_fire_in_reality_have_no_frequency():
    trace = frequency().data[0]
    assert len(trace.x) == np.count_nonzero(np.random.default_rng(1).integers(0, 9999, 500))
