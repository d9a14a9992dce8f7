"""TopK sparse autoencoder with free unit-norm atoms (Gao et al. 2025, "Scaling and evaluating sparse autoencoders")."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.dictionary.base import Dictionary

NEGLIGIBLE_NORM = 1e-3
JITTER = 0.01


class TopK(Dictionary):
    """Atoms are free directions of unit norm."""

    kind = "topk"

    def __init__(self, dim: int, concepts: int, sparsity: int) -> None:
        super().__init__(dim, concepts, sparsity)
        self.decoder = nn.Parameter(F.normalize(torch.randn(concepts, dim), dim=-1))
        self.reset(self.decoder.detach())

    def _atoms(self) -> Tensor:
        return self.decoder

    @torch.no_grad()
    def constrain(self) -> None:
        """Unit norm for every atom."""
        self.decoder.copy_(F.normalize(self.decoder, dim=-1))

    @torch.no_grad()
    def initialise(self, tokens: Tensor, generator: torch.Generator) -> None:
        """The directions of random tokens [n, d]; unlike random directions they lie where there is data."""
        found = tokens[tokens.norm(dim=-1) > NEGLIGIBLE_NORM]
        order = torch.randperm(len(found), generator=generator)
        rows = order[torch.arange(self.concepts) % len(found)]
        jitter = JITTER * torch.randn(self.concepts, self.dim, generator=generator) / self.dim**0.5
        directions = F.normalize(found[rows.to(found.device)], dim=-1) + jitter.to(found.device)
        self.reset(F.normalize(directions, dim=-1))

    @torch.no_grad()
    def reset(self, atoms: Tensor) -> None:
        """Take unit-norm atoms [K, d] and point the encoder along them.

        It is divided by the sparsity k because the k atoms nearest to a token point the same way and add up.
        """
        self.decoder.copy_(atoms)
        self.encoder.weight.copy_(atoms / self.sparsity)
        self.encoder.bias.zero_()
