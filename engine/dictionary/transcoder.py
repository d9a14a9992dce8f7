"""Convolutional transcoder (EnergyDPS, arXiv:2605.17504, appendix C): concepts that see a neighbourhood, and atoms that
all positions share.

For a map X [d, h, w] of a backbone,

    H = Conv2D(X; V, b)              pre-activations [K, h, w], kernel s x s, zero padding
    z = TopK(relu(H))                per position
    Y_hat = mean' + (z D) / scale'   D [K, d'] the same at every position

A convolution is a linear map of neighbourhoods, so V is kept as [K, d s s], which is Conv2D's weight flattened, and
everything sparse is shared with the other dictionaries. With a 1 x 1 kernel it is a TopK autoencoder.

The paper's objective (Eq. 42) reconstructs the map itself, Y = X. Given targets it reconstructs another map of the same
grid instead, such as a block's output from the block's input: then mean', scale' and d' are the output's own. Padding
is zero in standardised units: beyond the border lies the mean token.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from engine.dictionary.base import Dictionary
from engine.dictionary.encoding import Codes, combine
from engine.dictionary.tokens import TokenStatistics
from engine.dictionary.topk import random_directions
from engine.errors import BlindspotError

NEIGHBOURHOOD_ENTRIES = 2**26


class Transcoder(Dictionary):
    """TopK codes of maps by a convolution; free unit-norm atoms.

    Wherever other dictionaries take tokens [N, d], it takes those of whole maps, row by row: N is a multiple of the
    grid's size. Maps [B, h, w, d] are taken as well; codes are of B h w tokens in any case.

    Parameters
    ----------
    grid
        Height and width of a map.
    kernel
        Side s of the neighbourhood, odd.
    out_dim
        Width d' of what is reconstructed; None: d.
    """

    kind = "transcoder"
    out_mean: Tensor
    out_scale: Tensor

    def __init__(
        self, dim: int, concepts: int, sparsity: int, grid: tuple[int, int], kernel: int = 3, out_dim: int | None = None
    ) -> None:
        if kernel < 1 or kernel % 2 == 0 or len(grid) != 2 or min(grid) < 1:
            raise BlindspotError(
                f"A transcoder cannot have a kernel of {kernel} on a grid of {list(grid)}; give an odd kernel and a "
                "height and a width."
            )
        super().__init__(dim, concepts, sparsity, reads=dim * kernel * kernel)
        self.grid, self.kernel, self._out_dim = tuple(grid), kernel, out_dim or dim
        self.group_size = grid[0] * grid[1]
        self.decoder = torch.nn.Parameter(F.normalize(torch.randn(concepts, self.out_dim), dim=-1))
        self.register_buffer("out_mean", torch.zeros(self.out_dim))
        self.register_buffer("out_scale", torch.ones(()))

    @property
    def out_dim(self) -> int:
        """Width d' of what is reconstructed."""
        return self._out_dim

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-ready."""
        own = {"grid": list(self.grid), "kernel": self.kernel, "out_dim": self.out_dim}
        return {**super().settings(), **own}

    def _atoms(self) -> Tensor:
        return self.decoder

    @torch.no_grad()
    def constrain(self) -> None:
        """Unit norm for every atom."""
        self.decoder.copy_(F.normalize(self.decoder, dim=-1))

    def features(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d*s*s"]:
        """Neighbourhoods of the standardised tokens of whole maps."""
        patches = F.unfold(self._maps(x), self.kernel, padding=self.kernel // 2)
        return patches.transpose(1, 2).flatten(0, 1)

    def encode(self, x: Float[Tensor, "*n d"]) -> Codes:
        """Sparse codes [B h w, k] of maps [B, h, w, d], or of their tokens [B h w, d]; differentiable."""
        x = self._tokens(x)
        rows = max(1, NEIGHBOURHOOD_ENTRIES // (self.encoder.in_features * self.group_size)) * self.group_size
        parts = [self.activate(self.features(part)) for part in x.split(rows)]
        return Codes(torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts]))

    def preactivate(self, x: Float[Tensor, "*n d"], concepts: Int[Tensor, " c"]) -> Float[Tensor, "*n c"]:
        """Pre-activations of some concepts only, by a convolution with their kernels; of maps or of their tokens."""
        kernels = self.encoder.weight[concepts].unflatten(-1, (self.dim, self.kernel, self.kernel))
        maps = self._maps(self._tokens(x))
        active = F.conv2d(maps, kernels, self.encoder.bias[concepts], padding=self.kernel // 2).permute(0, 2, 3, 1)
        return active if x.ndim == 4 else active.flatten(0, 2)

    def decode(self, codes: Codes) -> Float[Tensor, "n d_out"]:
        """Tokens from codes."""
        return combine(codes, self.atoms()) / self.out_scale + self.out_mean

    def standardise_target(self, y: Float[Tensor, "... d_out"]) -> Float[Tensor, "... d_out"]:
        """What is to be reconstructed, in the atoms' units."""
        return (y - self.out_mean) * self.out_scale

    def set_moments(self, tokens: TokenStatistics, targets: TokenStatistics) -> None:
        """Set mean and scale to those of the training tokens and of what is to be reconstructed."""
        super().set_moments(tokens, targets)
        self.out_mean.copy_(targets.mean)
        self.out_scale.copy_(targets.scale)

    @torch.no_grad()
    def initialise(self, tokens: Tensor, generator: torch.Generator, targets: Tensor | None = None) -> None:
        """Atoms along random targets, the centres of their kernels along the tokens of the same rows."""
        wanted = tokens if targets is None else targets
        rows, directions = random_directions(wanted, self.concepts, generator)
        self.decoder.copy_(directions)
        centre = torch.zeros(self.concepts, self.dim, self.kernel, self.kernel, device=directions.device)
        seen = directions if targets is None else F.normalize(tokens[rows], dim=-1)
        centre[..., self.kernel // 2, self.kernel // 2] = seen / self.sparsity
        self.encoder.weight.copy_(centre.flatten(1))
        self.encoder.bias.zero_()

    def _maps(self, tokens: Tensor) -> Tensor:
        """Standardised maps [B, d, h, w] of tokens [B h w, d]."""
        return self.standardise(tokens).unflatten(0, (-1, *self.grid)).permute(0, 3, 1, 2)

    def _tokens(self, x: Tensor) -> Tensor:
        """Tokens [B h w, d] of maps or tokens, checked."""
        if x.ndim == 4 and tuple(x.shape[1:3]) == self.grid:
            x = x.flatten(0, 2)
        self._check(x)
        return x

    def _check(self, x: Tensor) -> None:
        super()._check(x)
        if len(x) % self.group_size:
            raise BlindspotError(
                f"This transcoder reads whole maps of {self.grid[0]} x {self.grid[1]} tokens, and {len(x)} tokens are "
                "not; give the tokens of whole images, without prefix tokens."
            )
