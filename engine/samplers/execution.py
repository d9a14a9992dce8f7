"""How a batch is computed: in micro-batches that fit into memory, several at once on a CPU.

Kernels round differently for batches of different sizes and for different numbers of threads, and guidance amplifies a
last digit into another image, because the tiny gradients of early steps are scaled to a length. So on a CPU only rows
of the same sample share a kernel, and every thread has the same share of the machine however many are drawn. On an
accelerator one sample leaves most of it idle: there as many share a kernel as fit into its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import lru_cache
from threading import Barrier
from typing import Literal, TypeVar

import torch
from torch import Tensor

from engine.errors import BlindspotError

Item = TypeVar("Item")
Result = TypeVar("Result")
MAX_THREADS = 4
"""Threads of `parallel_map` at most: as many samples as people ask for at once."""
OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")
"""What the allocators of CPUs and other accelerators say in a plain RuntimeError."""
Together = int | Literal["auto"] | None
"""Samples that share a kernel: so many, None for all that fit into memory; `auto`: one on a CPU, so that what a sample
becomes does not depend on how many are drawn, and all on an accelerator."""


def samples_together(together: Together, device: torch.device | str) -> int | None:
    """Return how many samples share a kernel on a device; None for as many as fit."""
    if together == "auto":
        return 1 if torch.device(device).type == "cpu" else None
    return together


class MicroBatches:
    """Applies functions to a batch of independent rows, in micro-batches no larger than what has fitted before.

    On a CPU several threads work on micro-batches at once: functions must allow that. What does not fit is halved.

    Parameters
    ----------
    group
        Rows that may share a micro-batch: the batch is first cut into groups of this many. None: all may.
    size
        Rows of a micro-batch at first; None for whole groups.
    """

    def __init__(self, group: int | None = None, size: int | None = None) -> None:
        self.group, self.size = group, size

    def map(self, function: Callable[[Tensor], Result], rows: Tensor) -> list[Result]:
        """Return a function's results for the micro-batches of a batch [n, ...], in order.

        Raises
        ------
        BlindspotError
            If not even a single row fits into memory.
        """
        while True:
            batches = self._split(rows)
            try:
                on_cpu = rows.device.type == "cpu"
                return parallel_map(function, batches) if on_cpu else [function(batch) for batch in batches]
            except RuntimeError as error:
                if not isinstance(error, torch.OutOfMemoryError) and not any(s in str(error) for s in OUT_OF_MEMORY):
                    raise
            # Only past the exception and its frames are the failed attempt's tensors freed.
            if rows.is_cuda:
                torch.cuda.empty_cache()
            size = max(map(len, batches))
            if size == 1:
                raise BlindspotError(
                    f"A single sample does not fit into the memory of {rows.device}: "
                    "use guidance 'light', bf16 or checkpointing, or a smaller prior."
                )
            self.size = (size + 1) // 2

    def _split(self, rows: Tensor) -> list[Tensor]:
        groups = rows.split(self.group or len(rows))
        return [batch for group in groups for batch in group.split(self.size or len(group))]


def parallel_map(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return a function's results for some items, in order, computed by as many threads as torch would use for one.

    The function runs in the caller's gradient mode but not in its autocast. The first error cancels what has not begun,
    and is raised once everything that has begun has ended.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return [function(item) for item in items]
    gradients, executor = torch.is_grad_enabled(), _executor(threads)

    def work(item: Item) -> Result:
        with torch.set_grad_enabled(gradients):
            return function(item)

    return _collect([executor.submit(work, item) for item in items])


def _collect(tasks: list[Future[Result]]) -> list[Result]:
    """The results of tasks in order, or the error of the first that failed; its frames keep no task alive."""
    results: list[Result] = []
    try:
        if any(task.exception() for task in wait(tasks, return_when=FIRST_EXCEPTION).done):
            wait([task for task in tasks if not task.cancel()])
        while tasks:
            results.append(tasks.pop(0).result())
    finally:  # after Ctrl-C too: what has not begun would be run before the process ends
        for task in tasks:
            task.cancel()
        tasks.clear()
    return results


@lru_cache(maxsize=4)
def _executor(threads: int) -> ThreadPoolExecutor:
    """Threads that share this many of torch's evenly."""
    count = min(MAX_THREADS, threads)
    ready = Barrier(count)

    def take_share() -> None:
        torch.get_num_threads()  # a thread that was never asked takes the process's number at its first kernel
        torch.set_num_threads(threads // count)
        ready.wait()

    executor = ThreadPoolExecutor(count, "sampler", take_share)
    wait([executor.submit(int) for _ in range(count)])
    torch.set_num_threads(threads)  # a thread's own number holds for later threads too, until another is set
    return executor
