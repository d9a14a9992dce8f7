"""Runs under fire: damaged stages, pipes and devices as inputs, full disks, signals, two runs on one folder."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from engine.atlas.verify import verify
from engine.atlas.writer import AtlasWriter
from engine.errors import BlindspotError
from engine.files import PARTIAL, content_hash, full_disk_explained
from precompute.build import build
from precompute.gallery import draw_gallery
from precompute.recipe import load_recipe
from precompute.runner import Build, WorkDirectory
from tests.drawable import build_drawable_atlas
from tests.precompute.materials import save_images, save_recipe
from tests.precompute.test_gallery import ORDER

ROOT = Path(__file__).parents[2]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path, pipeline_folder: Path) -> Path:
    """A folder with a recipe of every kind of source, and its finished atlas."""
    folder = tmp_path_factory.mktemp("used")
    save_images(folder / "other", range(6), shift=1)
    save_recipe(
        folder / "r.yaml",
        real={"world": "tabletop", "count": 8, "size": 32},
        models={"other": "other", "drawn": {"pipeline": str(pipeline_folder), "steps": 1, "batch": 3}},
        encoder={"id": str(encoder_folder), "batch": 4},
    )
    run(folder)
    return folder.rename(folder.with_name("made"))


@pytest.fixture
def copied(made: Path) -> Iterator[Path]:
    """The same where it was built, to be changed."""
    yield Path(shutil.copytree(made, made.with_name("used0")))
    shutil.rmtree(made.with_name("used0"))


def run(folder: Path, *settings: str) -> Build:
    content_hash.cache_clear()
    return build(load_recipe(folder / "r.yaml", settings), folder / "atlas", lambda stage: lambda done, total: None)


def contents(atlas: Path) -> dict[str, bytes]:
    """All files but the header, which names paths."""
    files = (path for path in atlas.rglob("*") if path.is_file() and path.name != "atlas.json")
    return {path.relative_to(atlas).as_posix(): path.read_bytes() for path in files}


def stage_files(folder: Path) -> list[Path]:
    found = [path for path in (folder / "atlas.work").glob("*/**/*") if path.is_file() and path.name != "stage.json"]
    return sorted(path for path in found if path.parent.name != "assemble")


@pytest.mark.parametrize("keep", [0.0, 0.6])
def test_files_of_an_unfinished_stage_that_end_too_soon_are_made_again(copied: Path, made: Path, keep: float):
    """Empty and truncated shards, images, thumbnails, dictionaries and reports, of all stages at once."""
    for record in (copied / "atlas.work").glob("*/**/stage.json"):
        document = json.loads(record.read_text())
        record.write_text(json.dumps({"fingerprint": document["fingerprint"], "done": False}))
    for number, path in enumerate(stage_files(copied)):
        if number % 2 == 0:
            path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    outcomes = run(copied).outcomes
    assert {outcome.action for outcome in outcomes} == {"resumed"}
    assert verify(copied / "atlas") == [] and contents(copied / "atlas") == contents(made / "atlas")


def test_damage_of_the_same_size_does_not_enter_an_atlas(copied: Path, made: Path):
    for path in stage_files(copied):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    run(copied)
    assert contents(copied / "atlas") == contents(made / "atlas")
    run(copied, "description=anew")
    assert verify(copied / "atlas") == [] and contents(copied / "atlas") == contents(made / "atlas")


@pytest.mark.parametrize("done", [True, False])
def test_foreign_files_in_a_work_directory_are_kept(copied: Path, done: bool):
    work = copied / "atlas.work"
    notes = [work / "notes.txt", work / "encode/real/notes.txt", work / "mine" / "a.npy"]
    for path in notes:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    if not done:
        record = work / "encode/real/stage.json"
        record.write_text(json.dumps({"fingerprint": json.loads(record.read_text())["fingerprint"], "done": False}))
    with pytest.raises(BlindspotError, match=r"encode/real/notes.txt is of no earlier run and is kept: move it"):
        run(copied, "encoder.layer=1")
    assert [path.read_text() for path in notes] == ["mine"] * 3


def test_a_link_in_the_locks_place_is_not_emptied(tmp_path: Path):
    (tmp_path / "precious").write_text("x")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError), WorkDirectory(tmp_path / "work").lock():
        pass
    assert (tmp_path / "precious").read_text() == "x"


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Fail instead of hanging."""

    def hang(number: int, frame: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["pipe", "device", "folder", "link"])
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path], Path]:
    """Puts something that is no file into a place."""

    def put(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        if request.param == "pipe":
            os.mkfifo(path)
        elif request.param == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero" if request.param == "device" else tmp_path / "nowhere")
        return path

    return put


@pytest.mark.parametrize(
    "words",
    [
        ("run", "ODD"),
        ("verify", "ODD"),
        ("import-dictionary", "ODD", "--out", "OUT"),
        ("convert-adm", "ODD", "--out", "OUT"),
        ("import-saediff", "ODD", "--out", "OUT"),
        ("gallery", "ODD"),
        ("sample", "ODD", "--concept", "0", "--out", "OUT"),
    ],
)
def test_what_is_no_file_is_one_sentence(odd: Callable, tmp_path: Path, run_command: Command, words: tuple[str, ...]):
    odd(tmp_path / "odd")
    with at_most(20):
        code, _, err = run_command(*(word.replace("ODD", f"{tmp_path}/odd").replace("OUT", "x") for word in words))
    assert code == 1 and len(err.strip().splitlines()) == 1
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("place", "setting"),
    [
        ("encoder/config.json", "encoder.id"),
        ("encoder/model.safetensors", "encoder.id"),
        ("encoder", "encoder.id"),
        ("pipeline/model_index.json", "models.drawn.pipeline"),
        ("dictionary/config.json", "dictionary.load"),
        ("dictionary/dictionary.safetensors", "dictionary.load"),
        ("dictionary", "dictionary.load"),
        ("other", "models.other.folder"),
    ],
)
def test_a_model_with_what_is_no_file_is_one_sentence(
    odd: Callable, copied: Path, encoder_folder: Path, pipeline_folder: Path, place: str, setting: str
):
    shutil.copytree(encoder_folder, copied / "encoder")
    shutil.copytree(pipeline_folder, copied / "pipeline")
    shutil.copytree(copied / "atlas.work/dictionary/dictionary", copied / "dictionary")
    odd(copied / place)
    with at_most(20), pytest.raises(BlindspotError) as caught:
        run(copied, f"{setting}={copied / place.split('/')[0]}")
    assert "\n" not in str(caught.value)


