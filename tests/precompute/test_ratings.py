"""`ratings prepare | rate | report | end`: from drawings on disk to means, without a word of what is rated."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from engine.ratings.preparing import CELL, SEAM
from engine.ratings.store import RatingStudy, studies_folder
from tests.drawable import build_drawable_atlas
from tests.engine.readers.endpoint import KEY, completion, serving

SMALL = ("--count", 4, "--steps", 4, "--states", 2)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory) -> Path:
    return build_drawable_atlas(tmp_path_factory.mktemp("rated"), 24, pairs=6, models=("alpha",))


def prepared(run_command, atlas: Path, *words) -> RatingStudy:
    code, out, err = run_command("ratings", "prepare", atlas, *words, "--json")
    assert code == 0, err
    document = json.loads(out)
    study = RatingStudy.open(Path(document["study"]))
    assert document["items"] == len(study)
    return study


@pytest.fixture(scope="module")
def drawn(atlas, tmp_path_factory) -> Path:
    """A folder with a drawing, and with studies of methods and neurons that kept their images."""
    from typer.testing import CliRunner

    from precompute.cli import app

    root = tmp_path_factory.mktemp("drawn")
    more = ("--prior-samples", 4, "--images", "--out")
    for words in (
        ("sample", atlas, "--concept", 2, *SMALL, "--out", root / "sampled"),
        (
            "study",
            "methods",
            atlas,
            "--concept",
            2,
            *SMALL,
            "--methods",
            "energy-guidance-light",
            *more,
            root / "methods",
        ),
        ("study", "neurons", atlas, "--concept", 2, *SMALL, "--neurons", 1, *more, root / "neurons"),
    ):
        found = CliRunner().invoke(app, [str(word) for word in words])
        assert found.exit_code == 0, (found.output, found.exception)
    return root


def test_grids_come_from_samples_studies_and_real_images_and_tell_nothing_of_them(run_command, atlas, drawn):
    study = prepared(run_command, atlas, "--from", drawn, "--from", "real")
    assert study.path == studies_folder(atlas) / "interpretability-1.sqlite"
    groups = [(item.unit, *item.groups[0]) for item in study.items().itertuples()]
    assert {
        ("2", "energy-guidance", "concept"),
        ("2", "energy-guidance-light", "concept"),
        ("2", "real", "concept"),
    } <= set(groups)
    assert any(re.fullmatch(r"neuron \d+[+-]", unit) and kind == "neuron" for unit, _, kind in groups)
    assert len(set(groups)) == len(groups)
    for token in study.order("Ann"):
        assert re.fullmatch(r"[0-9a-f]{16}", token) and not study.show(token, "Ann").content
        with Image.open(io.BytesIO(study.image(token))) as image:
            assert image.size == (2 * CELL + SEAM,) * 2 and image.format == "WEBP" and image.info.get("exif") is None
        assert not re.search(rb"energy|EXIF|XMP", study.image(token))


def test_a_reader_rates_by_the_same_protocol_and_is_asked_once(run_command, atlas, drawn, monkeypatch, tmp_path):
    study = prepared(run_command, atlas, "--from", drawn, "--from", "real", "--out", tmp_path, "--name", "read")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("engine.readers.limits.FIRST_WAIT", 0.02)
    answers = iter(["no JSON", {"concept": "a ball", "score": 9}] + [{"concept": "a red <b>ball</b>", "score": 3}] * 99)

    def answer(text, number, request):
        assert "2x2 grid" in text and not re.search("energy|neuron", json.dumps(request["messages"][0]))
        return 200, {}, completion(next(answers))

    with serving(answer) as endpoint:
        words = ("ratings", "rate", study.path, "--reader", "openai:m", "--base-url", endpoint.url, "--json")
        code, out, err = run_command(*words, "--dry-run")
        assert code == 0 and json.loads(out)["calls"] == len(study) and not endpoint.requests, err
        code, out, err = run_command(*words)
        assert code == 0, err
        first = json.loads(out)
        assert first["rated"] == len(study) - 2 and sum(first["missing"].values()) == 2
        asked = len(endpoint.requests)
        code, out, _ = run_command(*words)
        assert json.loads(out)["kept"] == first["rated"] and len(endpoint.requests) == asked
    for token in study.order("Ann"):
        study.rate("Ann", token, 4, "=cmd|' /C calc'!A0")
    code, out, err = run_command("ratings", "report", study.path, "--csv", tmp_path / "csv", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert {row["method"] for row in found["methods"]} == {"energy-guidance", "energy-guidance-light", "real"}
    assert all(1 <= row["mean_low"] <= row["mean"] <= row["mean_high"] <= 4 for row in found["methods"])
    assert {row["rater_kind"] for row in found["raters"]} == {"person", "reader"} and "TF-IDF" in found["embedding"]
    written = (tmp_path / "csv" / "ratings.csv").read_text()
    assert "a red <b>ball</b>" in written and "\"'=cmd" in written.replace(",'=cmd", ",\"'=cmd")
    code, out, _ = run_command("ratings", "report", study.path)
    assert code == 0 and "energy-guidance" in out and "ordinal" in out


def test_captions_and_error_cases_are_prepared_and_end(run_command, tmp_path):
    from tests.app.analyses import add_analyses
    from tests.synthetic import build_synthetic_atlas

    atlas = add_analyses(build_synthetic_atlas(tmp_path / "atlas", concepts=24, pairs=8))
    captions = prepared(run_command, atlas, "--protocol", "captions", "--pairs", 2, "--controls", 1)
    rows = captions.items()
    assert len(rows) <= 6 and sum(len(groups) for groups in rows["groups"]) == 6
    assert {group.kind for groups in rows["groups"] for group in groups} == {"high divergence", "random"}
    errors = prepared(run_command, atlas, "--protocol", "errors", "--images", 2, "--concepts", 3)
    listed = errors.items()["content"].tolist()
    assert len(listed) == 6 and all(1 <= len(one["concepts"]) <= 3 for one in listed)
    assert all(one["concepts"][0]["strength"] == 1 for one in listed)
    code, out, _ = run_command("ratings", "end", errors.path)
    assert code == 0 and "ended with 0 ratings" in out and errors.ended
    assert prepared(run_command, atlas, "--protocol", "errors", "--images", 1).path.stem == "errors-2"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--protocol", "beauty"), "There is no protocol 'beauty': choose interpretability, captions, errors"),
        (("--from", "nowhere"), "There is no folder nowhere: give gallery, real, or a folder"),
        (("--from", "gallery"), "There is nothing to rate: draw concepts with"),
        (("--name", "../up"), "cannot be a study's name"),
        (("--protocol", "captions"), "was built before divergence was measured"),
        (("--protocol", "errors", "--concepts", 60), "A list has 1 to 50 concepts"),
    ],
)
def test_what_cannot_be_prepared_is_one_sentence(run_command, atlas, words, sentence):
    code, _, err = run_command("ratings", "prepare", atlas, *words)
    assert code == 1 and sentence in err and err.count("\n") == 1


def test_a_study_without_its_images_says_how_to_keep_them(run_command, atlas, drawn, tmp_path):
    record = json.loads((drawn / "methods" / "study.json").read_text())
    assert [one["method"] for one in record["images"]] == ["real", "energy-guidance-light"]
    (tmp_path / "study.json").write_text(json.dumps({name: record[name] for name in record if name != "images"}))
    code, _, err = run_command("ratings", "prepare", atlas, "--from", tmp_path)
    assert code == 1 and "run it again with --images" in err
