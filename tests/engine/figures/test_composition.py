import numpy as np
import pandas as pd
import pytest

from engine.figures.composition import changed_cooccurrence, l0_curves, similarity_heat, spectra, unique_shares

IMAGES = {"real": 1000, "sd15": 900}
EPS = np.geomspace(1e-3, 10, 12)
CURVES = pd.DataFrame({"real": 900 / EPS, "sd15": 800 / EPS * (EPS < 5)}, index=EPS)
CHANGES = pd.DataFrame(
    {
        "first": [3, 5], "second": [4, 9], "first_label": ["wheel", None], "second_label": ["car", "car"],
        "real": [0.6, 0.1], "model": [0.2, 0.3], "real_tokens": [5000, 40], "model_tokens": [900, 200],
    }
)  # fmt: skip

FIGURES = {
    "l0": lambda: l0_curves(CURVES, images=IMAGES),
    "unique": lambda: unique_shares(CURVES.clip(upper=1), images={"sd15": 900}),
    "spectra": lambda: spectra(pd.DataFrame({"real": 1 / np.arange(1, 101)}, index=np.arange(1, 101)), images=IMAGES),
    "similarity": lambda: similarity_heat(np.eye(5), 0.9, model="sd15", images=IMAGES),
    "changes": lambda: changed_cooccurrence(CHANGES, model="sd15", images=IMAGES),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_title_units_n_estimator_and_reading_line(name):
    figure = FIGURES[name]()
    assert figure.layout.title.text and len(figure.layout.meta["how"]) > 30
    assert "token-level Z^T Z per image; n = " in figure.layout.title.subtitle.text
    assert "900 sd15 images" in figure.layout.title.subtitle.text
    assert figure.layout.xaxis.title.text


@pytest.mark.parametrize("name", ["l0", "spectra"])
def test_counts_and_eigenvalues_have_log_axes_and_no_zeros(name):
    figure = FIGURES[name]()
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    assert not any((np.asarray(trace.y, float) == 0).any() for trace in figure.data)


def test_changed_pairs_are_named_counted_and_clickable():
    figure = FIGURES["changes"]()
    real, model = figure.data
    assert list(real.y) == ["wheel · 3 + car · 4 (n = 5,000, 900)", "concept 5 + car · 9 (n = 40, 200)"]
    assert np.array_equal(model.customdata, [[3, 4], [5, 9]])
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(0.6, 0.2), (0.1, 0.3)]
    assert model.marker.color[0] != model.marker.color[1]


def test_the_shared_space_is_said_in_the_subtitle():
    assert "90% of its leading space is shared" in FIGURES["similarity"]().layout.title.subtitle.text


def test_on_a_phone_changed_pairs_have_short_names_that_still_differ():
    axis = FIGURES["changes"]().layout.meta["narrow"]["yaxis"]
    assert axis["ticktext"] == ["wheel 3 + car 4", " 5 + car 9"]
    long = changed_cooccurrence(CHANGES.assign(first_label="wooden table, paper"), model="sd15", images=IMAGES)
    assert long.layout.meta["narrow"]["yaxis"]["ticktext"][0] == "wooden t… 3 + car 4"
    assert list(long.data[0].y) == long.layout.meta["narrow"]["yaxis"]["tickvals"]
