"""The card says what a stress test found, and shows the images of the model and of what it is compared with."""

import shutil
from html import unescape

import pandas as pd
import pytest
from PIL import Image

from engine.atlas import Atlas
from engine.atlas.writer import add_stress
from tests.app.test_html import HOSTILE
from tests.app.test_pages import html, opened

ROW = {
    "concept": 5, "prompts_from": "captions", "prompts": 50, "prompts_low": 0.0, "prompts_high": 0.1, "images": 250,
    "control": 0.01, "control_images": 400, "level": 0.5, "real_rate": 0.9, "real_control": 0.1, "asked_more": 0.01,
    "p": 0.001, "q": 0.002, "judged": 250, "steps": 20, "seed": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def tested_atlas(plain_atlas, tmp_path_factory):
    path = shutil.copytree(plain_atlas, tmp_path_factory.mktemp("tested") / "atlas")
    one, other = Atlas.open(path).models[:2]
    blind = {"model": one, "prompts_shown": 3, "shown": 5, "rate": 0.02, "ci_low": 0.01, "ci_high": 0.05, "share": 0.02,
             "against": other, "verdict": "true blindspot", "recognised": 0}  # fmt: skip
    able = {"model": other, "prompts_shown": 50, "shown": 225, "rate": 0.9, "ci_low": 0.85, "ci_high": 0.94,
            "share": 0.9, "against": "real", "verdict": "promptable", "recognised": 240}  # fmt: skip
    rows = pd.DataFrame([{**ROW, "word": HOSTILE, **blind}, {**ROW, "word": HOSTILE, **able}])
    add_stress(path, rows, lambda concept, model: Image.new("RGB", (64, 16), "teal"), {})
    return path


def test_a_card_says_the_verdict_and_shows_the_images_of_both_models(use_atlas, tested_atlas):
    use_atlas(tested_atlas)
    one, other = Atlas.open(tested_atlas).models[:2]
    shown = html(opened("concept_map", concept="5", model=one))
    said = unescape(shown)
    assert f"by 50 prompts, {one} shows it in 2 % [1 to 5 %] of 250 images (unasked: 1 %)" in said
    assert f"Asking adds 2 % of what it adds in {other}. The judge sees it in 0 %." in said
    assert "ba-said-blind" in shown and "49 of 50" not in shown and "50 of 50" in shown and "96 %" in shown
    assert shown.count("that show it most, best first") == 2 and "<b onclick" not in shown
    assert "stress" in shown and "--concept 5</code>" in shown


def test_a_concept_that_was_not_tested_says_nothing_of_it(use_atlas, tested_atlas):
    use_atlas(tested_atlas)
    assert "Stress test" not in html(opened("concept_map", concept="6"))
