"""The pages of the analyses in a real browser: every figure is drawn, and what names a concept opens its card."""

from pathlib import Path

import pytest

from tests.app.serving import ARTIFACTS, visit

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
def test_a_listed_concept_opens_its_card(analysed_server, tab, path: str, listed: str):
    visit(tab, f"{analysed_server}/{path}?model=beta")
    ready(tab)
    tab.screenshot(path=ARTIFACTS / f"{path}.png")
    assert sideways(tab) <= 1440
    tab.set_viewport_size({"width": 420, "height": 900})
    fits = "() => document.querySelector('[data-testid=stMain]').scrollWidth <= 420"
    tab.wait_for_function(f"() => document.documentElement.clientWidth === 420 && ({fits})()", timeout=WAIT)
    first = tab.locator(listed).first
    concept = first.get_attribute("href").split("concept=")[1].split("&")[0]
    first.click()
    tab.wait_for_selector(f".st-key-card .ba-kicker:text-is('Concept {concept}')", timeout=WAIT)
    assert "/concept_map?" in tab.url and f"concept={concept}" in tab.url and "model=beta" in tab.url


def test_a_dot_of_the_ranking_opens_its_card(analysed_server, tab):
    visit(tab, f"{analysed_server}/blindspots")
    ready(tab)
    dot = tab.locator(".st-key-delta-ranking .scatterlayer .point").first
    dot.scroll_into_view_if_needed()
    dot.hover(force=True)
    box = dot.bounding_box()
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.wait_for_selector(".st-key-card .ba-kicker", timeout=WAIT)
    assert "/concept_map?" in tab.url


def test_a_failure_opens_its_pair_and_its_table_can_be_taken_along(analysed_server, tab):
    visit(tab, f"{analysed_server}/pairs")
    ready(tab)
    before = tab.locator(".st-key-pair_detail .ba-kicker").inner_text()
    tab.locator(".st-key-gallery .ba-couples").nth(1).locator("a").nth(1).click()
    tab.wait_for_function(
        "(before) => document.querySelector('.st-key-pair_detail .ba-kicker').textContent !== before", arg=before
    )
    assert "image=" in tab.url
    with tab.expect_download() as download:
        tab.locator(".st-key-how_pair .ba-take a").first.click()
    assert download.value.suggested_filename == "pair_alpha.csv"
    assert "# recipe fingerprint: " in Path(download.value.path()).read_text()


def test_a_concept_listed_by_the_dictionary_opens_its_card(server, tab):
    visit(tab, f"{server}/dictionary")
    tab.wait_for_function(
        """() => { const plots = [...document.querySelectorAll(".ba-plot")];
                   return plots.length === 5 && plots.every((plot) => plot.dataset.ready); }""",
        timeout=WAIT,
    )
    tab.screenshot(path=ARTIFACTS / "dictionary.png", full_page=True)
    tab.locator(".st-key-stable a.ba-chip").first.click()
    tab.wait_for_selector(".st-key-card .ba-kicker", timeout=WAIT)
    assert "/concept_map?" in tab.url and "concept=" in tab.url
