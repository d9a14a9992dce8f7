"""Draws many concepts and puts them into the atlas: each drawing is kept beside it, so that a killed run goes on."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from engine.atlas.reader import Atlas
from engine.atlas.writer import add_to_gallery
from engine.devices import Placement, drawing_placement
from engine.errors import BlindspotError
from engine.jobs import job_id
from engine.samplers.generation import MAX_AT_ONCE, GenerationRequest, generate_images, warm_up
from engine.samplers.records import (
    generated_images,
    job_parameters,
    judge_generation,
    load_generation,
    save_generation,
    stored_method,
)
from precompute.runner import WorkDirectory

DEFAULT = 32
"""Concepts that are drawn when nobody says how many."""
SETTINGS = ("strength", "steps", "seed", "particles", "states", "cap", "until", "gradient", "zeta", "prior")
"""What the atlas keeps of how an image was drawn, beside its method."""


@dataclass(frozen=True)
class Gallery:
    """What was drawn into an atlas."""

    atlas: Path
    concepts: int
    """Concepts of this run that have samples now."""
    drawn: int
    """Those that were drawn by this run."""
    kept: int
    """Those that an earlier run had drawn."""
    skipped: Mapping[int, str]
    """Concept to why it could not be drawn."""
    seconds: float

    def as_document(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {**asdict(self), "atlas": str(self.atlas), "seconds": round(self.seconds, 2)}


def draw_gallery(
    path: Path,
    template: GenerationRequest,
    concepts: int | None,
    report: Callable[[int, int], None] = lambda done, total: None,
    device: str | None = None,
    dtype: str | None = None,
) -> Gallery:
    """Draw concepts of the atlas at `path` into it.

    Parameters
    ----------
    template
        What to draw of each; its concept is replaced.
    concepts
        How many, those that models miss or overdo most; None for all live ones.
    report
        Called with the images done and all images.
    device, dtype
        Where and how precisely, see `engine.devices.drawing_placement`.

    Raises
    ------
    BlindspotError
        If nothing can be drawn, too many images are asked for, the machine has no such device, or the atlas cannot be
        written.
    """
    if template.count > MAX_AT_ONCE:
        raise BlindspotError(f"{template.count} images of each concept were asked for: ask for 1 to {MAX_AT_ONCE}.")
    began, atlas = time.perf_counter(), Atlas.open(path)
    chosen = interesting(atlas)[:concepts]
    if not len(chosen):
        raise BlindspotError(f"There is no live concept to draw in {path}: ask for at least one.")
    work = Path(path).resolve().with_name(f"{Path(path).resolve().name}.gallery.work")
    run = WorkDirectory(work.with_name(f"{Path(path).resolve().name}.work"))
    # A run on the same atlas would replace it meanwhile.
    with WorkDirectory(work).lock(), run.lock() if run.path.is_dir() else nullcontext():
        return _draw(atlas, template, chosen, work, report, began, drawing_placement(device, dtype))


def _draw(
    atlas: Atlas,
    template: GenerationRequest,
    chosen: np.ndarray,
    work: Path,
    report: Callable[[int, int], None],
    began: float,
    placement: Placement,
) -> Gallery:
    device, dtype = placement
    warm_up(atlas, device, dtype, template.prior)
    folders, skipped, drawn = {}, {}, 0
    for number, concept in enumerate(chosen.tolist()):
        report(number * template.count, len(chosen) * template.count)
        order = replace(template, concept=concept)
        folder = work / job_id(job_parameters(atlas, order, dtype))
        if not _is_drawn(folder):
            try:
                save_generation(generate_images(atlas, order, device, dtype=dtype), folder)
            except BlindspotError as error:
                skipped[concept] = str(error)
                continue
            drawn += 1
        judge_generation(atlas, folder)
        folders[concept] = folder
    if not folders:
        raise BlindspotError(next(iter(skipped.values())))
    _update(atlas, folders)
    kept = len(folders) - drawn
    return Gallery(atlas.path, len(folders), drawn, kept, skipped, time.perf_counter() - began)


def _is_drawn(folder: Path) -> bool:
    """Whether an earlier run has drawn into the folder, and all of it is whole."""
    try:
        for content in generated_images(folder, load_generation(folder)):
            with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
                picture.load()
    except (BlindspotError, OSError, SyntaxError):
        return False
    return True


def interesting(atlas: Atlas, turns: bool = True) -> np.ndarray:
    """Live concepts [n], those first that some model misses or overdoes most (then those whose relative gap is larger).

    In an atlas without models those first that real images show most often. Concepts of the same label take turns: the
    second of a label comes after the first of every other one, so that a few are not all of one thing. Without
    `turns` the order does not depend on labels.
    """
    live = ~atlas.concepts["dead"].to_numpy(bool)
    deltas = [atlas.delta(model) for model in atlas.models]
    if deltas:
        far = np.max([np.abs(delta["delta"] - 0.5) for delta in deltas], axis=0)
        wide = np.max([np.abs(delta["relative"]) for delta in deltas], axis=0)
        order = np.lexsort((-wide, -far))
    else:
        order = np.argsort(-np.nan_to_num(atlas.frequency()), kind="stable")
    order = order[live[order]]
    if not turns:
        return order
    labels = atlas.concepts["label"].astype("str")
    if atlas.has("recognition"):
        labels = atlas.recognition()["label"].astype("str").reindex(labels.index).fillna(labels)
    nth = labels.iloc[order].groupby(labels.iloc[order]).cumcount().to_numpy()
    unnamed = labels.iloc[order].to_numpy() == ""
    return order[np.argsort(np.where(unnamed, 0, nth), kind="stable")]


def _update(atlas: Atlas, folders: Mapping[int, Path]) -> None:
    """Write the drawings into the atlas, unless it has them."""
    rows = pd.concat(
        [_rows(concept, load_generation(folder)) for concept, folder in folders.items()], ignore_index=True
    )
    before = atlas.gallery().set_index(["concept", "rank"])
    wanted = rows.set_index(["concept", "rank"]).astype(before.dtypes)
    if wanted.equals(before[before.index.isin(wanted.index)].reindex(wanted.index)):
        return

    def picture(concept: int, rank: int) -> Image.Image:
        files = generated_images(folders[concept], load_generation(folders[concept]))
        return Image.open(io.BytesIO(files[rank]), formats=["PNG"])

    add_to_gallery(atlas.path, rows, picture)


def _rows(concept: int, record: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of table `gallery` for one drawing."""
    settings = record["parameters"]
    recognised = (record.get("recognition") or {}).get("recognised")
    reference = np.nan if record["reference_score"] is None else record["reference_score"]
    return pd.DataFrame(
        {
            "concept": concept,
            "rank": range(len(record["images"])),
            "method": stored_method(settings),
            "score": record["scores"],
            "codes_score": record["codes_scores"],
            "reference_score": reference,
            **{name: settings.get(name) for name in SETTINGS},
            "device": record.get("device"),
            "dtype": record.get("dtype"),
            "recognised": pd.array(recognised or [None] * len(record["images"]), "boolean"),
        }
    )
