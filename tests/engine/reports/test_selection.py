"""A selection: what an address holds of it comes back, its parts narrow, hostile addresses are nothing."""

import base64
import io
import zlib

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from engine.figures.tables import LEVEL, clearance, cluster_names
from engine.reports import ReportView, files, report
from engine.reports.selection import MOST_IDS, delta_ranges, describe, ordered, pack_concepts, select, unpack_concepts


def packed(bits: bytes) -> str:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return "~" + base64.urlsafe_b64encode(packer.compress(bits) + packer.flush()).decode().rstrip("=")


@pytest.mark.parametrize("share", [1e-4, 0.02, 0.5, 1.0])
def test_any_set_of_32000_concepts_comes_back_from_an_address_that_servers_take(share: float):
    mask = np.random.default_rng(0).random(32_000) < share
    mask[31_999] = True
    text = pack_concepts(mask)
    assert len(text) < 6_000 and (unpack_concepts(text, 32_000) == mask).all()


def test_a_few_ids_stay_readable_and_many_neighbours_stay_short():
    assert pack_concepts(np.isin(np.arange(99), [5, 17])) == "5.17"
    assert unpack_concepts("5,17", 99).nonzero()[0].tolist() == [5, 17]
    assert len(pack_concepts(np.arange(32_000) < 5_000)) < 60


@pytest.mark.parametrize(
    "text",
    ["", "~", "~~~", "~!", "48", "-1", "1..2", "5 ", "²", "1e1", "~" + "A" * MOST_IDS, "1." * MOST_IDS, packed(b""),
     packed(b"\xff" * 7), packed(b"\0" * 6), packed(b"\0" * 50_000_000), packed(b"\x80") + "AAAA"],
)  # fmt: skip
def test_what_is_no_set_of_this_atlas_is_none(text: str):
    assert unpack_concepts(text, 48) is None


@pytest.mark.parametrize("text", ["alpha", "alpha:0.2:0.1", "alpha:0:nan", "alpha:-1:0", "alpha:delta:0:1", "a:0:1:b"])
def test_what_is_no_range_of_delta_is_refused(text: str):
    with pytest.raises(ValueError, match=r"range|float|unpack"):
        list(delta_ranges([text]))


def test_every_part_narrows_and_the_file_holds_the_set_in_its_order(atlas):
    view = ReportView.of(atlas)
    live = ~atlas.concepts["dead"].to_numpy()
    assert (select(atlas, view) == live).all()
    word = atlas.concepts["label"].iloc[3].split()[0]
    parts = {"text": word, "status": ("suppressed", "neutral"), "within": ("beta:0.2:1",), "ids": "3.9.21.33.45"}
    before, changes = live, {}
    for name, value in parts.items():
        changes[name] = value
        now = select(atlas, ReportView.of(atlas, **changes))
        assert now.sum() and not (now & ~before).any()
        assert (now == (before & select(atlas, ReportView.of(atlas, **{name: value})))).all()
        before = now
    assert [name for name, _ in describe(ReportView.of(atlas, **changes))] == list(parts)
    found = report(atlas, "selection", **changes, sort="-of:beta")
    assert set(found.table["concept"]) == set(before.nonzero()[0])
    assert found.table["delta of beta"].is_monotonic_decreasing
    stored = pq.read_table(io.BytesIO(files.parquet_bytes(found, {"atlas": "a"})))
    assert stored.to_pandas()["delta"].equals(found.table["delta"]) and b"blindspot-atlas" in stored.schema.metadata


def test_a_label_that_is_a_formula_is_text_in_the_file(atlas):
    table = report(atlas, "selection").table.assign(label="=HYPERLINK(1)")
    text = files.csv_text(report(atlas, "selection")._replace(table=table), {"title": "t"})
    assert '"\'=HYPERLINK(1)"' in text and ',"=' not in text


def test_noisy_concepts_do_not_lead_the_ranking(atlas):
    view = ReportView.of(atlas)
    table = atlas.delta(view.model).loc[ordered(atlas, view)]
    sure = (table["q"] < LEVEL).to_numpy()
    assert sure[: sure.sum()].all() and (np.diff(clearance(table)[sure]) <= 0).all()
    rows = pd.DataFrame({"delta": [0.99, 0.8], "ci_low": [0.3, 0.75], "ci_high": [1.0, 0.85]})
    assert clearance(rows)[0] < 0 < clearance(rows)[1]
    turned = ordered(atlas, ReportView.of(atlas, sort="-clear"))
    assert turned[0] == ordered(atlas, view)[-1]


def test_models_differ_most_where_one_of_them_is_certain(atlas, monkeypatch):
    view = ReportView.of(atlas, sort="-apart")
    tables = {model: atlas.delta(model) for model in view.models}
    level = float(np.nanquantile([table["q"] for table in tables.values()], 0.3))
    monkeypatch.setattr("engine.figures.tables.LEVEL", level)
    order = ordered(atlas, view)
    deltas = np.stack([table["delta"].to_numpy()[order] for table in tables.values()])
    sure = np.logical_or.reduce([(table["q"] < level).to_numpy()[order] for table in tables.values()])
    spread = deltas.max(axis=0) - deltas.min(axis=0)
    assert 0 < sure.sum() < len(sure) and sure[: sure.sum()].all()
    assert (np.diff(spread[sure]) <= 0).all() and (np.diff(spread[~sure]) <= 0).all()


def test_words_must_all_fit_and_a_misspelled_one_has_a_neighbour(atlas):
    label = atlas.concepts["label"].iloc[0]
    assert atlas.matching(f"{label} 0").nonzero()[0].tolist() == [0]
    assert not atlas.matching("zzzz 0").any() and len(atlas.search(f"zzzz {label}", 48)) > 0
    assert (atlas.matching(label[1:]) >= atlas.matching(label)).all() and not atlas.matching("?").any()
    word = max(label.split(), key=len)
    assert word in atlas.known_words(word[:-1] + "zx"[len(word) % 2])


def test_a_cluster_is_named_by_what_sets_it_apart():
    concepts = pd.DataFrame({"cluster": [0, 0, 0, 1, 1, -1], "label": ["red", "red", "sky", "sky", "sky", "cup"]})
    assert cluster_names(concepts.assign(dead=False)) == {0: "red, sky", 1: "sky"}
    assert cluster_names(concepts.assign(dead=False, label="")) == {0: "", 1: ""}
