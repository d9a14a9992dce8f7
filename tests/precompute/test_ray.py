"""A run on a real Ray of which a worker is killed while it draws ends with the very files of a run in one process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import BlindspotError
from engine.files import PARTIAL
from precompute.build import build
from precompute.engines import RayEngine
from precompute.recipe import Recipe, load_recipe
from precompute.runner import Progress, Stage
from precompute.stages import encode
from tests.precompute.kill_trials import checksums
from tests.precompute.materials import save_images, save_recipe

ray = pytest.importorskip("ray")


@pytest.fixture
def recipe(tmp_path: Path, encoder_folder: Path, pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(encode, "SHARD", 8)
    monkeypatch.setattr(encode, "TOGETHER", 1)
    save_images(tmp_path / "real", range(40))
    path = save_recipe(
        tmp_path / "r.yaml",
        real="real",
        models={"drawn": {"pipeline": str(pipeline_folder), "steps": 1, "batch": 5}},
        encoder={"id": str(encoder_folder), "batch": 4},
    )
    return load_recipe(path)


def workers() -> list[int]:
    """Processes of this test's actors."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
        except OSError:
            continue
        if words.startswith(b"ray::_Actor") and (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
            found.append(int(entry.name))
    return found


def killer(killed: list[int], name: str) -> Callable[[Stage], Progress]:
    """Kills a worker after the first piece of a stage."""

    def report(stage: Stage) -> Progress:
        def progress(done: int, total: int) -> None:
            if 0 < done < total and stage.name == name and not killed:
                killed.extend(workers()[:1])
                os.kill(killed[0], signal.SIGKILL)

        return progress

    return report


@pytest.mark.slow
def test_an_atlas_made_on_ray_with_a_worker_killed_is_that_of_one_process(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    killed: list[int] = []
    build(recipe, tmp_path / "local", lambda stage: lambda done, total: None)
    before = signal.getsignal(signal.SIGTERM)
    build(recipe, tmp_path / "ray", killer(killed, "generate/drawn"), "ray")
    assert killed and not ray.is_initialized() and signal.getsignal(signal.SIGTERM) == before
    assert checksums(tmp_path / "ray") == checksums(tmp_path / "local")
    assert [path for path in (tmp_path / "ray.work").rglob("*") if path.name.endswith(PARTIAL)] == []


def test_ray_that_is_missing_and_an_engine_that_nobody_knows_are_said_in_a_sentence(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(BlindspotError, match=r"There is no engine 'spark': choose local or ray\."):
        build(recipe, tmp_path / "out", lambda stage: lambda done, total: None, "spark")
    monkeypatch.setattr("precompute.engines.find_spec", lambda name: None)
    with pytest.raises(BlindspotError, match=r"pip install 'blindspot-atlas\[ray\]'"):
        RayEngine()
