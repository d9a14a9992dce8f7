"""Training of a dictionary: the loop with its checkpoints, the step, AuxK, and the learning rate.

The loss is the unexplained share of variance plus AuxK (Gao et al. 2025, "Scaling and evaluating sparse autoencoders",
section A.2): the share of the error that the strongest dead concepts leave unexplained. AuxK points dead concepts at
what is missing but gives no gradient to a concept that no token activates, so their biases are raised as well.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from engine.dictionary.base import Dictionary
from engine.dictionary.encoding import Codes, combine, top_codes
from engine.dictionary.evaluation import evaluate
from engine.dictionary.spec import TrainConfig
from engine.dictionary.tokens import ENCODE_AGAIN, Tokens, TokenSource, open_tokens
from engine.errors import BlindspotError
from engine.files import write_whole

STATE = "training.pt"
"""Parameters, optimiser moments and position of an unfinished run, in its checkpoint folder."""
CHECKPOINT_EVERY = 100
"""Steps that a killed training loses at most."""
WARMUP = 0.05
"""Share of the steps over which the learning rate rises."""
CLIP_NORM = 1.0
"""Largest norm of the whole gradient."""
DEAD_AFTER = 1_000_000
"""Tokens (one epoch, if that is less) without firing after which a concept counts as dead."""
AUX_K = 32
"""Dead concepts per token that AuxK uses."""
AUX_K_BIAS_RATE = 0.3
MOMENTUM = 0.95
"""Of the running figures that progress shows."""


class TrainProgress(NamedTuple):
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
    tokens: Tokens,
    config: TrainConfig,
    on_progress: Callable[[TrainProgress], object] | None = None,
    checkpoint_dir: str | Path | None = None,
    *,
    targets: Tokens | None = None,
    checkpoint_every: int = CHECKPOINT_EVERY,
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
    checkpoint_every
        Steps between checkpoints.

    Raises
    ------
    BlindspotError
        When the tokens do not fit the dictionary, the checkpoint belongs to another run, a batch holds NaN, or training
        diverges. The last good step is then in the checkpoint.
    """
    began = time.monotonic()
    source = open_tokens(tokens)
    wanted = source if targets is None else open_tokens(targets)
    if source.dim != dictionary.dim:
        raise BlindspotError(f"The tokens have width {source.dim} but the dictionary reads {dictionary.dim}.")
    if wanted.dim != dictionary.out_dim or wanted.rows != source.rows:
        raise BlindspotError(
            f"{wanted.rows} targets of width {wanted.dim} do not go with {source.rows} tokens and a dictionary that "
            f"reconstructs width {dictionary.out_dim}; encode the same images at both layers."
        )
    run = TrainingRun(dictionary.train().requires_grad_(True), source, wanted, config)
    folder = None if checkpoint_dir is None else Path(checkpoint_dir)
    if folder is not None:
        run.resume(folder)
    matmul_precision = torch.get_float32_matmul_precision()
    if run.device.type == "cuda" and config.precision != "float32":
        torch.set_float32_matmul_precision("high")
    try:
        _run(run, on_progress, folder, checkpoint_every)
    finally:
        torch.set_float32_matmul_precision(matmul_precision)
    dictionary.eval().requires_grad_(False)
    reached = evaluate(dictionary, source, config.seed, None if targets is None else wanted)
    return TrainReport(reached.r2, reached.l0, reached.dead_share, run.step, time.monotonic() - began)


