"""A folder of atlases: one is shown, the address says which, and data beside the pages is that atlas's own."""

import json
import shutil

import pytest

from engine.atlas import Atlas
from pages.widgets import session, shelf
from pages.widgets.html import asset
from tests.app.serving import serving
from tests.app.test_pages import html, opened, url


@pytest.fixture
def folder(plain_atlas, analysed_atlas, tmp_path, use_atlas):
    for name, path in (("first", plain_atlas), ("second", analysed_atlas)):
        shutil.copytree(path, tmp_path / "atlases" / name)
        header = tmp_path / "atlases" / name / "atlas.json"
        header.write_text(json.dumps(json.loads(header.read_text()) | {"name": f"the {name} one"}))
    (tmp_path / "atlases" / "notes").mkdir()
    (tmp_path / "atlases" / "link").symlink_to(plain_atlas)
    use_atlas(tmp_path / "atlases")
    shelf._below.cache_clear()
    return tmp_path / "atlases"


def test_the_address_and_the_choice_say_which_atlas_is_shown(folder):
    app = opened()
    assert app.selectbox(key="w_atlas").options == ["first", "second"] and url(app)["atlas"] == "first"
    assert "atlas=first" in html(app)
    app.selectbox(key="w_atlas").set_value("second").run()
    shown = html(app)
    assert url(app)["atlas"] == "second" and "atlas=second" in shown and "atlas=first" not in shown
    app.switch_page("concept_map.py").run()
    assert url(app)["atlas"] == "second" and not app.exception


def test_a_link_opens_its_atlas_and_one_to_none_says_so(folder):
    app = opened("concept_map", atlas="second", concept="5")
    assert url(app) == {"atlas": "second", "concept": "5"} and not app.warning
    app = opened(atlas="third")
    assert "There is no atlas third here: you see first" in app.warning[0].value


def test_a_single_atlas_has_no_choice_and_no_parameter(plain_atlas, use_atlas):
    use_atlas(plain_atlas)
    app = opened("concept_map", concept="5")
    assert url(app) == {"concept": "5"} and all(box.key != "w_atlas" for box in app.selectbox)


def test_thumbnails_and_figures_come_from_the_atlas_of_their_address(folder, tmp_path):
    from urllib.request import urlopen

    (tmp_path / "results").mkdir()
    paths = shelf.atlases()
    assert list(paths) == ["first", "second"]
    found = {}
    for name, path in paths.items():
        with shelf.asked(path):
            found[name] = asset("facts.json")
            assert session.atlas().info.name == f"the {name} one"
    assert found["first"] != found["second"]
    with serving(folder, tmp_path / "results") as address:
        for name, path in paths.items():
            known = Atlas.open(path).shown_labels().tolist()
            with urlopen(address + found[name]) as reply:
                assert json.loads(reply.read())["label"] == known
