"""`python -m precompute report`: one page that asks nothing, whatever the atlas holds and says."""

from __future__ import annotations

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from engine.atlas import Atlas
from engine.atlas.writer import AtlasWriter, add_stress
from engine.reports.document import Section, html_document
from precompute.saediff.importing import import_saediff
from precompute.serve import DEMO_ATLAS
from tests.app.test_html import HOSTILE, Elements
from tests.precompute.enriched import make_truth, write_all
from tests.synthetic import build_synthetic_atlas

ROW = {
    "word": HOSTILE, "prompts_from": HOSTILE, "prompts": 50, "prompts_shown": 3, "prompts_low": 0.0,
    "prompts_high": 0.1, "images": 250, "shown": 5, "rate": 0.02, "ci_low": 0.01, "ci_high": 0.05, "control": 0.01,
    "control_images": 400, "level": 0.5, "real_rate": 0.9, "real_control": 0.1, "against": "real", "asked_more": 0.01,
    "share": 0.02, "p": 0.001, "q": 0.002, "verdict": "true blindspot", "judged": 250, "recognised": 4, "steps": 20,
    "seed": 0,
}  # fmt: skip
TAGS = (
    "a article b body br details div figcaption figure footer h1 h2 h3 h4 head header html img line main meta nav p "
    "pre rect section small span style summary svg table tbody td th thead title tr"
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """An atlas whose every string is markup, with a stress test."""
    path = build_synthetic_atlas(tmp_path_factory.mktemp("hostile") / "atlas", concepts=24, pairs=40)
    rows = pd.DataFrame([{"concept": 3, "model": model, **ROW} for model in Atlas.open(path).models])
    add_stress(path, rows, lambda concept, model: Image.new("RGB", (64, 16), "teal"), {"alpha": {"pipeline": HOSTILE}})
    header = json.loads((path / "atlas.json").read_text())
    header |= {"name": HOSTILE, "description": HOSTILE}
    header["encoder"] |= {"id": HOSTILE}
    for source in header["sources"]:
        source |= {"label": HOSTILE, "description": HOSTILE}
    (path / "atlas.json").write_text(json.dumps(header))
    atlas = Atlas.open(path)
    with AtlasWriter(path.with_name("other")) as writer:
        writer.write_table("concepts", atlas.concepts.reset_index().assign(label=HOSTILE))
        shutil.copy(writer.folder / "concepts.parquet", path / "concepts.parquet")
    return path


def parsed(page: str) -> Elements:
    """The page's elements; it asks for nothing, and every image has words."""
    found = Elements(page)
    for tag, attributes in found.seen:
        assert tag in TAGS.split(), tag
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:image/").startswith("data:image/")
        assert attributes.get("href", "#").startswith("#")
        assert tag != "img" or attributes["alt"]
        assert tag != "th" or attributes["scope"] in ("col", "row")
    assert "url(" not in page and "@import" not in page and "default-src 'none'" in page
    return found


def test_the_demos_page_is_whole_and_small(tmp_path: Path, run_command):
    code, out, err = run_command("report", DEMO_ATLAS, "--out", tmp_path / "a.html", "--no-figures", "--json")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert code == 0 and json.loads(out)["bytes"] == (tmp_path / "a.html").stat().st_size < 5_000_000, err
    found = parsed(page)
    heads = [tag for tag, _ in found.seen if re.fullmatch(r"h\d", tag)]
    assert heads[0] == "h1" and heads.count("h1") == 1
    assert all(int(after[1]) - int(before[1]) <= 1 for before, after in pairwise(heads))
    assert "#65c7de" in page and "#e8b548" in page and "#582949" in page and "prefers-color-scheme: dark" in page
    for said in ("545 real images are compared", "no-disc", "Draws too seldom", "recipe fingerprint", "Methods"):
        assert said in found.text


def test_what_an_atlas_says_never_becomes_markup(hostile: Path):
    tables = {HOSTILE: pd.DataFrame({HOSTILE: [HOSTILE, None, 1.5]})}
    page = html_document(Atlas.open(hostile), figures=False, sections=[Section(HOSTILE, HOSTILE, tables)])
    assert page == html_document(Atlas.open(hostile), figures=False, sections=[Section(HOSTILE, HOSTILE, tables)])
    found = parsed(page)
    assert "<b onclick" not in page and found.text.count(HOSTILE) > 20
    assert "true blindspot" in found.text and page.count('class="strip"') == len(Atlas.open(hostile).models)


def test_published_statistics_have_a_page_without_images(tmp_path: Path):
    import_saediff(write_all(tmp_path, make_truth()), tmp_path / "atlas")
    page = html_document(Atlas.open(tmp_path / "atlas"), figures=False)
    assert "Statistics that others published" in parsed(page).text and "<img" not in page
    assert "intervals and q were not published" in page


def test_a_folder_is_no_page(tmp_path: Path, run_command):
    code, _, err = run_command("report", DEMO_ATLAS, "--out", tmp_path)
    assert code == 1 and "is a folder: give --out a file" in err
