"""From tokens to a trained dictionary in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.dictionary.base import Dictionary
from engine.dictionary.centroids import POINTS_PER_CENTROID
from engine.dictionary.checkpoints import kind_named
from engine.dictionary.resume import has_state
from engine.dictionary.tokens import MEMORY_CAP, TokenSource, open_tokens, sample, statistics
from engine.dictionary.training import DEFAULT_CONFIG, Progress, TrainConfig, TrainReport, train


def fit(
    tokens: Tensor | TokenSource | Sequence[str | Path],
    kind: str = "archetypal",
    concepts: int = 1024,
    sparsity: int = 5,
    *,
    config: TrainConfig = DEFAULT_CONFIG,
    settings: dict[str, Any] | None = None,
    device: str | torch.device = "cpu",
    memory_cap: int = MEMORY_CAP,
    on_progress: Callable[[Progress], object] | None = None,
    checkpoint_dir: str | Path | None = None,
) -> tuple[Dictionary, TrainReport]:
    """Learn a dictionary from raw encoder tokens.

    The tokens' mean and scale are measured and stored in the dictionary, an archetypal one gets its candidates from
    k-means, then `train` runs. The result depends only on the tokens, the arguments and `config.seed`.

    Parameters
    ----------
    tokens
        Tensor [N, d], or paths of .npy arrays [n_i, d] (float16 is fine).
    kind
        `archetypal` (RA-SAE) or `topk`.
    concepts, sparsity
        Atoms in all, and active per token.
    config
        See `TrainConfig`.
    settings
        Further arguments of the kind's class, such as `candidates` and `delta`.
    device
        Where to train.
    memory_cap
        Bytes of shards held in memory; more are streamed.
    on_progress, checkpoint_dir
        See `train`.

    Returns
    -------
    tuple of Dictionary and TrainReport
        The dictionary is frozen and in eval mode, on `device`.
    """
    source = open_tokens(tokens, memory_cap)
    generator = torch.Generator().manual_seed(config.seed)
    dictionary = kind_named(kind)(source.dim, concepts, sparsity, **(settings or {})).to(device)
    if not has_state(checkpoint_dir):
        moments = statistics(source)
        dictionary.mean.copy_(moments.mean)
        dictionary.scale.copy_(moments.scale)
        start = sample(source, POINTS_PER_CENTROID * concepts, generator).to(device)
        dictionary.initialise(dictionary.standardise(start), generator)
        dictionary.constrain()
    return dictionary, train(dictionary, source, config, on_progress, checkpoint_dir)
