"""The samplers page: a comparison and its pictures as the benchmark writes them, whatever they say."""

import json
import math
import re

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app import pictures
from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.figures.images import Block, Row, image_grid
from engine.reports import samplers
from pages.widgets import reports, shelf
from pages.widgets.reports import SAMPLER_IMAGES, find_report
from pages.widgets.session import View
from tests.app.test_pages import html, opened, url

PAGE = "samplers"
METHODS = ("energy-guidance", "maco", "accentuation")


def seen(frechet: float) -> dict[str, float]:
    return {"frechet": frechet, "kid": frechet - 0.3, "diversity": frechet / 2}


def report() -> dict:
    """Two concepts as the benchmark prints them; MACO and energy guidance share one that both reached."""
    table = {"prior": {"encoder": seen(0.1), "dinov2": seen(0.05)}}
    table["corpus"] = {"encoder": seen(0.3), "dinov2": seen(0.2)}
    for place, (name, matched, of_target) in enumerate(zip(METHODS, (2, 1, 0), (1.01, 0.96, math.nan), strict=True)):
        judged = {"encoder": seen(0.4 + place), "dinov2": seen(0.9 - place / 10)}
        gain = {"gain": -0.05, "error": 0.012}
        both = {judge: {"own": seen(0.7), "energy-guidance": seen(0.6), **gain} for judge in judged} if matched else {}
        table[name] = {
            **judged, "matched": matched, "of_target": of_target, "slope": 2.5, "seconds": 4.0 - place,
            "megabytes": 10.0 + place, "trials": 3.0, "fair": {"concepts": matched, **both},
        }  # fmt: skip
    notes = {"7 maco": "The mean score 0.2 is out of reach: the largest is 0.1; choose a lower target or more steps."}
    notes |= {f"{concept} accentuation": "No trial of 2 came nearer than 0.3." for concept in (5, 7)}
    settings = {"count": 4, "steps": 40, "states": 32, "tolerance": 0.05, "seed": 0}
    return {"concepts": [5, 7], **settings, "table": table, "notes": notes}


def colour(block: int, place: int) -> tuple[int, int, int]:
    return (40 + 50 * block, 40 + 50 * place, 90)


def picture() -> Image.Image:
    """A row of plain blocks, as the benchmark draws them."""
    blocks = [
        Block([Image.new("RGB", (64, 64), colour(block, place)) for place in range(4)], "score 0.1, not matched")
        for block in range(1 + len(METHODS))
    ]
    headings = ["best real images", *METHODS]
    return image_grid("Concepts drawn at equal activation", headings, [Row("sky · 5", blocks)], tile=64)


@pytest.fixture(autouse=True)
def folder(use_atlas, plain_atlas, tmp_path, monkeypatch):
    """Stand in for the measured folder, on an atlas that is not the demo."""
    use_atlas(plain_atlas)
    (tmp_path / "comparison.json").write_text(json.dumps(report()))
    for concept in (5, 7):
        picture().save(tmp_path / f"{concept}.webp", lossless=True)
    monkeypatch.setattr(samplers, "FOLDER", tmp_path)
    reports._report.cache_clear()
    yield tmp_path
    reports._report.cache_clear()


@pytest.fixture
def own(monkeypatch, plain_atlas):
    """Let the opened atlas be the one whose concepts were drawn."""
    monkeypatch.setattr(shelf, "DEFAULT", plain_atlas.resolve())


def test_every_image_is_cut_out_where_the_picture_has_it(folder):
    with Image.open(folder / "5.webp") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    places = samplers.tiles(5)
    assert [len(images) for images in places] == [4] * (1 + len(METHODS))
    for block, images in enumerate(places):
        for place, tile in enumerate(images):
            side = round(pixels.shape[1] / tile.width)
            left, top = round(tile.left * side), round(tile.top * side)
            cut = pixels[top : top + side, left : left + side]
            assert cut.shape == (62, 62, 3) and (cut == colour(block, place)).all()


def test_images_come_with_methods_in_words_and_with_why_a_target_was_missed(own, plain_atlas):
    shown = html(opened(PAGE, concept="7"))
    name = f"{Atlas.open(plain_atlas).concepts['label'].at[7]} · 7"
    assert shown.count('src="/atlas/samplers/7.webp?') == 16
    assert f'alt="{name}, feature accentuation, 4"' in shown or 'alt="concept 7, feature accentuation, 4"' in shown
    assert shown.count(">missed the target<") == 2 and shown.count(">at the target<") == 1
    assert "<b>MACO</b>: The mean score 0.2 is out of reach: the largest is 0.1.<" in shown
    assert 'href="concept_map?concept=7"' in shown


def test_the_choice_is_in_the_url_and_a_concept_that_was_not_drawn_leaves_it(own):
    app = opened(PAGE)
    app.selectbox[0].set_value(7).run()
    assert url(app) == {"concept": "7"} and "/atlas/samplers/7.webp" in html(app)
    app = opened(PAGE, concept="6")
    assert url(app) == {} and "/atlas/samplers/5.webp" in html(app)


