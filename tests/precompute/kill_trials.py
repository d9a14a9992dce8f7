"""Build the same atlas in peace and under fire: `python kill_trials.py RECIPE FOLDER SEED` prints one JSON document.

Everything is imported once; each attempt is a fork of this process, which dies by SIGKILL either at a progress report
(a chunk's boundary) or after a random time, until one attempt gets through.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import sklearn.cluster
import sklearn.decomposition
from diffusers import StableDiffusionPipeline
from transformers import Dinov2WithRegistersModel

import precompute.stages.assemble
import precompute.stages.corpus
import precompute.stages.dictionary
import precompute.stages.encode
import precompute.stages.energies
import precompute.stages.generate
from precompute.build import build
from precompute.recipe import load_recipe

LOADED = (StableDiffusionPipeline, Dinov2WithRegistersModel, sklearn.cluster, sklearn.decomposition, precompute.stages)
"""What the stages import when they run, so that no attempt spends its seconds on it."""
MOST = {"reports": 10, "seconds": 4}
"""Kills of each kind, after which an attempt is let through."""


def attempt(recipe: Path, out: Path, reports: int | None = None, seconds: float | None = None) -> bool:
    """Fork a run; kill it after so many progress reports or seconds. Says whether it got through."""
    child = os.fork()
    if child == 0:
        left = [reports]

        def tick(done: int, total: int) -> None:
            if left[0] is not None:
                left[0] -= 1
                if left[0] <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            build(load_recipe(recipe), out, lambda stage: tick)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    timer = threading.Timer(seconds, os.kill, (child, signal.SIGKILL)) if seconds is not None else None
    if timer:
        timer.start()
    _, status = os.waitpid(child, 0)
    if timer:
        timer.cancel()
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a run failed instead of being killed")
    return os.WIFEXITED(status)


def checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main() -> None:
    recipe, folder, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)
    began = time.monotonic()
    assert attempt(recipe, folder / "peace")
    duration = time.monotonic() - began
    kills = {"reports": 0, "seconds": 0}
    while not attempt(
        recipe, folder / "reports", reports=rng.randint(1, 45) if kills["reports"] < MOST["reports"] else None
    ):
        kills["reports"] += 1
    while not attempt(
        recipe,
        folder / "seconds",
        seconds=rng.uniform(0.03, 0.2) * duration if kills["seconds"] < MOST["seconds"] else None,
    ):
        kills["seconds"] += 1
    atlases = {name: checksums(folder / name) for name in ("peace", *kills)}
    left = sorted(path.name for path in folder.iterdir())
    print(json.dumps({"kills": kills, "atlases": atlases, "left": left, "duration": duration}))


if __name__ == "__main__":
    main()
