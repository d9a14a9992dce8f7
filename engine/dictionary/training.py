"""Training of a dictionary, from the first or the last kept step to its end or its explained variance."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from engine.dictionary.base import Dictionary
from engine.dictionary.evaluation import evaluate
from engine.dictionary.processes import Processes
from engine.dictionary.resume import load_state, save_state
from engine.dictionary.run import TrainingRun
from engine.dictionary.schedule import DEFAULT_CONFIG, TrainConfig
from engine.dictionary.tokens import TokenSource, open_tokens
from engine.errors import BlindspotError

if TYPE_CHECKING:
    from accelerate import Accelerator


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

    r2: float
    """Explained variance, running over the last batches."""

    l0: float
    """Active concepts per token, running over the last batches."""

    tokens_per_second: float
    """Mean of this run."""

    seconds_left: float
    """Until the last step, at this pace."""


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
    *,
    targets: Tensor | TokenSource | Sequence[str | Path] | None = None,
    accelerator: Accelerator | None = None,
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
    targets
        Tokens [N, d'] that a transcoder reconstructs instead of its own, row by row.
    accelerator
        Of `accelerate`, when several processes train together; the dictionary is on each one's device.

    Raises
    ------
    BlindspotError
        When the tokens do not fit the dictionary, the checkpoint belongs to another run, a batch holds NaN, or training
        diverges. The last good step is then in the checkpoint.
    """
    began = time.monotonic()
    source = open_tokens(tokens)
    wanted = source if targets is None else open_tokens(targets)
    _require_fit(dictionary, source, wanted)
    processes = Processes(accelerator)
    run = TrainingRun(dictionary.train().requires_grad_(True), source, wanted, config, processes)
    folder = None if checkpoint_dir is None else Path(checkpoint_dir)
    if folder is not None:
        run.step = load_state(folder, dictionary, run.optimiser, run.state(), run.identity())
    with _fast_products(config, run.device):
        _all_steps(run, on_progress, folder)
    dictionary.eval().requires_grad_(False)
    quality = evaluate(dictionary, source, config.seed, None if targets is None else wanted)
    return TrainReport(*quality, run.step, time.monotonic() - began)


def _all_steps(run: TrainingRun, on_progress: Callable[[Progress], object] | None, folder: Path | None) -> None:
    """Step until the run is finished; report and keep checkpoints on the way, also of the step before a failure."""
    began, first = time.monotonic(), run.step
    every = max(1, run.steps // 100)
    kept = run.step
    while not run.finished:
        try:
            loss = run.advance()
        except BlindspotError:
            if folder is not None and kept < run.step:
                _keep(run, folder)
            raise
        last = run.finished
        if on_progress is not None and run.processes.leads and (run.step % every == 0 or last):
            on_progress(_progress(run, loss, run.step - first, time.monotonic() - began))
        if folder is not None and (run.step % run.config.checkpoint_every == 0 or last):
            _keep(run, folder)
            kept = run.step


def _progress(run: TrainingRun, loss: Tensor, done: int, seconds: float) -> Progress:
    pace = done / max(seconds, 1e-9)
    dead = float(run.dead().float().mean())
    left = (run.steps - run.step) / pace
    return Progress(run.step, run.steps, float(loss), dead, run.r2, run.l0, pace * run.batch, left)


def _keep(run: TrainingRun, folder: Path) -> None:
    """Write a checkpoint, unless the parameters are not worth keeping."""
    if run.processes.leads and all(parameter.isfinite().all() for parameter in run.dictionary.parameters()):
        save_state(folder, run.dictionary, run.optimiser, run.state(), run.step, run.identity())
    run.processes.wait()


def _require_fit(dictionary: Dictionary, source: TokenSource, targets: TokenSource) -> None:
    if source.dim != dictionary.dim:
        raise BlindspotError(f"The tokens have width {source.dim} but the dictionary reads {dictionary.dim}.")
    if targets.dim != dictionary.out_dim or targets.rows != source.rows:
        raise BlindspotError(
            f"{targets.rows} targets of width {targets.dim} do not go with {source.rows} tokens and a dictionary that "
            f"reconstructs width {dictionary.out_dim}; encode the same images at both layers."
        )


@contextmanager
def _fast_products(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """TF32 for the float32 products on CUDA, unless float32 was asked for."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda" and config.precision != "float32":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
