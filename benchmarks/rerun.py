"""How long does a run take that has nothing to do?

    python -m precompute benchmark rerun --images 20000 --json

A folder of that many small images with captions, and as many drawn ones, become an atlas through a tiny random encoder;
then the same command runs again in a new process. `first_seconds` and `rerun_seconds` are those of both, `imports` what
of the second it takes to load the libraries. --keep FOLDER builds there once and only reruns afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from transformers import Dinov2Config, Dinov2Model

COMMAND = [sys.executable, "-m", "precompute", "run"]
SIDE = 16


def make_inputs(folder: Path, images: int) -> Path:
    """Both folders of images, the encoder and the recipe; returns the recipe."""
    rng = np.random.default_rng(0)
    for name in ("real", "drawn"):
        (folder / name).mkdir(parents=True)
        rows = []
        for number in range(images):
            Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(folder / name / f"{number:07d}.png")
            rows.append({"file_name": f"{number:07d}.png", "text": f"thing {number % 97} on {number % 31}"})
        (folder / name / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(image_size=14, patch_size=7, **size)).save_pretrained(folder / "encoder")
    recipe = {
        "name": "rerun", "real": "real", "models": {"drawn": "drawn"}, "thumbs": {"size": SIDE},
        "encoder": {"id": "encoder", "image_size": 14, "batch": 64, "device": "cpu"},
        "dictionary": {"kind": "topk", "concepts": 64, "sparsity": 3, "epochs": 1, "tokens": 20_000, "device": "cpu"},
    }  # fmt: skip
    (folder / "rerun.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "rerun.yaml"


def run(recipe: Path) -> tuple[float, list[str]]:
    """Seconds of one run in a process of its own, and the stages that were run."""
    clock = time.perf_counter()
    words = [*COMMAND, str(recipe), "--out", str(recipe.parent / "atlas"), "--json"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    seconds = time.perf_counter() - clock
    return seconds, [one["name"] for one in json.loads(said)["stages"] if one["action"] != "kept"]


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    arguments.add_argument("--images", type=int, default=20_000, help="of each of both sources")
    arguments.add_argument("--keep", type=Path, help="folder that keeps what is built")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base = options.keep or Path(scratch)
        recipe = base / "rerun.yaml"
        recipe = recipe if recipe.exists() else make_inputs(base, options.images)
        first, _ = run(recipe)
        seconds, ran = run(recipe)
        clock = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import precompute.cli, precompute.build, precompute.recipe"], check=True)
        imports = time.perf_counter() - clock
    report = {
        "images": 2 * options.images, "first_seconds": round(first, 1), "rerun_seconds": round(seconds, 1),
        "imports": round(imports, 1), "stages_run_again": ran, "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    print(json.dumps(report, indent=2 if options.json else None))


if __name__ == "__main__":
    main()
