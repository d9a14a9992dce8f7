"""What an atlas says is shown as text wherever it stands; pieces of HTML say what they should."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from engine.atlas import Atlas
from pages.widgets import html, session
from pages.widgets.html import Fit, number, percent, plain, render
from tests.app.test_pages import opened

EVIL = ["<script>alert(1)</script>", "\"' onload=x", "<img src=x onerror=y>"]
HOSTILE = "<b onclick=x>![p](http://evil.example/p.png) `*_"
TAGS = (
    "a b br code div figcaption figure h2 h3 i img input label li nav p section small span strong table tbody td th "
    "thead tr u ul"
)
SAFE_TAGS = set(TAGS.split())


class Elements(HTMLParser):
    """The tags and attributes that a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def link(go: dict, **values: object) -> str:
    return render("parts.link", go=go, caller=lambda: "x", **values)


@pytest.mark.parametrize("evil", EVIL)
def test_what_comes_from_an_atlas_cannot_become_markup(evil: str):
    text = render("parts.note", text=evil) + render("parts.picture", src="/a.webp", fit=Fit(), alt=evil)
    seen = Elements(text + link({"text": evil}, title=evil)).seen
    assert [tag for tag, _ in seen] == ["p", "span", "img", "a"]
    assert not any(name.startswith("on") for _, attributes in seen for name in attributes)
    assert seen[2][1]["alt"] == evil and seen[3][1]["title"] == evil
    assert json.loads(seen[3][1]["data-go"]) == {"text": evil}


@pytest.fixture(scope="module")
def hostile_atlas(plain_atlas, tmp_path_factory) -> Path:
    """An atlas whose header holds markup wherever it may hold text."""
    path = Path(shutil.copytree(plain_atlas, tmp_path_factory.mktemp("hostile") / "atlas"))
    header = json.loads((path / "atlas.json").read_text())
    header |= {"name": HOSTILE, "description": HOSTILE}
    header["encoder"] |= {"id": HOSTILE, "layer": HOSTILE}
    header["dictionary"] |= {"kind": HOSTILE}
    for source in header["sources"]:
        source |= {"label": HOSTILE, "pairing": HOSTILE if source["kind"] == "model" else source.get("pairing")}
    (path / "atlas.json").write_text(json.dumps(header))
    Atlas.open(path)
    return path


@pytest.mark.parametrize("page", ["overview", "dictionary", "about", "concept_map"])
def test_a_hostile_header_shows_as_text(use_atlas, hostile_atlas, page):
    use_atlas(hostile_atlas)
    app = opened(page)
    shown = "".join(
        json.loads(element.proto.json).get("html", "") for element in app.get("bidi_component") if element.proto.json
    )
    found = Elements(shown)
    assert {tag for tag, _ in found.seen} <= SAFE_TAGS
    assert not any(name.startswith("on") for _, attributes in found.seen for name in attributes)
    assert HOSTILE in found.text or page in ("about", "concept_map")
    markdown = "".join(str(entry.value) for kind in (app.title, app.header, app.subheader) for entry in kind)
    assert "![" not in markdown and "<b" not in markdown.replace("\\<b", "")
    if page == "overview":
        assert app.title[0].value == plain(HOSTILE)


def test_text_of_an_atlas_cannot_become_markdown():
    assert plain("![x](y) *a* _b_ c_d `e`") == r"!\[x\](y) \*a\* \_b\_ c_d \`e\`"
    assert plain("run `a *b* [c]` for *d*", code=True) == r"run `a *b* [c]` for \*d\*"


def test_a_link_is_a_deep_link_and_a_change():
    ((_, attributes),) = Elements(link({"concept": 5, "image": None}, page="concept_map")).seen
    assert attributes["href"] == "concept_map?concept=5"
    assert attributes["data-go"] == '{"concept": 5, "image": null, "page": "concept_map"}'


def test_numbers_are_short_and_honest():
    assert [number(value) for value in (0, 1234.5678, 0.00002, float("nan"))] == ["0.000", "1,234.568", "2.0e-05", "–"]
    shares = [percent(share) for share in (0, 0.0004, 0.055, 0.5, 1)]
    assert shares == ["0 %", "0.04 %", "5.5 %", "50 %", "100 %"]


def test_a_badge_says_the_status_in_a_word_not_only_in_colour():
    words = ((0.05, "suppressed"), (0.5, "between"), (0.95, "exaggerated"))
    assert all(word in render("parts.badge", delta=delta, low=0.1, high=0.9) for delta, word in words)


def test_a_heat_map_covers_what_the_encoder_saw():
    square = Elements(render("parts.picture", src="/a.webp", fit=Fit(aspect=2.0), heat=(0, 1))).seen
    assert square[1][1]["style"] == "width:200.00%;height:100.00%;left:-50.00%;top:0.00%"
    assert square[2][1]["style"].startswith(square[1][1]["style"])
    cropped = Elements(render("parts.picture", src="/a.webp", fit=Fit(aspect=2.0, crop=0.875), heat=(1, 3))).seen
    assert cropped[2][1]["style"].startswith("inset:6.25%;background-size:100% 300%;background-position:0 50.000%")


def test_a_line_break_in_a_template_is_nothing_between_tags_and_one_space_elsewhere():
    template = html.environment.from_string("<p>\n  {{ a }}\n  <b>\n two\n words</b>\n and\n</p>")
    assert template.render(a="x") == "<p>x<b> two words</b> and </p>"


def test_an_empty_list_says_what_to_do(use_atlas, plain_atlas):
    use_atlas(plain_atlas)
    view = session.default_view(session.known())
    assert "loosen" in render("concepts.top", rows=session.table(view).head(0), view=view)
