"""Makes rating studies from what an atlas and the commands `sample` and `study` hold.

Images lose their file's format, size and metadata here, so that none of them tells the method.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from engine.atlas.reader import Atlas
from engine.atlas.schema import REAL
from engine.errors import BlindspotError
from engine.ratings.protocols import CAPTIONS, ERRORS, INTERPRETABILITY, MOST_CONCEPTS
from engine.ratings.store import Group, Item, RatingStudy, create_study
from engine.samplers.records import (
    LARGEST_IMAGE,
    LARGEST_RECORD,
    RECORD,
    generated_images,
    load_generation,
    read_own,
    stored_method,
)

GRID = 4
"""Images of an item, two across and two down (arXiv:2605.17504, appendix K)."""
CELL, SEAM, LARGEST = 256, 8, 640
"""Pixels: side of an image of a grid, between them, and longest side of a single image."""
SEAM_COLOUR = "#c9c4cc"
GALLERY, BEST_REAL = "gallery", "real"
"""Sources beside folders: what was drawn into the atlas, and the best real images of the same concepts."""
STUDY_RECORD = "study.json"
HIGH, RANDOM = "high divergence", "random"


class Candidate(NamedTuple):
    """Four images of one concept by one method."""

    unit: str
    """A concept's number, or the neuron's name."""
    kind: str
    """`concept` or `neuron`."""
    method: str
    images: tuple[Callable[[], Image.Image], ...]


class Prepared(NamedTuple):
    """A new study."""

    study: RatingStudy
    items: int
    skipped: Mapping[str, str]
    """What could not be taken, and why."""


def prepare_interpretability(
    atlas: Atlas, path: Path, sources: Sequence[str] = (), concepts: int | None = None, seed: int = 0
) -> Prepared:
    """Make a study of how clearly 2 x 2 grids show a concept, one grid for each concept and method.

    Parameters
    ----------
    atlas
        The atlas.
    path
        The study's file.
    sources
        `gallery`, `real`, and folders that `sample` or `study --images` wrote; or folders of such folders. By default
        the gallery and real images.
    concepts
        How many concepts, and as many neurons, drawn at random among those that most methods have; all by default.
    seed
        Of that choice and of the order for each rater.

    Raises
    ------
    BlindspotError
        If there is nothing to rate, a source is none, or the file exists.
    """
    found: dict[tuple[str, str, str], Candidate] = {}
    skipped: dict[str, str] = {}
    names = list(dict.fromkeys(sources or (GALLERY, BEST_REAL)))
    for name in names:
        if name == BEST_REAL:
            continue
        taken = gallery_candidates(atlas) if name == GALLERY else folder_candidates(Path(name))
        for candidate in taken:
            key = (candidate.unit, candidate.kind, candidate.method)
            if len(candidate.images) < GRID:
                short = f"it has {len(candidate.images)} images, a grid takes {GRID}"
                skipped[f"{candidate.kind} {candidate.unit} by {candidate.method}"] = short
            else:
                found.setdefault(key, candidate)
    if BEST_REAL in names:
        drawn = {candidate.unit for candidate in found.values() if candidate.kind == "concept"}
        numbers = sorted(map(int, drawn)) if drawn else np.flatnonzero(~atlas.concepts["dead"]).tolist()
        for concept in numbers:
            images = atlas.exemplars(REAL, concept, GRID)["image"].tolist() if concept < atlas.count else []
            if len(images) < GRID:
                skipped[f"real images of concept {concept}"] = f"it has {len(images)}, a grid takes {GRID}"
                continue
            loaders = tuple(_loader(atlas.image, image) for image in images)
            found[str(concept), "concept", BEST_REAL] = Candidate(str(concept), "concept", BEST_REAL, loaders)
    chosen = _choose(list(found.values()), concepts, seed)
    if not chosen:
        raise BlindspotError(
            "There is nothing to rate: draw concepts with `gallery ATLAS` or `sample ATLAS --concept N --out DIR`, and "
            "name what was drawn with --from."
        )
    items = [
        Item(c.unit, (Group(c.method, c.kind),), {}, {}, grid_image([load() for load in c.images[:GRID]]))
        for c in chosen
    ]
    study = create_study(path, INTERPRETABILITY.name, items, _origin(atlas, sources=names), seed)
    return Prepared(study, len(items), skipped)


def gallery_candidates(atlas: Atlas) -> list[Candidate]:
    """Return what was drawn into the atlas, by concept and method."""
    rows = defaultdict(list)
    for one in atlas.gallery()[["concept", "rank", "method"]].to_dict("records"):
        rows[int(one["concept"]), str(one["method"])].append(int(one["rank"]))
    drawn = partial(_drawn, atlas)
    return [
        Candidate(str(concept), "concept", method, tuple(_loader(drawn, (concept, rank)) for rank in ranks))
        for (concept, method), ranks in rows.items()
    ]


def _drawn(atlas: Atlas, place: tuple[int, int]) -> Image.Image:
    return _opened(atlas.gallery_bytes(*place))


def folder_candidates(folder: Path) -> list[Candidate]:
    """Return what `sample` or `study --images` left in a folder, or in the folders below it.

    Raises
    ------
    BlindspotError
        If there is none.
    """
    if not folder.is_dir():
        raise BlindspotError(f"There is no folder {folder}: give gallery, real, or a folder of `sample` or `study`.")
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    found: list[Candidate] = []
    for place in places:
        if (place / RECORD).is_file():
            found.append(_drawing(place))
        elif (place / STUDY_RECORD).is_file():
            found += _of_study(place)
    if not found:
        raise BlindspotError(f"{folder} holds nothing that `sample --out` or `study --images` wrote: choose another.")
    return found


def _drawing(folder: Path) -> Candidate:
    record = load_generation(folder)
    parameters = record["parameters"]
    others = [str(one) for one in parameters.get("others", ())]
    contents = generated_images(folder, {"images": record["images"][:GRID]})
    loaders = tuple(_loader(_opened, content) for content in contents)
    unit = "+".join([str(parameters["concept"]), *others])
    return Candidate(unit, "concepts" if others else "concept", stored_method(parameters), loaders)


def _of_study(folder: Path) -> list[Candidate]:
    """What a study of how a concept is drawn kept of its images."""
    try:
        rows = json.loads(read_own(folder, STUDY_RECORD, LARGEST_RECORD)).get("images")
        found = [
            Candidate(
                str(row["unit"])[:80], str(row["kind"])[:20], str(row["method"])[:80],
                tuple(
                    _loader(_opened, read_own(folder, Path(name).name, LARGEST_IMAGE)) for name in row["files"][:GRID]
                ),
            )
            for row in rows or ()
        ]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BlindspotError(f"The study in {folder} is damaged: run it again.") from error
    if not found:
        raise BlindspotError(f"The study in {folder} kept no images to rate: run it again with --images.")
    return found


def _choose(candidates: list[Candidate], count: int | None, seed: int) -> list[Candidate]:
    """All candidates of `count` units of each kind, of which those with most methods come first, else at random."""
    rng, chosen = np.random.default_rng(seed), []
    by_kind: dict[str, dict[str, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for candidate in candidates:
        by_kind[candidate.kind][candidate.unit].append(candidate)
    for kind in sorted(by_kind):
        units = by_kind[kind]
        names = sorted(units)
        shuffled = [names[place] for place in rng.permutation(len(names))]
        shuffled.sort(key=lambda unit: -len(units[unit]))
        chosen += [candidate for unit in shuffled[:count] for candidate in units[unit]]
    return chosen


def prepare_captions(
    atlas: Atlas,
    path: Path,
    models: Sequence[str] = (),
    pairs: int = 50,
    controls: int = 0,
    seed: int = 0,
) -> Prepared:
    """Make a study of whether captions of high divergence are to blame (Conceptual Blindspots, appendix I).

    Raters see a real image and its caption. An image that several models share is rated once and counts for each.

    Parameters
    ----------
    atlas, path, seed
        As for `prepare_interpretability`.
    models
        Whose pairs; all that are paired by default.
    pairs
        Pairs of largest divergence, of each model.
    controls
        Other pairs of each model, at random: how noisy its captions are anyway.

    Raises
    ------
    BlindspotError
        If the atlas has no divergences or no such model, or the file exists.
    """
    if pairs < 1 or controls < 0:
        raise BlindspotError(f"{pairs} pairs and {controls} controls cannot be rated: ask for 1 pair or more.")
    if not models and not (
        models := [source.name for source in atlas.sources if source.kind == "model" and source.paired]
    ):
        raise BlindspotError("No model of this atlas drew captions of real images, so it has no pairs to rate.")
    rng = np.random.default_rng(seed)
    groups: dict[int, list[Group]] = defaultdict(list)
    for model in dict.fromkeys(models):
        ranked = atlas.divergence(model).sort_values("l2", ascending=False, kind="stable")["real_image"].to_numpy()
        rest = rng.permutation(ranked[pairs:])[:controls]
        for kind, images in ((HIGH, ranked[:pairs]), (RANDOM, rest)):
            for image in images.tolist():
                groups[image].append(Group(model, kind))
    table, skipped, items = atlas.images, {}, []
    for image, those in sorted(groups.items()):
        caption = str(table["caption"].at[image])
        if not caption:
            skipped[f"image {image}"] = "it has no caption"
            continue
        items.append(Item(f"image {image}", tuple(those), {"caption": caption}, {}, single_image(atlas.image(image))))
    if not items:
        raise BlindspotError("None of these pairs has a caption, so there is nothing to rate.")
    settings = {"models": list(models), "pairs": pairs, "controls": controls}
    study = create_study(path, CAPTIONS.name, items, _origin(atlas, **settings), seed)
    return Prepared(study, len(items), skipped)


def prepare_errors(
    atlas: Atlas, path: Path, models: Sequence[str] = (), images: int = 50, concepts: int = 20, seed: int = 0
) -> Prepared:
    """Make a study of what the dictionary misfires on and misses (Conceptual Blindspots, appendix J).

    Raters see an image, real or drawn, and the concepts of most energy in it by their labels, each label once: of
    concepts that share one, the strongest stands for it. Concepts without a label or words are left out.

    Parameters
    ----------
    atlas, path, seed
        As for `prepare_interpretability`.
    models
        Whose images beside the real ones; all by default.
    images
        Of each source, at random.
    concepts
        Length of the list, 50 at most.

    Raises
    ------
    BlindspotError
        If the atlas has no labels, images or such model, or the file exists.
    """
    if not 1 <= concepts <= MOST_CONCEPTS or images < 1:
        raise BlindspotError(f"A list has 1 to {MOST_CONCEPTS} concepts, and a source 1 image or more.")
    if not atlas.has_images or not atlas.has("energy"):
        raise BlindspotError(f"The atlas {atlas.path} holds no energies of single images, so nothing can be rated.")
    named = atlas.concepts
    labels = [
        str(label or ", ".join(list(words if words is not None else ())[:3]))
        for label, words in zip(named["label"].fillna(""), named["words"], strict=True)
    ]
    usable = np.array([bool(label) for label in labels])
    if not usable.any():
        raise BlindspotError("The concepts of this atlas have no labels to rate: label them first.")
    rng, items, skipped = np.random.default_rng(seed), [], {}
    for source in [REAL, *(models or atlas.models)]:
        known = atlas.info.image_range(atlas.info.source(source).name)
        energy = atlas.energy(source)
        kind = "real" if source == REAL else "drawn"
        for row in sorted(rng.permutation(len(known))[:images].tolist()):
            values = np.where(usable, energy[[row]].toarray()[0], 0.0)
            firing = np.argsort(-values, kind="stable")[: int((values > 0).sum())].tolist()
            strongest = {labels[concept].lower(): concept for concept in reversed(firing)}
            leading = [concept for concept in firing if strongest[labels[concept].lower()] == concept][:concepts]
            if not leading:
                skipped[f"image {known.start + row}"] = "no concept with a label fires in it"
                continue
            listed = [
                {"label": labels[concept], "strength": float(values[concept] / values[leading[0]])}
                for concept in leading
            ]
            items.append(
                Item(
                    f"image {known.start + row}", (Group(source, kind),), {"concepts": listed},
                    {"concepts": leading}, single_image(atlas.image(known.start + row)),
                )
            )  # fmt: skip
    if not items:
        raise BlindspotError("No labelled concept fires in any of these images, so there is nothing to rate.")
    settings = {"models": list(models), "images": images, "concepts": concepts}
    study = create_study(path, ERRORS.name, items, _origin(atlas, **settings), seed)
    return Prepared(study, len(items), skipped)


def grid_image(images: Iterable[Image.Image]) -> bytes:
    """Return four images as one picture of 2 x 2 squares; each shows its centre."""
    side = 2 * CELL + SEAM
    grid = Image.new("RGB", (side, side), SEAM_COLOUR)
    for place, image in enumerate(images):
        square = ImageOps.fit(image.convert("RGB"), (CELL, CELL), Image.Resampling.LANCZOS)
        grid.paste(square, (place % 2 * (CELL + SEAM), place // 2 * (CELL + SEAM)))
    return _encoded(grid)


def single_image(image: Image.Image) -> bytes:
    """Return an image at most `LARGEST` pixels long."""
    image = image.convert("RGB")
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return _encoded(image)


def _encoded(image: Image.Image) -> bytes:
    written = io.BytesIO()
    Image.frombytes("RGB", image.size, image.tobytes()).save(written, "WEBP", quality=92, method=4)
    return written.getvalue()


def _loader(load: Callable[[Any], Image.Image], argument: Any) -> Callable[[], Image.Image]:
    return lambda: load(argument)


def _opened(content: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=("PNG", "WEBP"))
        image.load()
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise BlindspotError(f"An image to rate is damaged ({error}): draw it again.") from error
    return image


def _origin(atlas: Atlas, **settings: Any) -> dict[str, Any]:
    return {"atlas": atlas.info.name, **{name: value for name, value in settings.items() if value not in ([], None)}}


def prepare(atlas: Atlas, path: Path, protocol: str, **settings: Any) -> Prepared:
    """Make a study of a protocol by its name; settings and errors as for the functions above."""
    makers: dict[str, Callable[..., Prepared]] = {
        INTERPRETABILITY.name: prepare_interpretability, CAPTIONS.name: prepare_captions, ERRORS.name: prepare_errors,
    }  # fmt: skip
    if protocol not in makers:
        raise BlindspotError(f"There is no protocol {protocol!r}: choose {', '.join(makers)}.")
    return makers[protocol](atlas, path, **settings)
