"""The app as a person uses it: a real server, a real chromium, real clicks. Screenshots land in tests/artifacts."""

import pandas as pd
import pytest

from engine.atlas import Atlas
from tests.app.conftest import DEMO, THIS_MACHINE, looked_for
from tests.app.serving import ARTIFACTS, foreign, point, settled, visit, wait_for_map

pytestmark = pytest.mark.browser
SECONDS = 1_000
WAIT = 120 * SECONDS


def click_concept(page, concept: int, subplot: str = ".st-key-map") -> None:
    x, y = point(page, concept, subplot)
    page.mouse.move(x, y)
    page.wait_for_function(
        "(subplot) => document.querySelector(`${subplot} .ba-gd`)._hoverdata?.length", arg=subplot, timeout=WAIT
    )
    page.mouse.click(x, y)


def topmost(page) -> int:
    """Return the concept whose dot is drawn last: nothing covers it."""
    return page.evaluate("() => document.querySelector('.st-key-map .ba-gd').concepts.at(-1)")


def pictures_complete(page, selector: str) -> None:
    page.wait_for_function(
        """(selector) => { const all = [...document.querySelectorAll(`${selector} img`)];
                           return all.length > 0 && all.every((one) => one.complete && one.naturalWidth > 0); }""",
        arg=selector, polling=100, timeout=WAIT,
    )  # fmt: skip


def draw_four(page, wait: float) -> None:
    page.get_by_role("button", name="Generate").click()
    page.wait_for_selector("[data-job]", timeout=wait)
    pictures_complete(page, "[data-job]")
    assert page.locator("[data-job] figure img").count() == 4


def test_clicking_a_point_opens_its_card_with_images(server, tab):
    visit(tab, f"{server}/concept_map")
    wait_for_map(tab)
    concept = topmost(tab)
    click_concept(tab, concept)
    tab.wait_for_selector(f"text=Concept {concept}", timeout=WAIT)
    pictures_complete(tab, ".st-key-card")
    assert f"concept={concept}" in tab.url
    tab.screenshot(path=ARTIFACTS / "card.png")


def test_hovering_shows_a_picture_and_words_without_the_server(server, tab):
    visit(tab, f"{server}/concept_map")
    wait_for_map(tab)
    x, y = point(tab, topmost(tab))
    tab.mouse.move(x, y)
    tab.wait_for_selector(".st-key-map .ba-tip:not([hidden])", timeout=WAIT)
    assert tab.locator(".ba-tip img").count() == 1 and "#" in tab.locator(".ba-tip").inner_text()


def test_zoom_survives_a_click_and_a_change_of_colour(server, page):
    page.goto(f"{server}/concept_map")
    wait_for_map(page)
    area = "() => document.querySelector('.st-key-map .ba-gd')._fullLayout.xaxis.range.map(Math.round)"
    x, y = point(page, topmost(page))
    page.mouse.move(x, y)
    before = page.evaluate(area)
    page.mouse.wheel(0, -200)
    page.wait_for_function(f"(before) => ({area})()[0] !== before[0]", arg=before)
    page.wait_for_timeout(600)
    zoomed = page.evaluate(area)
    click_concept(page, topmost(page))
    page.wait_for_selector(".st-key-card", timeout=WAIT)
    page.get_by_role("radio", name="Cluster").or_(page.get_by_text("Cluster", exact=True)).first.click()
    page.wait_for_function("() => document.querySelector('.st-key-map .ba-gd').colouring === 'cluster'")
    assert page.evaluate(area) == zoomed and "colour=cluster" in page.url


def test_a_neighbour_chip_opens_that_concept_and_back_returns(server, tab):
    visit(tab, f"{server}/concept_map?concept=5")
    tab.wait_for_selector(".st-key-neighbours a.ba-chip")
    tab.locator(".st-key-neighbours a.ba-chip").first.click()
    tab.wait_for_function("() => !document.querySelector('.st-key-card .ba-kicker').textContent.endsWith(' 5')")
    tab.go_back()
    tab.wait_for_selector("text=Concept 5", timeout=WAIT)
    assert "concept=5" in tab.url


def test_generate_draws_four_images_asks_no_other_host_and_a_reload_finds_them(watched, tab):
    (server, hosts), asked = watched, []
    tab.on("request", lambda request: asked.append(request.url))
    visit(tab, f"{server}/concept_map?concept=5")
    tab.get_by_label("Steps").fill("5")
    draw_four(tab, 300 * SECONDS)
    tab.screenshot(path=ARTIFACTS / "generated_tiny.png", full_page=True)
    tab.reload()
    tab.wait_for_selector("[data-job]", timeout=WAIT)
    assert "job=" in tab.url
    assert asked and foreign(asked, server) == []
    assert looked_for(hosts) <= THIS_MACHINE


