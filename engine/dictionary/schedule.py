"""How a training run is set up, and its learning rate over the steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults suit anything from ten thousand to some ten million tokens."""

    epochs: float = 10
    """Passes over the tokens."""

    steps: int | None = None
    """Optimiser steps, instead of `epochs`."""

    target_r2: float | None = None
    """Explained variance (running over some 20 batches) at which training ends before its last step."""

    batch_size: int = 4096
    """Tokens per step, over all processes."""

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

    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the product that decides which concepts are active, and of an archetypal dictionary's gradient with respect to
    its weights; codes, weights, atoms and moments are float32 (their products TF32 on CUDA unless this is float32).
    `auto`: bfloat16 where the processor computes in it."""

    seed: int = 0
    """Of the shuffle and of the start."""

    checkpoint_every: int = 500
    """Steps between checkpoints, when a folder for them is given."""


DEFAULT_CONFIG = TrainConfig()


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine from the peak to the final rate."""
    warmup = max(1, round(config.warmup * steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    span = config.learning_rate - config.final_learning_rate
    return config.final_learning_rate + span * (1 + math.cos(math.pi * done)) / 2


def chooses_in_half(config: TrainConfig, device: torch.device) -> bool:
    """Whether a run on a device picks the active concepts by a bfloat16 product."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
