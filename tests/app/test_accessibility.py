"""axe-core on every page, light and dark: no violation of WCAG 2.2 at level A or AA.

Pages of analyses are looked at in `test_attacks_browser`, which opens each of them anyway.
"""

import pytest

from tests.app.serving import settled, visit

axe = pytest.importorskip("axe_playwright_python.base")
pytestmark = pytest.mark.browser
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
RUN = """(only) => axe.run(document, { runOnly: only, resultTypes: ["violations"] }).then((found) =>
    found.violations.flatMap((one) => one.nodes.map((node) => `${one.id}: ${node.html.slice(0, 120)}`)))"""
DARK = "() => getComputedStyle(document.querySelector('[data-testid=stApp]')).colorScheme === 'dark'"
PAGES = ("concept_map?concept=5", "generate?concept=5", "invariance?concept=5", "my_image?image=3")


def violations(page) -> list[str]:
    """What axe finds on a page in the light theme, and what it finds wrong with its colours in the dark one."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(axe.AXE_SCRIPT)
    found = _lasting(page, {"type": "tag", "values": LEVELS})
    page.emulate_media(color_scheme="dark")
    try:
        page.wait_for_function(DARK)
        settled(page)
        return found + _lasting(page, {"type": "rule", "values": ["color-contrast"]})
    finally:
        page.emulate_media(color_scheme="light")


def _lasting(page, only: dict) -> list[str]:
    """What is wrong, and still is a moment later: parts that are being drawn anew are pale, and colours fade over."""
    found = page.evaluate(RUN, only)
    if found:
        page.wait_for_timeout(2_000)
        settled(page)
        found = page.evaluate(RUN, only)
    return found


@pytest.mark.parametrize("path", PAGES)
def test_pages_that_draw_are_accessible(server, tab, path: str):
    visit(tab, f"{server}/{path}")
    assert violations(tab) == []
