"""Training of a dictionary: AdamW on reconstruction, revival of dead concepts, exact resume.

The loss is the unexplained share of variance plus AuxK (Gao et al. 2025, section A.2): concepts that have been silent
for long try to explain what the living ones leave over, and their bias rises until TopK chooses them again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from engine.dictionary.base import Codes, Dictionary, combine
from engine.dictionary.resume import load_state, save_state
from engine.dictionary.tokens import TokenSource, open_tokens, sample
from engine.errors import BlindspotError

REVIVED_AT_ONCE = 32
LIFT = 0.1
EVALUATION_ROWS = 2**20
EVALUATION_BATCH = 8192


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults suit anything from ten thousand to some ten million tokens."""

    epochs: float = 10
    """Passes over the tokens."""

    batch_size: int = 4096
    """Tokens per step."""

    learning_rate: float = 1e-3
    """Peak, after a linear warm-up."""

    final_learning_rate: float = 1e-6
    """Where the cosine decay ends."""

    warmup: float = 0.05
    """Share of the steps."""

    weight_decay: float = 1e-5
    """Of AdamW (paper 004, F.1)."""

    clip_norm: float = 1.0
    """Largest norm of the whole gradient."""

    dead_after: int | None = None
    """Tokens without firing after which a concept counts as dead; None: one epoch, at most a million."""

    revival: float = 1 / 32
    """Weight of AuxK; 0 leaves dead concepts alone."""

    seed: int = 0
    """Of the shuffle and of the start."""

    checkpoint_every: int = 500
    """Steps between checkpoints, when a folder for them is given."""


DEFAULT_CONFIG = TrainConfig()


class Progress(NamedTuple):
    """Where training stands."""

    step: int
    """Steps done."""

    steps: int
    """Steps in all."""

    loss: float
    """Unexplained share of variance in the last batch."""

    dead_share: float
    """Share of concepts that have been silent for long."""


@dataclass(frozen=True)
class TrainReport:
    """What training reached, measured on up to a million training tokens."""

    r2: float
    """1 - squared error / variance."""

    l0: float
    """Mean number of active concepts per token."""

    dead_share: float
    """Share of concepts that no token activates."""

    steps: int
    """Optimiser steps in all, earlier runs included."""

    seconds: float
    """Duration of this run."""


