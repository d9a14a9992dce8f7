"""Drawings of a concept: the atlas's own, a finished job's, sweeps, several results beside each other, earlier ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd

from engine.atlas.schema import priors_of
from engine.errors import BlindspotError
from engine.jobs import Job, JobQueue
from engine.reports.samplers import METHODS
from engine.reports.selection import ordered
from engine.samplers.generation import GenerationRequest
from engine.samplers.links import request_of, settings_text
from engine.samplers.recognition import concept_label, recognition_sentence, verdicts
from engine.samplers.records import (
    drawn_with,
    finished_generations,
    generated_images,
    load_generation,
    reproduction_command,
    stored_method,
    tilt_sentence,
)
from engine.samplers.registry import WITHOUT_PRIOR
from engine.samplers.sweeps import finished_sweeps, is_matched, is_sweep, load_sweep
from pages.widgets import html, session
from pages.widgets.session import MOST_BESIDE, View

EARLIER = 12
"""Finished drawings that are listed."""
MOST_STORED = 48
"""Concepts of which one image from the atlas is shown."""


class Column(NamedTuple):
    """One result beside others."""

    title: str
    job: str | None
    mean: float
    best: float | None
    """Mean score of the best real images."""
    images: list[str]
    judged: str
    """How many the judge recognises."""

    @property
    def activation(self) -> float:
        """Mean score, in units of the best real images' where they have one."""
        return self.mean / self.best if self.best and self.best > 0 else self.mean


def show_finished(queue: JobQueue, job: Job, view: View) -> None:
    """Show a finished drawing or sweep; beside the others that the view names."""
    if is_sweep(job.result_dir):
        _show_sweep(job)
        return
    record = load_generation(job.result_dir)
    others = [(other, found) for other, found in _named(queue, view.beside) if other.id != job.id]
    if others:
        columns = [_column(one, found) for one, found in ((job, record), *others)]
        html.show("generate.beside", key="beside", columns=columns, view=view,
                  matched=is_matched([column.activation for column in columns]))  # fmt: skip
    show_results(job, record)


def _named(queue: JobQueue, ids: tuple[str, ...]) -> list[tuple[Job, dict[str, Any]]]:
    found = []
    for key in ids:
        job = queue.get(key)
        if job is not None and job.state == "done" and not is_sweep(job.result_dir):
            try:
                record = load_generation(job.result_dir)
            except BlindspotError:
                continue
            if record.get("atlas") == str(session.atlas().path):
                found.append((job, record))
    return found


def _column(job: Job, record: Mapping[str, Any]) -> Column:
    judged = record.get("recognition")
    said = recognition_sentence(judged["label"], judged["recognised"], judged.get("missing", "")) if judged else ""
    sources = [html.data_uri(content, "png") for content in generated_images(job.result_dir, record)]
    settings = record["parameters"]
    title = how_drawn(settings)
    return Column(title, job.id, fmean(record["scores"]), record["reference_score"], sources, said)


def _show_sweep(job: Job) -> None:
    sweep, records = load_sweep(job.result_dir)
    rungs = []
    for place, (value, record) in enumerate(zip(sweep.values, records, strict=True)):
        column = _column(Job(job.id, "done", result_dir=job.result_dir / str(place)), record)
        strength = record["parameters"]["strength"]
        words = f"strength {value:.3g}" if sweep.kind == "strength" else f"{value:g} × real, strength {strength:.3g}"
        rungs.append(column._replace(title=words))
    html.show("generate.sweep", key="results", rungs=rungs, kind=sweep.kind, job=job.id,
              how=", ".join(filter(None, [_method(records[0]["parameters"]), drawn_with(records[0])])))  # fmt: skip


def show_earlier(queue: JobQueue, view: View, every: bool = False) -> bool:
    """List finished drawings and sweeps of the view's concept, newest first; with `every`, of the whole atlas.

    Returns whether there are any.
    """
    atlas, wanted = session.atlas(), None if every else view.concept
    found = [
        (job, record, record["parameters"]) for job, record in finished_generations(queue, atlas, wanted)
        if job.id != view.job
    ][:EARLIER]  # fmt: skip
    rows = []
    for job, record, settings in found:
        best, mean = record["reference_score"], fmean(record["scores"])
        ratio = f"{mean / best:.2f} × real" if best and best > 0 else f"s = {mean:.3f}"
        rows.append(
            (job.id, settings["concept"], _link(settings), f"{how_drawn(settings)}: {ratio}", job.id in view.beside)
        )
    sweeps = [
        (job.id, f"{'activation ladder' if sweep.kind == 'level' else 'sweep of the strength'} of {len(sweep.values)}")
        for job, sweep in (finished_sweeps(queue, atlas, wanted) if wanted is not None else []) if job.id != view.job
    ]  # fmt: skip
    if rows or sweeps:
        done = queue.get(view.job) if view.job else None
        plain = done is not None and done.state == "done" and not is_sweep(done.result_dir)
        html.show("generate.earlier", key="earlier", rows=rows, sweeps=sweeps[:EARLIER], view=view,
                  room=plain and len(view.beside) < MOST_BESIDE)  # fmt: skip
    return bool(rows or sweeps)