def test_in_another_atlas_the_choice_stays_on_the_page():
    app = opened(PAGE)
    app.selectbox[0].set_value(7).run()
    shown = html(app)
    assert url(app) == {} and "/atlas/samplers/7.webp" in shown and "concept_map?" not in shown


def cells(shown: str, method: str) -> list[str]:
    """The cells of a method's first row, the best of their columns with a star."""
    row = re.search(rf"<td[^>]*>(?:<b>)?{method}(?:</b>)?</td>(.*?)</tr>", shown).group(1)
    return [text + "*" * ("style" in style) for style, text in re.findall(r"<td([^>]*)>(.*?)</td>", row)]


def test_the_table_shades_the_best_and_chance_does_not_compete():
    shown = html(opened(PAGE))
    assert cells(shown, "energy guidance") == [
        "2*", "1.01*", "0.400*", "0.100*", "0.200", "0.900", "0.600", "0.450*", "2.50", "4.00", "10.00*"
    ]  # fmt: skip
    assert cells(shown, "feature accentuation") == [
        "0", "–", "2.400", "2.100", "1.200*", "0.700*", "0.400*", "0.350", "2.50", "2.00*", "12.00"
    ]  # fmt: skip
    assert cells(shown, "real images, at random")[2] == "0.300"
    prior = cells(shown, "prior, fresh samples")
    assert prior[:3] == ["–", "–", "0.100"] and prior[-3:] == ["–"] * 3 and not any("*" in text for text in prior)


def test_fair_sets_each_method_beside_energy_guidance_where_both_reached_the_target():
    shown = html(opened(PAGE))
    fair = shown[shown.index("<th>concepts</th>") :]
    assert cells(fair, "MACO") == ["1", "0.700", "0.400", "0.350*", "0.700", "0.400", "0.350*"]
    assert cells(fair, "energy guidance there")[3] == "0.300 <small>(−0.050 ± 0.012)</small>"
    assert fair.count("energy guidance there") == 1 and cells(fair, "feature accentuation") == ["0"] + ["–"] * 6
    table = find_report("samplers-fair", View("alpha")).report.table
    rival = table[(table["method"] == "MACO") & (table["images_of"] == "energy guidance")]
    assert rival["encoder frechet"].item() == 0.6 and rival["dinov2 diversity"].item() == 0.3


def test_the_figure_and_its_sentence_follow_the_file(folder):
    figure = find_report("samplers-distances", View("alpha")).report.figure
    said = figure.layout.meta["how"]
    first = "by the encoder's class token: energy guidance (0.400), 1.000 or 71 % below the next, MACO (1.400); it"
    assert first in said
    assert "by DINOv2: feature accentuation (0.700), 0.100 or " in said and "for 0 of 2 concepts" in said
    assert [line.x0 for line in figure.layout.shapes] == [0.1, 0.05] and len(figure.data) == 6


def test_one_judge_alone_is_enough(folder):
    alone = report()
    for row in alone["table"].values():
        row.pop("dinov2")
        row.get("fair", {}).pop("dinov2", None)
    (folder / "comparison.json").write_text(json.dumps(alone))
    shown = html(opened(PAGE))
    assert (
        "by its class token." in shown
        and "by the mean of its patches" not in shown
        and "DINOv2" not in shown
        and len(cells(shown, "MACO")) == 8
    )


@pytest.mark.parametrize("text", [None, "{", "[]", '{"table": {}}', '{"table": {"prior": {}, "maco": {}}}'])
def test_what_was_not_measured_is_one_sentence(folder, text):
    path = folder / "comparison.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(BlindspotError, match=r"python -m precompute benchmark samplers --json"):
        samplers.measured()
    app = opened(PAGE)
    assert len(app.info) == 1 and "benchmark samplers" in app.info[0].value and html(app) == ""


def test_without_its_picture_a_concept_still_has_the_numbers(folder):
    (folder / "5.webp").unlink()
    app = opened(PAGE)
    assert "There is no picture of this concept" in app.info[0].value and cells(html(app), "MACO")
    Image.new("RGB", (500, 300)).save(folder / "5.webp")
    assert "does not show the methods" in opened(PAGE).info[0].value


def test_pictures_are_handed_out_and_nothing_beside_their_folder(monkeypatch):
    client = TestClient(Starlette(routes=[pictures]))
    assert client.get(f"{SAMPLER_IMAGES}/comparison.json").json()["concepts"]
    assert client.get(f"{SAMPLER_IMAGES}/%2e%2e/theory/mixture.json").status_code == 404


def test_the_committed_comparison_has_a_picture_of_every_concept(monkeypatch):
    monkeypatch.undo()
    found = samplers.measured()
    assert all(len(samplers.tiles(concept)) == 1 + len(found.methods) for concept in found.concepts)
