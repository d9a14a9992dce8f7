"""A selection: the concepts that words, filters, clusters, ranges of delta and a set of ids have in common.

Pages, downloads and notebooks share it. Every part is text, so that an address holds a whole selection; parts only ever
narrow each other. ``ids`` is either plain (``5.17.33``) or, for many concepts, ``~`` and base64url of the deflated bits
of all concepts, the first concept first.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from functools import lru_cache

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from engine.atlas import Atlas
from engine.atlas.schema import REAL
from engine.errors import BlindspotError
from engine.figures.tables import Filters, certain, clearance, keep, status_of
from engine.reports.base import MODEL_PARAMETERS, Report, ReportView, register, view_table

SELECTION = ("text", "status", "frequency", "q", "cluster", "within", "ids")
"""The fields of `ReportView` that narrow a selection."""
SORTS = ("clear", "delta", "q", "frequency", "label", "concept", "range", "apart")
"""What a selection may be sorted by, besides `of:MODEL` and `q:MODEL`, a model's delta and q; a minus before it turns
it round. The range of delta is over all models, how far it lies apart is over the models that a view compares."""
MOST_IDS = 12_000
"""Characters of ``ids``: an address of more than 16 KiB is refused by servers."""
NAMES = {"delta": "δ of", "relative": "relative gap of"}
COLUMNS = [
    "concept", "label", "words", "cluster", "status", "delta", "ci_low", "ci_high", "p", "q", "gap", "relative",
    "energy_real", "energy_model", "frequency",
]  # fmt: skip


def pack_concepts(mask: Bool[np.ndarray, " concepts"]) -> str:
    """Return a set of concepts as short text for an address; the empty set is the empty text.

    Raises
    ------
    BlindspotError
        If it would need more than `MOST_IDS` characters.
    """
    plain = ".".join(map(str, np.flatnonzero(mask))) if mask.sum() <= MOST_IDS // 2 else None
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bits = packer.compress(np.packbits(mask).tobytes().rstrip(b"\0")) + packer.flush()
    packed = "~" + base64.urlsafe_b64encode(bits).decode("ascii").rstrip("=")
    shorter = packed if plain is None or len(packed) < len(plain) else plain
    if len(shorter) > MOST_IDS:
        raise BlindspotError(
            f"These {int(mask.sum()):,} concepts are too scattered for an address: narrow them with words or filters."
        )
    return shorter


@lru_cache(maxsize=64)
def unpack_concepts(text: str, count: int) -> Bool[np.ndarray, " concepts"] | None:
    """Return the set that `pack_concepts` wrote, of `count` concepts; None for the empty set and for any other text.

    The array is shared: no caller may change it.
    """
    if len(text) > MOST_IDS:
        return None
    mask = np.zeros(count, bool)
    if text.startswith("~"):
        most = -(-count // 8)
        try:
            packed = base64.b64decode(text[1:] + "=" * (-len(text[1:]) % 4), altchars=b"-_", validate=True)
            packer = zlib.decompressobj(-zlib.MAX_WBITS)
            found = packer.decompress(packed, most + 1)
        except (binascii.Error, ValueError, zlib.error):
            return None
        if not packer.eof or packer.unused_data or len(found) > most:
            return None
        bits = np.unpackbits(np.frombuffer(found, np.uint8))
        if bits[count:].any():
            return None
        mask[: len(bits[:count])] = bits[:count]
    else:
        numbers = re.split(r"[.,]", text)
        if not all(one.isascii() and one.isdigit() and len(one) < 10 and int(one) < count for one in numbers):
            return None
        mask[[int(one) for one in numbers]] = True
    mask.flags.writeable = False
    return mask if mask.any() else None


def delta_ranges(within: Sequence[str]) -> Iterator[tuple[str, str, float, float]]:
    """Return model, column and ends of each range of delta, ``MODEL:LOW:HIGH`` with 0 <= LOW < HIGH <= 1.

    ``MODEL:relative:LOW:HIGH`` is a range of the relative gap, from -1 to 1.

    Raises
    ------
    ValueError
        For anything else.
    """
    for one in within:
        name, *ends = one.rsplit(":", 2)
        model, _, relative = name.partition(":")
        low, high = (float(end) for end in ends)
        if relative not in ("", "relative") or not (-1 if relative else 0) <= low < high <= 1:
            raise ValueError(f"{one!r} is no range of delta.")
        yield model, relative or "delta", low, high


def select(atlas: Atlas, view: ReportView) -> Bool[np.ndarray, " concepts"]:
    """Return the live concepts of a view's selection; all live ones if nothing narrows it."""
    return _select(atlas, _reduced(view))


def ordered(atlas: Atlas, view: ReportView) -> Int[np.ndarray, " selected"]:
    """Return the concepts of a view's selection in its order.

    By default those with q below `LEVEL` come first and the end of the 95 % interval that is nearest to 0.5 ranks, so
    that concepts whose delta is large by chance do not lead.
    """
    return _ordered(atlas, _reduced(view))


def is_narrowed(view: ReportView) -> bool:
    """Return whether anything narrows a view's selection."""
    plain = ReportView(view.model)
    return any(getattr(view, name) != getattr(plain, name) for name in SELECTION)


def _reduced(view: ReportView) -> ReportView:
    """Return only what a selection depends on, so that a page's other parameters make no second one."""
    names = {entry.name for entry in fields(ReportView)} & {*MODEL_PARAMETERS, "models", *SELECTION, "sort"}
    return ReportView(**{name: getattr(view, name) for name in names})


