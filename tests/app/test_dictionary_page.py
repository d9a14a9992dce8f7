"""The dictionary's page: its numbers, where its lists lead, and what it says without a report."""

import json
import shutil
from pathlib import Path

import pytest

from engine.atlas import Atlas
from engine.atlas.schema import REPORT, REPORT_TABLE, table_file
from tests.app.test_pages import html, opened, url


@pytest.fixture
def copied(plain_atlas, tmp_path) -> Path:
    return Path(shutil.copytree(plain_atlas, tmp_path / "atlas"))


def test_the_headline_is_the_report_s(use_atlas, plain_atlas):
    use_atlas(plain_atlas)
    app = opened("dictionary", model="beta")
    shown, summary = html(app), Atlas.open(plain_atlas).dictionary_report().summary
    for value in (f"{summary['r2']:.3f}", f"{summary['l0']:.2f}", f"{summary['coherence']:.3f}", "from 2 seeds"):
        assert value in shown
    assert "48 concepts in 32 dimensions" in shown and f"{summary['tokens']:,} tokens" in shown
    assert url(app) == {"model": "beta"}


def test_lists_lead_to_the_concepts_at_the_ends_and_never_to_dead_ones(use_atlas, plain_atlas):
    use_atlas(plain_atlas)
    shown, atlas = html(opened("dictionary")), Atlas.open(plain_atlas)
    alive = atlas.dictionary_report().concepts[~atlas.concepts["dead"].to_numpy()]
    ends = alive["stability"].idxmin(), alive["stability"].idxmax(), alive["hull_distance"].idxmax()
    assert all(f'href="concept_map?concept={concept}"' in shown for concept in ends)
    dead = atlas.concepts.index[atlas.concepts["dead"]]
    assert not any(f'href="concept_map?concept={concept}"' in shown for concept in dead)
    for title in ("Most alike pairs", "Furthest from the data", "Least stable", "Most stable"):
        assert title in shown


def test_without_other_seeds_the_page_says_how_to_get_stability(use_atlas, copied):
    summary = json.loads((copied / REPORT).read_text())
    (copied / REPORT).write_text(json.dumps(summary | {"stability": None}))
    use_atlas(copied)
    shown = html(opened("dictionary"))
    assert "report_seeds" in shown and "Least stable" not in shown and "Most alike pairs" in shown


def test_an_atlas_without_report_says_how_to_get_one(use_atlas, copied):
    for file in (REPORT, table_file(REPORT_TABLE)):
        (copied / file).unlink()
    use_atlas(copied)
    app = opened("dictionary")
    assert "python -m precompute run RECIPE" in app.info[0].value and str(copied) in app.info[0].value
    assert "Coherence" not in html(app)
