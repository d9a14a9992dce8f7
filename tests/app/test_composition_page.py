"""The page of compositions: curves and spectra by URL, changed pairs with their counts, scalar metrics."""

import shutil

import numpy as np
import pandas as pd
import pytest

from engine.atlas import Atlas
from engine.atlas.schema import HALVES
from engine.blindspots.spectrum import Spectrum, eigenvector_similarity
from engine.reports.composition import changed_pairs, significance_sentence
from pages.widgets.reports import find_report
from pages.widgets.session import View
from tests.app.test_pages import html, opened, url

PAGE = "composition"


@pytest.fixture
def atlas(use_atlas, analysed_atlas) -> Atlas:
    use_atlas(analysed_atlas)
    return Atlas.open(analysed_atlas)


def test_changed_pairs_are_listed_with_counts_and_both_concepts_lead_to_their_cards(atlas):
    rows, shown = atlas.changes("beta"), html(opened(PAGE, model="beta"))
    row = rows.iloc[rows["p_adjusted"].to_numpy().argmin()]
    first, second = (f'href="concept_map?model=beta&concept={row[side]}"' for side in ("first", "second"))
    assert first in shown and second in shown and shown.count(" adjusted</small>") == min(12, len(rows))
    assert f"{row['real_tokens']:,} → {row['model_tokens']:,} tokens" in shown
    assert f"{row['real_images']:,} → {row['model_images']:,} images" in shown


def test_the_ratio_counts_tokens_per_image(atlas):
    rows = changed_pairs(atlas, "beta")
    sides = [
        rows[f"{side}_tokens"] / atlas.info.source(name).images for side, name in (("real", "real"), ("model", "beta"))
    ]
    seen = rows["real_tokens"] > 0
    np.testing.assert_allclose(rows["ratio"][seen], (sides[1] / sides[0])[seen])
    assert np.isinf(rows["ratio"][~seen]).all()


def test_significant_pairs_come_first_and_the_page_says_how_many_there_are(atlas):
    rows, shown = changed_pairs(atlas, "beta"), html(opened(PAGE, model="beta"))
    assert rows["significant"].is_monotonic_decreasing and significance_sentence(rows) in shown
    assert (rows["significant"] == (rows["p_adjusted"] < 0.05)).all()
    none, some = (significance_sentence(pd.DataFrame({"significant": [flag, False]})) for flag in (False, True))
    assert none == "None of these 2 pairs is significant (adjusted p < 0.05): chance alone does as much."
    assert some.startswith("1 of these 2 pairs are significant")
    subtitle = find_report("changed-pairs", View("beta")).report.figure.layout.title.subtitle.text
    assert f"{rows.head(16)['significant'].sum()} of these {min(16, len(rows))} pairs are significant" in subtitle


def test_directions_are_the_engine_s(atlas):
    real, model = (atlas.composition(name) for name in ("real", "beta"))
    found = eigenvector_similarity(*(Spectrum(one.eigenvalues, one.eigenvectors) for one in (real, model)))
    table = find_report("directions", View("beta")).report.table.set_index(["real_rank", "model_rank"])["cosine"]
    assert table[2, 3] == pytest.approx(found[1, 2], abs=1e-6) and len(table) == found.size


def test_curves_carry_every_source_and_what_chance_makes_of_it(atlas):
    real, table = atlas.composition("real"), find_report("unique-connections", View("alpha")).report.table
    assert list(table) == ["threshold", "alpha", "beta", HALVES]
    np.testing.assert_array_equal(table[HALVES], real.reference)
    spectrum = find_report("spectrum", View("alpha")).report.table
    np.testing.assert_allclose(spectrum["real"], real.eigenvalues / real.images)


def test_metrics_of_both_spaces_stand_beside_those_of_the_real_halves(atlas):
    shown, metrics = html(opened(PAGE)), atlas.metrics().set_index(["space", "model"])
    assert shown.count(f"<b>{HALVES}</b>") == 2
    for space in ("encoder", "concepts"):
        fid = metrics.loc[(space, "beta"), "fid"]
        assert (f"<td>{fid:,.0f}</td>" if fid >= 1000 else f"<td>{fid:.3g}</td>") in shown
    assert 'href="blindspots?"' in shown


def test_the_model_goes_into_the_url(atlas):
    app = opened(PAGE)
    app.segmented_control(key="w_model").set_value("beta").run()
    assert url(app) == {"model": "beta"}


def test_an_atlas_without_composition_says_how_to_get_it(use_atlas, plain_atlas, tmp_path):
    path = shutil.copytree(plain_atlas, tmp_path / "atlas")
    (path / "composition.npz").unlink(missing_ok=True)
    use_atlas(path)
    app = opened(PAGE)
    assert len(app.info) == 1 and "python -m precompute run" in app.info[0].value and html(app) == ""
