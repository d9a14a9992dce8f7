"""The report of a dictionary: measured on all real tokens, resumed after a kill, part of the atlas."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.atlas import Atlas
from engine.atlas.verify import verify
from engine.dictionary.spec import DictionarySpec
from engine.dictionary.topk import TopK
from precompute.build import build
from precompute.recipe import load_recipe
from precompute.runner import Progress
from precompute.stages.dictionary import DICTIONARY, make_dictionary
from precompute.stages.report import SUMMARY, TABLE, make_report, read_report
from tests.precompute.materials import save_images, save_recipe

PART = DictionarySpec(kind="rasae", concepts=8, sparsity=2, epochs=3, batch=64, device="cpu", report_seeds=3)


class Killed(Exception):
    """Stands for a process that ends in the middle."""


def quiet(done: int, total: int) -> None:
    return None


def killed_at(percent: int) -> Progress:
    def progress(done: int, total: int) -> None:
        if done >= percent:
            raise Killed

    return progress


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for number, rows in enumerate((300, 100)):
        paths.append(tmp_path / f"tokens-{number}.npy")
        np.save(paths[-1], rng.normal(size=(rows, 6)).astype(np.float16) + 3 * number)
    return paths


@pytest.fixture
def dictionary(shards: list[Path], tmp_path: Path) -> Path:
    make_dictionary(PART, shards, tmp_path / "stage", quiet)
    return tmp_path / "stage" / DICTIONARY


def test_a_report_with_other_seeds_leaves_no_scratch(shards: list[Path], dictionary: Path, tmp_path: Path):
    told = []
    report = make_report(PART, dictionary, shards, shards, tmp_path / "r", lambda *at: told.append(at))
    summary, table = read_report(tmp_path / "r")
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == [SUMMARY, TABLE]
    assert report == {name: summary[name] for name in ("r2", "l0", "dead_share")}
    assert np.shape(summary["stability"]["pairs"]) == (3, 3) and summary["tokens"] == 400
    assert list(table["concept"]) == list(range(8)) and table["stability"].between(-1, 1).all()
    assert told[-1] == (300, 300) and told == sorted(told)


@pytest.mark.parametrize("percent", [50, 100, 150, 200])
def test_a_killed_report_goes_on_and_ends_alike(shards: list[Path], dictionary: Path, tmp_path: Path, percent: int):
    make_report(PART, dictionary, shards, shards, tmp_path / "peace", quiet)
    with pytest.raises(Killed):
        make_report(PART, dictionary, shards, shards, tmp_path / "r", killed_at(percent))
    assert list((tmp_path / "r").iterdir())
    make_report(PART, dictionary, shards, shards, tmp_path / "r", quiet)
    for name in (SUMMARY, TABLE):
        assert (tmp_path / "r" / name).read_bytes() == (tmp_path / "peace" / name).read_bytes()


def test_a_loaded_dictionary_has_no_other_seeds(shards: list[Path], tmp_path: Path):
    TopK(6, 9, 3).save_pretrained(tmp_path / "given")
    part = replace(PART, load=tmp_path / "given")
    make_report(part, tmp_path / "given", shards, shards, tmp_path / "r", quiet)
    summary, table = read_report(tmp_path / "r")
    assert summary["stability"] is None and table["stability"].isna().all() and not summary["hull"]["own_points"]


def test_a_run_puts_the_report_into_the_atlas_and_a_second_does_nothing(tmp_path: Path, encoder_folder: Path):
    save_images(tmp_path / "real", range(8))
    save_images(tmp_path / "other", range(8), shift=1)
    save_recipe(tmp_path / "r.yaml", real="real", models={"other": "other"}, encoder={"id": str(encoder_folder)})
    runs = [build(load_recipe(tmp_path / "r.yaml", ()), tmp_path / "atlas", lambda stage: quiet) for _ in range(2)]
    assert [{outcome.action for outcome in run.outcomes} for run in runs] == [{"ran"}, {"kept"}]
    assert verify(tmp_path / "atlas") == []
    atlas = Atlas.open(tmp_path / "atlas")
    summary, concepts = atlas.dictionary_report()
    assert summary == json.loads((tmp_path / "atlas" / "dictionary" / "report.json").read_text())
    fires = np.bincount(atlas.codes("real").rows().indices, minlength=atlas.count)
    np.testing.assert_array_equal(concepts["fires"], fires)
    assert summary["r2"] == pytest.approx(atlas.info.dictionary["r2"], abs=1e-4)
