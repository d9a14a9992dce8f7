"""The registry of figures and tables: what a notebook gets without the app."""

import pytest

from engine.blindspots.delta import ESTIMATORS
from engine.errors import BlindspotError
from engine.reports import REPORTS, ReportView, report, report_names


def test_every_name_that_an_atlas_supports_can_be_drawn_and_every_other_is_one_sentence(atlas):
    names = report_names(atlas)
    assert {"map", "maps", "delta-ranking", "frequency", "scatter-matrix"} <= set(names)
    assert not {"divergence", "connections", "metrics"} & set(names)
    for name in REPORTS:
        if name in names:
            assert report(atlas, name).title
        else:
            with pytest.raises(BlindspotError):
                report(atlas, name)


def test_parameters_are_the_atlas_s_own_until_they_are_named(atlas):
    named = report(atlas, "delta-ranking", model=atlas.models[1], low=0.2, high=0.8)
    assert named.figure.layout.title.text.startswith(f"{atlas.models[1]}:") and named.figure.layout.shapes[0].x0 == 0.2
    own = report(atlas, "delta-ranking")
    assert own.figure.layout.title.text.startswith(f"{atlas.models[0]}:")
    view = ReportView.of(atlas, model=atlas.models[1])
    assert report(atlas, "delta-ranking", view, low=0.2, high=0.8).table.equals(named.table)


def test_another_estimator_brings_its_own_temperature(atlas):
    view = ReportView.of(atlas, estimator="relative")
    assert view.temperature == ESTIMATORS["relative"].temperature != ReportView.of(atlas).temperature
    assert ReportView.of(atlas, estimator="relative", temperature=3.0).temperature == 3.0


def test_an_unknown_name_is_answered_with_the_known_ones(atlas):
    with pytest.raises(BlindspotError, match=r"no report 'rankings': choose one of .*delta-ranking"):
        report(atlas, "rankings")
