"""Dictionaries are trained on a fair share of the tokens, or loaded if they fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.dictionary import TopK, load_dictionary, save_dictionary
from engine.errors import BlindspotError
from precompute.recipe import DictionaryPart
from precompute.stages.dictionary import DICTIONARY, make_dictionary, thin_out


def quiet(done: int, total: int) -> None:
    return None


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for number, rows in enumerate((300, 100)):
        paths.append(tmp_path / f"tokens-{number}.npy")
        np.save(paths[-1], rng.normal(size=(rows, 6)).astype(np.float16) + 10 * number)
    return paths


def test_few_tokens_are_taken_as_they_are(shards: list[Path], tmp_path: Path):
    assert thin_out(shards, 400, 0, tmp_path / "thin") == shards


def test_many_tokens_are_thinned_in_proportion(shards: list[Path], tmp_path: Path):
    thinned = [np.load(path) for path in thin_out(shards, 200, 0, tmp_path / "thin")]
    assert [len(rows) for rows in thinned] == [150, 50]
    assert {tuple(row) for row in thinned[1]} <= {tuple(row) for row in np.load(shards[1])}
    again = [np.load(path) for path in thin_out(shards, 200, 0, tmp_path / "again")]
    assert all((one == two).all() for one, two in zip(thinned, again, strict=True))


@pytest.mark.parametrize(("kind", "saved"), [("rasae", "archetypal"), ("topk", "topk")])
def test_a_dictionary_is_trained_and_leaves_no_scratch(shards: list[Path], tmp_path: Path, kind: str, saved: str):
    folder = tmp_path / "stage"
    folder.mkdir()
    part = DictionaryPart(kind=kind, concepts=8, sparsity=2, epochs=3, batch=64, tokens=200, device="cpu")
    report = make_dictionary(part, shards, folder, quiet)
    assert report["kind"] == saved and report["concepts"] == 8 and report["dim"] == 6 and 0 < report["r2"] <= 1
    assert sorted(path.name for path in folder.iterdir()) == ["dictionary", "report.json"]
    assert load_dictionary(folder / DICTIONARY).sparsity == 2
    assert make_dictionary(part, shards, folder, quiet) == report


def test_a_dictionary_is_loaded(shards: list[Path], tmp_path: Path):
    save_dictionary(TopK(6, 9, 3), tmp_path / "given")
    (tmp_path / "stage").mkdir()
    report = make_dictionary(DictionaryPart(load=tmp_path / "given"), shards, tmp_path / "stage", quiet)
    assert report == {"kind": "topk", "concepts": 9, "dim": 6, "sparsity": 3, "origin": "loaded"}


def test_a_dictionary_for_another_encoder_is_refused(shards: list[Path], tmp_path: Path):
    save_dictionary(TopK(5, 9, 3), tmp_path / "given")
    (tmp_path / "stage").mkdir()
    with pytest.raises(BlindspotError, match="reads tokens of width 5, but the encoder gives 6"):
        make_dictionary(DictionaryPart(load=tmp_path / "given"), shards, tmp_path / "stage", quiet)
