"""What every dictionary shares: a linear encoder, TopK codes, and a sparse linear decoder over its atoms.

In the dictionary's own units u = scale * (x - mean), with x a raw token [d] (paper 004, Eq. 2):

    a = V u + b                      pre-activations [K]
    z = TopK(relu(a))                codes, at most `sparsity` of them above zero
    x_hat = mean + (z D) / scale     D [K, d] the atoms

Subclasses decide what D is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import BlindspotError

CHUNK_ENTRIES = 2**26


class Codes(NamedTuple):
    """Sparse codes of N tokens."""

    indices: Tensor
    """Concepts, int64 [N, k], strongest first."""

    values: Tensor
    """Their activations [N, k], at least 0; 0 means that fewer than k concepts are active."""


class Dictionary(nn.Module, ABC):
    """A sparse autoencoder over token features.

    Parameters
    ----------
    dim
        Width d of a token.
    concepts
        Number K of atoms.
    sparsity
        Largest number k of active concepts per token.

    Raises
    ------
    BlindspotError
        When a size is not positive or the sparsity exceeds the number of concepts.
    """

    kind: ClassVar[str]

    def __init__(self, dim: int, concepts: int, sparsity: int) -> None:
        super().__init__()
        if min(dim, concepts, sparsity) < 1 or sparsity > concepts:
            raise BlindspotError(
                f"A dictionary cannot have {concepts} concepts of width {dim} with {sparsity} active; "
                "give positive numbers and a sparsity of at most the number of concepts."
            )
        self.dim, self.concepts, self.sparsity = dim, concepts, sparsity
        self.encoder = nn.Linear(dim, concepts)
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
        """Groups for an optimiser: `params`, and `rate`, the group's share of the learning rate."""
        return [{"params": list(self.parameters()), "rate": 1.0}]

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-ready."""
        return {"dim": self.dim, "concepts": self.concepts, "sparsity": self.sparsity}

    def standardise(self, x: Tensor) -> Tensor:
        """Raw tokens [..., d] in the dictionary's units."""
        return (x - self.mean) * self.scale

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
            with torch.inference_mode(False), torch.no_grad():
                self._cache = (key, self._atoms())
        return self._cache[1]

    def encode(self, x: Tensor) -> Codes:
        """Sparse codes of raw tokens; differentiable in tokens and parameters.

        Parameters
        ----------
        x
            Tokens [N, d].
        """
        self._check(x)
        if torch.is_grad_enabled() or x.shape[0] * self.concepts <= CHUNK_ENTRIES:
            return self._encode(x)
        parts = [self._encode(part) for part in x.split(max(1, CHUNK_ENTRIES // self.concepts))]
        return Codes(torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts]))

    def _encode(self, x: Tensor) -> Codes:
        values, indices = self.encoder(self.standardise(x)).topk(self.sparsity, dim=-1)
        return Codes(indices, values.relu())

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
        return F.linear(self.standardise(x), self.encoder.weight[concepts], self.encoder.bias[concepts])

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


def combine(codes: Codes, atoms: Tensor) -> Tensor:
    """Sum of atoms [K, d] weighted by sparse codes, [N, d]."""
    return F.embedding_bag(codes.indices, atoms, per_sample_weights=codes.values, mode="sum")
