"""Sparse in, sparse out: the strongest pre-activations of a linear encoder, and gradients that stay sparse.

Neither the pre-activations of a whole batch nor dense codes are ever kept. Forward works through the tokens in chunks
and keeps k numbers of each; backward sums the gradient of every concept over the tokens that chose it (as EleutherAI's
sparsify does), k / K of the work of a dense product.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

CHUNK_ENTRIES = {"cpu": 2**21}
LARGE_CHUNK = 2**28


class Codes(NamedTuple):
    """Sparse codes of N tokens."""

    indices: Int[Tensor, "N k"]
    """Concepts, int64, strongest first."""
    values: Float[Tensor, "N k"]
    """Their activations, at least 0; 0 means that fewer than k concepts are active."""


def top_codes(
    x: Float[Tensor, "N f"], weight: Float[Tensor, "K f"], bias: Float[Tensor, " K"], width: int, half: bool = False
) -> Codes:
    """The `width` largest of relu(V x + b) of every token; differentiable in x, V and b.

    With `half` a product in bfloat16 chooses; the chosen activations themselves have the precision of `weight`.
    """
    return Codes(*_TopCodes.apply(x, weight, bias, width, half))


def combine(codes: Codes, atoms: Float[Tensor, "K d"]) -> Float[Tensor, "N d"]:
    """Sum of atoms weighted by sparse codes."""
    return F.embedding_bag(codes.indices, atoms, per_sample_weights=codes.values, mode="sum")


def gather_by_concept(
    indices: Int[Tensor, "N k"], weights: Float[Tensor, "N k"], rows: Float[Tensor, "N d"], concepts: int
) -> Float[Tensor, "K d"]:
    """Z^T X: for every concept the sum of the rows X that chose it, weighted.

    Z is given in sparse form by the concepts of each row and their weights. Sums follow the order of the rows, so they
    are the same on every run.
    """
    chosen, order = indices.flatten().sort(stable=True)
    starts = torch.searchsorted(chosen, torch.arange(concepts, device=chosen.device))
    sources = order // indices.shape[1]
    return F.embedding_bag(sources, rows, starts, per_sample_weights=weights.flatten()[order], mode="sum")


class _TopCodes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, width: int, half: bool) -> tuple[Tensor, Tensor]:
        concepts = len(weight)
        rows = max(1, CHUNK_ENTRIES.get(x.device.type, LARGE_CHUNK) // concepts)
        indices = torch.empty(len(x), width, dtype=torch.int64, device=x.device)
        values = weight.new_empty(len(x), width)
        precision = torch.bfloat16 if half else weight.dtype
        transposed, shift = weight.to(precision).t(), bias.to(precision)
        room = transposed.new_empty(min(rows, len(x)), concepts)
        for part, chosen, kept in zip(x.split(rows), indices.split(rows), values.split(rows), strict=True):
            active = torch.addmm(shift, part.to(precision), transposed, out=room[: len(part)])
            best, where = active.topk(width, dim=-1)
            if half:
                best = _exact(part, weight, bias, where)
                best, order = best.sort(dim=-1, descending=True)
                where = where.gather(-1, order)
            chosen.copy_(where)
            kept.copy_(best.relu())
        ctx.save_for_backward(x, weight, indices, values)
        ctx.mark_non_differentiable(indices)
        return indices, values

    @staticmethod
    def backward(ctx: Any, _: Tensor, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, indices, values = ctx.saved_tensors
        gradient = gradient * (values > 0)
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = combine(Codes(indices, gradient), weight)
        if ctx.needs_input_grad[1]:
            to_weight = gather_by_concept(indices, gradient, x, len(weight))
        if ctx.needs_input_grad[2]:
            to_bias = gradient.new_zeros(len(weight)).index_add_(0, indices.flatten(), gradient.flatten())
        return to_x, to_weight, to_bias, None, None


def _exact(x: Tensor, weight: Tensor, bias: Tensor, where: Tensor) -> Tensor:
    """V x + b [n, k] of the concepts `where` [n, k] alone, by embedding_bag's gradient, which gathers nothing."""
    with torch.enable_grad():
        ones = torch.ones_like(where, dtype=weight.dtype).requires_grad_()
        summed = F.embedding_bag(where, weight.detach(), per_sample_weights=ones, mode="sum")
        (products,) = torch.autograd.grad(summed, ones, x)
    return products + bias[where]