def settings_of(job: Job | None) -> str:
    """The settings of a finished drawing as a link carries them; empty for anything else."""
    if job is None or job.state != "done" or is_sweep(job.result_dir):
        return ""
    try:
        return _link(load_generation(job.result_dir)["parameters"])
    except BlindspotError:  # a job of another kind
        return ""


def _link(settings: Mapping[str, Any]) -> str:
    """The settings of a stored drawing as a link carries them; empty where they are too old to be read."""
    try:
        return settings_text(request_of(settings))
    except (BlindspotError, TypeError):
        return ""


def show_results(job: Job, record: Mapping[str, Any]) -> None:
    """Show a finished job's images with their scores, then the best real images by the same score."""
    settings, images = record["parameters"], session.atlas().info.images
    sources = [html.data_uri(content, "png") for content in generated_images(job.result_dir, record)]
    judged = record.get("recognition") or {"label": "", "recognised": [], "missing": ""}
    below = verdicts(judged["recognised"] or [None] * len(sources), record["scores"], record["reference_score"])
    references = [real for real in record["references"] if 0 <= real["image"] < images]
    html.show(
        "generate.drawn", key="results", title=f"Drawn for concept {settings['concept']}",
        how=", ".join(filter(None, [how_drawn(settings), drawn_with(record), f"{record['seconds']:.1f} s"])),
        scores=record["scores"], best=record["reference_score"],
        images=list(zip(sources, record["scores"], record["codes_scores"], below, strict=True)),
        judged=recognition_sentence(judged["label"], judged["recognised"], judged.get("missing", "")),
        command=command(settings), job=job.id, references=references,
        tilt=tilt_sentence(record["tilt"]) if record.get("tilt") else None,
    )  # fmt: skip


def _method(settings: Mapping[str, Any]) -> str:
    return METHODS.get(name := stored_method(settings), name)


def how_drawn(settings: Mapping[str, Any]) -> str:
    """Return method, seed, steps, strength and further concepts in a few words."""
    settings = {"seed": 0, "steps": GenerationRequest.steps, "strength": GenerationRequest.strength, **settings}
    others = settings.get("others") or ()
    weights = settings.get("weights") or (1.0,) * (1 + len(others))
    further = [f"{concept} × {weight:g}" for concept, weight in zip(others, weights[1:], strict=False)]
    words = [_method(settings), f"seed {settings['seed']}", f"{settings['steps']} steps",
             f"strength {settings['strength']:.3g}"]  # fmt: skip
    words += [f"matched to {settings.get('level', 1.0):g} × real"] if settings.get("match") else []
    words += [f"weight {weights[0]:g}"] if weights[0] != 1 else []
    return ", ".join(words + ([f"with {' and '.join(further)}"] if further else []))


def show_gallery(rows: pd.DataFrame) -> None:
    """Show the images that were drawn into the atlas for a concept."""
    first, atlas = rows.iloc[0], session.atlas()
    known = {name: value for name, value in first.items() if isinstance(value, str)}
    priors, own = priors_of(atlas.info), stored_method(known) not in WITHOUT_PRIOR
    prior = priors.get(known["prior"]) if "prior" in known else next(iter(priors.values()), None)
    how = drawn_with({**known, "parameters": known, "prior": prior if own else None})
    sources = [html.data_uri(atlas.gallery_bytes(row.concept, row.rank), "webp") for row in rows.itertuples()]
    label = concept_label(atlas, [int(first["concept"])])
    seen = [None if label is None or pd.isna(one) else bool(one) for one in rows["recognised"]]
    below = verdicts(seen, rows["score"], first["reference_score"])
    html.show(
        "generate.drawn", key="gallery", title="Drawn with the atlas",
        how=", ".join(filter(None, [how_drawn(first), how])), scores=rows["score"].tolist(),
        images=list(zip(sources, rows["score"], rows["codes_score"], below, strict=True)),
        judged=recognition_sentence(label, seen) if label and None not in seen else "",
        best=first["reference_score"], command=command({**first, "count": len(rows)}),
    )  # fmt: skip


def show_stored(view: View) -> None:
    """One image of each selected concept that was drawn into the atlas, in the selection's order."""
    atlas, table, rows = session.atlas(), session.table(view), []
    drawn = dict(list(atlas.gallery().groupby("concept")))
    chosen = [concept for concept in map(int, ordered(atlas, view)) if concept in drawn]
    for concept in chosen[:MOST_STORED]:
        images = drawn[concept]
        best, seen = images["reference_score"].iloc[0], images["recognised"].dropna()
        said = f"{images['score'].mean() / best:.2f} × real" if best > 0 else ""
        judged = f"recognised {int(seen.sum())} of {len(seen)}" if len(seen) else ""
        source = html.data_uri(atlas.gallery_bytes(concept, images["rank"].iloc[0]), "webp")
        row = table.loc[concept]
        rows.append((concept, row["label"], row["delta"], source, ", ".join(filter(None, [said, judged]))))
    if rows:
        html.show("generate.stored", key="stored", rows=rows, total=len(chosen))


def command(parameters: Mapping[str, Any]) -> str:
    """Return the command that draws these images again."""
    path = session.atlas_path()
    return reproduction_command(
        parameters, path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name
    )
