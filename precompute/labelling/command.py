"""The command `label`: names concepts, scores the names, and puts both into the atlas."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from engine.errors import BlindspotError
from precompute.console import AsJson, Reporter, print_json
from precompute.drawing import AtlasFolder, DeviceOption

if TYPE_CHECKING:
    from engine.atlas.reader import Atlas
    from engine.readers.asking import LimitedReader
    from engine.readers.base import Plan
    from precompute.labelling.base import ConceptLabel
    from precompute.labelling.readers import ReaderLabels

SHOWN = 12
"""Labels that are printed, those of the first concepts."""
ReaderOption = Annotated[
    str | None,
    typer.Option(
        "--reader",
        help="Who looks at the images: openai:MODEL (OPENAI_BASE_URL, OPENAI_API_KEY), or the folder or hub id of a "
        "transformers image-text-to-text model.",
        show_default="none: caption words",
    ),
]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", help="Of an OpenAI-compatible endpoint.", show_default="$OPENAI_BASE_URL")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print calls, tokens and price, and ask nothing.")]
PerMinute = Annotated[float | None, typer.Option("--per-minute", help="Most calls a minute.", show_default="no limit")]
Budget = Annotated[
    float | None,
    typer.Option("--budget", help="Most money that this run spends, in the prices' currency.", show_default="no limit"),
]
PriceIn = Annotated[float | None, typer.Option("--price-in", help="Of a million tokens of questions.")]
PriceOut = Annotated[float | None, typer.Option("--price-out", help="Of a million tokens of answers.")]
Concurrency = Annotated[int, typer.Option("--concurrency", help="Calls under way at once.")]
Retries = Annotated[
    int, typer.Option("--retries", help="Times a failed call (429, 5xx, timeout, broken reply) is sent again.")
]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds until a call without a reply has failed.")]
Again = Annotated[
    bool,
    typer.Option(
        "--again", help="Ask again what was refused, malformed, or lost when a run was killed: it may be paid twice."
    ),
]


def label(
    atlas: AtlasFolder,
    reader: ReaderOption = None,
    base_url: BaseUrl = None,
    concept: Annotated[
        list[int] | None,
        typer.Option("--concept", help="Only this concept, several if given again.", show_default="all live ones"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only so many, those that models miss or overdo most.")
    ] = None,
    held_out: Annotated[
        int,
        typer.Option(
            "--held-out",
            min=0,
            help="With --reader: images with the concept, and without it, to score by; 0 scores nothing.",
        ),
    ] = 8,
    dry_run: DryRun = False,
    per_minute: PerMinute = None,
    budget: Budget = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    concurrency: Concurrency = 4,
    retries: Retries = 5,
    timeout: Timeout = 120.0,
    again: Again = False,
    text_tower: Annotated[
        str | None, typer.Option("--text-tower", help="Folder or hub id of a CLIP or SigLIP to label by.")
    ] = None,
    vocabulary: Annotated[
        Path | None, typer.Option("--vocabulary", help="With --text-tower: a text file of labels, one a line.")
    ] = None,
    edit: Annotated[
        list[str] | None,
        typer.Option(
            "--edit",
            metavar="CONCEPT=LABEL",
            help="Write a label of your own, which no run replaces; without LABEL take it back.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the scores of right and wrong words where the truth is known.")
    ] = False,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Label concepts and score how well each label predicts its concept on images it was not made from.

    Without a reader: the caption words that name concepts. Labels no better than chance are marked (?) in the app. A
    reader's answers are kept in ATLAS.answers.sqlite beside the atlas: the same command goes on where it stopped and
    pays no call twice.
    """
    from engine.atlas.reader import Atlas

    opened = Atlas.open(Path(atlas).resolve())
    if check:
        _check(opened, as_json)
        return
    edits = _edits(edit or (), opened.count)
    if reader and text_tower:
        raise BlindspotError("Give --reader or --text-tower, not both.")
    if bool(text_tower) != bool(vocabulary):
        raise BlindspotError("--text-tower and --vocabulary name a model and its words: give both.")
    if dry_run and not reader:
        raise BlindspotError("--dry-run counts what asking a --reader would take; without one nothing is asked.")
    if edits and (concept is None and limit is None and not reader and not text_tower):
        _finish(opened, [], edits, {}, as_json)
        return
    chosen = _chosen(opened, concept, limit)
    asked: LimitedReader | None = None
    if reader:
        from engine.readers.cache import answers_file
        from engine.readers.loading import load_reader

        asked = load_reader(
            reader, cache=answers_file(opened.path), base_url=base_url, device=device, per_minute=per_minute,
            budget=budget, price_in=price_in, price_out=price_out, concurrency=concurrency, retries=retries,
            timeout=timeout, again=again,
        )  # fmt: skip
    with Reporter() as reporter:
        bar = reporter.task("label", "images" if text_tower else "concepts")
        if asked is not None:
            _by_reader(opened, asked, chosen, held_out, dry_run, edits, bar, as_json)
            return
        if text_tower and vocabulary:
            from precompute.labelling.base import RealImages
            from precompute.labelling.zero_shot import label_by_vocabulary, read_vocabulary

            work = opened.path.with_name(f"{opened.path.name}.label.work")
            words = read_vocabulary(vocabulary)
            made = label_by_vocabulary(RealImages(opened), chosen, text_tower, words, work, device, bar)
        else:
            from precompute.labelling.base import RealImages
            from precompute.labelling.captions import label_by_captions

            made = label_by_captions(RealImages(opened, with_captions=True), chosen, bar)
    _finish(opened, made, edits, {}, as_json)


