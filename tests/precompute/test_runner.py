"""A stage runs once, again when what decides it changes, and goes on where it was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.errors import BlindspotError
from engine.files import content_hash
from precompute.runner import Stage, WorkDirectory, fingerprint, run_stages


class Made(Stage):
    """A stage that is run by a function."""

    def __init__(self, name: str, run, params: dict | None = None, after: tuple[str, ...] = (), reads=()) -> None:
        super().__init__(None, name, params, after, reads)
        self.run = run


class Changed(Made):
    """The same with changed code."""

    version = 2


def quiet(stage: Stage):
    return lambda done, total: None


def write(text: str):
    def run(folder: Path, progress) -> dict[str, str]:
        (folder / "result").write_text(text)
        return {"wrote": text}

    return run


def actions(work: WorkDirectory, *stages: Stage) -> list[str]:
    content_hash.cache_clear()
    return [outcome.action for outcome in run_stages(stages, work, quiet)]


@pytest.fixture
def work(tmp_path: Path) -> WorkDirectory:
    return WorkDirectory(tmp_path / "work")


def test_a_second_run_does_nothing(work: WorkDirectory):
    stages = [Made("a", write("1")), Made("b", write("2"), after=("a",))]
    assert actions(work, *stages) == ["ran", "ran"]
    assert actions(work, *stages) == ["kept", "kept"]
    assert work.summary("b") == {"wrote": "2"}


def test_a_changed_parameter_redoes_its_stage_and_what_depends_on_it(work: WorkDirectory):
    def stages(size: int) -> list[Stage]:
        return [
            Made("a", write("1")),
            Made("b", write("2"), {"size": size}, after=("a",)),
            Made("c", write("3"), after=("b",)),
            Made("d", write("4"), after=("a",)),
        ]

    actions(work, *stages(1))
    assert actions(work, *stages(2)) == ["kept", "ran", "ran", "kept"]


def test_a_changed_input_file_redoes_its_stage(work: WorkDirectory, tmp_path: Path):
    given = tmp_path / "given"
    given.mkdir()
    (given / "x").write_text("1")
    stage = Made("a", write("1"), reads=(given,))
    assert [actions(work, stage), actions(work, stage)] == [["ran"], ["kept"]]
    (given / "x").write_text("2")
    assert actions(work, stage) == ["ran"]


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_stage_whose_files_are_not_all_there_is_redone(work: WorkDirectory, damage: str):
    stage = Made("a", write("1"))
    actions(work, stage)
    result = work.folder("a") / "result"
    result.unlink() if damage == "missing" else result.write_text("")
    assert actions(work, stage) == ["ran"] and result.read_text() == "1"


def test_an_interrupted_stage_keeps_its_files_and_goes_on(work: WorkDirectory):
    def run(folder: Path, progress) -> None:
        seen = (folder / "first").exists()
        (folder / "first").write_text("1")
        if not seen:
            raise KeyboardInterrupt
        (folder / "second").write_text("2")

    with pytest.raises(KeyboardInterrupt):
        actions(work, Made("a", run))
    assert actions(work, Made("a", run)) == ["resumed"]
    assert (work.folder("a") / "second").exists()


def test_an_interrupted_stage_starts_afresh_with_other_parameters(work: WorkDirectory):
    def fail(folder: Path, progress) -> None:
        (folder / "half").write_text("1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        actions(work, Made("a", fail, {"size": 1}))
    assert actions(work, Made("a", write("1"), {"size": 2})) == ["ran"]
    assert not (work.folder("a") / "half").exists()


def test_the_fingerprint_knows_everything_that_decides():
    base = Made("a", write("1"), {"x": 1}, after=("z",))
    upstream = {"z": "0"}
    others = [
        Made("b", write("1"), {"x": 1}, after=("z",)),
        Made("a", write("1"), {"x": 2}, after=("z",)),
        Made("a", write("1"), {"x": 1}, after=()),
        Changed("a", write("1"), {"x": 1}, after=("z",)),
    ]
    marks = [fingerprint(base, upstream), fingerprint(base, {"z": "1"}), *(fingerprint(s, upstream) for s in others)]
    assert len(set(marks)) == len(marks)
    assert fingerprint(base, upstream) == fingerprint(Made("a", write("2"), {"x": 1}, after=("z",)), upstream)


HOLD = """
import sys, time
from pathlib import Path
from precompute.runner import WorkDirectory
with WorkDirectory(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_kept_out_until_the_first_one_dies(work: WorkDirectory):
    root = Path(__file__).parents[2]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(work.path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BlindspotError, match=rf"Another run \(process {holder.pid}\)"), work.lock():
            pass
    finally:
        holder.kill()
        holder.wait()
    time.sleep(0.01)
    with work.lock():
        assert (work.path / "lock").read_text() == str(os.getpid())


def test_a_stage_is_checked_before_the_long_work_once_what_it_reads_is_there(work: WorkDirectory):
    def stages(usable: bool) -> list[Stage]:
        said: list[str] = []

        def noted(name: str):
            return lambda folder, progress: said.append(name) or write(name)(folder, progress)

        def check() -> None:
            said.append("check")
            if not usable:
                raise BlindspotError("It cannot work.")

        found = [Made("a", noted("a")), Made("long", noted("long"), after=("a",)), Made("b", noted("b"), after=("a",))]
        found[2].check = check
        found[0].said = said
        return found

    unusable, usable = stages(False), stages(True)
    with pytest.raises(BlindspotError, match="cannot work"):
        actions(work, *unusable)
    assert unusable[0].said == ["a", "check"]
    assert actions(work, *usable) == ["kept", "ran", "ran"] and usable[0].said == ["check", "long", "b"]
    assert actions(work, *stages(False)) == ["kept", "kept", "kept"]
