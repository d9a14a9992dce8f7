"""What importing must preserve: the codes and the reconstructions of the library that wrote the file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from engine.dictionary.base import Codes, Dictionary
from engine.dictionary.published import ImportReport, Options, import_dictionary

DIM, CONCEPTS, K = 12, 40, 5
ALL = Options(sparsity=CONCEPTS)


def tokens(rows: int = 64) -> Tensor:
    return torch.randn(rows, DIM, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def shake(module: nn.Module) -> nn.Module:
    """Fill every parameter at random, so that no bias or gain stays at its harmless initial value."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / (DIM**0.5 if parameter.ndim > 1 else 4))
    return module


def dense(codes: Codes, concepts: int) -> Tensor:
    return torch.zeros(len(codes.indices), concepts).scatter_add(1, codes.indices, codes.values)


def imported(
    src: Path, out: Path, kind: str = "auto", options: Options | None = None
) -> tuple[Dictionary, ImportReport]:
    """Through the folder on disk, as a user gets it."""
    report = import_dictionary(str(src), out, kind, options)
    return Dictionary.from_pretrained(out), report


@torch.no_grad()
def assert_same(dictionary: Dictionary, codes: Tensor, reconstruction: Tensor, x: Tensor) -> None:
    """Codes [N, K] and reconstructions [N, d] of tokens x [N, d] to 1e-5, and codes that are worth comparing."""
    ours = dictionary.encode(x)
    assert (codes > 0).any() and (codes == 0).any()
    torch.testing.assert_close(dense(ours, dictionary.concepts), codes, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dictionary.decode(ours), reconstruction, atol=1e-5, rtol=1e-5)
