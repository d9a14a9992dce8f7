import numpy as np
import pandas as pd
import pytest

from engine.blindspots.divergence import compare_divergence
from engine.figures.divergence import divergence_histograms, memorisation_scatter, pair_concepts, paired_finding


def histograms():
    rng = np.random.default_rng(0)
    before = rng.gamma(4, 10, 400)
    found = compare_divergence(before, 0.9 * before + rng.normal(0, 1, 400))
    words = paired_finding(found.change, found.low, found.high, found.p, found.effect, found.closer)
    counts = dict(zip(("sd15", "sd15-dpo"), found.counts, strict=True))
    medians = dict(zip(counts, found.medians, strict=True))
    return divergence_histograms(found.edges, counts, medians, finding=words)


def copies():
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"l2": rng.gamma(4, 10, 300), "similarity": rng.random(300), "confirmed": np.arange(300) < 4})
    return memorisation_scatter(table, model="sd15", level=0.01)


def pair():
    rows = pd.DataFrame({"label": ["disc", None], "real": [4.0, 0.0], "model": [0.0, 2.5]}, index=[7, 8])
    return pair_concepts(rows, model="sd15", pair=12, l2=4.7)


@pytest.mark.parametrize("build", [histograms, copies, pair])
def test_every_figure_has_title_unit_n_estimator_and_reading_line(build):
    figure = build()
    assert figure.layout.title.text and len(figure.layout.meta["how"]) > 30
    assert "n = " in figure.layout.title.subtitle.text
    words = figure.layout.title.subtitle.text + figure.layout.xaxis.title.text
    assert "energy" in words and ("l2" in words)


def test_both_models_count_every_pair_over_the_same_bins():
    figure = histograms()
    assert [sum(trace.y) for trace in figure.data] == [400, 400]
    assert "p < 0.0001 (paired t)" in figure.layout.title.subtitle.text
    assert "n = 400 paired images" in figure.layout.title.subtitle.text


def test_the_finding_is_one_line():
    words = paired_finding(-1.5, -2, -1, 0.03, -0.2, 0.61)
    assert words == "change -1.5 [-2, -1], p = 0.03 (paired t), d = -0.20, closer on 61%"


def test_confirmed_copies_are_drawn_apart_and_every_dot_knows_its_pair():
    other, confirmed = copies().data
    assert len(other.x) == 296 and list(confirmed.customdata) == [0, 1, 2, 3]


def test_real_energies_go_left_and_drawn_ones_right():
    real, model = pair().data
    assert list(real.x) == [-4, 0] and list(model.x) == [0, 2.5]
    assert list(real.y) == ["disc · 7", "concept 8"]


def test_a_pair_without_concepts_is_an_empty_figure():
    empty = pd.DataFrame({"label": [], "real": [], "model": []})
    assert len(pair_concepts(empty, model="a", pair=0, l2=0.0).data[0].x) == 0
