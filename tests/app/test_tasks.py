"""What five people come for, each counted in clicks from the overview; choosing a file is a click, typing is none."""

import io

import pandas as pd
import pytest

from engine.atlas import Atlas
from tests.app.conftest import DEMO
from tests.app.serving import settled, visit

pytestmark = pytest.mark.browser
WAIT = 120_000


class Person:
    """Somebody who begins on the overview and clicks."""

    def __init__(self, page, server: str) -> None:
        self.page, self.clicks = page, 0
        visit(page, server)

    def click(self, selector: str) -> None:
        """Click what a person would, and wait for what it leads to."""
        self.clicks += 1
        self.page.locator(selector).first.click()
        self.page.wait_for_timeout(300)
        settled(self.page)

    def go(self, page: str) -> None:
        """Click on a page's name above."""
        self.clicks += 1
        self.page.get_by_role("link", name=page, exact=True).first.click()
        self.page.wait_for_selector(f"h1:has-text('{page}')", timeout=WAIT)
        settled(self.page)


def test_export_the_significant_suppressed_concepts_of_a_model_in_four_clicks(demo_server, tab):
    person = Person(tab, demo_server)
    person.click("a.ba-count-link[href*='model=no-disc'][href*='status=suppressed']")
    with tab.expect_download() as download:
        person.click(".ba-selection .ba-take a:text-is('CSV')")
    rows = pd.read_csv(download.value.path(), comment="#")
    atlas = Atlas.open(DEMO)
    table = atlas.delta("no-disc")
    low = ~atlas.concepts["dead"] & (table["delta"] < atlas.info.delta.suppressed) & (table["q"] < 0.05)
    assert sorted(rows["concept"]) == sorted(table.index[low]) and len(rows) and person.clicks <= 4


def test_whether_my_photo_s_main_concept_is_suppressed_in_three_clicks(demo_server, page):
    photo = io.BytesIO()
    Atlas.open(DEMO).image(3).save(photo, "PNG")
    person = Person(page, demo_server)
    person.go("My image")
    with page.expect_file_chooser() as chooser:
        person.clicks += 1
        page.locator("[data-testid=stFileUploader] button:visible").first.click()
    chooser.value.set_files({"name": "photo.png", "mimeType": "image/png", "buffer": photo.getvalue()})
    page.wait_for_selector(".st-key-leading .ba-parts a", timeout=WAIT)
    first = page.locator(".st-key-leading .ba-parts a .ba-name i").first.inner_text()
    row = page.locator(".st-key-leading .ba-table tr", has=page.locator(f"i:text-is('{first}')")).inner_text()
    assert len([part for part in row.split() if part.replace(".", "").isdigit()]) >= 3  # its number, a delta a model
    assert person.clicks <= 3


def test_which_models_differ_on_a_concept_and_how_each_draws_it_in_three_clicks(analysed_server, tab):
    person = Person(tab, analysed_server)
    person.go("Compare")
    person.click(".st-key-list a.ba-row")
    tab.wait_for_selector(".st-key-chosen .ba-source", timeout=WAIT)
    shown = tab.locator(".st-key-chosen .ba-source h3").all_inner_texts()
    assert [text.split()[0] for text in shown] == ["Real", "alpha", "beta"] and "δ" in shown[1]
    assert tab.locator(".st-key-chosen .ba-source img").count() >= 6 and person.clicks <= 3


def test_confirmed_copies_in_two_clicks(analysed_server, tab):
    person = Person(tab, analysed_server)
    person.go("Images")
    assert tab.locator(".st-key-gallery h3").first.inner_text().lower().startswith(("confirmed", "likel", "cop"))
    assert person.clicks <= 2


def test_draw_a_concept_next_to_its_best_real_images_in_three_clicks(server, tab):
    person = Person(tab, server)
    person.go("Generate")
    person.click(".st-key-choices a.ba-chip")
    tab.get_by_label("Steps").fill("5")
    tab.get_by_role("spinbutton", name="Beginnings").fill("1")
    person.click("[data-testid=stForm] button:has-text('Generate')")
    tab.wait_for_selector("[data-job] figure img", timeout=WAIT)
    titles = tab.locator(".st-key-results h3").all_inner_texts()
    assert titles[0].startswith("Drawn for concept") and "Best real images by the same score" in titles
    assert person.clicks <= 3