def test_a_shared_selection_rings_the_concept_in_every_compared_map(server, tab):
    visit(tab, f"{server}/compare?models=alpha,beta")
    tab.wait_for_selector(".st-key-maps .ba-plot[data-ready]", timeout=WAIT)
    concept = tab.evaluate("() => document.querySelector('.st-key-maps .ba-gd').concepts.at(-1)")
    click_concept(tab, concept, ".st-key-maps")
    tab.wait_for_selector(".st-key-chosen", timeout=WAIT)
    assert tab.locator(".st-key-maps .ba-rings i:not([hidden])").count() == 2
    tab.wait_for_timeout(300)
    tab.screenshot(path=ARTIFACTS / "compare.png")


def parts(page, count: int) -> str:
    """Wait until the selection has that many parts, and return how many concepts it holds."""
    page.wait_for_function("(count) => document.querySelectorAll('.ba-part').length === count", arg=count, timeout=WAIT)
    settled(page)
    return page.locator(".ba-count b").inner_text()


def test_a_selection_is_searched_lassoed_listed_downloaded_linked_and_stepped_through(server, page, drawable_atlas):
    lit = "() => document.querySelector('.st-key-map .ba-gd').data[0].selectedpoints?.length"
    known = Atlas.open(drawable_atlas)
    word = known.concepts["label"].iloc[3].split()[0]
    hits = (known.matching(word) & ~known.concepts["dead"].to_numpy()).nonzero()[0]
    page.goto(f"{server}/concept_map")
    wait_for_map(page)
    page.keyboard.press("/")
    page.keyboard.type(word)
    page.wait_for_function(f"(count) => ({lit})() === count", arg=len(hits), timeout=WAIT)
    assert "text=" not in page.url  # typing lights without the server
    page.keyboard.press("Enter")
    assert parts(page, 1) == str(len(hits)) and page.evaluate(lit) == len(hits)
    assert page.locator(".ba-pager").first.inner_text().endswith(f"of {len(hits)}\n›") or len(hits) <= 24
    page.get_by_role("button", name="Select with a box").click()
    box = page.locator(".st-key-map .nsewdrag").bounding_box()
    x, y = point(page, int(hits[0]))
    page.mouse.move(box["x"] + 2, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(x + 8, y + 8, steps=6)
    page.mouse.up()
    kept = parts(page, 2)
    assert 1 <= int(kept) <= len(hits) and page.evaluate(lit) == int(kept)
    with page.expect_download() as download:
        page.locator(".ba-selection .ba-take a").first.click()
    rows = pd.read_csv(download.value.path(), comment="#")
    assert len(rows) == int(kept) and int(hits[0]) in set(rows["concept"])
    assert download.value.suggested_filename == f"selection_{known.models[0]}_gap.csv"
    linked = page.url
    page.go_back()
    assert parts(page, 1) == str(len(hits))
    page.goto(linked)
    assert parts(page, 2) == kept and page.evaluate(lit) == int(kept)
    page.goto(linked.split("&ids=")[0])
    parts(page, 1)
    page.locator("a.ba-row").first.click()
    page.wait_for_selector(".st-key-card .ba-beside", timeout=WAIT)
    first = page.locator(".st-key-card .ba-kicker").inner_text()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "(first) => document.querySelector('.st-key-card .ba-kicker').textContent !== first", arg=first, timeout=WAIT
    )
    page.keyboard.press("Escape")
    page.wait_for_selector(".st-key-card", state="detached", timeout=WAIT)
    assert f"text={word}" in page.url and "concept=" not in page.url


def test_an_overview_card_leads_into_the_map(server, tab):
    visit(tab, server)
    tab.locator("a.ba-card").nth(7).click()
    tab.wait_for_selector(".st-key-card", timeout=WAIT)
    assert "/concept_map?" in tab.url and "concept=" in tab.url


def test_no_page_scrolls_sideways_on_a_phone(server, page):
    page.set_viewport_size({"width": 420, "height": 900})
    page.emulate_media(color_scheme="dark")
    for path in ("", "concept_map?concept=5", "compare", "dictionary", "about"):
        visit(page, f"{server}/{path}")
        settled(page)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 420
        page.screenshot(path=ARTIFACTS / f"{(path.split('?')[0] or 'overview')}_dark_420.png")


@pytest.mark.slow
@pytest.mark.skipif(not (DEMO / "atlas.json").is_file(), reason="data/demo/atlas is not built yet")
def test_the_demo_draws_four_images_of_a_clicked_concept(demo_server, page):
    page.goto(f"{demo_server}/concept_map")
    wait_for_map(page)
    click_concept(page, topmost(page))
    page.wait_for_selector(".st-key-card", timeout=WAIT)
    page.screenshot(path=ARTIFACTS / "demo_card.png")
    page.get_by_label("Steps").fill("5")
    page.get_by_role("spinbutton", name="Beginnings").fill("4")
    draw_four(page, 400 * SECONDS)
    page.screenshot(path=ARTIFACTS / "demo_generated.png", full_page=True)