def _by_reader(
    atlas: Atlas,
    reader: LimitedReader,
    chosen: list[int],
    held_out: int,
    dry_run: bool,
    edits: Mapping[int, str],
    bar: Any,
    as_json: bool,
) -> None:
    from engine.atlas.schema import PERSON
    from precompute.labelling.base import RealImages, stored
    from precompute.labelling.readers import Material, label_by_reader, plan_labels

    own = {row.concept for row in stored(atlas).values() if row.origin == PERSON} | set(edits)
    chosen = [concept for concept in chosen if concept not in own]
    material = Material(RealImages(atlas), held_out)
    if dry_run:
        print_plan(reader.name, "concepts", len(chosen), plan_labels(reader, material, chosen, held_out > 0), as_json)
        return
    made = label_by_reader(reader, material, chosen, held_out > 0, bar)
    spent = reader.purse.spent if reader.limits.price(0, 0) is not None else None
    _finish(atlas, made.labels, edits, _of_reader(reader.name, made, spent), as_json)


def _of_reader(name: str, made: ReaderLabels, spent: float | None) -> dict[str, Any]:
    return {
        "reader": name, "asked": made.counts, "missing": made.missing, "tokens_in": made.tokens[0],
        "tokens_out": made.tokens[1], "spent": spent,
    }  # fmt: skip


def print_plan(reader: str, what: str, count: int, plan: Plan, as_json: bool) -> None:
    """Print what asking a reader about so many concepts or items would take."""
    if as_json:
        print_json({"reader": reader, what: count, **plan._asdict()})
        return
    price = "no price given (--price-in, --price-out)" if plan.price is None else f"price about {plan.price:.4g}"
    typer.echo(
        f"{count} {what} by {reader}: {plan.calls} calls, about {plan.tokens_in} tokens in and {plan.tokens_out} "
        f"out, {price}; {plan.kept} answers are kept from earlier runs."
    )
    if plan.lost:
        typer.echo(f"{plan.lost} calls were under way when a run was killed; only --again asks them again.")


