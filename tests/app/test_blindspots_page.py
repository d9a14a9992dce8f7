"""The page of the distribution level: its numbers are the engine's, its concepts lead to their cards."""

import numpy as np
import pytest

from engine.atlas import Atlas
from engine.blindspots.distribution import delta_distribution, rank_concepts
from engine.blindspots.universal import shared_blindspots
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


def test_the_ranking_runs_from_both_ends_and_every_concept_leads_to_its_card(plain_atlas):
    atlas, shown = Atlas.open(plain_atlas), html(opened(PAGE, model="beta"))
    table = atlas.delta("beta")
    order = rank_concepts(table["delta"].to_numpy(), table["gap"].to_numpy(), ~atlas.concepts["dead"].to_numpy())
    places = [
        shown.index(f'href="concept_map?model=beta&concept={concept}"') for concept in (*order[:2], *order[::-1][:2])
    ]
    assert places == sorted(places)
    assert f"δ {table['delta'].at[order[0]]:.2f} [{table['ci_low'].at[order[0]]:.2f}" in shown


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
    app = opened(PAGE, concept="5")
    app.segmented_control(key="w_model").set_value("beta").run()
    app.segmented_control(key="w_quantity").set_value("delta").run()
    assert url(app) == {"concept": "5", "model": "beta", "quantity": "delta"}


def test_bad_values_leave_the_url():
    assert url(opened(PAGE, quantity="love", model="nobody", top="9999")) == {}


def test_one_model_is_not_compared(use_atlas, lone_atlas):
    use_atlas(lone_atlas)
    app = opened(PAGE)
    assert "Most suppressed" in html(app) and "Every model" not in html(app)
    assert not any("correlation" in plot for plot in plots(app))
