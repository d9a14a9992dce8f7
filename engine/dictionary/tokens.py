"""Training tokens, in memory or as .npy shards on disk, behind one small interface with a reproducible shuffle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from engine.errors import BlindspotError

CHUNK_ROWS = 65_536
MEMORY_CAP = 4 * 2**30
LARGEST = {"float16": float(np.finfo(np.float16).max), "float32": 1e16}
"""By the type that they are stored in, what tokens must stay below: a cast leaves its largest number in place of larger
ones, and the squares of larger ones add up to infinity."""
ENCODE_AGAIN = "encode all images again with encoder.store=float32 and encoder.dtype=float32"
"""What helps against numbers that half precision cannot hold."""


def first_unusable(tokens: Tensor | np.ndarray, stored: str = "") -> int | None:
    """The first row of tokens [N, d] with a number that is NaN, infinite or saturated; None if there is none.

    `stored` names the type that they come from, if that is not their own (`float16` or `float32`).
    """
    largest = LARGEST.get(stored or str(tokens.dtype).removeprefix("torch."), LARGEST["float32"])
    for start in range(0, len(tokens), CHUNK_ROWS // 16):
        chunk = tokens[start : start + CHUNK_ROWS // 16]
        wide = torch.from_numpy(np.array(chunk, np.float32)) if isinstance(chunk, np.ndarray) else chunk.float()
        unusable = ~(wide.abs() < largest).all(dim=-1)  # a NaN is below nothing
        if unusable.any():
            return start + int(unusable.nonzero()[0])
    return None


class TokenSource(ABC):
    """Rows of tokens that training can shuffle, gather and scan."""

    rows: int
    dim: int
    stored: str
    """Name of the type that the tokens are kept in."""

    @abstractmethod
    def order(self, generator: torch.Generator, group_size: int = 1) -> Int[Tensor, " rows"]:
        """A shuffle of all row numbers in an order that is cheap to gather; groups of rows stay as they are."""

    @abstractmethod
    def gather(self, rows: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """Float32 tokens by row number."""

    @abstractmethod
    def chunks(self) -> Iterator[Float[Tensor, "n d"]]:
        """All tokens in file order, float32, `CHUNK_ROWS` at a time."""


Tokens: TypeAlias = Tensor | TokenSource | Sequence[str | Path]
"""Raw tokens [N, d], or paths of .npy shards of them."""


class MemoryTokens(TokenSource):
    """Tokens that fit in memory: one tensor [N, d] of any float type, on any device."""

    def __init__(self, tokens: Float[Tensor, "n d"]) -> None:
        if tokens.ndim != 2 or 0 in tokens.shape:
            raise BlindspotError(
                f"Training tokens must have the shape [tokens, width], not {list(tokens.shape)}; "
                "encode some images first."
            )
        self.tokens, self.stored = tokens, str(tokens.dtype).removeprefix("torch.")
        self.rows, self.dim = tokens.shape

    def order(self, generator: torch.Generator, group_size: int = 1) -> Tensor:
        return shuffled(torch.arange(self.rows), generator, group_size)

    def gather(self, rows: Tensor) -> Tensor:
        return self.tokens[rows.to(self.tokens.device)].float()

    def chunks(self) -> Iterator[Tensor]:
        return (chunk.float() for chunk in self.tokens.split(CHUNK_ROWS))


class ShardTokens(TokenSource):
    """Tokens in .npy files [n_i, d], read a window of shards at a time.

    An epoch visits the shards in random order. Shards that together fit in half of `memory_cap` form a window, whose
    rows are shuffled together; a batch may straddle two windows, so at most `memory_cap` bytes are held (or one shard,
    if that is larger). All shards have one width.
    """

    def __init__(self, paths: Sequence[str | Path], memory_cap: int = MEMORY_CAP) -> None:
        self.paths = [Path(path) for path in paths]
        if not self.paths:
            raise BlindspotError("There are no token shards to train on; encode some images first.")
        maps = [_open_shard(path) for path in self.paths]
        self.dim = maps[0].shape[1]
        for path, shard in zip(self.paths, maps, strict=True):
            if shard.shape[1] != self.dim:
                raise BlindspotError(
                    f"The token shard {path} has width {shard.shape[1]} but the first has {self.dim}; "
                    "encode all images with one encoder."
                )
        self.starts = np.cumsum([0, *map(len, maps)])
        self.rows = int(self.starts[-1])
        self.bytes, self.stored = [shard.nbytes for shard in maps], min(str(shard.dtype) for shard in maps)
        self.memory_cap = memory_cap
        self._held: dict[int, np.ndarray] = {}

    def order(self, generator: torch.Generator, group_size: int = 1) -> Tensor:
        windows: list[list[int]] = [[]]
        filled = 0
        for shard in torch.randperm(len(self.paths), generator=generator).tolist():
            if windows[-1] and filled + self.bytes[shard] > self.memory_cap // 2:
                windows.append([])
                filled = 0
            windows[-1].append(shard)
            filled += self.bytes[shard]
        parts = []
        for window in windows:
            rows = torch.cat([torch.arange(int(self.starts[s]), int(self.starts[s + 1])) for s in window])
            parts.append(shuffled(rows, generator, group_size))
        return torch.cat(parts)

    def gather(self, rows: Tensor) -> Tensor:
        wanted = rows.cpu().numpy()
        shards = np.searchsorted(self.starts, wanted, side="right") - 1
        out = np.empty((len(wanted), self.dim), dtype=np.float32)
        for shard in np.unique(shards):
            mask = shards == shard
            out[mask] = self._shard(int(shard))[wanted[mask] - self.starts[shard]]
        return torch.from_numpy(out)

    def _shard(self, shard: int) -> np.ndarray:
        """A shard, read whole and kept while the cap allows."""
        if shard not in self._held:
            while self._held and sum(self.bytes[s] for s in self._held) + self.bytes[shard] > self.memory_cap:
                self._held.pop(next(iter(self._held)))
            self._held[shard] = np.load(self.paths[shard], allow_pickle=False)
        return self._held[shard]

    def chunks(self) -> Iterator[Tensor]:
        for path in self.paths:
            shard = _open_shard(path)
            for start in range(0, len(shard), CHUNK_ROWS):
                yield torch.from_numpy(shard[start : start + CHUNK_ROWS].astype(np.float32))


def shuffled(rows: Int[Tensor, " n"], generator: torch.Generator, group_size: int = 1) -> Int[Tensor, " n"]:
    """Row numbers in random order, groups of consecutive ones kept as they are; refused if there is a rest."""
    if len(rows) % group_size:
        raise BlindspotError(
            f"{len(rows)} training tokens are not whole maps of {group_size}; encode again without prefix tokens, "
            "or give the grid that the encoder has."
        )
    groups = rows.view(-1, group_size)
    return groups[torch.randperm(len(groups), generator=generator)].flatten()


def open_tokens(tokens: Tokens, memory_cap: int = MEMORY_CAP) -> TokenSource:
    """A source from a tensor [N, d], from .npy paths, or as given.

    Shards that fit in `memory_cap` bytes together are loaded once, in their own precision.
    """
    if isinstance(tokens, (Tensor, np.ndarray)):
        return MemoryTokens(torch.as_tensor(tokens))
    if not isinstance(tokens, Sequence):
        return tokens
    shards = ShardTokens(tokens, memory_cap)
    if sum(shards.bytes) > memory_cap:
        return shards
    return MemoryTokens(torch.cat([torch.from_numpy(np.load(path, allow_pickle=False)) for path in shards.paths]))


def _open_shard(path: Path) -> np.ndarray:
    try:
        shard = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BlindspotError(
            f"The token shard {path} is missing or not a .npy array; encode the images again."
        ) from error
    if shard.ndim != 2 or not np.issubdtype(shard.dtype, np.floating):
        raise BlindspotError(
            f"The token shard {path} holds {shard.dtype} of shape {list(shard.shape)}, not floats [tokens, width]; "
            "encode the images again."
        )
    if len(shard) == 0:
        raise BlindspotError(f"The token shard {path} is empty; encode its images again, or leave it out.")
    return shard


class TokenStatistics(NamedTuple):
    """First and second moments of a source."""

    mean: Float[Tensor, " d"]
    scale: Float[Tensor, ""]
    """Brings centred tokens to a mean square of 1 per channel."""


def statistics(source: TokenSource) -> TokenStatistics:
    """Mean and scale in one pass, in float64.

    Raises
    ------
    BlindspotError
        When a token is NaN, infinite or saturated, or when all tokens are the same.
    """
    total = torch.zeros(source.dim, dtype=torch.float64)
    squares = torch.zeros(source.dim, dtype=torch.float64)
    seen = 0
    for chunk in source.chunks():
        if (row := first_unusable(chunk, source.stored)) is not None:
            raise BlindspotError(
                f"The training tokens hold NaN, infinite or saturated numbers (the first in row {seen + row}); "
                f"{ENCODE_AGAIN}."
            )
        wide = chunk.double().cpu()
        total += wide.sum(dim=0)
        squares += wide.square().sum(dim=0)
        seen += len(chunk)
    mean = total / source.rows
    variance = (squares / source.rows - mean.square()).clamp_min(0).mean()
    if variance <= 1e-12 * (1 + mean.square().mean()):
        raise BlindspotError("All training tokens are the same, so there is nothing to learn; encode different images.")
    return TokenStatistics(mean.float(), variance.rsqrt().float())


def sample(source: TokenSource, count: int, generator: torch.Generator, group_size: int = 1) -> Float[Tensor, "n d"]:
    """Up to `count` distinct random tokens, in file order, in whole groups."""
    if count >= source.rows:
        return torch.cat(list(source.chunks()))
    groups = torch.randperm(source.rows // group_size, generator=generator)
    groups = groups[: max(1, count // group_size)].sort().values
    rows = (groups.unsqueeze(-1) * group_size + torch.arange(group_size)).flatten()
    return torch.cat([source.gather(part) for part in rows.split(CHUNK_ROWS)])
