"""Tokens with a known dictionary, shared by the tests of training and fitting."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor


@pytest.fixture(scope="session")
def planted() -> Callable[..., tuple[Tensor, Tensor]]:
    """`planted(rows, atoms, dim, active)`: tokens [rows, dim] and the unit atoms [atoms, dim] they are made of."""

    def tokens(rows: int, atoms: int, dim: int, active: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        truth = F.normalize(torch.randn(atoms, dim, generator=generator), dim=-1)
        chosen = torch.rand(rows, atoms, generator=generator).topk(active).indices
        strength = torch.rand(rows, active, generator=generator) + 0.5
        clean = torch.zeros(rows, atoms).scatter(1, chosen, strength) @ truth
        return clean + 0.02 * torch.randn(rows, dim, generator=generator) + 1, truth

    return tokens
