"""The command `robustness`: optimises images that fool concepts of an atlas, and puts how far they get into it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from engine.errors import BlindspotError
from engine.samplers.recognition import FOOLING_METHODS, FOOLING_SEEDS, FOOLING_STEPS
from precompute.console import AsJson, Reporter, print_json
from precompute.drawing import AllowDownload, AtlasFolder, DeviceOption, DtypeOption

SHOWN = 12
"""Concepts whose lines are printed, those that are fooled most."""


@dataclass(frozen=True)
class Robustness:
    """What was tried on the concepts of an atlas."""

    atlas: Path
    rows: pd.DataFrame
    """The columns of table `fooling`."""
    kept: int
    """Concepts that an earlier run had tried."""
    skipped: dict[int, str]
    """Concept to why nothing could be tried."""
    seconds: float

    def best(self) -> pd.DataFrame:
        """Each concept's best image, indexed by concept, with its `ratio` to the best real images; highest first."""
        best = self.rows.loc[self.rows.groupby("concept")["score"].idxmax()].set_index("concept")
        return best.assign(ratio=best["score"] / best["reference_score"]).sort_values("ratio", ascending=False)

    def as_document(self) -> dict[str, Any]:
        """The same as a JSON object."""
        best = self.best()
        judged = best["recognised"].dropna()
        return {
            "atlas": str(self.atlas), "concepts": len(best), "kept": self.kept, "skipped": self.skipped,
            "seconds": round(self.seconds, 2), "median_ratio": float(best["ratio"].median()),
            "reached": float((best["ratio"] >= 1).mean()), "judged": len(judged), "recognised": int(judged.sum()),
            "attempts": self.rows.astype(object).where(self.rows.notna(), None).to_dict("records"),
        }  # fmt: skip


def measure_robustness(
    path: Path,
    concepts: int | None = None,
    methods: Sequence[str] = tuple(FOOLING_METHODS),
    steps: int = FOOLING_STEPS,
    seeds: int = FOOLING_SEEDS,
    report: Callable[[int, int], None] = lambda done, total: None,
    device: str | None = None,
    dtype: str | None = None,
) -> Robustness:
    """Try to fool concepts of the atlas at `path`, and write what comes out into it.

    Parameters
    ----------
    concepts
        How many: those in the gallery first, then those that models miss or overdo most. None: those in the gallery,
        or 32 where it is empty.
    methods, steps, seeds
        As in `engine.samplers.robustness.fool_concept`.
    report
        Called with the concepts done and all concepts.
    device, dtype
        See `engine.devices.drawing_placement`.

    Raises
    ------
    BlindspotError
        If nothing can be tried, or the atlas cannot be written.
    """
    from engine.atlas.reader import Atlas
    from engine.atlas.writer import add_fooling
    from engine.devices import drawing_placement
    from engine.files import read_json, write_json
    from engine.jobs import job_id
    from engine.samplers.models import ModelBundle
    from engine.samplers.robustness import FoolingAttempt, fool_concept
    from precompute.runner import WorkDirectory

    began, path = time.perf_counter(), Path(path).resolve()
    atlas = Atlas.open(path)
    models = ModelBundle(atlas, *drawing_placement(device, dtype))
    chosen = chosen_concepts(atlas, concepts)
    work = path.with_name(f"{path.name}.robustness.work")
    info = atlas.info
    settings = {
        "path": str(path), "encoder": info.encoder, "dictionary": info.dictionary, "judge": info.judge,
        "stages": info.stages, "methods": [*methods], "steps": steps, "seeds": seeds, "dtype": models.dtype,
    }  # fmt: skip
    rows, kept, skipped = list[FoolingAttempt](), 0, dict[int, str]()
    run = WorkDirectory(path.with_name(f"{path.name}.work"))
    # A run on the same atlas would replace it meanwhile.
    with WorkDirectory(work).lock(), run.lock() if run.path.is_dir() else nullcontext():
        for number, concept in enumerate(chosen):
            report(number, len(chosen))
            file = work / f"{job_id({**settings, 'concept': concept})}.json"
            try:
                found = [FoolingAttempt(**row) for row in read_json(file)] if file.exists() else None
                kept += found is not None
                if found is None:
                    found = fool_concept(models, concept, methods, steps, seeds)
                    write_json(file, [attempt._asdict() for attempt in found])
                rows += found
            except BlindspotError as error:
                skipped[concept] = str(error)
        if not rows:
            raise BlindspotError(next(iter(skipped.values()), f"There is no live concept in {path}."))
        table = pd.DataFrame(rows).astype({"recognised": "boolean"})
        add_fooling(path, table)
    report(len(chosen), len(chosen))
    return Robustness(path, table, kept, skipped, time.perf_counter() - began)


def chosen_concepts(atlas: Any, concepts: int | None) -> list[int]:
    """The concepts to try, see `measure_robustness`."""
    from precompute.gallery import DEFAULT, interesting

    drawn = set(atlas.gallery()["concept"].tolist())
    ranked = sorted(interesting(atlas).tolist(), key=lambda concept: concept not in drawn)
    return ranked[: (len(drawn) or DEFAULT) if concepts is None else concepts]


def robustness(
    atlas: AtlasFolder,
    concepts: Annotated[
        int | None,
        typer.Option("--concepts", min=1, help="How many, those in the gallery first.", show_default="the gallery's"),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="pixels, fourier or maco, several if given again.", show_default="all"),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimisation steps.")] = FOOLING_STEPS,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Images of each concept by each method.")
    ] = FOOLING_SEEDS,
    device: DeviceOption = "auto",
    dtype: DtypeOption = None,
    allow_download: AllowDownload = False,
    as_json: AsJson = False,
) -> None:
    """Say how far images that show nothing get: optimise some for each concept's score, and judge them.

    Cards then say it in a line. What was tried is kept in ATLAS.robustness.work, which can be deleted once the atlas
    has it; the same command goes on where an interrupted one stopped.
    """
    import os

    from engine.atlas.reader import Atlas
    from engine.files import full_disk_explained
    from engine.hub import ALLOW

    if allow_download:
        os.environ[ALLOW] = "1"
    labels = Atlas.open(atlas).concepts["label"]
    with Reporter() as reporter, full_disk_explained(atlas):
        bar = reporter.task("robustness", "concepts")
        made = measure_robustness(
            atlas, concepts, method or tuple(FOOLING_METHODS), steps, seeds, bar, device, dtype
        )  # fmt: skip
    document = made.as_document()
    if as_json:
        print_json(document)
        return
    best = made.best()
    shown = best.head(SHOWN)
    for concept, row in zip(shown.index.tolist(), shown.to_dict("records"), strict=True):
        seen = "" if pd.isna(row["recognised"]) else f", {'' if row['recognised'] else 'not '}recognised"
        typer.echo(f"{concept:>6} {labels[concept]}: {row['method']} reach {row['ratio']:.2f} x the best real{seen}")
    typer.echo(
        f"{made.atlas}: {len(best)} concepts ({made.kept} kept), median {document['median_ratio']:.2f} x, "
        f"{document['reached']:.0%} reach the best real images' score; {document['recognised']} of "
        f"{document['judged']} judged images are recognised. {made.seconds:.0f} s."
    )
    for concept, why in made.skipped.items():
        typer.echo(f"- not concept {concept}: {why}")
