"""Is there room to train a dictionary? Asked before anything is allocated: a system kills what it cannot hold."""

from __future__ import annotations

import os
from typing import Any

import torch

from engine.dictionary.archetypal import RelaxedArchetypal
from engine.dictionary.base import Dictionary
from engine.errors import BlindspotError

COPIES = 4
"""A parameter, its gradient, and the two moments of AdamW."""
LATE_COPIES = 3
"""The same where the gradient is never whole (`Dictionary.late_gradients`)."""
CGROUP_LIMIT = "/sys/fs/cgroup/memory.max"


def training_bytes(kind: type[Dictionary], dim: int, concepts: int, settings: dict[str, Any]) -> int:
    """Bytes that parameters, gradients and moments take in float32, without a batch's own needs."""
    reads = dim * settings.get("kernel", 3) ** 2 if kind.kind == "transcoder" else dim
    numbers = COPIES * concepts * (reads + settings.get("out_dim", dim))
    if issubclass(kind, RelaxedArchetypal):
        numbers += LATE_COPIES * concepts * (settings.get("candidates") or concepts)
    return 4 * numbers


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = _available()
    try:
        with open(CGROUP_LIMIT) as file:
            return min(free, int(file.read()))
    except (OSError, ValueError):
        return free


def _available() -> int:
    """What the system could give, caches included."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_memory(
    kind: type[Dictionary], dim: int, concepts: int, settings: dict[str, Any], device: torch.device
) -> None:
    """Refuse a dictionary that cannot be trained here.

    Raises
    ------
    BlindspotError
        With what it needs and what there is.
    """
    needed, free = training_bytes(kind, dim, concepts, settings), free_bytes(device)
    if needed > free:
        remedy = "fewer concepts, or fewer candidates" if issubclass(kind, RelaxedArchetypal) else "fewer concepts"
        raise BlindspotError(
            f"A {kind.kind} dictionary of {concepts:,} concepts needs {needed / 1e9:,.1f} GB to train and "
            f"{free / 1e9:,.1f} GB are free on {device}; ask for {remedy}."
        )
