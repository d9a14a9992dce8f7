"""Usage of a dictionary, shard by shard, against the same sums written out densely."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.dictionary.base import Dictionary
from engine.dictionary.evaluation import joined, measure_usage
from engine.dictionary.topk import TopK
from engine.dictionary.transcoder import Transcoder
from engine.errors import BlindspotError


@pytest.fixture
def dictionary() -> Dictionary:
    torch.manual_seed(0)
    made = TopK(6, 20, 4).requires_grad_(False)
    made.mean.copy_(torch.randn(6))
    made.scale.fill_(0.7)
    made.encoder.bias[3] = -50
    made.encoder.weight.mul_(4)
    return made


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randn(500, 6, generator=torch.Generator().manual_seed(1)) + 3


def test_usage_agrees_with_dense_codes(dictionary: Dictionary, tokens: torch.Tensor) -> None:
    found = measure_usage(dictionary, tokens)
    codes = dictionary.encode(tokens)
    dense = torch.zeros(500, 20).scatter(1, codes.indices, codes.values)
    error = (tokens - ((dense @ dictionary.atoms()) / dictionary.scale + dictionary.mean)).double().square().sum()
    variance = (tokens - tokens.mean(dim=0)).double().square().sum()
    assert found.r2 == pytest.approx(float(1 - error / variance), abs=1e-6) and found.fvu == pytest.approx(1 - found.r2)
    active = (dense > 0).sum(dim=1)
    assert found.l0 == pytest.approx(float(active.double().mean()))
    assert found.active.tolist() == torch.bincount(active, minlength=5).tolist()
    assert torch.equal(found.fires, (dense > 0).sum(dim=0))
    assert found.fires[3] == 0 and found.dead_share == pytest.approx(float((dense.sum(dim=0) == 0).double().mean()))


def test_shards_one_by_one_add_up_to_all_tokens(
    dictionary: Dictionary, tokens: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.dictionary.evaluation.BATCH", 37)
    paths = [tmp_path / f"{number}.npy" for number in range(3)]
    for path, rows in zip(paths, tokens.split([100, 1, 399]), strict=True):
        np.save(path, rows.numpy())
    whole = measure_usage(dictionary, tokens)
    for found in (measure_usage(dictionary, paths), joined([measure_usage(dictionary, [path]) for path in paths])):
        assert found.tokens == 500 and found.r2 == pytest.approx(whole.r2, rel=1e-6)
        assert torch.equal(found.fires, whole.fires) and torch.equal(found.active, whole.active)


def test_a_transcoder_is_measured_on_its_targets_map_by_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.dictionary.evaluation.BATCH", 10)
    torch.manual_seed(0)
    transcoder = Transcoder(4, 12, 3, grid=(2, 2), out_dim=5).requires_grad_(False)
    tokens, targets = torch.randn(28, 4), torch.randn(28, 5)
    found = measure_usage(transcoder, tokens, targets)
    error = (targets - transcoder.reconstruct(tokens)).square().sum()
    variance = (targets - targets.mean(dim=0)).square().sum()
    assert found.fvu == pytest.approx(float(error / variance), rel=1e-5)
    with pytest.raises(BlindspotError, match="reconstructs 28 tokens of width 5, not 28 of width 4"):
        measure_usage(transcoder, tokens)


def test_r2_is_measured_from_the_tokens_own_mean(dictionary: Dictionary, tokens: torch.Tensor) -> None:
    """A dictionary with a wrong mean must not look better because its tokens look far away."""
    dictionary.encoder.bias.fill_(-1e4)
    dictionary.mean.fill_(100)
    assert measure_usage(dictionary, tokens).r2 < -1000
    dictionary.mean.copy_(tokens.mean(dim=0))
    assert measure_usage(dictionary, tokens).r2 == pytest.approx(0, abs=1e-6)


def test_broken_tokens_are_one_sentence(dictionary: Dictionary, tokens: torch.Tensor) -> None:
    tokens[7, 2] = torch.nan
    with pytest.raises(BlindspotError, match="NaN or infinite"):
        measure_usage(dictionary, tokens)
    with pytest.raises(BlindspotError, match="tokens of width 6, not 4 of width 5"):
        measure_usage(dictionary, torch.randn(4, 5))