def _finish(
    atlas: Atlas, made: list[ConceptLabel], edits: Mapping[int, str], more: Mapping[str, Any], as_json: bool
) -> None:
    """Write the labels, a person's over all others, and say what there is now."""
    from engine.atlas.reader import Atlas
    from engine.blindspots.label_scores import is_uncertain
    from precompute.labelling.base import stored, write
    from precompute.runner import WorkDirectory

    run = WorkDirectory(atlas.path.with_name(f"{atlas.path.name}.work"))
    # A run on the same atlas would replace it meanwhile.
    with run.lock() if run.path.is_dir() else nullcontext():
        current = Atlas.open(atlas.path)
        write(current, _merged(current, stored(current), made, edits))
    after = stored(Atlas.open(atlas.path))
    rows = [after[concept] for concept in sorted({one.concept for one in made} | (edits.keys() & after.keys()))]
    poor = is_uncertain(np.array([row.score.score for row in rows]), np.array([row.score.low for row in rows]))
    scores = [row.score.score for row in rows if np.isfinite(row.score.score)]
    document = {
        "atlas": str(atlas.path), "labelled": len(rows), "scored": len(scores), "uncertain": int(poor.sum()),
        "median_score": float(np.median(scores)) if scores else None, **more,
        "labels": [
            {"concept": row.concept, "label": row.label, "origin": row.origin, "description": row.description,
             "confidence": row.confidence, "score": row.score.score, "low": row.score.low, "high": row.score.high,
             "images": row.score.images, "fuzzing": row.fuzzing, "uncertain": bool(unsure)}
            for row, unsure in zip(rows, poor, strict=True)
        ],
    }  # fmt: skip
    if as_json:
        print_json(document)
        return
    for row, unsure in list(zip(rows, poor, strict=True))[:SHOWN]:
        known = (
            f"{row.score.score:.2f} ({row.score.low:.2f} to {row.score.high:.2f})" if row.score.images else "unscored"
        )
        typer.echo(f"{row.concept:>6} {row.label}: {known}{', uncertain' if unsure else ''}, {row.origin}")
    median = f"median score {np.median(scores):.2f}, " if scores else ""
    typer.echo(f"{atlas.path}: {len(rows)} labels, {median}{int(poor.sum())} uncertain.")
    if more:
        counted = ", ".join(f"{count} {status}" for status, count in more["asked"].items())
        spent = "" if more["spent"] is None else f", {more['spent']:.4g} spent"
        typer.echo(f"Calls: {counted}; {more['tokens_in']} tokens in, {more['tokens_out']} out{spent}.")
        for concept, why in list(more["missing"].items())[:SHOWN]:
            typer.echo(f"- no label for concept {concept}: {why}")


def _merged(
    atlas: Atlas, kept: Mapping[int, ConceptLabel], made: list[ConceptLabel], edits: Mapping[int, str]
) -> list[ConceptLabel]:
    """The table's rows: new labels over old ones, a person's over all; an empty edit takes a person's label back."""
    from engine.atlas.schema import PERSON
    from precompute.labelling.base import UNSCORED, ConceptLabel, RealImages, cleaned_label
    from precompute.labelling.captions import score_text

    rows = {concept: row for concept, row in kept.items() if row.origin != PERSON or edits.get(concept) != ""}
    rows |= {one.concept: one for one in made if one.concept not in rows or rows[one.concept].origin != PERSON}
    texts = {concept: text for concept, edit in edits.items() if (text := cleaned_label(edit))}
    captioned = atlas.has_images and atlas.images["caption"].ne("").any()
    real = RealImages(atlas, with_captions=True) if texts and captioned else None
    for concept, text in texts.items():
        score = UNSCORED if real is None else score_text(real, concept, text)
        rows[concept] = ConceptLabel(concept, text, PERSON, score)
    return list(rows.values())


def _chosen(atlas: Atlas, concepts: list[int] | None, limit: int | None) -> list[int]:
    from precompute.gallery import interesting

    if concepts:
        for concept in concepts:
            if not 0 <= concept < atlas.count:
                raise BlindspotError(
                    f"Atlas {atlas.info.called} has no concept {concept}: it has 0 to {atlas.count - 1}."
                )
        return list(dict.fromkeys(concepts))[:limit]
    # The same concepts again after they were labelled: no order by labels.
    return [int(concept) for concept in interesting(atlas, turns=False)[:limit]]


def _edits(words: list[str] | tuple[()], concepts: int) -> dict[int, str]:
    found = {}
    for word in words:
        number, equals, text = word.partition("=")
        if not equals or not number.strip().isdecimal() or int(number) >= concepts:
            raise BlindspotError(
                f"--edit takes CONCEPT=LABEL with a concept from 0 to {concepts - 1}, not {word[:80]!r}."
            )
        found[int(number)] = text.strip()
    return found


def _check(atlas: Atlas, as_json: bool) -> None:
    from precompute.labelling.check import WRONG, check_labels

    found = check_labels(atlas)
    above = [one for one in found if one.score > one.best_wrong]
    if as_json:
        print_json({
            "atlas": str(atlas.path), "concepts": len(found), "above": len(above), "share": len(above) / len(found),
            "wrong_words": WRONG, "rows": [one._asdict() for one in found],
        })  # fmt: skip
        return
    for one in [one for one in found if one.score <= one.best_wrong][:SHOWN]:
        typer.echo(f"- {one.concept}: {one.word} {one.score:.2f}, but {one.wrong} {one.best_wrong:.2f}")
    typer.echo(
        f"The right word scores above {WRONG} wrong ones for {len(above)} of {len(found)} concepts with average "
        f"precision of at least 0.7 ({len(above) / len(found):.1%})."
    )
