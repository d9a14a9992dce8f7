"""The requirement files, made from the one list in pyproject.toml.

``python tests/requirements.py --write`` writes ``requirements.txt``, ``requirements-dev.txt`` and
``requirements-gpu.txt``; ``--lock`` resolves them with uv for every platform and writes the lock files, with the hash
of every file. Torch and what only its CUDA builds need are not locked: each platform has its own build.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNLOCKED = re.compile(r"(torch|triton|nvidia-|cuda-)")
HEAD = "# Written by `make lock` from pyproject.toml.\n"
GPU_HEAD = """\
# On a CUDA machine, instead of requirements.txt: FAISS on the GPU in the place of faiss-cpu, whose files it shares.
# Install the torch build of your CUDA version first.
"""


def wanted() -> dict[str, str]:
    """Return the text of every requirements file by its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base, extras = project["dependencies"], project["optional-dependencies"]
    gpu = [line for line in base if not line.startswith("faiss-cpu")] + extras["gpu"] + extras["generators"]
    return {
        "requirements.txt": HEAD + _lines(base),
        "requirements-dev.txt": HEAD + "-r requirements.txt\n" + _lines(extras["dev"] + extras["docs"]),
        "requirements-gpu.txt": HEAD + GPU_HEAD + _lines(gpu),
    }


def lock(name: str) -> str:
    """Return the lock of a requirements file."""
    options = "--universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet --native-tls"
    hidden = "--no-emit-index-url --no-emit-find-links"
    command = ["uv", "pip", "compile", name, *options.split(), *hidden.split()]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    blocks = re.split(r"\n(?=[A-Za-z0-9])", found.strip())
    return HEAD + "\n".join(block for block in blocks if not UNLOCKED.match(block)) + "\n"


def _lines(requirements: list[str]) -> str:
    return "".join(f"{line}\n" for line in requirements)


if __name__ == "__main__":
    if "--write" in sys.argv:
        for name, text in wanted().items():
            (ROOT / name).write_text(text)
    if "--lock" in sys.argv:
        for name in ("requirements", "requirements-dev"):
            (ROOT / f"{name}.lock").write_text(lock(f"{name}.txt"))
