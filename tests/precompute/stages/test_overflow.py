"""Tokens that are not finite, or that a cast saturates, end a run in a sentence wherever they are met."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dictionary.base import Dictionary
from engine.dictionary.tokens import MemoryTokens, ShardTokens, first_unusable, statistics
from engine.dictionary.topk import BatchTopK, Thresholded, TopK
from engine.errors import BlindspotError
from engine.vision.encoder import Tokens
from engine.vision.spec import EncoderConfig
from precompute.stages import encode as encoding
from precompute.stages.encode import encode, token_shards
from precompute.stages.energies import measure_energies
from tests.precompute.stages.test_encode_and_energies import pictures, quiet  # noqa: F401

BROKEN = st.sampled_from([float("nan"), float("inf"), float("-inf"), 65504.0, -65504.0, 7e4, -1e9, 3e38, -1e18])
STORES = st.sampled_from(["float16", "float32"])
COMPUTED = st.sampled_from(["float32", "bfloat16", "float16"])


class Fake:
    """An encoder of 2 patches and a class token of width 3 that gives one broken number."""

    def __init__(self, position: int, value: float, dtype: str) -> None:
        self.spec = SimpleNamespace(tokens=3, to_dict=dict)
        self.position, self.value, self.seen, self.dtype = position, value, 0, getattr(torch, dtype)

    def __call__(self, images: torch.Tensor) -> Tokens:
        rows = torch.randn(len(images), 9, generator=torch.Generator().manual_seed(0))
        at = self.position - 9 * self.seen
        if 0 <= at < rows.numel():
            rows.view(-1)[at] = self.value
        self.seen += len(images)
        found = rows.to(self.dtype).float().view(len(images), 3, 3)
        return Tokens(found[:, 1:].unflatten(1, (2, 1)), found[:, :1])


def fits(value: float, dtype: str, store: str) -> bool:
    """Whether a number is one that the store can hold."""
    stored = torch.tensor(value).to(getattr(torch, dtype)).float().abs().item()
    return stored < (65488 if store == "float16" else 1e16)


@pytest.fixture
def fake(pictures, tmp_path: Path, monkeypatch):  # noqa: F811
    def run(position: int, value: float, dtype: str, store: str) -> Path:
        encoder = Fake(position, value, dtype)
        monkeypatch.setattr(encoding, "SHARD", 3)
        monkeypatch.setattr(encoding, "to_tensor", lambda images, spec: torch.zeros(1, 3, 2, 2))
        monkeypatch.setattr(encoding.Encoder, "from_pretrained", lambda config: encoder)
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        encode(EncoderConfig("some/id", batch=2, store=store, dtype=dtype), pictures, 10**6, folder, quiet, None, "sd")
        return folder

    return run


def test_one_broken_number_anywhere_stops_the_encoding_and_is_located(fake, pictures):  # noqa: F811
    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 7 * 9 - 1), BROKEN, COMPUTED, STORES)
    def check(position: int, value: float, dtype: str, store: str):
        if fits(value, dtype, store):
            tokens = np.concatenate([np.load(shard) for shard in token_shards(fake(position, value, dtype, store))])
            assert np.isfinite(tokens).all() and np.abs(tokens).max() < (65504 if store == "float16" else np.inf)
            return
        with pytest.raises(BlindspotError) as caught:
            fake(position, value, dtype, store)
        said = str(caught.value)
        assert pictures[position // 9].file in said and "source sd" in said and "last layer" in said
        assert "\n" not in said and "bfloat16;" not in said.split("set ")[-1]
        number = torch.tensor(value).to(getattr(torch, dtype)).float()
        if not number.isfinite() and dtype != "float32":
            assert "set encoder.dtype=float32" in said
        elif number.isfinite() and abs(number) < 1e16:
            assert "set encoder.store=float32" in said
        else:
            assert "another encoder.layer" in said

    check()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 29), BROKEN, STORES, st.booleans())
def test_stored_tokens_of_an_older_version_are_refused_where_they_are_read(position, value, store, shard):
    tokens = np.zeros((10, 3), store)
    with np.errstate(over="ignore"):
        tokens.flat[position] = value
    largest = 65504 if store == "float16" else 1e16
    broken = not abs(float(tokens.flat[position])) < largest
    assert first_unusable(tokens) == first_unusable(torch.from_numpy(tokens)) == (position // 3 if broken else None)


@pytest.mark.parametrize("value", [np.nan, np.inf, 65504, -65504])
def test_saturated_tokens_are_refused_by_statistics_and_energies(value: float, tmp_path: Path):
    tokens = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float16)
    tokens[7, 2] = value
    np.save(tmp_path / "tokens-00000.npy", tokens[:6])
    np.save(tmp_path / "tokens-00001.npy", tokens[6:])
    for source in (MemoryTokens(torch.from_numpy(tokens)), ShardTokens(token_shards(tmp_path))):
        with pytest.raises(BlindspotError, match=r"the first in row 7.*encoder.store=float32"):
            statistics(source)
    with pytest.raises(BlindspotError, match=r"image d\.png in .*--set encoder.store=float32"):
        measure_energies(
            TopK(3, 4, 2),
            SimpleNamespace(tokens=2, prefix_tokens=1),
            tmp_path,
            tmp_path / "out",
            quiet,
            [*"abc", "d.png"],
        )


@pytest.mark.parametrize("kind", [TopK(3, 4, 2), BatchTopK(3, 4, 2), Thresholded(3, 4, 2, layer_norm=True)])
def test_a_dictionary_with_a_number_that_is_not_finite_is_refused(kind: Dictionary, tmp_path: Path):
    kind.save_pretrained(tmp_path)
    Dictionary.from_pretrained(tmp_path)
    for name, value in kind.state_dict().items():
        for broken in (float("nan"), float("inf")):
            before = value.flatten()[-1].clone()
            value.view(-1)[-1] = broken
            kind.save_pretrained(tmp_path)
            with pytest.raises(BlindspotError, match=f"{name} of the dictionary .* not finite"):
                Dictionary.from_pretrained(tmp_path)
            value.view(-1)[-1] = before
