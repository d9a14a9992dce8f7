"""The page of the distribution level: its numbers are the engine's, its concepts lead to their cards."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from engine.atlas import Atlas
from engine.blindspots.distribution import delta_distribution, shared_blindspots
from engine.figures.tables import most_different
from engine.reports.concepts import group_members, ranking_ends
from pages.widgets import session
from pages.widgets.reports import find_report
from tests.app.conftest import DEMO
from tests.app.test_pages import html, opened, url
from tests.synthetic import build_synthetic_atlas

PAGE = "blindspots"


@pytest.fixture(scope="session")
def lone_atlas(tmp_path_factory):
    """One model, which is too few to compare."""
    return build_synthetic_atlas(tmp_path_factory.mktemp("lone") / "atlas", concepts=48, pairs=6, models=["alpha"])


@pytest.fixture(autouse=True)
def plain(use_atlas, plain_atlas):
    use_atlas(plain_atlas)


def plots(app) -> list[str]:
    return [element.proto.json for element in app.get("bidi_component") if "exhibit/" in element.proto.json]


def test_the_numbers_of_every_model_are_the_engine_s(plain_atlas):
    atlas, shown = Atlas.open(plain_atlas), html(opened(PAGE))
    live = ~atlas.concepts["dead"].to_numpy()
    for model in atlas.models:
        found = delta_distribution(atlas.delta(model)["delta"].to_numpy(), live)
        assert f"<td>{found.skewness:+.2f}</td>" in shown
    assert f"of {live.sum()}</td>" in shown and "n = 12 paired images" in shown


def test_the_ranking_runs_from_both_ends_certain_ones_first_and_every_concept_leads_to_its_card(use_atlas):
    use_atlas(DEMO)
    atlas, shown = Atlas.open(DEMO), html(opened(PAGE, model="woody"))
    table = atlas.delta("woody").join(atlas.concepts["dead"])
    low, high = (most_different(table, side, 2) for side in ("suppressed", "exaggerated"))
    order = [*low.index, *high.index]
    places = [shown.index(f'href="concept_map?model=woody&concept={concept}"') for concept in order]
    assert places == sorted(places) and "Concepts with q < 0.05 come first" in shown
    assert f"δ {low['delta'].iloc[0]:.2f} [{low['ci_low'].iloc[0]:.2f}" in shown
    assert "Most suppressed <small>real images" in shown and "Most exaggerated <small>drawn by woody" in shown


@pytest.mark.parametrize("model", ["base", "woody"])
def test_the_figure_of_the_ranking_holds_both_lists_and_says_how_many_are_certain(use_atlas, model):
    use_atlas(DEMO)
    table, view = Atlas.open(DEMO).delta(model), replace(session.default_view(session.known(DEMO)), model=model)
    sides = ranking_ends(Atlas.open(DEMO), view, 12)
    figure = find_report("delta-ranking", view).report.figure
    shown, certain = list(figure.data[0].customdata), set(table.index[table["q"] < 0.05])
    assert set(shown) == set(sides["suppressed"].index) | set(sides["exaggerated"].index)
    assert table["delta"].loc[shown].is_monotonic_increasing
    assert f"{len(certain & set(shown))} of these {len(shown)} have q < 0.05" in figure.layout.title.subtitle.text
    for side in sides.values():
        firm = [concept in certain for concept in side.index]
        assert firm == sorted(firm, reverse=True)


def test_every_figure_is_fetched_by_its_url_with_the_view_in_it():
    shown = "".join(plots(opened(PAGE, model="beta", estimator="share", quantity="delta")))
    assert "exhibit/delta-ranking.json?model=beta&estimator=share" in shown
    assert "exhibit/frequency.json?model=beta" in shown
    assert "exhibit/correlation-spearman.json?estimator=share&quantity=delta" in shown
    assert "exhibit/delta-densities.json?estimator=share" in shown and "exhibit/scatter-matrix.json" in shown


def test_universal_and_specific_blindspots_are_counted(plain_atlas):
    atlas, shown = Atlas.open(plain_atlas), html(opened(PAGE))
    deltas = np.stack([atlas.delta(model)["delta"].to_numpy() for model in atlas.models])
    found = shared_blindspots(deltas, ~atlas.concepts["dead"].to_numpy())
    groups = shown.split('<section class="ba-group">')[1:]
    for group, row in zip(groups, (found.universal, *found.specific), strict=True):
        assert f"{(row < 0).sum()} suppressed" in group and f"{(row > 0).sum()} exaggerated" in group


def test_changing_the_model_and_the_quantity_goes_into_the_url():
    app = opened(PAGE)
    app.segmented_control(key="w_model").set_value("beta").run()
    app.segmented_control(key="w_quantity").set_value("delta").run()
    assert url(app) == {"model": "beta", "quantity": "delta"}


def test_the_margin_is_a_slider_and_those_that_miss_it_are_counted(plain_atlas):
    atlas, app = Atlas.open(plain_atlas), opened(PAGE, margin="0.4")
    live = ~atlas.concepts["dead"].to_numpy()
    deltas = np.stack([atlas.delta(model)["delta"].to_numpy() for model in atlas.models])
    strict, loose = (shared_blindspots(deltas, live, margin=margin).specific for margin in (0.4, 0.0))
    groups = html(app).split('<section class="ba-group">')[2:]
    assert (strict != loose).any()
    for group, kept, all_of_them in zip(groups, strict, loose, strict=True):
        for sign in (-1, 1):
            missed = int((all_of_them == sign).sum() - (kept == sign).sum())
            assert (f" · {missed:,} more with a margin of 0" in group) or not missed
    assert app.slider(key="w_margin").value == 0.4 and "at least 0.4 inside the threshold" in html(app)
    app.slider(key="w_margin").set_value(0.0).run()
    assert url(app) == {"margin": "0"} and "more with a margin" not in html(app)


def test_a_group_lists_its_certain_concepts_first():
    rows = pd.DataFrame({"specific to a": [-1, -1, -1, 1], "delta of a": [0.01, 0.09, 0.05, 0.99],
                         "q of a": [0.7, 0.01, 0.02, 0.001]})  # fmt: skip
    found = group_members(rows, "specific to a", -1, ["a"])
    assert found.index.tolist() == [2, 1, 0] and found["sure"].tolist() == [True, True, False]
    assert group_members(rows.assign(universal=0), "universal", -1, ["a"]).empty


def test_bad_values_leave_the_url():
    assert url(opened(PAGE, quantity="love", model="nobody", top="9999")) == {}


def test_one_model_is_not_compared(use_atlas, lone_atlas):
    use_atlas(lone_atlas)
    app = opened(PAGE)
    assert "Most suppressed" in html(app) and "Every model" not in html(app)
    assert not any("correlation" in plot for plot in plots(app))
