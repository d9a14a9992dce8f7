"""Several processes that train one dictionary together, each on its share of every batch (`accelerate launch`).

What they exchange are the gradients of encoder and atoms, [K, d] each, never that of an archetypal dictionary's weights
[K, c]. All processes take the same step, so their dictionaries stay equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator


class Processes:
    """The processes of an `Accelerator`, or this one alone."""

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self.accelerator = accelerator
        self.count = accelerator.num_processes if accelerator else 1
        self.rank = accelerator.process_index if accelerator else 0

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def share(self, rows: Tensor, together: int = 1) -> Tensor:
        """This process's rows [n / count] of a batch [n], in whole runs of `together`; a remainder is left out."""
        if self.count == 1:
            return rows
        runs = rows.view(-1, together)
        runs = runs[: len(runs) // self.count * self.count]
        return runs[self.rank :: self.count].flatten()

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all processes."""
        return tensor if self.count == 1 else self.accelerator.reduce(tensor, "mean")

    def any(self, mask: Tensor) -> Tensor:
        """Where the mask holds in any process."""
        return mask if self.count == 1 else self.accelerator.reduce(mask.to(torch.int32), "sum") > 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.accelerator:
            self.accelerator.wait_for_everyone()
