"""Dictionaries are trained on a fair share of the tokens, or loaded if they fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.dictionary.base import Dictionary
from engine.dictionary.spec import DictionarySpec
from engine.dictionary.topk import TopK
from engine.dictionary.transcoder import Transcoder
from engine.errors import BlindspotError
from engine.files import write_json
from engine.vision.spec import IMAGENET_MEAN, IMAGENET_STD, EncoderSpec
from precompute.recipe import load_recipe
from precompute.stages.dictionary import DICTIONARY, make_dictionary, subsample_tokens

RECIPES = Path(__file__).parents[3] / "data/recipes"


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
    assert subsample_tokens(shards, 400, 0, tmp_path / "thin") == shards


def test_many_tokens_are_thinned_in_proportion(shards: list[Path], tmp_path: Path):
    thinned = [np.load(path) for path in subsample_tokens(shards, 200, 0, tmp_path / "thin")]
    assert [len(rows) for rows in thinned] == [150, 50]
    assert {tuple(row) for row in thinned[1]} <= {tuple(row) for row in np.load(shards[1])}
    again = [np.load(path) for path in subsample_tokens(shards, 200, 0, tmp_path / "again")]
    assert all((one == two).all() for one, two in zip(thinned, again, strict=True))


@pytest.mark.parametrize(("kind", "saved"), [("rasae", "archetypal"), ("topk", "topk"), ("batchtopk", "batchtopk")])
def test_a_dictionary_is_trained_and_leaves_no_scratch(shards: list[Path], tmp_path: Path, kind: str, saved: str):
    folder = tmp_path / "stage"
    folder.mkdir()
    part = DictionarySpec(kind=kind, concepts=8, sparsity=2, epochs=3, batch=64, tokens=200, device="cpu")
    report = make_dictionary(part, shards, folder, quiet)
    assert report["kind"] == saved and report["concepts"] == 8 and report["dim"] == 6 and 0 < report["r2"] <= 1
    assert sorted(path.name for path in folder.iterdir()) == ["dictionary", "report.json"]
    assert Dictionary.from_pretrained(folder / DICTIONARY).sparsity == 2
    assert make_dictionary(part, shards, folder, quiet) == report


def test_a_dictionary_is_loaded(shards: list[Path], tmp_path: Path):
    TopK(6, 9, 3).save_pretrained(tmp_path / "given")
    (tmp_path / "stage").mkdir()
    report = make_dictionary(DictionarySpec(load=tmp_path / "given"), shards, tmp_path / "stage", quiet)
    assert report == {"kind": "topk", "concepts": 9, "dim": 6, "sparsity": 3, "origin": "loaded"}


def test_a_loaded_dictionary_keeps_its_provenance(shards: list[Path], tmp_path: Path):
    origin = {"source": "owner/name", "kind": "overcomplete", "assumed": {"centring": "none"}}
    given = TopK(6, 9, 3)
    given.origin = origin
    given.save_pretrained(tmp_path / "given")
    (tmp_path / "stage").mkdir()
    make_dictionary(DictionarySpec(load=tmp_path / "given"), shards, tmp_path / "stage", quiet)
    assert Dictionary.from_pretrained(tmp_path / "stage" / DICTIONARY).origin == origin
    TopK(6, 9, 3).save_pretrained(tmp_path / "own")
    assert Dictionary.from_pretrained(tmp_path / "own").origin is None


def test_a_dictionary_for_another_encoder_is_refused(shards: list[Path], tmp_path: Path):
    TopK(5, 9, 3).save_pretrained(tmp_path / "given")
    (tmp_path / "stage").mkdir()
    with pytest.raises(BlindspotError, match="reads tokens of width 5, but the encoder gives 6"):
        make_dictionary(DictionarySpec(load=tmp_path / "given"), shards, tmp_path / "stage", quiet)


def test_whole_maps_are_thinned(tmp_path: Path):
    path = tmp_path / "tokens-0.npy"
    np.save(path, np.arange(80, dtype=np.float32)[:, None])
    (thinned,) = subsample_tokens([path], 22, 0, tmp_path / "thin", whole=4)
    runs = np.load(thinned).reshape(-1, 4)
    assert len(runs) == 5
    assert (runs[:, 0] % 4 == 0).all() and (np.diff(runs, axis=1) == 1).all()


def test_a_shard_with_nothing_left_is_left_out(tmp_path: Path):
    paths = [tmp_path / "tokens-0.npy", tmp_path / "tokens-1.npy"]
    for path, rows in zip(paths, (1, 400), strict=True):
        np.save(path, np.zeros((rows, 2), np.float16))
    thinned = subsample_tokens(paths, 10, 0, tmp_path / "thin")
    assert [len(np.load(path)) for path in thinned] == [10]


def encoded_with(folder: Path, prefix: int) -> None:
    """Leave the description of an encoder of 2 x 5 maps beside the shards."""
    spec = EncoderSpec("tiny", None, None, 10, 2, (2, 5), prefix, 6, "square", "bicubic", IMAGENET_MEAN, IMAGENET_STD)
    write_json(folder / "spec.json", spec.to_dict())


def test_a_transcoder_learns_the_grid_of_its_encoder(shards: list[Path], tmp_path: Path):
    (tmp_path / "stage").mkdir()
    encoded_with(tmp_path, prefix=0)
    notes: list[str] = []

    def progress(done: int, total: int) -> None:
        return None

    progress.note = notes.append
    part = DictionarySpec(kind="transcoder", concepts=8, sparsity=2, steps=5, batch=40, tokens=200, device="cpu")
    report = make_dictionary(part, shards, tmp_path / "stage", progress)
    made = Dictionary.from_pretrained(tmp_path / "stage" / DICTIONARY)
    assert isinstance(made, Transcoder) and made.grid == (2, 5) and made.kernel == 3
    assert report["steps"] == 5
    assert len(notes) == 5 and all("R2 " in note and "tokens/s" in note for note in notes)


def test_a_transcoder_needs_maps(shards: list[Path], tmp_path: Path):
    (tmp_path / "stage").mkdir()
    encoded_with(tmp_path, prefix=5)
    with pytest.raises(BlindspotError, match="tiny gives 5 prefix tokens beside them"):
        make_dictionary(DictionarySpec(kind="transcoder", device="cpu"), shards, tmp_path / "stage", quiet)


def test_the_papers_dictionaries_are_recipes(tmp_path: Path):
    given = [f"real={tmp_path}", f"models.mine={tmp_path}"]
    rasae = load_recipe(RECIPES / "rasae-dinov2-32k.yaml", given).dictionary
    assert (rasae.kind, rasae.concepts, rasae.sparsity, rasae.epochs) == ("rasae", 32_000, 5, 50)
    assert (rasae.learning_rate, rasae.final_learning_rate, rasae.weight_decay) == (5e-4, 1e-6, 1e-5)
    recipe = load_recipe(RECIPES / "transcoder-dinov3.yaml", given)
    transcoder = recipe.dictionary
    assert recipe.encoder.hook == "model.stages.2.layers.20" and recipe.encoder.image_size == 256
    assert (transcoder.kind, transcoder.sparsity, transcoder.target_r2) == ("transcoder", 64, 0.85)
    assert transcoder.learning_rate == transcoder.final_learning_rate == 1e-4 and transcoder.revival == 0
