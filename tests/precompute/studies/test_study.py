"""`python -m precompute study`: every study's files, and one sentence for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.samplers.generation import GenerationRequest
from precompute.studies import sweeps
from precompute.studies.base import StudyInputs, write_study
from tests.drawable import build_drawable_atlas

FILES = {"figure.html", "grid.png", "plotly.min.js", "study.json", "table.csv"}
SMALL = ("--concept", 2, "--count", 4, "--steps", 4, "--states", 2, "--prior-samples", 4)
STUDIES = {
    "sweep": (("--strengths", 0, 0.5), {"strength", "score", "score_error", "diversity", "kid", "frechet", "seconds"}),
    "levels": (("--shares", 0, 40), {"share", "target", "reached", "score", "real_score", "note"}),
    "neurons": (("--neurons", 1), {"name", "score_correlation", "selectivity", "share", "diversity", "kid"}),
    "methods": (
        ("--methods", "energy-guidance", "retrieval"),
        {"method", "of_target", "matched", "frechet", "kid", "trials"},
    ),
    "injection": (("--reference", 0, "--ratios", 0.5), {"ratio", "eta", "strength", "score", "task", "drift", "bound"}),
}


@pytest.fixture(scope="module")
def drawable(tmp_path_factory) -> Path:
    return build_drawable_atlas(tmp_path_factory.mktemp("study"), 24, pairs=6, models=("alpha",))


def strict(text: str) -> dict:
    """JSON as other programs read it, without NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("what", STUDIES)
def test_every_study_writes_its_table_figure_grid_and_where_they_come_from(run_command, drawable, tmp_path, what):
    words, columns = STUDIES[what]
    code, out, err = run_command("study", what, drawable, *SMALL, *words, "--out", tmp_path / "out", "--json")
    assert code == 0, err
    said, record = strict(out), strict((tmp_path / "out" / "study.json").read_text())
    assert said == record | {"out": str(tmp_path / "out")}
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert columns <= set(table) and len(table) == len(record["table"]) >= 2
    assert record["what"] == f"study {what}" and record["atlas"] == "synthetic" and record["content fingerprint"]
    assert record["settings"]["steps"] == 4 and record["settings"]["device"] and record["versions"]["torch"]
    more = {"samples.csv"} if what == "levels" else set()
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | more
    with Image.open(tmp_path / "out" / "grid.png") as grid:
        assert grid.text["what"] == f"study {what}" and grid.width > 500 and grid.height > 300
    page = (tmp_path / "out" / "figure.html").read_text()
    assert "Plotly.newPlot" in page and 'name="recipe fingerprint"' in page


def test_a_level_out_of_reach_is_a_row_that_says_so(run_command, drawable, tmp_path):
    words = ("study", "levels", drawable, *SMALL, "--shares", 0, 40, "--out", tmp_path / "out")
    code, out, _ = run_command(*words)
    assert code == 0 and "- share 40: The mean score" in out and "is out of reach" in out
    unpushed, beyond = strict((tmp_path / "out" / "study.json").read_text())["table"]
    assert unpushed["reached"] and unpushed["target"] is None and not beyond["reached"]
    samples = pd.read_csv(tmp_path / "out" / "samples.csv")
    assert all(rows["score"].is_monotonic_increasing for _, rows in samples.groupby("share"))


def test_it_goes_to_a_folder_named_after_it_and_a_second_run_replaces_the_first(
    run_command, drawable, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ("study", "sweep", drawable, *SMALL, "--strengths")
    assert run_command(*words, 0, 0.5)[0] == 0
    folder = tmp_path / "studies" / "sweep-2"
    (folder / "notes.txt").write_text("mine")
    assert len(pd.read_csv(folder / "table.csv")) == 2
    code, out, _ = run_command(*words, 0)
    assert code == 0 and "studies/sweep-2" in out and "diversity" in out
    assert len(pd.read_csv(folder / "table.csv")) == 1 and (folder / "notes.txt").read_text() == "mine"
    assert {path.name for path in folder.iterdir()} == FILES | {"notes.txt"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("sweep", "--strengths", "nan"), "one or more finite strengths"),
        (("sweep", "--strengths", "much"), "Invalid value for '--strengths'"),
        (("sweep", "--count", 3), "draw at least 4 samples, not 3"),
        (("sweep", "--method", "prior"), "'prior' has no strength"),
        (("sweep", "--method", "magic"), "There is no sampling method 'magic'"),
        (("sweep", "--prior-samples", 1), "two or more samples to be compared with, not 1"),
        (("levels", "--shares", -1), "shares of 0 or above"),
        (("levels", "--count", 7), "need as many real images beside them, and there are 6"),
        (("neurons", "--neurons", 0), "0 neurons were asked for"),
        (("neurons", "--concept", 999), "There is no concept 999"),
        (("methods", "--methods", "prior"), "Method 'prior' cannot be compared"),
        (("injection",), "Give either --reference IMAGE or --text WORDS"),
        (("injection", "--reference", 0, "--text", "a ring"), "Give either --reference IMAGE or --text WORDS"),
        (
            ("injection", "--text", "a ring"),
            "cannot say how well an image fits a text: give a CLIP or SigLIP by --text-encoder",
        ),
        (("injection", "--reference", 10_000), "image 10000"),
        (("injection", "--reference", 0, "--ratios", 0), "finite numbers other than 0"),
        (("injection", "--reference", 0, "--target", 99), "The mean score 99 is out of reach"),
        (("paint",), "No such command"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_leaves_nothing(run_command, drawable, tmp_path, words, sentence):
    what, *more = words
    code, out, err = run_command("study", what, drawable, *SMALL, *more, "--out", tmp_path / "out")
    assert code == 1 and out == "" and not (tmp_path / "out").exists()
    assert sentence in " ".join(err.split()) and "Traceback" not in err


def test_ctrl_c_ends_it_cleanly(run_command, drawable, tmp_path, monkeypatch):
    real = sweeps.concept_subject

    def interrupted(atlas, order, *placement):
        subject = real(atlas, order, *placement)

        def stop(images):
            raise KeyboardInterrupt

        monkeypatch.setattr(subject.score, "reduce", stop)
        return subject

    monkeypatch.setattr(sweeps, "concept_subject", interrupted)
    code, out, err = run_command("study", "sweep", drawable, *SMALL, "--out", tmp_path / "out")
    assert code == 130 and out == "" and "Traceback" not in err and not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence_and_an_earlier_study_stays(drawable, tmp_path, monkeypatch):
    inputs = StudyInputs(Atlas.open(drawable), GenerationRequest(2, count=4, steps=3, candidates=2), prior_samples=4)
    study = sweeps.sweep_study(inputs, [0.0])
    (tmp_path / "file").write_text("")
    with pytest.raises(BlindspotError, match=r"cannot be written to .*choose another --out"):
        write_study(study, tmp_path / "file")
    write_study(study, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def break_off(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", break_off)
    with pytest.raises(KeyboardInterrupt):
        write_study(study, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("words", [(), ("sweep",), ("levels",), ("neurons",), ("injection",)])
def test_every_study_has_help(run_command, words):
    code, out, _ = run_command("study", *words, "--help")
    assert code == 0 and "Usage" in out