def test_images_and_captions_that_are_no_files_are_left_out_and_told(odd: Callable, copied: Path):
    odd(copied / "other" / "0001.png")
    odd(copied / "other" / "metadata.jsonl")
    with at_most(20):
        counts = run(copied).counts["other"]
    assert counts["images"] == 5 and counts["captions"] == 0


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes; the system says so as it says that a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_at_any_point_costs_nothing(copied: Path, made: Path):
    for name in ("atlas", "atlas.work"):
        shutil.rmtree(copied / name)
    for size in (100, 700, 1500, 3000, 5000, 8000):
        with small_disk(size), pytest.raises(BlindspotError, match=r"[Dd]isk (is )?full") as caught:
            run(copied)
        assert "\n" not in str(caught.value) and not (copied / "atlas").exists()
        assert not [path for path in copied.rglob("*") if PARTIAL in path.name]
    run(copied)
    assert verify(copied / "atlas") == [] and contents(copied / "atlas") == contents(made / "atlas")


@pytest.mark.parametrize(
    "write",
    [
        lambda writer: writer.write_index("images.faiss", np.eye(200, dtype=np.float32)),
        lambda writer: writer.write_table("labels", pd.DataFrame({
            "image": range(50_000), "attribute": "a", "value": np.random.default_rng(0).random(50_000).astype(str)})),
        lambda writer: writer.add_file("thumbs/0000/0000000.webp", bytes(10**6)),
    ],
)  # fmt: skip
def test_a_disk_that_fills_while_an_atlas_is_written_leaves_none(tmp_path: Path, write: Callable):
    full = pytest.raises(BlindspotError, match=r"[Dd]isk (is )?full")
    with small_disk(50_000), full, full_disk_explained(tmp_path), AtlasWriter(tmp_path / "atlas") as writer:
        write(writer)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_while_a_dictionary_is_saved_leaves_no_half(tmp_path: Path):
    from engine.dictionary.topk import TopK

    torch.manual_seed(0)
    full = pytest.raises(BlindspotError, match=r"[Dd]isk (is )?full")
    with small_disk(50_000), full, full_disk_explained(tmp_path):
        TopK(64, 512, 4).save_pretrained(tmp_path / "dictionary")
    assert not list(tmp_path.rglob("*.safetensors*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_one_line_and_its_own_exit_code(
    made: Path, run_command: Command, monkeypatch: pytest.MonkeyPatch, number: int, code: int
):
    monkeypatch.setattr("precompute.build.build", lambda *_: os.kill(os.getpid(), number) or time.sleep(5))
    before = signal.getsignal(signal.SIGTERM)
    try:
        found, out, err = run_command("run", made / "r.yaml", "--out", "never")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (found, out, err.strip()) == (code, "", "Stopped; run the same command to go on.")


@pytest.mark.slow
def test_a_signal_ends_a_run_with_one_line(tmp_path: Path, encoder_folder: Path):
    save_images(tmp_path / "photos", range(4))
    settings = {"concepts": 12, "sparsity": 3, "epochs": 100_000, "batch": 64}
    recipe = save_recipe(
        tmp_path / "r.yaml", encoder={"id": str(encoder_folder)}, real="photos", models={"m": "photos"},
        dictionary=settings,
    )  # fmt: skip
    running = subprocess.Popen(
        [sys.executable, "-m", "precompute", "run", str(recipe), "--out", str(tmp_path / "atlas")],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "atlas.work/dictionary/stage.json").exists() and time.monotonic() < until:
            time.sleep(0.1)
        with pytest.raises(BlindspotError, match=rf"Another run \(process {running.pid}\) is working in"):
            build(load_recipe(recipe), tmp_path / "atlas", lambda stage: lambda done, total: None)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    finally:
        running.kill()
    assert running.returncode == 130 and out == "" and "Traceback" not in err
    lines = [line for line in err.splitlines() if "Stopped; run the same command to go on." in line]
    assert len(lines) == 1 and err.rstrip().endswith(lines[0])


@pytest.mark.parametrize("folder", ["atlas.gallery.work", "atlas.work"])
def test_a_gallery_waits_for_no_other_gallery_or_run_of_its_atlas(tmp_path: Path, folder: str):
    path = build_drawable_atlas(tmp_path, 24, pairs=6, models=("alpha",))
    with WorkDirectory(tmp_path / folder).lock(), pytest.raises(BlindspotError, match=r"Another run \(process \d+\)"):
        draw_gallery(path, ORDER, 1)


@pytest.mark.parametrize("keep", [0, 60])
def test_a_damaged_drawing_of_an_earlier_gallery_is_drawn_again(tmp_path: Path, keep: int):
    path = build_drawable_atlas(tmp_path, 24, pairs=6, models=("alpha",))
    reseal_drawable(path)
    assert draw_gallery(path, ORDER, 1).drawn == 1
    image = next((tmp_path / "atlas.gallery.work").glob("*/00.png"))
    whole = image.read_bytes()
    image.write_bytes(whole[:keep])
    assert draw_gallery(path, ORDER, 1).drawn == 1 and image.read_bytes() == whole


def reseal_drawable(path: Path) -> None:
    from tests.engine.atlas.test_verify import reseal

    reseal(path)
