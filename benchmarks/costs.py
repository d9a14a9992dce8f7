"""What some work takes: seconds, and the memory above what was held before, of the process or of a GPU."""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.scale import highest, resident
from engine.samplers.calibration import Profiler, Timed


def costed(work: Callable[[], Any]) -> Timed:
    """Do the work; memory is the process's, and what earlier work left to the allocator is handed back first."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is resident now
    before, began = resident(), time.perf_counter()
    result = work()
    return Timed(result, time.perf_counter() - began, max(highest() - before, 0.0))


def costed_on_gpu(device: torch.device, work: Callable[[], Any]) -> Timed:
    """Do the work and wait until the GPU has done it; memory is what tensors took of the GPU at most."""
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before, began = torch.cuda.memory_allocated(device), time.perf_counter()
    result = work()
    torch.cuda.synchronize(device)
    seconds, peak = time.perf_counter() - began, torch.cuda.max_memory_allocated(device)
    return Timed(result, seconds, max(peak - before, 0) / 1e9)


def add_placement(arguments: argparse.ArgumentParser) -> None:
    """Add the options `--device` and `--dtype`, see `engine.devices.drawing_placement`."""
    arguments.add_argument("--device", default="auto", help="auto (the first CUDA GPU, or else the CPU), cpu, cuda")
    arguments.add_argument("--dtype", help="precision of encoder and prior on a GPU: float32 or bfloat16")


def profiler_of(device: str | torch.device) -> Profiler:
    """Return what measures work on a device."""
    device = torch.device(device)
    return partial(costed_on_gpu, device) if device.type == "cuda" else costed
