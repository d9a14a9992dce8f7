"""A recipe as stages, and the run that makes an atlas of them.

    corpus/S, or generate/S -> encode/S -> energies/S ----------\\
       |        \\              |          ^       \\              v
       |     pairing/S     dictionary -----'    layout, index -> assemble -> the atlas
       '---> thumbs/S            '--> report    words ----------^
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.atlas.schema import HEADER
from engine.errors import BlindspotError
from engine.files import content_hash, file_hash, full_disk_explained, read_json, write_whole
from precompute.plan import Outcome, Progress, Stage, WorkDirectory, carry_out
from precompute.recipe import Recipe
from precompute.stage_plan import HEADER_MARK, StagePlan, source_stage


@dataclass(frozen=True)
class Build:
    """What a run made."""

    out: Path
    """The atlas."""
    work: Path
    """The work directory, which a later run goes on from."""
    header: dict[str, Any]
    """The atlas's `atlas.json`."""
    outcomes: list[Outcome]
    skipped: Path | None
    """A table of the images that were left out, if there are any."""
    seconds: float


def build(recipe: Recipe, out: Path, progress: Callable[[Stage], Progress]) -> Build:
    """Run what is not done yet of a recipe and put the atlas at `out`.

    Args:
        recipe: what to build.
        out, progress: as for `build_stages`.

    Raises:
        BlindspotError: an input is missing or unusable, the disk is full, or another run works on the same atlas.
    """

    def stages(work: WorkDirectory, where: Path) -> list[Stage]:
        return StagePlan(recipe, work, where).stages()

    made = build_stages(out, stages, progress)
    return replace(made, skipped=_list_skipped(recipe, WorkDirectory(made.work)))


def build_stages(
    out: Path, stages: Callable[[WorkDirectory, Path], Sequence[Stage]], progress: Callable[[Stage], Progress]
) -> Build:
    """Run those stages that are not done yet; the last of them puts the atlas at `out`.

    Args:
        out: the atlas's folder; `<out>.work` beside it keeps what the stages found.
        stages: given the work directory and the atlas's absolute path.
        progress: called once per stage that runs, gives what the stage reports to.

    Raises:
        BlindspotError: an input is missing or unusable, the disk is full, or another run works on the same atlas.
    """
    started = time.monotonic()
    out = Path(os.path.abspath(out))
    if out.exists() and not (out / HEADER).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise BlindspotError(f"{out} exists and is not an atlas; choose another --out.")
    work = WorkDirectory(out.with_name(out.name + ".work"))
    content_hash.cache_clear()
    with full_disk_explained(work.path), work.lock():
        _forget_lost_atlas(work, out)
        outcomes = carry_out(stages(work, out), work, progress)
    header = read_json(out / HEADER)
    return Build(out, work.path, header, outcomes, None, time.monotonic() - started)


def _forget_lost_atlas(work: WorkDirectory, out: Path) -> None:
    """Let `assemble` run again if the atlas is not the one it wrote, or lacks a file."""
    mark = work.folder("assemble") / HEADER_MARK
    try:
        files = read_json(out / HEADER)["files"]
        whole = all((out / rel).exists() for rel in files)
        kept = [(out / rel).stat().st_size == entry["bytes"] for rel, entry in files.items() if not rel.endswith("/")]
        if whole and all(kept) and mark.read_text() == file_hash(out / HEADER):
            return
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    mark.unlink(missing_ok=True)


def _list_skipped(recipe: Recipe, work: WorkDirectory) -> Path | None:
    """Write `skipped.tsv` into the work directory: source, file and reason of every image that was left out."""
    from precompute.stages.manifest import read_skipped

    path = work.path / "skipped.tsv"
    rows = [
        f"{name}\t{one.file}\t{one.reason}\n"
        for name in ("real", *recipe.models)
        for one in read_skipped(work.folder(source_stage(recipe, name)))
    ]
    if not rows:
        path.unlink(missing_ok=True)
        return None
    write_whole(path, lambda partial: partial.write_text("source\tfile\treason\n" + "".join(rows), encoding="utf-8"))
    return path
