"""The pages of the analyses in a real browser: every figure is drawn, and what names a concept opens its card."""

from pathlib import Path

import pytest

from tests.app.serving import ARTIFACTS

pytestmark = pytest.mark.browser
WAIT = 120_000


def ready(page) -> None:
    """Wait until every figure of the page is drawn."""
    page.wait_for_function(
        """() => { const plots = [...document.querySelectorAll(".ba-plot")];
                   return plots.length > 0 && plots.every((plot) => plot.dataset.ready); }""",
        polling=100,
        timeout=WAIT,
    )
    assert page.get_by_text("could not be drawn").count() == 0


def sideways(page) -> int:
    """Return how wide the page's content is, in pixels."""
    return page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollWidth")


@pytest.mark.parametrize(
    ("path", "listed"),
    [
        ("blindspots", ".st-key-ranking a.ba-card"),
        ("pairs", ".st-key-pair_detail .ba-parts a"),
        ("composition", ".st-key-changed .ba-trio a"),
    ],
)
def test_a_listed_concept_opens_its_card(analysed_server, page, path: str, listed: str):
    page.goto(f"{analysed_server}/{path}?model=beta")
    ready(page)
    page.screenshot(path=ARTIFACTS / f"{path}.png")
    assert sideways(page) <= 1440
    page.set_viewport_size({"width": 420, "height": 900})
    fits = "() => document.querySelector('[data-testid=stMain]').scrollWidth <= 420"
    page.wait_for_function(f"() => document.documentElement.clientWidth === 420 && ({fits})()", timeout=WAIT)
    first = page.locator(listed).first
    concept = first.get_attribute("href").split("concept=")[1].split("&")[0]
    first.click()
    page.wait_for_selector(f".st-key-card .ba-kicker:text-is('Concept {concept}')", timeout=WAIT)
    assert "/concept_map?" in page.url and f"concept={concept}" in page.url and "model=beta" in page.url


def test_a_dot_of_the_ranking_opens_its_card(analysed_server, page):
    page.goto(f"{analysed_server}/blindspots")
    ready(page)
    dot = page.locator(".st-key-delta-ranking .scatterlayer .point").first
    dot.scroll_into_view_if_needed()
    dot.hover(force=True)
    box = dot.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector(".st-key-card .ba-kicker", timeout=WAIT)
    assert "/concept_map?" in page.url


def test_a_failure_opens_its_pair_and_its_table_can_be_taken_along(analysed_server, page):
    page.goto(f"{analysed_server}/pairs")
    ready(page)
    before = page.locator(".st-key-pair_detail .ba-kicker").inner_text()
    page.locator(".st-key-gallery .ba-couples").nth(1).locator("a").nth(1).click()
    page.wait_for_function(
        "(before) => document.querySelector('.st-key-pair_detail .ba-kicker').textContent !== before", arg=before
    )
    assert "image=" in page.url
    with page.expect_download() as download:
        page.locator(".st-key-how_pair .ba-take a").first.click()
    assert download.value.suggested_filename == "pair_alpha.csv"
    assert "# recipe fingerprint: " in Path(download.value.path()).read_text()


def test_a_concept_listed_by_the_dictionary_opens_its_card(server, page):
    page.goto(f"{server}/dictionary")
    page.wait_for_function(
        """() => { const plots = [...document.querySelectorAll(".ba-plot")];
                   return plots.length === 5 && plots.every((plot) => plot.dataset.ready); }""",
        timeout=WAIT,
    )
    page.screenshot(path=ARTIFACTS / "dictionary.png", full_page=True)
    page.locator(".st-key-stable a.ba-chip").first.click()
    page.wait_for_selector(".st-key-card .ba-kicker", timeout=WAIT)
    assert "/concept_map?" in page.url and "concept=" in page.url
