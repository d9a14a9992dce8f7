"""Every page through streamlit's own test harness, driven by the URL alone."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from engine.atlas import Atlas
from tests.app.serving import ROOT

SHELL = str(ROOT / "pages" / "shell.py")


def opened(page: str = "overview", **params: str) -> AppTest:
    """Open a page as a link does, in a new session."""
    app = AppTest.from_file(SHELL, default_timeout=120)
    if page != "overview":  # which is what the bare address shows
        app.switch_page(f"{page}.py")
    for name, value in params.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception, [entry.value for entry in app.exception]
    return app


def url(app: AppTest) -> dict[str, str]:
    return {name: value if isinstance(value, str) else value[0] for name, value in app.query_params.items()}


def html(app: AppTest) -> str:
    """All the HTML that the page shows; ampersands, quotes and "less than" as people read them."""
    found = []
    for element in app.get("bidi_component"):
        data = json.loads(element.proto.json) if element.proto.json else {}
        found.append(data.get("html", ""))
    return "".join(found).replace("&amp;", "&").replace("&#39;", "'").replace("&lt; ", "< ")


@pytest.fixture(autouse=True)
def plain(use_atlas, plain_atlas):
    use_atlas(plain_atlas)


def test_overview_says_what_the_atlas_is_and_links_into_the_map():
    shown = html(opened())
    assert "Real scenes" in shown and "dictionary of 48 concepts" in shown
    assert shown.count("Most suppressed") == shown.count("Most exaggerated") == 2
    assert 'href="concept_map?model=beta&concept=' in shown


def test_overview_opens_with_the_most_affected_model_and_links_to_its_concepts():
    atlas = Atlas.open(os.environ["BLINDSPOT_ATLAS"])
    sure = {}
    for model in atlas.models:
        table = atlas.delta(model)
        table = table.loc[~atlas.concepts["dead"].to_numpy() & (table["q"] < 0.05).to_numpy(), "delta"]
        sure[model] = {"suppressed": (table < 0.1).sum(), "exaggerated": (table > 0.9).sum()}
    app = opened()
    most = max(sure, key=lambda model: sum(sure[model].values()))
    assert app.header[0].value.partition(" · ")[0] == most  # its one name, which links and tables have, too
    shown, words = html(app), {"suppressed": "leaves out", "exaggerated": "overdraws"}
    for side, verb in words.items():
        named = [model for model in sure if f"What {model} {verb}" in shown]
        assert all(sure[model][side] for model in named)
        assert len(named) == any(counts[side] for counts in sure.values())
    assert "Where the models differ" in shown


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


def test_a_link_to_what_is_not_there_is_answered_in_one_sentence():
    shown = html(opened("concept_map", model="<b>nope", concept="999"))
    assert (
        "This link asks for model <b>&lt;b&gt;nope</b> and concept <b>999</b>, which this atlas cannot show: "
        "you see model <b>alpha</b> and no chosen concept instead."
    ) in shown
    assert "ba-notice" in html(opened("compare", models="alpha,nobody"))
    assert "ba-notice" not in html(opened("concept_map", model="beta", concept="5"))


def test_the_sentence_leaves_with_the_next_change():
    app = opened("concept_map", model="nope")
    app.segmented_control(key="w_colour").set_value("relative").run()
    assert "ba-notice" not in html(app) and url(app) == {"colour": "relative"}


def test_a_concept_follows_to_pages_that_show_it_and_to_no_other():
    app = opened("concept_map", model="beta", concept="5")
    for page, expected in (
        ("blindspots", {"model": "beta"}), ("overview", {"model": "beta"}),
        ("compare", {"model": "beta", "concept": "5"}),
        ("about", {"model": "beta"}), ("concept_map", {"model": "beta", "concept": "5"}),
    ):  # fmt: skip
        app.query_params.clear()
        app.switch_page(f"{page}.py").run()
        assert url(app) == expected, page


def test_a_closed_concept_is_forgotten():
    app = opened("concept_map", concept="5")
    app.text_input(key="w_text").set_value("7").run()
    app.query_params.clear()
    app.switch_page("compare.py").run()
    assert url(app) == {"text": "7"}


def test_a_link_to_another_page_keeps_estimator_and_thresholds():
    shown = html(opened("blindspots", model="beta", estimator="share", low="0.2"))
    assert 'href="concept_map?model=beta&estimator=share&low=0.2&concept=' in shown


def test_every_listed_concept_shows_its_number_beside_its_label(plain_atlas):
    labels = Atlas.open(plain_atlas).concepts["label"]
    for page in ("overview", "concept_map", "blindspots", "compare", "dictionary"):
        shown = html(opened(page))
        tiles = re.findall(r'class="ba-(?:card|chip|row)[^>]*concept=(\d+)[^>]*>(.*?)</a>', shown)
        assert len(tiles) > 5, page
        for concept, inner in tiles:
            label = labels.at[int(concept)]
            name = f"<span>{label}</span><i>{concept}</i>" if label else f"<span>Concept {concept}</span>"
            assert name in inner, page


def test_overview_says_which_pictures_are_real_and_which_drawn():
    shown = html(opened())
    for model in ("alpha", "beta"):
        assert f"Most exaggerated <small>drawn by {model}</small>" in shown
    assert shown.count("Most suppressed <small>real images</small>") == 2
    assert shown.count("Concepts with q < 0.05 come first") == 2


def test_an_encoder_in_a_folder_has_a_name_a_person_can_use(use_atlas, drawable_atlas):
    assert "blindspot-atlas/synthetic" in html(opened())
    use_atlas(drawable_atlas)
    shown = html(opened())
    assert f"the Dinov2WithRegisters in {drawable_atlas.parent.name}/encoder" in shown and ".." not in shown


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


def test_compare_takes_a_model_as_the_reference():
    app = opened("compare", reference="alpha", concept="5")
    shown = html(app)
    assert "δ in beta" in shown and "δ in alpha" not in shown and "Against alpha: δ near 0 is drawn less" in shown
    assert "in beta against alpha with q < 0.05" in shown and "selection.csv?models=beta&" not in shown
    assert re.search(r"exhibit/selection.csv\?[^\"]*reference=alpha", shown) and '"sort": "q:beta"' in shown
    assert re.search(r"<small>0\.\d\d – [01]\.\d\d, q [<=] ", shown) and '"section class="ba-source"' not in shown
    assert [title for title in ("Real images", "alpha", "beta") if f"<h3>{title}" in shown] == [
        "Real images",
        "alpha",
        "beta",
    ]
    app.selectbox(key="w_reference").set_value("real").run()
    assert url(app) == {"concept": "5"} and "δ in alpha" in html(app)


def test_compare_compares_the_model_that_another_page_showed():
    app = opened("concept_map", model="beta")
    app.query_params.clear()
    app.switch_page("compare.py").run()
    assert app.multiselect(key="w_models").value == ["alpha", "beta"]
    app.selectbox(key="w_reference").set_value("beta").run()
    assert app.multiselect(key="w_models").value == ["alpha"] and "δ in alpha" in html(app)


def test_method_explains_all_four_estimators():
    assert len(opened("about").latex) == 6


def method_rows() -> list[list[str]]:
    rows = re.findall("<tr>(.*?)</tr>", html(opened("about")))
    return [[re.sub("<.*?>", "", cell) for cell in re.findall("<t[dh].*?>(.*?)</t[dh]>", row)] for row in rows]


def test_method_counts_images_captions_pairs_and_what_was_left_out(use_atlas, plain_atlas, tmp_path):
    assert method_rows()[1:] == [
        ["real", "12", "12 of 12", "–", "–", "none"],
        ["alpha", "12", "12 of 12", "12 of 12", "–", "none"],
        ["beta", "12", "12 of 12", "12 of 12", "–", "none"],
    ]
    path = Path(shutil.copytree(plain_atlas, tmp_path / "atlas"))
    header = json.loads((path / "atlas.json").read_text())
    header["sources"][0]["skipped"] = 1234
    header["left_out"] = {"alpha": {"not finite": 3, "by the safety filter": 1}, "beta": {}}
    (path / "atlas.json").write_text(json.dumps(header))
    use_atlas(path)
    assert [row[4:] for row in method_rows()] == [
        ["not finite", "left out"], ["–", "1,234, reasons not recorded"], ["3", "3 not finite; 1 by the safety filter"],
        ["0", "none"],
    ]  # fmt: skip


def test_an_atlas_that_cannot_be_opened_is_one_clear_sentence(use_atlas, tmp_path):
    use_atlas(tmp_path / "nowhere")
    app = AppTest.from_file(SHELL, default_timeout=120).run()
    assert not app.exception and len(app.error) == 1
    assert str(tmp_path / "nowhere") in app.error[0].value


def test_with_a_prior_there_is_a_form_with_the_samplers_defaults(use_atlas, plain_atlas, tmp_path):
    copy = Path(shutil.copytree(plain_atlas, tmp_path / "atlas"))
    header = json.loads((copy / "atlas.json").read_text())
    (copy / "atlas.json").write_text(json.dumps({**header, "prior": {"id": "prior", "kind": "latent", "prompt": ""}}))
    use_atlas(copy)
    app = opened("concept_map", concept="5")
    assert [entry.label for entry in app.number_input] == [
        "Strength",
        "Images",
        "Seed",
        "Steps",
        "Beginnings",
        "Particles",
    ]
    assert app.number_input[1].value == 4
    assert [entry.label for entry in app.selectbox if entry.label == "Prior"] == []


def test_of_several_priors_the_form_offers_a_choice(use_atlas, plain_atlas, tmp_path):
    copy = Path(shutil.copytree(plain_atlas, tmp_path / "atlas"))
    header = json.loads((copy / "atlas.json").read_text())
    priors = {
        "prior": {"id": "prior", "kind": "latent", "prompt": ""},
        "priors": {"pixels": {"id": "p", "kind": "pixel"}},
    }
    (copy / "atlas.json").write_text(json.dumps({**header, **priors}))
    use_atlas(copy)
    offered = next(entry for entry in opened("concept_map", concept="5").selectbox if entry.label == "Prior")
    assert offered.options == ["default", "pixels"] and offered.value == "default"
