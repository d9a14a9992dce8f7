"""Steps forward and back in a real browser: one step each, scroll kept; and pages as a phone shows them."""

import pytest

from engine.atlas import Atlas
from tests.app.conftest import DEMO
from tests.app.serving import visit
from tests.app.test_analysis_pages import ready, sideways

pytestmark = pytest.mark.browser
WAIT = 120_000
PHONE = {"width": 390, "height": 800}
COLLIDING = """() => {
    const plot = document.querySelector(".st-key-scatter-matrix .ba-gd");
    const boxes = [...plot.querySelectorAll("[class^=x][class$=tick] text, text[class^=x][class$=title]")]
        .map((text) => text.getBoundingClientRect()).filter((box) => box.width);
    const hit = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
    return [boxes.length, boxes.filter((a, i) => boxes.slice(i + 1).some((b) => hit(a, b))).length];
}"""
CUT = """() => [...document.querySelectorAll(".ba-table")]
    .filter((table) => table.scrollWidth > table.closest(".ba-scroll").clientWidth + 1).length"""


@pytest.fixture(scope="module")
def touch(browser):
    context = browser.new_context(viewport=PHONE, has_touch=True)
    context.set_default_timeout(WAIT)
    yield context
    context.close()


@pytest.fixture(scope="module")
def phone(touch):
    page = touch.new_page()
    yield page
    page.close()


def scrolled(page) -> int:
    return page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollTop")


@pytest.mark.parametrize(
    ("path", "listed"), [("blindspots", ".st-key-ranking a.ba-card"), ("composition", ".st-key-changed .ba-trio a")]
)
def test_back_from_a_card_is_one_step_to_the_same_place(analysed_server, page, path: str, listed: str):
    page.goto(f"{analysed_server}/{path}?model=beta&estimator=share")
    ready(page)
    before, steps = page.url, page.evaluate("() => history.length")
    chosen = page.locator(listed).last
    chosen.scroll_into_view_if_needed()
    page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollBy(0, 120)")
    top = scrolled(page)
    assert top > 100
    chosen.click()
    page.wait_for_selector(".st-key-card .ba-kicker", timeout=WAIT)
    assert "/concept_map?model=beta&" in page.url and "estimator=share" in page.url
    assert page.evaluate("() => history.length") == steps + 1
    page.evaluate("() => history.back()")
    page.wait_for_selector(listed, timeout=WAIT)
    page.wait_for_function(
        "(top) => document.querySelector('[data-testid=stMain]').scrollTop === top", arg=top, timeout=WAIT
    )
    assert page.url == before


def test_a_click_in_a_figure_and_the_navigation_bar_are_one_step_each(analysed_server, page):
    page.goto(f"{analysed_server}/blindspots?model=beta")
    ready(page)
    steps = page.evaluate("() => history.length")
    dot = page.locator(".st-key-delta-ranking .scatterlayer .point").first
    dot.scroll_into_view_if_needed()
    dot.hover(force=True)
    box = dot.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector(".st-key-card .ba-kicker", timeout=WAIT)
    page.get_by_role("link", name="Composition").first.click()
    page.wait_for_url("**/composition?model=beta", timeout=WAIT)
    ready(page)
    assert page.evaluate("() => history.length") == steps + 2
    page.evaluate("() => history.back()")
    page.wait_for_selector(".st-key-card .ba-kicker", timeout=WAIT)
    page.evaluate("() => history.back()")
    page.wait_for_selector(".st-key-ranking", timeout=WAIT)
    assert page.url == f"{analysed_server}/blindspots?model=beta"


def test_compared_maps_stand_below_each_other_on_a_phone(demo_server, phone):
    concept = Atlas.open(DEMO).concepts.query("not dead").index[0]
    visit(phone, f"{demo_server}/compare?models=base,no-disc,woody&concept={concept}")
    phone.wait_for_selector(".st-key-maps .ba-plot[data-ready]")
    axes = "(({ xaxis, xaxis2, xaxis3 }) => [xaxis, xaxis2, xaxis3].map((axis) => [axis._offset, axis._length]))"
    places = phone.evaluate(f"() => {axes}(document.querySelector('.st-key-maps .ba-gd')._fullLayout)")
    assert places[0] == places[1] == places[2] and places[0][1] > 300
    assert phone.locator(".st-key-maps .ba-rings i:not([hidden])").count() == 3


@pytest.mark.parametrize(
    ("path", "tables"), [("blindspots", 1), ("composition", 2), ("compare?models=base,base-early,no-disc,woody", 1)]
)
def test_no_table_is_cut_off_on_a_phone(demo_server, phone, path: str, tables: int):
    visit(phone, f"{demo_server}/{path}")
    phone.wait_for_function("(count) => document.querySelectorAll('.ba-table').length >= count", arg=tables)
    assert phone.evaluate(CUT) == 0 and sideways(phone) <= PHONE["width"]


def test_no_text_collides_in_the_scatter_matrix_on_a_phone(demo_server, phone):
    visit(phone, f"{demo_server}/blindspots")
    phone.wait_for_selector(".st-key-scatter-matrix .ba-plot[data-ready]")
    texts, colliding = phone.evaluate(COLLIDING)
    assert texts == 9 and colliding == 0, "two ticks and a title for each of three columns"
