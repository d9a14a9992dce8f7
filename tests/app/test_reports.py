"""Reports as a browser gets them: figures, and files to take along that say where they come from."""

import io
import json

import pandas as pd
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from engine.atlas import Atlas
from engine.reports import REPORTS, Report, files
from pages.routes import routes
from pages.widgets import session
from pages.widgets.reports import find_report


@pytest.fixture
def client(use_atlas, plain_atlas):
    use_atlas(plain_atlas)
    return TestClient(Starlette(routes=routes()))


def test_a_csv_names_its_atlas_and_its_recipe_and_pandas_reads_it(client, plain_atlas):
    answer, atlas = client.get("/atlas/v/exhibit/delta-ranking.csv?model=beta&estimator=share"), Atlas.open(plain_atlas)
    assert answer.headers["content-disposition"] == 'attachment; filename="delta-ranking_beta_share.csv"'
    assert f"# recipe fingerprint: {files.recipe_fingerprint(atlas)}" in answer.text
    assert "# view: model=beta&estimator=share" in answer.text and "# estimator: share of energy" in answer.text
    table = pd.read_csv(io.StringIO(answer.text), comment="#").set_index("concept")
    assert len(table) == (~atlas.concepts["dead"]).sum() and table["delta"].is_monotonic_increasing
    pd.testing.assert_series_equal(table["delta"], atlas.delta("beta", "share")["delta"].loc[table.index])


def test_an_html_file_needs_no_network_and_carries_the_fingerprint(client, plain_atlas):
    page = client.get("/atlas/v/exhibit/frequency.html").text
    assert f'<meta name="recipe fingerprint" content="{files.recipe_fingerprint(Atlas.open(plain_atlas))}">' in page
    assert "plotly.js v" in page and '<script src="' not in page and "Each dot is a concept" in page


def test_a_label_with_a_hash_survives_the_csv():
    table = pd.DataFrame({"label": ["number # one", 'a "quoted" one'], "delta": [0.1, 0.2]})
    text = files.csv_text(Report("Title", table), {"title": "a\nb"})
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(text), comment="#"), table)


@pytest.mark.parametrize("path", ["nothing.json", "delta-ranking.exe", "shared-blindspots.json", "delta-summary.html"])
def test_what_is_no_report_is_404(client, path: str):
    assert client.get(f"/atlas/v/exhibit/{path}").status_code == 404


def test_every_figure_says_what_it_is_on_what_and_how_to_read_it(use_atlas, analysed_atlas):
    use_atlas(analysed_atlas)
    for name in REPORTS:
        found = find_report(name, session.default_view(session.known(analysed_atlas))).report
        assert found.title and len(found.table)
        if found.figure is not None:
            layout = found.figure.layout
            assert (
                ("n = " in layout.title.subtitle.text or name.startswith("dictionary-"))
                and layout.meta["how"]
                and layout.height
            )
            axes = [axis for axis in layout.to_plotly_json() if axis.startswith(("xaxis", "yaxis"))]
            assert axes and json.dumps(found.figure.to_plotly_json(), default=str)
