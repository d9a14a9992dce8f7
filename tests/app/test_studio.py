"""Generate as a studio in a real browser: limits in words, a job seen from other pages, results beside each other."""

import pytest

from tests.app.serving import settled, visit

pytestmark = pytest.mark.browser
WAIT = 120_000


@pytest.fixture
def studio(server, tab):
    """The page on a concept, set to draw two images in a second."""
    visit(tab, f"{server}/generate?concept=7")
    for name, value in (("Images", "2"), ("Steps", "5"), ("Beginnings", "1")):
        tab.get_by_role("spinbutton", name=name).fill(value)
    tab.get_by_label("With other concepts").last.fill("")
    return tab


def press(page, name: str, shows: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()
    page.wait_for_selector(shows, timeout=WAIT)
    settled(page)


def test_what_is_out_of_range_is_said_and_nothing_is_drawn(studio):
    studio.get_by_role("spinbutton", name="Steps").fill("999")
    studio.get_by_label("With other concepts").last.fill("5, 9999")
    press(studio, "Generate", "[data-testid=stAlert]")
    assert "Steps 999 is out of range, choose 5 to 250." in studio.locator("[data-testid=stAlert]").inner_text()
    studio.get_by_role("spinbutton", name="Steps").fill("5")
    press(studio, "Generate", "text=There is no concept 9999: choose from 0 to 47.")
    assert "job=" not in studio.url


def test_a_job_is_seen_from_other_pages_and_results_stand_beside_each_other(studio, server):
    studio.get_by_role("spinbutton", name="Steps").fill("250")  # still under way on the next page
    press(studio, "Generate", "[data-job], [data-testid=stProgress]")
    visit(studio, f"{server}/dictionary")
    line = studio.locator(".ba-running a")
    line.wait_for(timeout=WAIT)
    assert line.inner_text().startswith("Drawing")
    line.click()
    studio.wait_for_selector("[data-job] figure img", timeout=WAIT)
    first = studio.url
    assert "/generate?" in first and studio.locator(".ba-running").count() == 0
    studio.get_by_role("spinbutton", name="Steps").fill("5")
    studio.get_by_role("spinbutton", name="Seed").fill("3")
    studio.get_by_label("With other concepts").last.fill("9:0.5")
    press(studio, "Generate", "[data-job] h3:has-text('with 9 × 0.5')")
    studio.locator(".ba-drawn a.ba-chip").first.click()
    studio.wait_for_selector(".ba-rung >> nth=1", timeout=WAIT)
    assert studio.locator(".ba-rung").count() == 2 and "beside=" in studio.url
    press(studio, "Sweep the strength", ".ba-rung >> nth=3")
    assert studio.locator(".ba-rung b").all_inner_texts() == [f"strength {value:g}" for value in (0, 0.1, 0.2, 0.4)]
    assert "with:" not in studio.locator("h3").first.inner_text()
    visit(studio, first.replace("job=", "job=0"))  # another machine has not these files
    assert studio.get_by_text("press Generate to draw the same ones again").count() == 1
    assert studio.get_by_role("spinbutton", name="Images").input_value() == "2"
