"""Codes above thresholds: the law, its gradients, and the shortcut through a LayerNorm."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dictionary.base import Dictionary
from engine.dictionary.topk import Thresholded
from engine.errors import BlindspotError
from tests.engine.dictionary.published.compare import dense, shake

CONCEPTS, DIM = 17, 6


def made(sparsity: int = CONCEPTS, layer_norm: bool = False, seed: int = 0) -> Thresholded:
    dictionary = shake(Thresholded(DIM, CONCEPTS, sparsity, layer_norm))
    generator = torch.Generator().manual_seed(seed)
    dictionary.thresholds.copy_(torch.rand(CONCEPTS, generator=generator))
    dictionary.mean.copy_(torch.randn(DIM, generator=generator))
    dictionary.scale.fill_(1.7)
    return dictionary.eval().requires_grad_(False)


def activations(dictionary: Thresholded, x: torch.Tensor) -> torch.Tensor:
    a = ((x - dictionary.mean) * dictionary.scale) @ dictionary.encoder.weight.T + dictionary.encoder.bias
    if dictionary.layer_norm is None:
        return a
    a = a - a.mean(dim=-1, keepdim=True)
    a = a / (a.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return a * dictionary.layer_norm.weight + dictionary.layer_norm.bias


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.integers(1, CONCEPTS), st.integers(0, 9))
def test_codes_are_the_strongest_activations_above_their_thresholds(
    seed: int, layer_norm: bool, sparsity: int, rows: int
) -> None:
    dictionary = made(sparsity, layer_norm, seed)
    x = torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed))
    a = activations(dictionary, x)
    expected = torch.where(a > dictionary.thresholds, a, 0)
    kept = expected.topk(sparsity, dim=-1)
    expected = torch.zeros_like(a).scatter(1, kept.indices, kept.values)
    codes = dictionary.encode(x)
    assert codes.indices.shape == codes.values.shape == (rows, sparsity)
    assert (codes.values.diff(dim=-1) <= 0).all()
    torch.testing.assert_close(dense(codes, CONCEPTS), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_few_preactivations_need_not_all_and_keep_their_gradients(layer_norm: bool) -> None:
    dictionary, chosen = made(layer_norm=layer_norm), torch.tensor([16, 2, 2])
    x = torch.randn(9, DIM, requires_grad=True)
    expected = activations(dictionary, x)[:, chosen]
    found = dictionary.preactivate(x, chosen)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    wanted = torch.autograd.grad(expected.square().sum(), x)[0]
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), x)[0], wanted, atol=1e-4, rtol=1e-4)


def test_preactivations_follow_changed_weights() -> None:
    dictionary, x, chosen = made(layer_norm=True), torch.randn(5, DIM), torch.arange(3)
    dictionary.preactivate(x, chosen)
    dictionary.encoder.weight.mul_(torch.linspace(0.5, 2, CONCEPTS)[:, None])
    expected = activations(dictionary, x)[:, chosen]
    torch.testing.assert_close(dictionary.preactivate(x, chosen), expected, atol=1e-5, rtol=1e-5)


def test_many_tokens_are_encoded_in_chunks_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary, x = made(4), torch.randn(50, DIM)
    whole = dictionary.encode(x)
    monkeypatch.setattr("engine.dictionary.topk.CHUNK_ENTRIES", 7 * CONCEPTS)
    parts = dictionary.encode(x)
    assert torch.equal(parts.indices, whole.indices)
    torch.testing.assert_close(parts.values, whole.values)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_round_trip(tmp_path: Path, layer_norm: bool) -> None:
    dictionary, x = made(3, layer_norm), torch.randn(5, DIM)
    dictionary.save_pretrained(tmp_path)
    loaded = Dictionary.from_pretrained(tmp_path)
    assert loaded.settings() == dictionary.settings()
    assert torch.equal(loaded.reconstruct(x), dictionary.reconstruct(x))


def test_it_cannot_be_trained_anew() -> None:
    with pytest.raises(BlindspotError, match="choose another kind, for example topk"):
        made().initialise(torch.randn(5, DIM), torch.Generator())
