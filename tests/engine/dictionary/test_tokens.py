"""Sources of training tokens."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.dictionary.tokens import MemoryTokens, ShardTokens, open_tokens, sample, statistics
from engine.errors import BlindspotError


@pytest.fixture
def tokens() -> np.ndarray:
    return np.random.default_rng(0).normal(3, 2, (100, 4)).astype(np.float16)


@pytest.fixture
def shards(tokens: np.ndarray, tmp_path: Path) -> list[Path]:
    paths = []
    for number, part in enumerate(np.split(tokens, [30, 60, 61])):
        paths.append(tmp_path / f"{number}.npy")
        np.save(paths[-1], part)
    return paths


def test_shards_and_memory_hold_the_same_tokens(tokens: np.ndarray, shards: list[Path]) -> None:
    source = ShardTokens(shards, memory_cap=500)
    rows = torch.randperm(100)
    assert torch.equal(source.gather(rows), torch.from_numpy(tokens).float()[rows])
    assert torch.equal(torch.cat(list(source.chunks())), torch.from_numpy(tokens).float())
    assert isinstance(open_tokens(shards, memory_cap=500), ShardTokens)
    assert isinstance(open_tokens(shards), MemoryTokens)
    assert torch.equal(open_tokens(shards).gather(rows), source.gather(rows))


def test_an_epoch_of_shards_is_a_reproducible_shuffle_within_windows(shards: list[Path]) -> None:
    source = ShardTokens(shards, memory_cap=500)
    order = source.order(torch.Generator().manual_seed(1))
    assert torch.equal(order, source.order(torch.Generator().manual_seed(1)))
    assert torch.equal(order.sort().values, torch.arange(100))
    assert not torch.equal(order, source.order(torch.Generator().manual_seed(2)))
    shard_of = torch.bucketize(order, torch.tensor([30, 60, 61]), right=True)
    assert len(torch.unique_consecutive(shard_of)) < 10  # windows hold about one shard, so reading stays sequential


def test_streaming_holds_no_more_than_the_cap(shards: list[Path]) -> None:
    source = ShardTokens(shards, memory_cap=600)
    for batch in source.order(torch.Generator().manual_seed(0)).split(7):
        source.gather(batch)
        assert sum(shard.nbytes for shard in source._held.values()) <= 600


def test_statistics_are_those_of_all_tokens(tokens: np.ndarray, shards: list[Path]) -> None:
    moments = statistics(ShardTokens(shards))
    exact = tokens.astype(np.float64)
    np.testing.assert_allclose(moments.mean, exact.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(1 / moments.scale.item() ** 2, exact.var(axis=0).mean(), rtol=1e-6)


def test_a_sample_has_distinct_rows(tokens: np.ndarray) -> None:
    source = MemoryTokens(torch.arange(50.0).view(50, 1))
    drawn = sample(source, 20, torch.Generator().manual_seed(0))
    assert len(drawn.unique()) == 20
    assert torch.equal(sample(source, 99, torch.Generator()), source.tokens)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_broken_tokens_are_located(broken: float) -> None:
    tokens = torch.randn(40, 3)
    tokens[17, 1] = broken
    with pytest.raises(BlindspotError, match="the first in row 17"):
        statistics(MemoryTokens(tokens))


def test_constant_tokens_are_one_sentence() -> None:
    with pytest.raises(BlindspotError, match="All training tokens are the same"):
        statistics(MemoryTokens(torch.full((9, 3), 4.2)))


def test_empty_and_odd_inputs_are_one_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((2, 5), np.float16))
    np.save(tmp_path / "narrow.npy", np.zeros((2, 4), np.float16))
    np.save(tmp_path / "empty.npy", np.zeros((0, 4), np.float16))
    np.save(tmp_path / "whole.npy", np.zeros((2, 4), np.int64))
    (tmp_path / "text.npy").write_text("no array")
    cases = [
        ([], "There are no token shards"),
        ([tmp_path / "wide.npy", tmp_path / "narrow.npy"], "width 4 but the first has 5"),
        ([tmp_path / "empty.npy"], "is empty"),
        ([tmp_path / "whole.npy"], "holds int64"),
        ([tmp_path / "text.npy"], r"not a \.npy array"),
        ([tmp_path / "nowhere.npy"], "is missing"),
        (torch.empty(0, 4), r"not \[0, 4\]"),
        (torch.randn(2, 3, 4), r"not \[2, 3, 4\]"),
    ]
    for given, message in cases:
        with pytest.raises(BlindspotError, match=message):
            open_tokens(given)
