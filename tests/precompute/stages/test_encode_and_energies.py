"""Tokens and energies on disk are those of the encoder and the dictionary, however the run was cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.atlas.storage import CSR
from engine.dictionary.fitting import fit
from engine.dictionary.spec import DictionarySpec
from engine.dictionary.topk import TopK
from engine.errors import BlindspotError
from engine.vision.encoder import Encoder
from engine.vision.preprocess import load_image, to_tensor
from engine.vision.spec import EncoderConfig
from precompute.recipe import Folder, Limits
from precompute.stages import encode as encoding
from precompute.stages.corpus import gather_folder, read_manifest
from precompute.stages.encode import EMBEDDINGS, embed, encode, read_spec, token_shards
from precompute.stages.energies import measure_energies, read_statistics, sparse_codes
from precompute.stages.thumbnails import thumb_path, thumbnails_folder, write_thumbnails
from tests.precompute.materials import save_images


def quiet(done: int, total: int) -> None:
    return None


@pytest.fixture
def pictures(tmp_path: Path):
    images = save_images(tmp_path / "images", range(7))
    (tmp_path / "corpus").mkdir()
    gather_folder(Folder(folder=images), Limits(), tmp_path / "corpus", quiet)
    return read_manifest(tmp_path / "corpus")


@pytest.fixture
def encoded(tmp_path: Path, pictures, encoder_folder: Path, monkeypatch):
    monkeypatch.setattr(encoding, "SHARD", 3)
    part = EncoderConfig(id=str(encoder_folder), batch=2, store="float32", device="cpu")

    def run(name: str = "tokens") -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        encode(part, pictures, 10**6, folder, quiet)
        return folder

    return run


def test_tokens_are_those_of_the_encoder(encoded, pictures, encoder_folder: Path):
    folder = encoded()
    tokens = np.concatenate([np.load(shard) for shard in token_shards(folder)])
    encoder = Encoder.from_pretrained(EncoderConfig(str(encoder_folder)))
    images = [to_tensor([load_image(picture.path)], encoder.spec) for picture in pictures]
    with torch.inference_mode():
        found = encoder(torch.cat(images))
    assert read_spec(folder) == encoder.spec and encoder.spec.tokens == 19
    np.testing.assert_allclose(tokens, found.flat().flatten(0, 1).numpy(), atol=1e-5)
    np.testing.assert_allclose(np.load(folder / EMBEDDINGS), embed(found.prefix, found.patches), atol=1e-5)


def test_an_interrupted_encoding_ends_with_the_same_bytes(encoded):
    folder, again = encoded("a"), encoded("b")
    for name in ("tokens-00001.npy", "embeddings-00001.npy", EMBEDDINGS):
        (again / name).unlink()
    encoded("b")
    for path in folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_thumbnails_made_with_the_tokens_are_those_of_the_images_and_save_decoding_them_again(
    pictures, tmp_path: Path, encoder_folder: Path
):
    config = EncoderConfig(id=str(encoder_folder), device="cpu")
    (tmp_path / "tokens").mkdir()
    encode(config, pictures, 10**6, tmp_path / "tokens", quiet, thumbnail_size=20)
    write_thumbnails(pictures, 20, 10**6, tmp_path / "alone", quiet)
    for picture in pictures:
        picture.path.unlink()
    made = thumbnails_folder(tmp_path / "tokens", 20)
    write_thumbnails(pictures, 20, 10**6, tmp_path / "linked", quiet, made)
    for number in range(len(pictures)):
        alone, linked = (thumb_path(tmp_path / name, number).read_bytes() for name in ("alone", "linked"))
        assert alone == linked


def test_an_unknown_encoder_is_said_in_a_sentence(tmp_path: Path, pictures):
    with pytest.raises(BlindspotError) as caught:
        encode(EncoderConfig(id="nobody/nothing"), pictures, 10**6, tmp_path, quiet)
    assert "nobody/nothing" in str(caught.value) and "\n" not in str(caught.value)


def test_an_encoder_without_a_class_token_embeds_by_its_mean_patch():
    patches = torch.tensor([3.0, 4.0]).expand(1, 2, 2, 2)
    np.testing.assert_allclose(embed(torch.empty(1, 0, 2), patches), [[0.6, 0.8]], rtol=1e-6)


def test_energies_are_the_sums_of_the_codes(encoded, tmp_path: Path):
    tokens = encoded()
    spec, shards = read_spec(tokens), token_shards(tokens)
    dictionary, _ = fit(shards, DictionarySpec(kind="topk", concepts=12, sparsity=3, device="cpu"))
    (tmp_path / "energies").mkdir()
    measure_energies(dictionary, spec, tokens, tmp_path / "energies", quiet)
    found = dictionary.encode(torch.from_numpy(np.concatenate([np.load(shard) for shard in shards])))
    dense = torch.zeros(7 * spec.tokens, 12).scatter_(1, found.indices, found.values.detach()).reshape(7, -1, 12)
    energy = CSR.open(tmp_path / "energies" / "energy", 12).rows()
    np.testing.assert_allclose(energy.toarray(), dense.sum(1), rtol=1e-5, atol=1e-6)
    codes = CSR.open(tmp_path / "energies" / "codes", 12).rows()
    np.testing.assert_allclose(codes.toarray().reshape(dense.shape), dense, rtol=1e-3)
    assert codes.has_sorted_indices and np.load(tmp_path / "energies" / "codes" / "values.npy").dtype == np.float16
    statistics = read_statistics(tmp_path / "energies")
    np.testing.assert_allclose(statistics["sum"], dense.sum((0, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(statistics["fires"], (dense > 0).sum((0, 1)))
    concept = int(statistics["sum"].argmax())
    best = dense[:, spec.prefix_tokens :, concept].mean(1)
    assert statistics["exemplars"][concept, 0] == int(best.argmax()) and statistics["images"] == 7


def test_codes_that_half_precision_cannot_hold_are_dropped_if_small_and_refused_if_large():
    dictionary = TopK(2, 3, 3).requires_grad_(False)
    dictionary.encoder.weight.copy_(torch.tensor([[6e4, 0.0], [1e-9, 0.0], [1.0, 0.0]]))
    dictionary.encoder.bias.zero_()
    codes = sparse_codes(dictionary, np.array([[1.0, 0.0]], np.float32))
    assert codes.indices.tolist() == [0, 2] and codes.values.tolist() == [6e4, 1.0]
    for token in (1.2, 1e9, float("nan"), float("inf")):
        with pytest.raises(BlindspotError, match="the dictionary does not fit these tokens"):
            sparse_codes(dictionary, np.array([[0.5, 0.0], [token, 0.0]], np.float32))