def _run(
    run: TrainingRun, on_progress: Callable[[TrainProgress], object] | None, folder: Path | None, checkpoint_every: int
) -> None:
    """Take the remaining steps; report and keep checkpoints on the way, also of the step before a failure."""
    began, first, saved = time.monotonic(), run.step, run.step
    report_every = max(1, run.steps // 100)
    while not run.finished:
        try:
            loss = run.advance()
        except BlindspotError:
            if folder is not None and saved < run.step:
                run.save(folder)
            raise
        if on_progress is not None and (run.step % report_every == 0 or run.finished):
            pace = run.batch * (run.step - first) / max(time.monotonic() - began, 1e-9)
            dead = float(run.dead().float().mean())
            on_progress(TrainProgress(run.step, run.steps, float(loss), dead, run.r2, run.l0, pace))
        if folder is not None and (run.step % checkpoint_every == 0 or run.finished):
            run.save(folder)
            saved = run.step


class TrainingRun:
    """A dictionary on its way through its tokens; `advance` takes one step.

    `targets` is `source` itself unless a transcoder is to reconstruct other tokens.
    """

    def __init__(self, dictionary: Dictionary, source: TokenSource, targets: TokenSource, config: TrainConfig) -> None:
        self.dictionary, self.source, self.targets, self.config = dictionary, source, targets, config
        self.device = dictionary.mean.device
        self.half = chooses_in_bfloat16(config, self.device)
        group = dictionary.group_size
        self.batch = max(1, min(config.batch, source.rows) // group) * group
        self.per_epoch = math.ceil(source.rows / self.batch)
        self.steps = config.steps or max(1, math.ceil(config.epochs * self.per_epoch))
        self.optimiser = torch.optim.AdamW(
            dictionary.parameter_groups(),
            weight_decay=config.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.idle = torch.zeros(dictionary.concepts, dtype=torch.int64, device=self.device)
        self.running = torch.zeros(3, device=self.device)
        self.lowest_level = torch.full((), math.inf, device=self.device)
        self.step = 0
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    @property
    def r2(self) -> float:
        """Explained variance of the last batches, NaN before the first."""
        error, variance, _ = self.running.tolist()
        return 1 - error / variance if variance else math.nan

    @property
    def l0(self) -> float:
        """Active concepts per token in the last batches."""
        weight = 1 - MOMENTUM**self.step
        return float(self.running[2]) / weight if weight else math.nan

    @property
    def finished(self) -> bool:
        """Whether the last step is done, or the explained variance asked for is reached."""
        target = self.config.target_r2
        return self.step >= self.steps or (target is not None and self.step > 0 and self.r2 >= target)

    def dead(self) -> Bool[Tensor, " K"]:
        """Concepts silent for long."""
        return self.idle > min(self.source.rows, DEAD_AFTER)

    def advance(self) -> Float[Tensor, ""]:
        """One optimiser step; returns the unexplained share of variance.

        Raises
        ------
        BlindspotError
            When the loss or its gradient is not finite; the dictionary is then as it was before the step.
        """
        dictionary = self.dictionary
        features, target = self._next_batch()
        codes = dictionary.activate_batch(features, self.half)
        with torch.no_grad():
            atoms = dictionary.atoms()
        atoms = atoms.detach().requires_grad_()
        found = combine(codes, atoms)
        loss = F.mse_loss(found, target)
        total = loss + self.config.revival * self._aux_k(features, target, found, atoms)
        total.backward()
        del found
        assert atoms.grad is not None
        dictionary.backward_from_atoms(atoms.grad)
        atoms.grad = None
        self._require_finite(total + self._clip(), features, target)
        self._descend()
        dictionary.constrain()
        self._update_without_gradients(codes, loss.detach(), target)
        self.step += 1
        return loss.detach()

    def _next_batch(self) -> tuple[Tensor, Tensor]:
        """What the encoder reads of the next tokens, and what is to be reconstructed, in the dictionary's units."""
        epoch, position = divmod(self.step, self.per_epoch)
        if epoch != self._epoch:
            shuffle = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, self.source.order(shuffle, self.dictionary.group_size)
        rows = self._order[position * self.batch : (position + 1) * self.batch]
        x = self.source.gather(rows).to(self.device)
        y = x if self.targets is self.source else self.targets.gather(rows).to(self.device)
        return self.dictionary.features(x), self.dictionary.standardise_target(y)

    def _aux_k(self, features: Tensor, target: Tensor, found: Tensor, atoms: Tensor) -> Tensor:
        """The share of the error that the strongest dead concepts leave unexplained, a scalar."""
        dead = self.dead().nonzero().squeeze(-1)
        if len(dead) == 0 or self.config.revival == 0:
            return target.new_zeros(())
        error, encoder = target - found.detach(), self.dictionary.encoder
        codes = top_codes(features, encoder.weight[dead], encoder.bias[dead], min(len(dead), AUX_K), self.half)
        left = error - combine(Codes(dead[codes.indices], codes.values), atoms)
        return left.square().mean() / error.square().mean().clamp_min(1e-8)

    @torch.no_grad()
    def _clip(self) -> Tensor:
        """Scale the gradient down to the largest norm allowed; returns its norm before."""
        found = [parameter for parameter in self.dictionary.parameters() if parameter.grad is not None]
        formed = torch.nn.utils.get_total_norm([parameter.grad for parameter in found if parameter.grad is not None])
        norm = (formed.square() + self.dictionary.late_square()).sqrt()
        torch.nn.utils.clip_grads_with_norm_(found, CLIP_NORM, norm)
        return norm

    @torch.no_grad()
    def _descend(self) -> None:
        """One AdamW step; it leaves alone what has no gradient at the moment, so late ones take their turns."""
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * learning_rate(self.step, self.steps, self.config)
        gradients = self.dictionary.late_gradients(self.half)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        late = (block for group in self.optimiser.param_groups if group.get("late") for block in group["params"])
        for parameter, gradient in zip(late, gradients, strict=True):
            parameter.grad = gradient
            self.optimiser.step()
            parameter.grad = None

    @torch.no_grad()
    def _update_without_gradients(self, codes: Codes, loss: Tensor, target: Tensor) -> None:
        """BatchTopK's threshold, the biases of dead concepts, how long each was silent, and the running figures."""
        level = self.dictionary.selection_level(codes)
        self.dictionary.update_threshold(level)
        active = codes.values > 0
        if self.config.revival > 0:
            # Raised concepts raise the level that the next must reach, so the level is the lowest there was: otherwise
            # they drive each other up. The pace fades with the learning rate and with what is left to explain.
            self.lowest_level.copy_(torch.minimum(self.lowest_level, level))
            unexplained = loss / target.square().mean().clamp_min(1e-8)
            pace = learning_rate(self.step, self.steps, self.config) / self.config.learning_rate * unexplained
            self.dictionary.encoder.bias.add_(AUX_K_BIAS_RATE * pace * self.lowest_level * self.dead())
        self.idle += len(target)
        self.idle[codes.indices[active]] = 0
        seen = torch.stack([loss, target.square().mean(), active.sum() / len(active)])
        self.running.lerp_(seen, 1 - MOMENTUM)

    def _require_finite(self, outcome: Tensor, features: Tensor, target: Tensor) -> None:
        if torch.isfinite(outcome):
            return
        self.optimiser.zero_grad(set_to_none=True)
        if not (features.isfinite().all() and target.isfinite().all()):
            raise BlindspotError(
                f"The training tokens of step {self.step + 1} hold NaN or infinite numbers, so training stopped "
                f"before it; {ENCODE_AGAIN}."
            )
        raise BlindspotError(f"Training diverged in step {self.step + 1}; lower the learning rate.")

    def save(self, folder: Path) -> None:
        """Write a checkpoint, whole or not at all, unless the parameters are not worth keeping."""
        if all(parameter.isfinite().all() for parameter in self.dictionary.parameters()):
            state = {"step": self.step, "identity": self._identity(), "run": self._state()}
            state |= {"dictionary": self.dictionary.state_dict(), "optimiser": self.optimiser.state_dict()}

            def write(path: Path) -> None:
                # Not the path: torch would forget why a write failed (a full disk).
                with open(path, "wb") as handle:
                    torch.save(state, handle)

            write_whole(folder / STATE, write)

    def resume(self, folder: Path) -> None:
        """Continue from the checkpoint in a folder, if there is one.

        Raises
        ------
        BlindspotError
            When the file is damaged, or was written by a run with other settings or other tokens.
        """
        path = folder / STATE
        if not path.is_file():
            return
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            known = state["identity"] == self._identity()
            if known:
                self.dictionary.load_state_dict(state["dictionary"])
                self.optimiser.load_state_dict(state["optimiser"])
                for name, value in self._state().items():
                    value.copy_(state["run"][name])
                self.step = state["step"]
        except Exception as error:  # a damaged file makes torch's reader raise whatever its bytes suggest
            raise BlindspotError(f"The training checkpoint {path} is damaged; delete it to start again.") from error
        if not known:
            raise BlindspotError(
                f"The training checkpoint {path} belongs to a run with other settings or tokens; "
                "delete it, or train with the old ones."
            )

    def _state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps beside dictionary and optimiser; restored in place."""
        return {"idle": self.idle, "running": self.running, "lowest_level": self.lowest_level}

    def _identity(self) -> str:
        """What must agree for a checkpoint to be continued."""
        identity: dict[str, Any] = {
            "config": {field.name: getattr(self.config, field.name) for field in fields(TrainConfig)},
            "kind": self.dictionary.kind,
            "settings": self.dictionary.settings(),
            "rows": self.source.rows,
        }
        return json.dumps(identity, sort_keys=True)


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine from the peak to the final rate."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    span = config.learning_rate - config.final_learning_rate
    return config.final_learning_rate + span * (1 + math.cos(math.pi * done)) / 2


def chooses_in_bfloat16(config: TrainConfig, device: torch.device) -> bool:
    """Whether a run on a device picks the active concepts by a bfloat16 product."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
