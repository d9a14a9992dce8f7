"""The Ratings page in a real browser: two raters, one of whom closes the tab and goes on, and nothing that unblinds."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from engine.ratings.store import Group, Item, RatingStudy, create_study, studies_folder
from tests.app.serving import serving

pytestmark = pytest.mark.browser
METHODS = ("zebra-guidance", "yonder-optimisation")
"""Names that no library of the page can hold by chance."""
MARKUP = '<img src=x onerror="window.evil=1"> <b>bold</b>'


def webp(shade: int) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (64, 64), (shade, 90, 160)).save(written, "WEBP")
    return written.getvalue()


@pytest.fixture(scope="module")
def rated(plain_atlas, tmp_path_factory):
    """The app on an atlas with a study of three concepts by two methods, and one of listed concepts."""
    root = tmp_path_factory.mktemp("rated")
    atlas = Path(shutil.copytree(plain_atlas, root / "atlas"))
    items = [
        Item(f"unit{place // 2}", (Group(METHODS[place % 2], "concept"),), {}, {}, webp(40 * place))
        for place in range(6)
    ]
    grids = create_study(studies_folder(atlas) / "grids.sqlite", "interpretability", items, {}, seed=1)
    listed = {"concepts": [{"label": MARKUP, "strength": 1.0}, {"label": "grass", "strength": 0.5}]}
    item = Item("image 1", (Group("zebra-model", "drawn"),), listed, {"concepts": [3, 4]}, webp(10))
    lists = create_study(studies_folder(atlas) / "lists.sqlite", "errors", [item], {})
    (root / "results").mkdir()
    with serving(atlas, root / "results") as address:
        yield address, grids, lists


class Tab:
    """A tab that keeps everything that the server sends to it."""

    def __init__(self, context) -> None:
        self.context, self.page, self.sent = context, context.new_page(), []
        self.page.on("response", self._keep)
        self.page.on("websocket", lambda socket: socket.on("framereceived", self._frame))

    def _keep(self, response) -> None:
        self.sent.append(f"{response.url} {response.headers}".encode())
        if response.status == 200 and "/static/" not in response.url:  # streamlit's own scripts, which know no study
            self.sent.append(response.body())

    def _frame(self, payload) -> None:
        self.sent.append(payload if isinstance(payload, bytes) else str(payload).encode())

    def begin(self, address: str, study: str, name: str) -> None:
        self.page.goto(f"{address}/ratings?study={study}")
        self.page.get_by_label("Your name").fill(name)
        self.page.get_by_role("button", name="Begin").click()
        self.page.wait_for_selector(".ba-item")

    def item(self) -> str:
        return self.page.get_attribute(".ba-item img", "data-token")

    def leave(self, before: str) -> None:
        """Wait until another item is shown, or none."""
        self.page.wait_for_function(
            "before => document.querySelector('.ba-item img')?.dataset.token !== before", arg=before
        )

    def score(self, key: str, words: str = "") -> str:
        """Rate by the keyboard alone; return the item."""
        token = self.item()
        self.page.keyboard.press(key)
        self.page.keyboard.type(words)
        self.page.keyboard.press("Enter")
        self.leave(token)
        return token

    def told(self, *words: str) -> list[str]:
        return [word for word in words for part in self.sent if word.encode() in part]


def values(study: RatingStudy, rater: str) -> dict[str, tuple]:
    frame = study.ratings()
    rows = frame[frame["rater"] == rater]
    return {row.token: (row.value, row.note) for row in rows.itertuples()}


def test_two_raters_stay_blind_to_the_end_and_one_goes_on_after_closing_the_tab(rated, desktop):
    address, study, _ = rated
    ann, bo = Tab(desktop), Tab(desktop)
    ann.begin(address, "grids", "Ann")
    first = ann.score("3", "2 red balls & 4 nets")  # digits in words are words
    second = ann.score("1")
    assert values(study, "Ann") == {first: (3, "2 red balls & 4 nets"), second: (1, "")}
    ann.page.close()
    bo.begin(address, "grids", "Bo")
    said = [bo.score(key, MARKUP if key == "4" else "") for key in "412"]
    waiting = bo.item()
    bo.page.keyboard.press("ArrowLeft")
    bo.leave(waiting)
    assert bo.item() == said[-1] and bo.page.get_attribute('[data-option="2"]', "aria-checked") == "true"
    bo.score("3")  # what was said before can be changed
    assert values(study, "Bo")[said[-1]] == (3, "") and bo.item() == waiting
    while bo.page.locator(".ba-item").count():
        bo.score("2")
    bo.page.wait_for_selector("text=Thank you, Bo")
    back = Tab(desktop)
    back.begin(address, "grids", "Ann")  # another tab, the same name
    assert back.item() not in (first, second) and "3 of 6" in back.page.inner_text(".ba-progress")
    image = back.page.get_attribute(".ba-item img", "src")
    assert re.fullmatch(r"/atlas/[0-9a-f]{10}/ratings/grids/[0-9a-f]{16}\.webp", image)
    early = image.rsplit("/", 1)[0] + f"/{study.token}.csv"
    assert back.context.request.get(f"{address}{early}").status == 404
    for key in "4432":
        back.score(key)
    back.page.wait_for_selector("text=Thank you, Ann")
    assert len(values(study, "Ann")) == len(values(study, "Bo")) == 6
    for tab in (ann, bo, back):
        assert len(tab.sent) > 20 and tab.told(*METHODS, "unit0", "unit1") == []
    back.page.get_by_role("button", name="End the study").click()
    back.page.get_by_role("button", name="End it and show the results").click()
    back.page.wait_for_selector(".ba-scores")
    shown = back.page.inner_text(".ba-scores")
    assert all(method in shown for method in METHODS) and set(back.told(*METHODS)) == set(METHODS)
    written = back.context.request.get(f"{address}{early}")
    assert written.status == 200 and written.text().count("\n") == 13 and MARKUP.split()[0] in written.text()
    for tab in (bo, back):
        assert tab.page.evaluate("window.evil") is None
        tab.page.close()


def test_listed_concepts_are_marked_and_show_as_text(rated, desktop):
    address, _, study = rated
    tab = Tab(desktop)
    tab.begin(address, "lists", "Cy <i>")
    assert "<img src=x" in tab.page.inner_text(".ba-marks") and tab.page.locator(".ba-marks img").count() == 0
    tab.page.keyboard.press("2")
    tab.page.locator("[data-mark]").first.click()
    tab.page.keyboard.press("2")
    tab.page.fill("[data-note]", "a tree")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector("text=Thank you, Cy <i>")
    assert list(values(study, "Cy <i>").values()) == [((0,), "a tree")]
    assert tab.page.evaluate("window.evil") is None and tab.told("zebra-model") == []
    study.end()
    tab.page.reload()
    tab.page.wait_for_selector("text=Top misfires")
    tab.page.wait_for_selector(".ba-plot[data-ready]")
    assert "<img src=x" in tab.page.inner_text("table >> nth=-1") and tab.page.locator("table img").count() == 0
    assert tab.page.evaluate("window.evil") is None
    tab.page.close()
