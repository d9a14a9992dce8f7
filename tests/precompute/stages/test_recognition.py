"""The stage `recognition`: the judge looks at the real images once, concepts get labels, the atlas keeps both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score

from engine.atlas import Atlas
from engine.atlas.verify import verify
from precompute.build import build
from precompute.recipe import load_recipe
from precompute.runner import Build
from precompute.stages import recognition
from precompute.stages.recognition import with_ground_truth
from tests.engine.atlas.test_verify import alter, reseal
from tests.judges import save_judge
from tests.precompute.materials import save_images, save_recipe

LABELS = ("background: grass", "background: paper", "background: sky", "background: brick wall", "tabby, tabby cat")


def run(recipe: Path, out: Path, *settings: str) -> Build:
    return build(load_recipe(recipe, settings), out, lambda stage: lambda done, total: None)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> Path:
    base = tmp_path_factory.mktemp("judged")
    save_images(base / "drawn", range(6), captions=None)
    save_judge(base / "judge", LABELS, sees=LABELS[:4])
    return save_recipe(
        base / "r.yaml", real={"world": "tabletop", "count": 96, "size": 28}, models={"drawn": "drawn"},
        encoder={"id": str(encoder_folder)}, judge={"id": "judge"},
        dictionary={"concepts": 24, "sparsity": 3, "epochs": 4, "batch": 256},
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(recipe: Path) -> Build:
    return run(recipe, recipe.parent / "atlas")


def test_concepts_get_the_label_whose_images_their_energy_ranks_first(made: Build) -> None:
    atlas = Atlas.open(made.out)
    found, labels = atlas.recognition(), atlas.labels()
    assert len(found) and set(found["label"]) <= set(LABELS[:4]), "the world's truth decides, not the judge"
    assert (found["precision"] >= 0.7).all() and (found["threshold"] == 0.5).all()
    energy = atlas.energy("real").toarray()
    for concept, row in found.iterrows():
        shown = np.isin(np.arange(96), labels[labels["value"] == row["label"].partition(": ")[2]]["image"])
        assert average_precision_score(shown, energy[:, concept]) > 0.6 and row["n"] < shown.sum()
        assert row["real_share"] == 1, "this is the judge's word"
    assert atlas.info.judge == {"id": "../judge"} and verify(made.out) == []


def test_nothing_is_judged_twice_and_a_killed_run_goes_on(recipe: Path, made: Build, monkeypatch) -> None:
    assert {one.action for one in run(recipe, made.out).outcomes} == {"kept"}
    folder, asked = made.work / "recognition", []
    monkeypatch.setattr(recognition, "CHUNK", 40)
    judged = recognition.Judge.probabilities

    def dies_at_the_third(judge, images):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(len(images))
        return judged(judge, images)

    monkeypatch.setattr(recognition.Judge, "probabilities", dies_at_the_third)
    before = (folder / "recognition.json").read_text()
    (folder / "recognition.json").write_text("[]")
    with pytest.raises(KeyboardInterrupt):
        run(recipe, made.out)
    monkeypatch.setattr(recognition.Judge, "probabilities", judged)
    outcomes = {one.name: one.action for one in run(recipe, made.out).outcomes}
    assert asked == [40, 40] and outcomes["recognition"] == "resumed" and outcomes["energies/real"] == "kept"
    assert (folder / "recognition.json").read_text() == before


def test_another_judge_is_asked_anew_and_without_one_there_is_no_table(recipe: Path, made: Build, tmp_path) -> None:
    other = save_judge(tmp_path / "other", LABELS[4:], sees=LABELS[4:], several=False)
    again = run(recipe, made.out, f"judge.id={other}")
    assert [one.name for one in again.outcomes if one.action != "kept"] == ["recognition", "assemble"]
    assert Atlas.open(made.out).recognition().empty, "what a judge sees in every image tells no concept apart"
    blind = save_judge(tmp_path / "blind", LABELS, sees=LABELS[4:])
    run(recipe, made.out, f"judge.id={blind}")
    assert Atlas.open(made.out).recognition().empty, "a judge that does not know the best real images judges nothing"
    run(recipe, made.out, "judge=null")
    plain = Atlas.open(made.out)
    assert plain.recognition().empty and plain.info.judge is None and "recognition" not in plain.info.stages
    run(recipe, made.out)


def test_a_judge_that_is_no_folder_is_one_sentence(recipe: Path, tmp_path: Path) -> None:
    from engine.errors import BlindspotError

    with pytest.raises(BlindspotError, match=r"judge\.id is .*nowhere, but there is no such folder"):
        run(recipe, tmp_path / "atlas", "judge.id=./nowhere")
    with pytest.raises(BlindspotError, match=r"unknown key 'judge\.size'"):
        load_recipe(recipe, ["judge.size=3"])


def test_the_truth_of_the_corpus_replaces_the_judges_word_where_it_has_one() -> None:
    seen = np.array([[True, True], [False, True]])
    truth = [[0, "kind", "star"], [1, "kind", "disc"], [1, "size", "big"]]
    np.testing.assert_array_equal(with_ground_truth(seen, ["kind: disc", "cat"], truth), [[False, True], [True, True]])
    np.testing.assert_array_equal(with_ground_truth(seen, ["kind: disc", "cat"], []), seen)


def test_verify_names_what_cannot_be(made: Build, tmp_path: Path) -> None:
    import shutil

    path = Path(shutil.copytree(made.out, tmp_path / "atlas"))
    alter(path, "recognition", precision=1.5)
    header = json.loads((path / "atlas.json").read_text())
    (path / "atlas.json").write_text(json.dumps(header | {"judge": None}))
    reseal(path)
    said = {str(problem) for problem in verify(path)}
    assert said == {
        "recognition.parquet: precision is not between 0.0 and 1.0 everywhere",
        "recognition.parquet: the header names no judge",
    } or said == {
        "recognition.parquet: precision is not between 0 and 1 everywhere",
        "recognition.parquet: the header names no judge",
    }
    table = pq.read_table(path / "recognition.parquet")
    assert table.schema.names == ["concept", "label", "precision", "n", "threshold", "real_share"]