@lru_cache(maxsize=64)
def _select(atlas: Atlas, view: ReportView) -> np.ndarray:
    table = view_table(atlas, view)
    mask = keep(table, Filters(view.status, view.frequency, view.q), view.low, view.high)
    if view.text:
        mask &= atlas.matching(view.text)
    if view.cluster:
        mask &= np.isin(table["cluster"].to_numpy(), [int(one) for one in view.cluster])
    for model, column, low, high in delta_ranges(view.within):  # which were chosen against the real images
        values = view_table(atlas, replace(view, reference=REAL), model)[column].to_numpy()
        mask &= (values >= low) & ((values < high) | (high == 1.0))
    if view.ids:
        chosen = unpack_concepts(view.ids, atlas.count)
        if chosen is None:
            raise BlindspotError("These ids are no set of concepts of this atlas.")
        mask &= chosen
    mask.flags.writeable = False
    return mask


@lru_cache(maxsize=64)
def _ordered(atlas: Atlas, view: ReportView) -> np.ndarray:
    table = view_table(atlas, view)[select(atlas, view)]
    column, turned = view.sort.removeprefix("-") or "clear", view.sort.startswith("-")
    first = [~certain(table), -clearance(table), -table["gap"].abs().to_numpy()]
    if column == "clear":
        ranks = [-rank if turned and rank.dtype != bool else ~rank if turned else rank for rank in first]
    else:
        values, known = _values(atlas, view, table, column)
        models = {"range": tuple(against(atlas, view)), "apart": view.models}.get(column, ())
        sure = [certain(view_table(atlas, view, model).loc[table.index]) for model in models]
        doubted = [~np.logical_or.reduce(sure)] if sure else []
        ranks = [~known, *doubted, -values if turned else values, *first]
    order = table.index.to_numpy()[np.lexsort(ranks[::-1])]
    order.flags.writeable = False
    return order


def _values(atlas: Atlas, view: ReportView, table: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers that a column is sorted by, and which of them are known."""
    if column == "label":
        codes, _ = pd.factorize(table["label"].fillna("").str.lower(), sort=True)
        return codes, (table["label"].fillna("") != "").to_numpy()
    if column in ("range", "apart"):
        models = view.models if column == "apart" else tuple(against(atlas, view))
        values = delta_range(atlas, view, table.index, models)
    elif column.startswith(("of:", "q:")):
        kind, model = column.split(":", 1)
        values = view_table(atlas, view, model)["delta" if kind == "of" else "q"].to_numpy()[table.index]
    else:
        values = table.index.to_numpy() if column == "concept" else table[column].to_numpy(np.float64)
    return np.nan_to_num(values, nan=0.0), ~np.isnan(values)


def against(atlas: Atlas, view: ReportView) -> list[str]:
    """Return the models that have a delta against a view's reference: all others."""
    return [model for model in atlas.models if model != view.reference]


def delta_range(atlas: Atlas, view: ReportView, concepts: pd.Index, models: Sequence[str]) -> np.ndarray:
    """Return the largest minus the smallest delta of some concepts over some models."""
    deltas = np.stack([view_table(atlas, view, model)["delta"].to_numpy()[concepts] for model in models])
    return deltas.max(axis=0) - deltas.min(axis=0)


def describe(view: ReportView) -> list[tuple[str, str]]:
    """Return what narrows a view's selection in words, and the parameter that says it."""
    beside = "" if view.reference == REAL else f" against {view.reference}"
    words = [("text", f"“{view.text}”")] if view.text else []
    words += [("status", f"{' or '.join(view.status)} in {view.model}{beside}")] if view.status else []
    words += [("frequency", f"in {100 * view.frequency:g} % of real images or more")] if view.frequency > 0 else []
    words += [("q", f"q ≤ {view.q:g}")] if view.q < 1 else []
    words += [("cluster", f"cluster {' or '.join(view.cluster)}")] if view.cluster else []
    ranges = [f"{NAMES[column]} {model}: {low:g} to {high:g}" for model, column, low, high in delta_ranges(view.within)]
    words += [("within", ", ".join(ranges))] if ranges else []
    return words + ([("ids", "chosen by hand")] if view.ids else [])


@register("selection", *MODEL_PARAMETERS, "models", *SELECTION, "sort")
def selection(atlas: Atlas, view: ReportView) -> Report:
    """The concepts of a selection in its order, with delta, interval and q of every model."""
    order = ordered(atlas, view)
    table = view_table(atlas, view).loc[order]
    status = status_of(table["delta"].to_numpy(), view.low, view.high)
    words = ["; ".join(some) if some is not None else "" for some in table["words"]]
    rows = table.assign(status=status, words=words).reset_index()[COLUMNS]
    for model in against(atlas, view):
        other = view_table(atlas, view, model).loc[order]
        for name in ("delta", "ci_low", "ci_high", "q"):
            rows[f"{name} of {model}"] = other[name].to_numpy()
    of, beside = ", ".join(text for _, text in describe(view)) or "all live concepts", ""
    if view.reference != REAL:
        rows, beside = rows.rename(columns={"energy_real": "energy_reference"}), f" against {view.reference}"
    return Report(f"{view.model}{beside}: {len(rows):,} concepts, {of}", rows)
