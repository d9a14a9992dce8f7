"""BatchTopK sparse autoencoder (Bussmann et al. 2024, arXiv 2412.06410): tokens share a budget of active concepts.

In training the B k strongest activations of a batch of B tokens are kept, so that a rich token may use more concepts
than a plain one. A token must not depend on its batch later, so the smallest activation that was kept is remembered as
a running mean, and codes are those above it:

    z_nk = a_nk  if a_nk >= theta  else 0        theta = mean over batches of min { z_nk > 0 }

On DINOv2 tokens, which differ little in size, TopK explains more at small k. About half of the gap is that a linear
encoder cannot know how many concepts of a token will be kept: at k = 5, reconstructions from 1 or 2 are 1.6 times too
short and those from more than 10 1.5 times too long. The rest is which token is given more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.dictionary.encoding import Codes, top_codes
from engine.dictionary.topk import TopK
from engine.errors import BlindspotError

MOMENTUM = 0.95
ROOM = 8


class BatchTopK(TopK):
    """Free unit-norm atoms, `sparsity` active concepts per token on average.

    Parameters
    ----------
    dim, concepts, sparsity
        See `Dictionary`.
    max_active
        Largest number of active concepts of one token, the width of its codes; None: 8 times the sparsity. Training
        keeps to it, too, so nothing is cut off later that the atoms relied on.
    """

    kind = "batchtopk"

    def __init__(self, dim: int, concepts: int, sparsity: int, max_active: int | None = None) -> None:
        super().__init__(dim, concepts, sparsity)
        self.max_active = min(concepts, ROOM * sparsity) if max_active is None else max_active
        if not sparsity <= self.max_active <= concepts:
            raise BlindspotError(
                f"A token cannot have up to {self.max_active} active concepts of {concepts} when {sparsity} is the "
                "mean; choose max_active between the two."
            )
        self.register_buffer("threshold", torch.zeros(()))

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-ready."""
        return {**super().settings(), "max_active": self.max_active}

    def activate(self, features: Tensor) -> Codes:
        """The activations that reach the learnt threshold, at most `max_active` of a token, the others 0."""
        return _at_least(self._strongest(features), self.threshold)

    def activate_batch(self, features: Tensor, half: bool = False) -> Codes:
        """The strongest `sparsity` activations per token over the whole batch."""
        codes = self._strongest(features, half)
        kept = codes.values.detach().flatten().topk(self.sparsity * len(features), sorted=False).values
        return _at_least(codes, kept.min())

    def _strongest(self, features: Tensor, half: bool = False) -> Codes:
        return top_codes(features, self.encoder.weight, self.encoder.bias, self.max_active, half)

    def entry_level(self, codes: Codes) -> Tensor:
        """The smallest activation that was kept."""
        values = codes.values.detach()
        return values.where(values > 0, torch.inf).amin().nan_to_num(posinf=0.0)

    @torch.no_grad()
    def observe(self, level: Tensor) -> None:
        """Move the threshold towards the smallest activation that was kept, if any; the first batch sets it."""
        pace = torch.where(self.threshold == 0, 1.0, 1 - MOMENTUM)
        self.threshold.lerp_(torch.where(level > 0, level, self.threshold), pace)


def _at_least(codes: Codes, level: Tensor) -> Codes:
    return codes._replace(values=codes.values * (codes.values >= level))
