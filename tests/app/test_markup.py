from html.parser import HTMLParser

import pytest

from pages.widgets import lists, markup
from pages.widgets.live import link
from pages.widgets.markup import Fit


class Elements(HTMLParser):
    """The tags and attributes that a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", "\"' onload=x", "<img src=x onerror=y>"])
def test_what_comes_from_an_atlas_cannot_become_markup(evil: str):
    text = markup.tags([evil]) + markup.picture("/a.webp", Fit(), alt=evil) + link({"text": evil}, "x", title=evil)
    seen = Elements(text).seen
    assert [tag for tag, _ in seen] == ["span", "span", "img", "a"]
    assert not any(name.startswith("on") for _, attributes in seen for name in attributes)
    assert seen[2][1]["alt"] == evil and seen[3][1]["title"] == evil


def test_a_link_is_a_deep_link_and_a_change():
    ((_, attributes),) = Elements(link({"concept": 5, "image": None}, "x", page="concept_map")).seen
    assert attributes["href"] == "concept_map?concept=5"
    assert attributes["data-go"] == '{"concept": 5, "image": null, "page": "concept_map"}'


def test_numbers_are_short_and_honest():
    assert [markup.number(value) for value in (0, 1234.5678, 0.00002, float("nan"))] == [
        "0.000",
        "1,234.568",
        "2.0e-05",
        "–",
    ]
    assert [markup.percent(share) for share in (0, 0.0004, 0.055, 0.5, 1)] == [
        "0 %",
        "0.04 %",
        "5.5 %",
        "50 %",
        "100 %",
    ]


def test_a_badge_says_the_status_in_a_word_not_only_in_colour():
    assert [word in markup.badge(delta, 0.1, 0.9) for delta, word in ((0.05, "suppressed"), (0.5, "between"))] == [
        True
    ] * 2
    assert "exaggerated" in markup.badge(0.95, 0.1, 0.9)


def test_a_heat_map_covers_what_the_encoder_saw():
    square = Elements(markup.picture("/a.webp", Fit(aspect=2.0), heat=(0, 1))).seen
    assert square[1][1]["style"] == "width:200.00%;height:100.00%;left:-50.00%;top:0.00%"
    assert square[2][1]["style"].startswith(square[1][1]["style"])
    cropped = Elements(markup.picture("/a.webp", Fit(aspect=2.0, crop=0.875), heat=(1, 3))).seen
    assert cropped[2][1]["style"].startswith("inset:6.25%;background-size:100% 300%;background-position:0 50.000%")


def test_an_empty_list_says_what_to_do(use_atlas, plain_atlas):
    use_atlas(plain_atlas)
    from pages.widgets import data, state

    view = state.default_view(data.known(data.atlas_path()))
    assert "loosen" in lists.grid(data.table(view).head(0), view)
