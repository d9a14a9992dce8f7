"""A batch in pieces: no larger than what fits into memory, and the same for a sample whatever else is drawn.

Kernels round differently for batches of different sizes, and guidance blows a last digit up into another image: early
gradients are tiny, and scaled to a length. So samplers let rows share a kernel only if they belong to the same sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.samplers.crew import side_by_side

Result = TypeVar("Result")
SIGNS = ("not enough memory", "can't allocate memory", "out of memory")
"""What the allocators of CPUs and other accelerators say in a plain RuntimeError."""


class Pieces:
    """Applies functions to a batch, in pieces no larger than what has fitted before.

    Rows must not depend on each other; then only the last digits depend on the pieces. Within a group they depend on
    the memory at hand, where it has run out. On a CPU several threads work on pieces at once (`crew`): functions must
    bear that.

    Parameters
    ----------
    group
        Rows that may share a piece: the batch is first cut into groups of so many. None: all may.
    size
        Rows of a piece at first; None for whole groups.
    """

    def __init__(self, group: int | None = None, size: int | None = None) -> None:
        self.group, self.size = group, size

    def map(self, function: Callable[[Tensor], Result], rows: Tensor) -> list[Result]:
        """A function's results for the pieces of a batch [n, ...], in order.

        Raises
        ------
        BlindspotError
            If not even a single row fits.
        """
        while True:
            try:
                return _each(function, self._cut(rows))
            except RuntimeError as error:
                if not _is_shortage(error):
                    raise
            # Only past the exception and its frames are the failed attempt's tensors let go.
            if rows.is_cuda:
                torch.cuda.empty_cache()
            size = max(map(len, self._cut(rows)))
            if size == 1:
                raise BlindspotError(
                    f"A single sample does not fit into the memory of {rows.device}: "
                    "use guidance 'light', bf16 or checkpointing, or a smaller prior."
                )
            self.size = (size + 1) // 2

    def _cut(self, rows: Tensor) -> list[Tensor]:
        groups = rows.split(self.group or len(rows))
        return [piece for group in groups for piece in group.split(self.size or len(group))]


def _each(function: Callable[[Tensor], Result], pieces: list[Tensor]) -> list[Result]:
    """A function's results for pieces: an accelerator takes them one after the other, a CPU several at once."""
    return [function(piece) for piece in pieces] if pieces[0].is_cuda else side_by_side(function, pieces)


def _is_shortage(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in SIGNS)
