"""The theory page: exact numbers at the URL's mean score, and the samplers as the benchmark measured them."""

import json

import numpy as np
import pytest

from engine.errors import BlindspotError
from engine.klsc.diagnosis import diagnose
from engine.klsc.mixture import AngularConcept, Mixture, score_law
from engine.reports import theory
from pages.widgets import reports
from pages.widgets.reports import find_report
from pages.widgets.session import View
from tests.app.test_pages import html, opened, url

PAGE = "theory"


@pytest.fixture(autouse=True)
def plain(use_atlas, plain_atlas):
    use_atlas(plain_atlas)


def report(target: float, count: int = 1000) -> dict:
    """One mean score as the benchmark prints it."""
    row = {"mean": target + 0.1, "kl_prior": 0.4, "kl_tilt": 0.05}
    filtered = {f"energydps-smc, {n} particles": row | {"filters": count // n, "mean_error": 0.01} for n in (4, 16, 64)}
    last = {"energydps-smc, 256 particles": row | {"filters": count // 256, "kl_tilt": -0.001}}
    plain = {name: row for name in ("energydps at beta", "energydps calibrated", "optimisation")}
    exact = {"mean": target, "kl_prior": 0.3, "kl_tilt": 0.0}
    return {"target": target, "beta": 0.2, "exact tilt": exact, **plain, **filtered, **last,
            "retrieval": row | {"k": 9, "pool": 20}}  # fmt: skip


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Stand in for the measured file."""
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps([report(5.0), report(7.0)]))
    monkeypatch.setattr(theory, "MEASURED", path)
    reports._report.cache_clear()
    yield path
    reports._report.cache_clear()


def test_the_numbers_are_those_of_the_mean_score_in_the_url():
    law, shown = score_law(Mixture(), AngularConcept()), html(opened(PAGE, target="6.5"))
    found = diagnose(law.scores, 6.5, law.log_weights)
    assert f"m' = {found.threshold:.4f}" in shown and f"β = {found.beta:.4f}" in shown
    for biases in (found.hard, found.tilt):
        assert all(f"<td>{value:.4f}</td>" in shown for value in biases)


def test_the_slider_writes_the_url_and_a_bad_target_leaves_it():
    app = opened(PAGE)
    app.slider(key="w_target").set_value(7.0).run()
    assert url(app) == {"target": "7"}
    assert url(opened(PAGE, target="9")) == url(opened(PAGE, target="warm")) == {}


def test_both_laws_on_the_plane_have_the_mass_and_the_mean_that_they_are_said_to_have():
    table = find_report("theory-planes", View("alpha", target=5.0)).report.table
    scores = AngularConcept()(table[["x1", "x2"]].to_numpy())
    assert np.allclose(table[["prior", "threshold", "tilt"]].sum(), 1)
    means = table[["prior", "threshold", "tilt"]].mul(scores, axis=0).sum()
    np.testing.assert_allclose(means, [4, 5, 5], atol=0.02)


def test_the_curves_pass_through_the_exact_values_and_the_tilt_costs_less_kl():
    table = find_report("theory-biases", View("alpha")).report.table.set_index(["law", "target"])
    law = score_law(Mixture(), AngularConcept())
    target = float(theory.CURVE[9])
    exact = diagnose(law.scores, target, law.log_weights)
    np.testing.assert_allclose(table.loc[("tilt", target)][list(exact.tilt._fields)], exact.tilt, atol=1e-4)
    assert (table.loc["tilt"]["kl_prior"] <= table.loc["hard"]["kl_prior"]).all()


def test_speed_is_the_tv_of_a_small_step_over_its_length():
    table = find_report("theory-speeds", View("alpha")).report.table.set_index(["law", "target"])["tv_speed"]
    law, target = score_law(Mixture(), AngularConcept()), float(theory.CURVE[5])
    near = diagnose(law.scores, target, law.log_weights, step=1e-3)
    assert table["hard", target] == pytest.approx(near.hard.tv_step / 1e-3, rel=0.05)
    assert table["tilt", target] == pytest.approx(near.tilt.tv_step / 1e-3, rel=0.01)


def test_samplers_stand_in_a_table_and_a_figure_with_how_they_were_made(measured):
    shown = html(opened(PAGE))
    assert "mean score 5, β 0.2000" in shown and "SMC, 256 particles" in shown and shown.count("<td>7.10</td>") == 8
    assert "<td>-0.0010</td>" in shown and "n = 1,000 samples" in shown and "--json --samples 1000" in shown
    figure = find_report("theory-samplers", View("alpha")).report.figure
    assert [trace.name for trace in figure.data] == ["mean score 5", "mean score 7"]
    assert min(figure.data[0].x) == pytest.approx(1e-4) and "n = 1,000 samples" in figure.layout.title.subtitle.text


@pytest.mark.parametrize("target", [5.0, 6.0, 7.0])
def test_the_measured_samplers_do_what_is_said_of_them(target):
    rows = theory.measured_rows()
    found = rows[rows["target"] == target].set_index("method")
    plain, calibrated = found.loc["EnergyDPS at the tilt's β"], found.loc["EnergyDPS, calibrated"]
    assert plain["mean"] > target + 0.5 and plain["kl_tilt"] > 0.04 and theory.sample_count(rows) == 120_000
    assert calibrated["mean"] == pytest.approx(target, rel=0.01)
    assert calibrated["kl_prior"] < found.loc[["retrieval", "optimisation"], "kl_prior"].min()
    particles = found.loc[[f"SMC, {count} particles" for count in (4, 16, 64, 256)]]
    assert abs(particles["mean"].iloc[2] - target) < 0.3 and abs(particles["mean"].iloc[3] - target) < 0.15
    assert particles["kl_tilt"].iloc[2] < plain["kl_tilt"] / 5 and particles["kl_tilt"].iloc[3] < plain["kl_tilt"] / 10
    assert (particles["kl_tilt"].diff().dropna() < 1e-4).all()


@pytest.mark.parametrize("text", [None, "{", "[{}]", '[{"target": 5, "beta": 1}]'])
def test_samplers_that_were_not_measured_are_one_sentence(measured, text):
    measured.unlink() if text is None else measured.write_text(text)
    with pytest.raises(BlindspotError, match=r"python -m precompute benchmark mixture --json"):
        theory.measured_rows()
    app = opened(PAGE)
    assert not app.exception and any("benchmark mixture" in entry.value for entry in app.info)
