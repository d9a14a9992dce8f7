"""From tokens to a trained dictionary in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.dictionary.base import Dictionary
from engine.dictionary.centroids import POINTS_PER_CENTROID
from engine.dictionary.checkpoints import kind_named
from engine.dictionary.memory import require_memory
from engine.dictionary.resume import has_state
from engine.dictionary.schedule import DEFAULT_CONFIG, TrainConfig
from engine.dictionary.tokens import MEMORY_CAP, TokenSource, open_tokens, sample, statistics
from engine.dictionary.training import Progress, TrainReport, train
from engine.dictionary.transcoder import Transcoder
from engine.errors import BlindspotError

if TYPE_CHECKING:
    from accelerate import Accelerator

SAMPLE_SEED = 0


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
    targets: Tensor | TokenSource | Sequence[str | Path] | None = None,
    accelerator: Accelerator | None = None,
) -> tuple[Dictionary, TrainReport]:
    """Learn a dictionary from raw encoder tokens.

    The tokens' mean and scale are measured and stored in the dictionary, an archetypal one gets its candidates from
    k-means, then `train` runs. The result depends only on the tokens, the arguments and `config.seed`.

    Parameters
    ----------
    tokens
        Tensor [N, d], or paths of .npy arrays [n_i, d] (float16 is fine).
    kind
        `archetypal` (RA-SAE), `topk`, `batchtopk` or `transcoder`.
    concepts, sparsity
        Atoms in all, and active per token.
    config
        See `TrainConfig`.
    settings
        Further arguments of the kind's class, such as `candidates` and `delta`, or the `grid` of a transcoder.
    device
        Where to train.
    memory_cap
        Bytes of shards held in memory; more are streamed.
    on_progress, checkpoint_dir, targets, accelerator
        See `train`.

    Returns
    -------
    tuple of Dictionary and TrainReport
        The dictionary is frozen and in eval mode, on `device`.

    Raises
    ------
    BlindspotError
        When tokens are missing, broken or all the same, when targets are given to another kind than a transcoder, when
        the dictionary would not fit in memory, and as `train` does.
    """
    source = open_tokens(tokens, memory_cap)
    wanted = source if targets is None else open_tokens(targets, memory_cap)
    settings = dict(settings or {})
    if kind == Transcoder.kind:
        settings.setdefault("out_dim", wanted.dim)
    elif targets is not None:
        raise BlindspotError(
            f"A dictionary of kind {kind!r} reconstructs its own tokens; targets go with a transcoder."
        )
    require_memory(kind_named(kind), source.dim, concepts, settings, torch.device(device))
    generator = torch.Generator().manual_seed(config.seed)
    dictionary = kind_named(kind)(source.dim, concepts, sparsity, **settings).to(device)
    if not has_state(checkpoint_dir):
        _start(dictionary, source, wanted, generator)
    others = {"targets": None if targets is None else wanted, "accelerator": accelerator}
    return dictionary, train(dictionary, source, config, on_progress, checkpoint_dir, **others)


def _start(dictionary: Dictionary, source: TokenSource, targets: TokenSource, generator: torch.Generator) -> None:
    """Moments and first atoms, from a sample of tokens that is the same for every seed."""
    moments = statistics(source)
    dictionary.set_moments(moments, moments if targets is source else statistics(targets))
    count = POINTS_PER_CENTROID * dictionary.concepts

    def drawn(rows: TokenSource) -> Tensor:
        chosen = sample(rows, count, torch.Generator().manual_seed(SAMPLE_SEED), dictionary.together)
        return chosen.to(dictionary.mean.device)

    more = {} if targets is source else {"targets": dictionary.standardise_target(drawn(targets))}
    dictionary.initialise(dictionary.standardise(drawn(source)), generator, **more)
    dictionary.constrain()