def train(
    dictionary: Dictionary,
    tokens: Tensor | TokenSource | Sequence[str | Path],
    config: TrainConfig = DEFAULT_CONFIG,
    on_progress: Callable[[Progress], object] | None = None,
    checkpoint_dir: str | Path | None = None,
) -> TrainReport:
    """Train a dictionary in place, from where `checkpoint_dir` left off if it holds a checkpoint.

    A run that was interrupted and resumed takes the very same steps as one that was not.

    Parameters
    ----------
    dictionary
        Initialised, with its mean and scale set; `fit` does both.
    tokens
        Raw tokens [N, d] or .npy shards of them.
    config
        See `TrainConfig`.
    on_progress
        Called about a hundred times.
    checkpoint_dir
        Folder for checkpoints; its name decides nothing else.

    Raises
    ------
    BlindspotError
        When the tokens do not fit the dictionary, the checkpoint belongs to another run, or training diverges.
    """
    began = time.monotonic()
    source = open_tokens(tokens)
    if source.dim != dictionary.dim:
        raise BlindspotError(f"The tokens have width {source.dim} but the dictionary reads {dictionary.dim}.")
    run = _Run(dictionary.train().requires_grad_(True), source, config)
    if checkpoint_dir is not None:
        run.step = load_state(Path(checkpoint_dir), dictionary, run.optimiser, run.idle, run.identity())
    every = max(1, run.steps // 100)
    while run.step < run.steps:
        loss = run.advance()
        last = run.step == run.steps
        if on_progress is not None and (run.step % every == 0 or last):
            on_progress(Progress(run.step, run.steps, float(loss), float(run.dead().float().mean())))
        if checkpoint_dir is not None and (run.step % config.checkpoint_every == 0 or last):
            _require_finite(loss, run.step)
            save_state(Path(checkpoint_dir), dictionary, run.optimiser, run.idle, run.step, run.identity())
    dictionary.eval().requires_grad_(False)
    r2, l0, dead_share = evaluate(dictionary, source, config.seed)
    return TrainReport(r2, l0, dead_share, run.steps, time.monotonic() - began)


class _Run:
    """The state of one training: optimiser, position in the shuffle, and how long each concept has been silent."""

    def __init__(self, dictionary: Dictionary, source: TokenSource, config: TrainConfig) -> None:
        self.dictionary, self.source, self.config = dictionary, source, config
        self.batch = min(config.batch_size, source.rows)
        self.per_epoch = math.ceil(source.rows / self.batch)
        self.steps = max(1, math.ceil(config.epochs * self.per_epoch))
        self.dead_after = config.dead_after or min(source.rows, 1_000_000)
        device = dictionary.mean.device
        self.optimiser = torch.optim.AdamW(dictionary.parameter_groups(), weight_decay=config.weight_decay)
        self.idle = torch.zeros(dictionary.concepts, dtype=torch.int64, device=device)
        self.step = 0
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def identity(self) -> dict[str, object]:
        """What must agree for a checkpoint to be continued."""
        return {
            "config": {name: value for name, value in vars(self.config).items() if name != "checkpoint_every"},
            "kind": self.dictionary.kind,
            "settings": self.dictionary.settings(),
            "rows": self.source.rows,
        }

    def dead(self) -> Tensor:
        """Concepts silent for long, bool [K]."""
        return self.idle > self.dead_after

    def advance(self) -> Tensor:
        """One optimiser step; returns the unexplained share of variance, a scalar."""
        x = self._next_batch()
        dictionary = self.dictionary
        target = dictionary.standardise(x)
        codes, atoms = dictionary.encode(x), dictionary.atoms()
        error = target - combine(codes, atoms)
        loss = error.square().mean()
        total = loss + self.config.revival * self._revival(target, error.detach(), atoms)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(dictionary.parameters(), self.config.clip_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * learning_rate(self.step, self.steps, self.config)
        self.optimiser.step()
        dictionary.constrain()
        if self.config.revival > 0:
            self._lift(codes)
        self.idle += len(x)
        self.idle[codes.indices[codes.values > 0]] = 0
        self.step += 1
        return loss.detach()

    def _revival(self, target: Tensor, error: Tensor, atoms: Tensor) -> Tensor:
        """AuxK: the error's share that the strongest dead concepts leave unexplained, a scalar."""
        dead = self.dead().nonzero().squeeze(-1)
        if len(dead) == 0:
            return target.new_zeros(())
        encoder = self.dictionary.encoder
        active = torch.nn.functional.linear(target, encoder.weight[dead], encoder.bias[dead])
        values, indices = active.topk(min(len(dead), REVIVED_AT_ONCE), dim=-1)
        explained = combine(Codes(dead[indices], values.relu()), atoms)
        return (error - explained).square().mean() / error.square().mean().clamp_min(1e-8)

    @torch.no_grad()
    def _lift(self, codes: Codes) -> None:
        """Raise the bias of dead concepts until they are chosen.

        AuxK points them at what is unexplained, but gives no gradient to a concept that no token activates. The height
        is relative to the weakest code that TopK lets through, and fades with the learning rate.
        """
        pace = learning_rate(self.step, self.steps, self.config) / self.config.learning_rate
        self.dictionary.encoder.bias += LIFT * pace * codes.values[:, -1].mean() * self.dead()

    def _next_batch(self) -> Tensor:
        epoch, position = divmod(self.step, self.per_epoch)
        if epoch != self._epoch:
            shuffle = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, self.source.order(shuffle)
        rows = self._order[position * self.batch : (position + 1) * self.batch]
        return self.source.gather(rows).to(self.dictionary.mean.device)


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine from the peak to the final rate."""
    warmup = max(1, round(config.warmup * steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    span = config.learning_rate - config.final_learning_rate
    return config.final_learning_rate + span * (1 + math.cos(math.pi * done)) / 2


def _require_finite(loss: Tensor, step: int) -> None:
    if not torch.isfinite(loss):
        raise BlindspotError(f"Training diverged before step {step}; lower the learning rate.")


@torch.no_grad()
def evaluate(dictionary: Dictionary, tokens: Tensor | TokenSource, seed: int = 0) -> tuple[float, float, float]:
    """R2, L0 and dead share on up to a million tokens [N, d]."""
    source = open_tokens(tokens)
    chosen = sample(source, EVALUATION_ROWS, torch.Generator().manual_seed(seed))
    error = variance = active = 0.0
    fired = torch.zeros(dictionary.concepts, dtype=torch.bool, device=dictionary.mean.device)
    for x in chosen.split(EVALUATION_BATCH):
        x = x.to(dictionary.mean.device)
        codes = dictionary.encode(x)
        error += float((x - dictionary.decode(codes)).double().square().sum())
        variance += float((x - dictionary.mean).double().square().sum())
        active += float((codes.values > 0).sum())
        fired[codes.indices[codes.values > 0]] = True
    return 1 - error / variance, active / len(chosen), 1 - float(fired.float().mean())
