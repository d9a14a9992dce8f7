"""Every page on an atlas of published statistics: what it shows, what it leaves out, and no image unasked."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from pages.routes import routes
from pages.widgets import session
from precompute.saediff.importing import import_saediff
from tests.app.serving import ROOT
from tests.app.test_html import HOSTILE, SAFE_TAGS, Elements
from tests.app.test_pages import html, opened, url
from tests.precompute.enriched import CONCEPTS, make_truth, write_all

HOST = "images.example:8080"
PAGES = sorted(path.stem for path in (ROOT / "pages").glob("*.py") if path.stem not in ("__init__", "routes", "shell"))


@pytest.fixture(scope="module")
def published_atlas(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    import_saediff(write_all(folder, make_truth()), folder / "atlas", images_url=f"http://{HOST}/{{model}}")
    return folder / "atlas"


@pytest.fixture(autouse=True)
def published(use_atlas, published_atlas):
    use_atlas(published_atlas)


def words(app: AppTest) -> str:
    kinds = (app.caption, app.info, app.markdown, app.subheader)
    return html(app) + " ".join(str(entry.value) for kind in kinds for entry in kind)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("params", [{}, {"concept": "5", "model": "pixart"}], ids=["bare", "concept"])
def test_every_page_opens_and_links_to_no_image(page, params):
    shown = words(opened(page, **params))
    images = set(re.findall(r"<img[^>]*>", shown))
    own = {image for image in images if page == "samplers" and 'src="/atlas/samplers/' in image}
    assert HOST not in shown and images == own and "nan" not in re.sub(r"<img[^>]*>", "", shown).lower()


def test_overview_says_where_the_numbers_are_from_and_what_is_missing():
    shown = html(opened())
    assert "diff_data_website_sample10k_SD15__enriched.json" in shown and "Not published, so not shown: images" in shown
    assert "n not published" in shown and "q &lt; 0.05" not in shown and "q < 0.05" not in shown
    assert shown.count("Most suppressed") == 2


def test_the_card_shows_published_numbers_neighbours_and_why_nothing_can_be_drawn():
    app = opened("concept_map", concept="5", model="pixart")
    shown = words(app)
    truth = make_truth()
    assert f"{truth.fires[5]:,}" in shown and "not published" in shown
    assert "Fires together with" in shown and "Near on the map" in shown and "Looks alike" not in shown
    assert "nothing can be drawn" in shown and not app.number_input


def test_images_load_only_after_their_host_was_allowed_and_for_the_whole_session():
    app = opened("concept_map", concept="5")
    switch = app.toggle(key="w_linked")
    assert switch.label == f"Load images from {HOST}" and switch.value is False
    shown = html(switch.set_value(True).run())
    assert shown.count('loading="lazy" referrerpolicy="no-referrer"') == 4
    for path in ("sample_1005/original.jpg", "sample_5/ai.jpg", "sample_1005/ai.jpg", "sample_5/original.jpg"):
        assert f'<img src="http://{HOST}/SD15/{path}"' in shown
    app.query_params["concept"] = "6"
    assert f"http://{HOST}/SD15/sample_6/ai.jpg" in html(app.run())
    app.switch_page("overview.py").run()
    app.switch_page("concept_map.py")
    app.query_params["concept"] = "7"
    assert f"http://{HOST}/SD15/sample_7/ai.jpg" in html(app.run())
    assert HOST not in html(app.toggle(key="w_linked").set_value(False).run())
    assert not opened("concept_map", concept="5").toggle(key="w_linked").value


@pytest.mark.parametrize("page", ["overview", "about"])
def test_a_hostile_origin_shows_as_text(use_atlas, published_atlas, tmp_path, page):
    path = Path(shutil.copytree(published_atlas, tmp_path / "atlas"))
    header = json.loads((path / "atlas.json").read_text())
    header["description"] = HOSTILE
    header["origin"]["missing"], header["origin"]["assumed"] = [HOSTILE], {HOSTILE: HOSTILE}
    header["origin"]["files"] = [entry | {"file": HOSTILE} for entry in header["origin"]["files"]]
    (path / "atlas.json").write_text(json.dumps(header))
    use_atlas(path)
    found = Elements("".join(json.loads(one.proto.json).get("html", "") for one in opened(page).get("bidi_component")))
    assert {tag for tag, _ in found.seen} <= SAFE_TAGS and found.text.count(HOSTILE) >= 3
    assert not any(name.startswith("on") for _, attributes in found.seen for name in attributes)


def test_without_links_the_card_says_so(use_atlas, tmp_path):
    import_saediff(write_all(tmp_path, make_truth()), tmp_path / "atlas")
    use_atlas(tmp_path / "atlas")
    app = opened("concept_map", concept="5")
    assert not app.toggle and "No images were linked" in words(app)


def test_a_dead_concept_has_a_card_that_says_so():
    assert "it is not on the map" in words(opened("concept_map", concept=str(CONCEPTS - 1)))


def test_only_estimators_colours_and_filters_that_the_numbers_allow_are_on_offer():
    app = opened("concept_map", estimator="standardised", colour="cluster")
    assert url(app) == {}
    assert app.segmented_control(key="w_estimator").options == ["Gap", "Relative", "Share"]
    assert app.segmented_control(key="w_colour").options == ["Delta", "Relative"]
    assert not [slider for slider in app.select_slider if slider.key in ("w_q", "w_frequency")]


def test_method_lists_the_assumptions():
    shown = words(opened("about"))
    assert "mean energy of the model minus that of the real images (the numbers confirm it)" in shown


def test_compare_has_correlations_and_one_concept_in_every_model():
    shown = html(opened("compare", concept="5"))
    assert "SD15 – pixart" in shown and shown.count("<tr>") == 25 and "intervals were not published" in shown


def test_the_figures_of_the_map_and_the_comparison_are_served():
    known = session.known()
    assert known.colours == session.COLOURS[:2]
    client = TestClient(Starlette(routes=routes()))
    for name in ("map", "maps", "scatter"):
        assert len(client.get(f"/atlas/v/{name}.json?models=SD15,pixart").json()["data"]) > 0
