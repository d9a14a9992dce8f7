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
        self.reset(random_directions(tokens, self.concepts, generator)[1])

    @torch.no_grad()
    def reset(self, atoms: Tensor) -> None:
        """Take unit-norm atoms [K, d] and point the encoder along them.

        It is divided by the sparsity k because the k atoms nearest to a token point the same way and add up.
        """
        self.decoder.copy_(atoms)
        self.encoder.weight.copy_(atoms / self.sparsity)
        self.encoder.bias.zero_()


def random_directions(tokens: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows int64 [count] of tokens [n, d] drawn at random, and their directions [count, d], all a little different."""
    found = (tokens.norm(dim=-1) > NEGLIGIBLE_NORM).nonzero().squeeze(-1)
    order = torch.randperm(len(found), generator=generator)
    rows = found[order[torch.arange(count) % len(found)].to(found.device)]
    jitter = JITTER * torch.randn(count, tokens.shape[1], generator=generator) / tokens.shape[1] ** 0.5
    return rows, F.normalize(F.normalize(tokens[rows], dim=-1) + jitter.to(tokens.device), dim=-1)
