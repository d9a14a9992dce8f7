"""The threads that samples are drawn on side by side: a CPU's kernels for one small sample cannot use all its cores.

Every thread of a crew has the same share of the machine whether there is work for all of them or not, so that kernels
split, and round, alike however many samples are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import lru_cache
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")
LARGEST = 4
"""Threads of a crew at most: as many samples as people ask for at once."""


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """A function's results for some items, in order, computed by as many threads as torch would use for one of them.

    The function sees the caller's gradient mode, as it would without threads, but not its autocast. The first error
    ends what has not begun, and is raised when what has begun has ended.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return [function(item) for item in items]
    wanted, crew = torch.is_grad_enabled(), _crew(threads)

    def work(item: Item) -> Result:
        with torch.set_grad_enabled(wanted):
            return function(item)

    return _gathered([crew.submit(work, item) for item in items])


def _gathered(tasks: list[Future[Result]]) -> list[Result]:
    """The results of tasks in order, or the error of the first that failed; its frames keep no task alive."""
    results: list[Result] = []
    try:
        if any(task.exception() for task in wait(tasks, return_when=FIRST_EXCEPTION).done):
            wait([task for task in tasks if not task.cancel()])
        while tasks:
            results.append(tasks.pop(0).result())
    finally:
        tasks.clear()
    return results


@lru_cache(maxsize=4)
def _crew(threads: int) -> ThreadPoolExecutor:
    """Threads that share so many of torch's evenly."""
    count = min(LARGEST, threads)
    ready = Barrier(count)

    def take_share() -> None:
        torch.get_num_threads()  # a thread that was never asked takes the process's number at its first kernel
        torch.set_num_threads(threads // count)
        ready.wait()

    crew = ThreadPoolExecutor(count, "sampler", take_share)
    wait([crew.submit(int) for _ in range(count)])
    torch.set_num_threads(threads)  # a thread's own number holds for later threads too, until another is set
    return crew
