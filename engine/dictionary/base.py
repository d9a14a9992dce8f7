"""What every dictionary shares: a linear encoder, TopK codes, and a sparse linear decoder over its atoms.

In the dictionary's own units u = scale * (x - mean), with x a raw token [d] (paper 004, Eq. 2):

    a = V u + b                      pre-activations [K]
    z = TopK(relu(a))                codes, at most `sparsity` of them above zero
    x_hat = mean + (z D) / scale     D [K, d] the atoms

Subclasses decide what D is, and may choose the active concepts otherwise (`BatchTopK`) or read and write other things
than tokens (`Transcoder`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.dictionary.encoding import Codes, combine, top_codes
from engine.dictionary.tokens import TokenStatistics
from engine.errors import BlindspotError

__all__ = ["Codes", "Dictionary", "combine"]


class Dictionary(nn.Module, ABC):
    """A sparse autoencoder over token features.

    Parameters
    ----------
    dim
        Width d of a token.
    concepts
        Number K of atoms.
    sparsity
        Number k of active concepts per token.
    reads
        Width of what the encoder reads of a token, if not d.

    Raises
    ------
    BlindspotError
        When a size is not positive or the sparsity exceeds the number of concepts.
    """

    kind: ClassVar[str]

    reads_target: ClassVar[bool] = True
    """Whether the encoder reads exactly what is to be reconstructed."""

    together: int = 1
    """Tokens that only make sense as a whole, such as those of one map."""

    def __init__(self, dim: int, concepts: int, sparsity: int, reads: int | None = None) -> None:
        super().__init__()
        if min(dim, concepts, sparsity) < 1 or sparsity > concepts:
            raise BlindspotError(
                f"A dictionary cannot have {concepts} concepts of width {dim} with {sparsity} active; "
                "give positive numbers and a sparsity of at most the number of concepts."
            )
        self.dim, self.concepts, self.sparsity = dim, concepts, sparsity
        self.encoder = nn.Linear(reads or dim, concepts)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))
        self._cache: tuple[tuple, Tensor] | None = None

    @abstractmethod
    def _atoms(self) -> Tensor:
        """D [K, d] from the current parameters."""

    @abstractmethod
    def constrain(self) -> None:
        """Project the parameters onto the dictionary's constraints, in place; called after every optimiser step."""

    @abstractmethod
    def initialise(self, tokens: Tensor, generator: torch.Generator) -> None:
        """Start from a sample of tokens [n, d], given in the dictionary's units."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for an optimiser: `params`, `rate`, the group's share of the learning rate, and `late` for parameters
        whose gradients `late_gradients` gives."""
        return [{"params": list(self.parameters()), "rate": 1.0}]

    def pull_back(self, gradient: Tensor) -> None:
        """Carry the gradient of the atoms [K, d] on to that of the parameters behind them; it is used up."""
        with torch.enable_grad():
            self._atoms().backward(gradient)

    def late_gradients(self, half: bool = False) -> Iterator[Tensor]:
        """Gradients too large to exist all at once: each is formed when its turn comes, in the memory of the last.

        They follow from the gradients that `pull_back` left, as these are when this is called (clipped, for instance).
        With `half` they are rounded to bfloat16.
        """
        return iter(())

    def late_square(self) -> Tensor:
        """The sum of squares of all `late_gradients`, a scalar."""
        return self.mean.new_zeros(())

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-ready."""
        return {"dim": self.dim, "concepts": self.concepts, "sparsity": self.sparsity}

    @property
    def out_dim(self) -> int:
        """Width of what is reconstructed."""
        return self.dim

    @torch.no_grad()
    def set_moments(self, tokens: TokenStatistics, targets: TokenStatistics) -> None:
        """Take over mean and scale of the training tokens; `targets` are the same tokens for all but a transcoder."""
        self.mean.copy_(tokens.mean)
        self.scale.copy_(tokens.scale)

    def standardise(self, x: Tensor) -> Tensor:
        """Raw tokens [..., d] in the dictionary's units."""
        return (x - self.mean) * self.scale

    def standardise_target(self, y: Tensor) -> Tensor:
        """What is to be reconstructed, [..., d], in the atoms' units: the tokens themselves."""
        return self.standardise(y)

    def atoms(self) -> Tensor:
        """D [K, d] in the dictionary's units.

        Without gradients the result is kept until a parameter changes, so decoding many batches builds it once.
        """
        sources = list(self.parameters()) + list(self.buffers())
        if torch.is_grad_enabled() and any(source.requires_grad for source in sources):
            return self._atoms()
        if any(source.is_inference() for source in sources):
            return self._atoms()
        key = tuple((source.data_ptr(), source._version, source.dtype) for source in sources)
        if self._cache is None or self._cache[0] != key:
            self._cache = None
            with torch.inference_mode(False), torch.no_grad():
                self._cache = (key, self._atoms())
        return self._cache[1]

    def features(self, x: Tensor) -> Tensor:
        """What the linear encoder reads of raw tokens [N, d]: the standardised tokens themselves."""
        return self.standardise(x)

    def encode(self, x: Tensor) -> Codes:
        """Sparse codes of raw tokens; differentiable in tokens and parameters.

        Parameters
        ----------
        x
            Tokens [N, d].
        """
        self._check(x)
        return self.activate(self.features(x))

    def activate(self, features: Tensor) -> Codes:
        """Sparse codes of what `features` gave."""
        return top_codes(features, self.encoder.weight, self.encoder.bias, self.sparsity)

    def activate_batch(self, features: Tensor, half: bool = False) -> Codes:
        """The same for a training batch, whose tokens may compete with each other.

        Parameters
        ----------
        features
            Of all tokens of the batch.
        half
            See `top_codes`.
        """
        return top_codes(features, self.encoder.weight, self.encoder.bias, self.sparsity, half)

    def entry_level(self, codes: Codes) -> Tensor:
        """How strongly a concept must answer to be kept among the codes of a training batch, a scalar."""
        return codes.values[:, -1].mean()

    def observe(self, level: Tensor) -> None:
        """Learn what is not learnt by gradients, from the entry level of a training batch."""

    def preactivate(self, x: Tensor, concepts: Tensor) -> Tensor:
        """Pre-activations of some concepts only, before ReLU and TopK; differentiable.

        Parameters
        ----------
        x
            Raw tokens [N, d].
        concepts
            int64 [c].

        Returns
        -------
        Tensor
            [N, c]; computing them costs N * d * c, not N * d * K.
        """
        self._check(x)
        return F.linear(self.features(x), self.encoder.weight[concepts], self.encoder.bias[concepts])

    def decode(self, codes: Codes) -> Tensor:
        """Raw tokens [N, d] from codes; gathers k atoms per token and never builds dense codes."""
        return combine(codes, self.atoms()) / self.scale + self.mean

    def reconstruct(self, x: Tensor) -> Tensor:
        """`decode(encode(x))`, [N, d]."""
        return self.decode(self.encode(x))

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise BlindspotError(
                f"This dictionary reads tokens of shape [N, {self.dim}], not {list(x.shape)}; "
                "use the encoder and layer that it was trained on."
            )
