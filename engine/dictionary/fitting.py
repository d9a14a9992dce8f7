"""From tokens to a trained dictionary in one call, refused before it starts where there is no room for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.devices import pick_device
from engine.dictionary.archetypal import POINTS_PER_CENTROID, RelaxedArchetypal
from engine.dictionary.base import Dictionary
from engine.dictionary.spec import DictionarySpec
from engine.dictionary.tokens import MEMORY_CAP, Tokens, TokenSource, open_tokens, sample, statistics
from engine.dictionary.topk import BatchTopK, TopK
from engine.dictionary.training import CHECKPOINT_EVERY, STATE, TrainProgress, TrainReport, train
from engine.dictionary.transcoder import Transcoder
from engine.errors import BlindspotError

KINDS: dict[str, type[Dictionary]] = {
    "rasae": RelaxedArchetypal,
    "topk": TopK,
    "batchtopk": BatchTopK,
    "transcoder": Transcoder,
}
"""By the name that a recipe has for them."""
SAMPLE_SEED = 0
COPIES = 4
"""A parameter, its gradient, and the two moments of AdamW."""
LATE_COPIES = 3
"""The same where the gradient is never whole (`Dictionary.late_gradients`)."""
CGROUP_LIMIT = "/sys/fs/cgroup/memory.max"


class Fitted(NamedTuple):
    """What `fit` returns."""

    dictionary: Dictionary
    """Frozen and in eval mode."""
    report: TrainReport


def fit(
    tokens: Tokens,
    spec: DictionarySpec,
    *,
    grid: tuple[int, int] | None = None,
    targets: Tokens | None = None,
    memory_cap: int = MEMORY_CAP,
    on_progress: Callable[[TrainProgress], object] | None = None,
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int = CHECKPOINT_EVERY,
) -> Fitted:
    """Learn a dictionary from raw encoder tokens.

    The tokens' mean and scale are measured and stored in the dictionary, an archetypal one gets its candidates from
    k-means, then `train` runs. The result depends only on the tokens and the spec.

    Parameters
    ----------
    tokens
        Tensor [N, d], or paths of .npy arrays [n_i, d] (float16 is fine); all are trained on.
    spec
        Kind, sizes, training and device.
    grid
        For a transcoder: height and width of the maps.
    targets
        Tokens [N, d'] that a transcoder reconstructs instead of its own, row by row.
    memory_cap
        Bytes of shards held in memory; more are streamed.
    on_progress, checkpoint_dir, checkpoint_every
        See `train`.

    Raises
    ------
    BlindspotError
        When tokens are missing, broken or all the same, when targets are given to another kind than a transcoder, when
        the dictionary would not fit in memory, and as `train` does.
    """
    source = open_tokens(tokens, memory_cap)
    wanted = source if targets is None else open_tokens(targets, memory_cap)
    kind, device, settings = KINDS[spec.kind], pick_device(spec.device), spec.settings()
    if spec.kind == "transcoder":
        settings |= {"grid": grid, "out_dim": wanted.dim}
    elif targets is not None:
        raise BlindspotError(
            f"A dictionary of kind {spec.kind!r} reconstructs its own tokens; targets go with a transcoder."
        )
    require_memory(kind, source.dim, spec.concepts, settings, device)
    dictionary = kind(source.dim, spec.concepts, spec.sparsity, **settings).to(device)
    if checkpoint_dir is None or not (Path(checkpoint_dir) / STATE).is_file():
        _initialise(dictionary, source, wanted, torch.Generator().manual_seed(spec.seed))
    report = train(
        dictionary,
        source,
        spec,
        on_progress,
        checkpoint_dir,
        targets=None if targets is None else wanted,
        checkpoint_every=checkpoint_every,
    )
    return Fitted(dictionary, report)


def _initialise(dictionary: Dictionary, source: TokenSource, targets: TokenSource, generator: torch.Generator) -> None:
    """Moments and first atoms, from a sample of tokens that is the same for every seed."""
    moments = statistics(source)
    dictionary.set_moments(moments, moments if targets is source else statistics(targets))
    count = POINTS_PER_CENTROID * dictionary.concepts

    def drawn(rows: TokenSource) -> Tensor:
        chosen = sample(rows, count, torch.Generator().manual_seed(SAMPLE_SEED), dictionary.group_size)
        return chosen.to(dictionary.mean.device)

    start = dictionary.standardise(drawn(source))
    if targets is not source and isinstance(dictionary, Transcoder):
        dictionary.initialise(start, generator, dictionary.standardise_target(drawn(targets)))
    else:
        dictionary.initialise(start, generator)
    dictionary.constrain()


def training_bytes(kind: type[Dictionary], dim: int, concepts: int, settings: dict[str, Any]) -> int:
    """Bytes that parameters, gradients and moments take in float32, without a batch's own needs."""
    reads = dim * settings.get("kernel", 3) ** 2 if issubclass(kind, Transcoder) else dim
    numbers = COPIES * concepts * (reads + settings.get("out_dim", dim))
    if issubclass(kind, RelaxedArchetypal):
        numbers += LATE_COPIES * concepts * (settings.get("candidates") or concepts)
    return 4 * numbers


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open(CGROUP_LIMIT) as file:
            return min(free, int(file.read()))
    except (OSError, ValueError):
        return free


def require_memory(
    kind: type[Dictionary], dim: int, concepts: int, settings: dict[str, Any], device: torch.device
) -> None:
    """Refuse what cannot be trained here before anything is allocated: a system kills what it cannot hold.

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
