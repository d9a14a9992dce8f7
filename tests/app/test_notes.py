"""Stars, notes and kept selections on the pages."""

import shutil

import pytest

from engine.atlas.notes import ConceptNote, Notes
from tests.app.test_pages import html, opened, url


@pytest.fixture
def own(plain_atlas, tmp_path, use_atlas):
    path = shutil.copytree(plain_atlas, tmp_path / "atlas")
    use_atlas(path)
    return path


def button(app, label: str):
    return next(one for one in app.button if one.label == label)


def test_a_concept_is_starred_and_noted_and_the_starred_are_a_selection(own):
    app = opened("concept_map", concept="5")
    button(app, "Star").click().run()
    assert Notes(own).starred() == [5]
    app.text_area[0].set_value("<b>round</b> and flat")
    button(app, "Save").click().run()
    assert Notes(own).concept(5) == ConceptNote(True, "<b>round</b> and flat")
    shown = html(app)
    assert '<blockquote class="ba-quoted">&lt;b&gt;round&lt;/b&gt; and flat' in shown and not app.exception
    button(app, "Starred (1)").click().run()
    assert "ids" in url(app) and "The concept" in [one.value for one in app.header]
    button(app, "Starred").click().run()
    assert Notes(own).starred() == [] and Notes(own).concept(5).note


def test_a_selection_is_kept_opened_on_another_page_and_forgotten(own):
    app = opened("concept_map", status="suppressed", model="beta")
    app.text_input(key="w_keep_name").set_value("lost in *beta*")
    button(app, "Keep").click().run()
    assert Notes(own).selections() == {"lost in *beta*": "model=beta&status=suppressed"}
    other = opened("blindspots")
    button(other, r"lost in \*beta\*").click().run()
    assert url(other)["status"] == "suppressed" and url(other)["model"] == "beta"
    button(other, "Forget").click().run()
    assert Notes(own).selections() == {}


def test_notes_that_cannot_be_read_are_one_sentence_and_the_card_stays(own):
    Notes(own).path.write_bytes(b"no database" * 200)
    app = opened("concept_map", concept="5")
    assert any("no file of notes" in error.value for error in app.error) and "Concept 5" in html(app)
