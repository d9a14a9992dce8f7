"""What some work takes: seconds, and the memory of the process above what it held before."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.scale import highest, resident
from engine.samplers.calibration import Timed


def costed(work: Callable[[], Any]) -> Timed:
    """Do the work; what earlier work left to the allocator is handed back first."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is resident now
    before, began = resident(), time.perf_counter()
    result = work()
    return Timed(result, time.perf_counter() - began, max(highest() - before, 0.0))
