"""From what raters said to the tables: known answers come out, by method, kind, model and source."""

import json

import numpy as np
import pandas as pd
import pytest

from engine.ratings.files import write_tables
from engine.ratings.report import rating_report
from engine.ratings.store import Group, Item, create_study

RATERS = {"strict": -0.4, "fair": 0.0, "kind": 0.4, "kinder": 0.6}
"""Known biases."""
MEANS = {("clear", "concept"): 3.2, ("vague", "concept"): 1.9, ("clear", "neuron"): 2.2}


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """Raters of known bias, who score grids of 25 concepts by two methods and of 25 neurons by one."""
    rng, items = np.random.default_rng(0), []
    for (method, kind), mean in MEANS.items():
        for number in range(25):
            shift = mean + 0.4 * rng.standard_normal()
            items.append(Item(f"{kind} {number}", (Group(method, kind),), {}, {"shift": shift}, b"x"))
    study = create_study(tmp_path_factory.mktemp("panel") / "panel.sqlite", "interpretability", items, {"atlas": "toy"})
    facts = {row.token: row for row in study.items().itertuples()}
    for rater, bias in RATERS.items():
        for token in study.order(rater):
            shift, method = facts[token].facts["shift"], facts[token].groups[0].method
            score = int(np.clip(np.rint(shift + bias + 0.4 * rng.standard_normal()), 1, 4))
            words = "a red ball" if method == "clear" else rng.choice(["sky", "table", "a purple palm", "grass"])
            study.rate(rater, token, score, words, kind="reader" if rater == "fair" else "person")
    return study


def test_the_panels_means_differences_and_agreement_are_found(panel):
    found = rating_report(panel)
    table = found.tables["methods"].set_index(["method", "kind"])
    for key, mean in MEANS.items():
        row = table.loc[key]
        assert row["mean_low"] <= mean + np.mean(list(RATERS.values())) <= row["mean_high"] and row["units"] == 25
        assert row["mean_low"] < row["mean"] < row["mean_high"] and 0 <= row["success_low"] <= row["success"]
    assert table.loc[("clear", "concept"), "success"] > 0.85 > 0.5 > table.loc[("vague", "concept"), "success"]
    assert table.loc[("clear", "concept"), "variance"] < 0.01 < 0.3 < table.loc[("vague", "concept"), "variance"]
    difference = found.tables["differences"].iloc[0]
    assert (difference["first"], difference["second"]) == ("clear", "vague")
    assert difference["difference_low"] <= 1.3 <= difference["difference_high"]
    kinds = found.tables["kinds"].iloc[0]
    assert kinds["difference_low"] <= 1.0 <= kinds["difference_high"]
    alpha = found.tables["agreement"].set_index("level")
    assert (alpha["alpha_low"] > 0.3).all() and (alpha["units"] == 75).all()
    by_rater = found.tables["by_rater"].set_index(["rater", "method", "kind"])["mean"]
    assert by_rater["strict", "clear", "concept"] < by_rater["kinder", "clear", "concept"]
    assert set(found.tables["raters"]["rater_kind"]) == {"person", "reader"}
    assert json.loads(json.dumps(found.document()))["ratings"] == 300


def test_every_rating_comes_out_as_csv_and_parquet(panel, tmp_path):
    found = rating_report(panel)
    for suffix, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        written = write_tables(found, tmp_path / suffix, suffix)
        assert {path.stem for path in written} >= {"ratings", "methods", "differences", "kinds", "agreement"}
        rows = read(tmp_path / suffix / f"ratings.{suffix}")
        assert len(rows) == 300 and set(rows["method"]) == {"clear", "vague"} and rows["note"].notna().all()


def test_a_caption_counts_for_every_model_and_kind_of_pair_that_it_is_of(tmp_path):
    high, low = Group("a", "high divergence"), Group("b", "random")
    items = [Item(f"image {n}", (high, low) if n < 2 else (high,), {"caption": "x"}, {}, b"x") for n in range(10)]
    study = create_study(tmp_path / "c.sqlite", "captions", items, {})
    tokens = study.items()["token"].tolist()
    for rater in ("Ann", "Bo"):
        for place, token in enumerate(tokens):
            study.rate(rater, token, "wrong" if place < 2 else "sufficient")
    tables = rating_report(study).tables
    table = tables["captions"].set_index(["model", "kind", "caption"])
    assert table.loc[("a", "high divergence", "wrong"), "share"] == 0.2
    assert table.loc[("b", "random", "wrong"), "share"] == 1 and table.loc[("b", "random", "wrong"), "pairs"] == 2
    row = table.loc[("a", "high divergence", "sufficient")]
    assert 0.4 < row["share_low"] < 0.8 < row["share_high"] < 1
    assert (tables["agreement"]["alpha"] == 1).all() and (tables["agreement"]["units"] == 10).all()


def test_misfires_are_counted_by_source_rank_and_concept_and_wrong_labels_can_be_left_out(tmp_path):
    listed = {"concepts": [{"label": name, "strength": 1.0} for name in ("sky", "striped", "grass")]}
    items = [Item(f"image {n}", (Group("real", "real"),), listed, {"concepts": [7, 8, 9]}, b"x") for n in range(4)]
    study = create_study(tmp_path / "e.sqlite", "errors", items, {})
    for place, token in enumerate(study.items()["token"]):
        study.rate("Ann", token, [1, 2] if place == 0 else [1], "a dog" if place == 3 else "")
    tables = rating_report(study).tables
    row = tables["sources"].iloc[0]
    assert row["misfires"] == pytest.approx(5 / 12) and row["missing"] == 0.25 and row["images"] == 4
    assert tables["curves"]["share"].tolist() == [0, 1, 1]
    assert tables["misfires"][["concept", "label", "images", "shown"]].values.tolist() == [
        [8, "striped", 4, 4], [9, "grass", 1, 4],
    ]  # fmt: skip
    without = rating_report(study, without=[8]).tables
    assert without["sources"].iloc[0]["misfires"] == pytest.approx(1 / 8)
    assert without["curves"]["share"].tolist() == [0, 0, 0.25]


def test_a_study_that_nobody_rated_has_a_report_without_results(tmp_path):
    item = Item("1", (Group("a", "concept"),), {}, {}, b"x")
    found = rating_report(create_study(tmp_path / "n.sqlite", "interpretability", [item], {}))
    assert found.document()["ratings"] == 0 and list(found.tables) == ["raters"]
