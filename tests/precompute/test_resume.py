"""Killed again and again, a run ends with the very files of an undisturbed one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.atlas.verify import verify
from tests.precompute.materials import save_images, save_recipe

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_kill_9_costs_time_and_nothing_else(tmp_path: Path, encoder_folder: Path, pipeline_folder: Path):
    save_images(tmp_path / "real", range(70))
    save_images(tmp_path / "other", range(5), shift=1)
    recipe = save_recipe(
        tmp_path / "r.yaml",
        real="real",
        models={"other": "other", "drawn": {"pipeline": str(pipeline_folder), "steps": 1, "batch": 10}},
        encoder={"id": str(encoder_folder), "batch": 16},
        dictionary={"concepts": 12, "sparsity": 3, "epochs": 30, "batch": 100, "tokens": 700},
    )
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("kill_trials.py")), str(recipe), str(tmp_path / "out"), "0"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    peace = found["atlases"]["peace"]
    assert found["kills"]["reports"] >= 10 and found["kills"]["seconds"] >= 3
    assert found["atlases"]["reports"] == peace and found["atlases"]["seconds"] == peace
    assert verify(tmp_path / "out" / "reports") == []
    assert found["left"] == sorted(f"{name}{end}" for name in ("peace", "reports", "seconds") for end in ("", ".work"))
