"""BatchTopK: a budget shared by the batch, and a threshold that makes tokens independent afterwards."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.dictionary.base import Dictionary
from engine.dictionary.fitting import fit
from engine.dictionary.spec import DictionarySpec
from engine.dictionary.topk import MOMENTUM, BatchTopK
from engine.errors import BlindspotError


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), sparsity=st.integers(1, 4), room=st.integers(0, 8))
def test_a_batch_keeps_its_strongest_activations(seed: int, sparsity: int, room: int) -> None:
    torch.manual_seed(seed)
    dictionary = BatchTopK(6, 12, sparsity, max_active=sparsity + room)
    x = torch.randn(20, 6)
    active = dictionary.encoder(x).relu().topk(sparsity + room, dim=-1).values.flatten()
    expected = active.topk(20 * sparsity).values
    kept = dictionary.activate_batch(dictionary.features(x)).values.flatten()
    torch.testing.assert_close(kept.sort().values[-20 * sparsity :], expected.sort().values)
    assert (kept > 0).sum() == (expected > 0).sum()


def test_the_threshold_is_a_running_mean_of_the_smallest_kept() -> None:
    dictionary, theta = BatchTopK(6, 12, 2), None
    for seed in range(4):
        x = torch.randn(30, 6, generator=torch.Generator().manual_seed(seed))
        codes = dictionary.activate_batch(dictionary.features(x))
        smallest = codes.values[codes.values > 0].min().item()
        theta = smallest if theta is None else MOMENTUM * theta + (1 - MOMENTUM) * smallest
        dictionary.update_threshold(dictionary.selection_level(codes))
        assert dictionary.threshold.item() == pytest.approx(theta, rel=1e-5)
    dictionary.update_threshold(dictionary.selection_level(codes._replace(values=torch.zeros_like(codes.values))))
    assert dictionary.threshold.item() == pytest.approx(theta, rel=1e-5)


def test_codes_do_not_depend_on_the_rest_of_the_batch(planted: Callable[..., tuple[Tensor, Tensor]]) -> None:
    tokens, _ = planted(1500, 16, 12, 2)
    sizes = {"kind": "batchtopk", "concepts": 24, "sparsity": 3, "device": "cpu"}
    dictionary, report = fit(tokens, DictionarySpec(**sizes, steps=100, batch=150, learning_rate=5e-3))
    whole = dictionary.encode(tokens)
    alone = dictionary.encode(tokens[7:8])
    torch.testing.assert_close(alone.values, whole.values[7:8])
    assert whole.values.shape == (1500, dictionary.max_active)
    counts = (whole.values > 0).sum(dim=-1)
    assert counts.min() < counts.max()
    assert report.l0 == pytest.approx(3, abs=0.7)
    assert report.r2 > 0.8


def test_the_threshold_is_saved(tmp_path: Path) -> None:
    dictionary = BatchTopK(6, 12, 2, max_active=7)
    dictionary.threshold.fill_(0.3)
    dictionary.save_pretrained(tmp_path)
    loaded = Dictionary.from_pretrained(tmp_path)
    assert loaded.settings() == {"dim": 6, "concepts": 12, "sparsity": 2, "max_active": 7}
    values = loaded.encode(torch.randn(40, 6)).values
    assert values.shape == (40, 7) and values[values > 0].min() >= 0.3


@pytest.mark.parametrize("most", [1, 13])
def test_an_impossible_width_is_one_sentence(most: int) -> None:
    with pytest.raises(BlindspotError, match=f"up to {most} active concepts of 12 when 2 is the mean"):
        BatchTopK(6, 12, 2, max_active=most)
