"""Every page through streamlit's own test harness, driven by the URL alone."""

import json
import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.app.serving import ROOT

SHELL = str(ROOT / "pages" / "shell.py")


def opened(page: str | None = None, **params: str) -> AppTest:
    app = AppTest.from_file(SHELL, default_timeout=30).run()
    if page:
        app.switch_page(f"{page}.py")
        for name, value in params.items():
            app.query_params[name] = value
        app.run()
    assert not app.exception, [entry.value for entry in app.exception]
    return app


def url(app: AppTest) -> dict[str, str]:
    return {name: value if isinstance(value, str) else value[0] for name, value in app.query_params.items()}


def html(app: AppTest) -> str:
    """All the HTML that the live components were given."""
    found = []
    for element in app.get("bidi_component"):
        data = json.loads(element.proto.json) if element.proto.json else {}
        found.append(data.get("html", ""))
    return "".join(found)


@pytest.fixture(autouse=True)
def plain(use_atlas, plain_atlas):
    use_atlas(plain_atlas)


def test_overview_says_what_the_atlas_is_and_links_into_the_map():
    shown = html(opened())
    assert "Real scenes" in shown and "dictionary of 48 concepts" in shown
    assert shown.count("Most suppressed") == shown.count("Most exaggerated") == 2
    assert 'href="concept_map?model=beta&amp;concept=' in shown or 'href="concept_map?model=beta&concept=' in shown


def test_map_without_a_concept_lists_the_top_differences():
    shown = html(opened("concept_map"))
    assert shown.count("ba-card") == 12 and "Neighbours" not in shown


def test_a_deep_link_brings_back_model_concept_and_estimator():
    app = opened("concept_map", model="beta", concept="5", estimator="share")
    shown = html(app)
    assert "Concept 5<" in shown and "energy beta" in shown and "Neighbours" in shown
    assert app.segmented_control(key="w_model").value == "beta"
    assert app.segmented_control(key="w_estimator").value == "share"
    assert url(app) == {"model": "beta", "concept": "5", "estimator": "share"}


def test_bad_values_fall_back_and_leave_the_url():
    app = opened("concept_map", model="nobody", concept="99999", temperature="warm", job="../../etc", colour="red")
    assert url(app) == {}
    assert app.segmented_control(key="w_model").value == "alpha"


def test_changing_the_estimator_takes_its_own_temperature_and_goes_into_the_url():
    app = opened("concept_map", concept="5", temperature="2")
    app.segmented_control(key="w_estimator").set_value("relative").run()
    assert url(app) == {"concept": "5", "estimator": "relative"}
    assert app.slider(key="w_temperature").value == 0.4


def test_filters_narrow_the_list():
    assert "loosen them" in html(opened("concept_map", frequency="1", status="suppressed", q="0"))


def test_search_finds_concepts_by_word_and_by_id():
    assert "try another word" in html(opened("concept_map", text="zzzz"))
    assert "Concept 7:" in html(opened("concept_map", text="7"))


def test_image_details_name_the_image_and_show_every_model():
    shown = html(opened("concept_map", concept="5", image="3"))
    assert "image 3 of real" in shown and "<figcaption>beta</figcaption>" in shown


def test_an_atlas_without_prior_says_so_instead_of_a_form():
    captions = [entry.value for entry in opened("concept_map", concept="5").caption]
    assert any("no diffusion prior" in text for text in captions)


def test_compare_shows_correlations_and_the_largest_differences():
    shown = html(opened("compare", models="alpha,beta", concept="5"))
    assert "alpha – beta" in shown and "Pearson r" in shown and shown.count("<tr>") == 25


def test_method_explains_all_four_estimators():
    assert len(opened("about").latex) == 6


def test_an_atlas_that_cannot_be_opened_is_one_clear_sentence(use_atlas, tmp_path):
    use_atlas(tmp_path / "nowhere")
    app = AppTest.from_file(SHELL, default_timeout=30).run()
    assert not app.exception and len(app.error) == 1
    assert str(tmp_path / "nowhere") in app.error[0].value


def test_with_a_prior_there_is_a_form_with_the_samplers_defaults(use_atlas, plain_atlas, tmp_path):
    copy = Path(shutil.copytree(plain_atlas, tmp_path / "atlas"))
    header = json.loads((copy / "atlas.json").read_text())
    (copy / "atlas.json").write_text(json.dumps({**header, "prior": {"id": "prior", "kind": "latent", "prompt": ""}}))
    use_atlas(copy)
    app = opened("concept_map", concept="5")
    assert [entry.label for entry in app.number_input] == ["Images", "Seed", "Steps", "Strength"]
    assert app.number_input[0].value == 4
