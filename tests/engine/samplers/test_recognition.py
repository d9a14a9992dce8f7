"""Drawings are judged where their concept stands for a label of the atlas's judge."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from engine.atlas import Atlas
from engine.atlas.verify import verify
from engine.samplers.generation import GenerationRequest, generate_images
from engine.samplers.recognition import FOOLING, recognition_sentence, verdicts
from engine.samplers.records import judge_generation, load_generation, save_generation
from precompute import cli
from precompute.gallery import draw_gallery, interesting
from tests.drawable import build_drawable_atlas
from tests.engine.atlas.test_verify import reseal
from tests.judges import add_judge, save_judge

LABELS = ("kind: disc", "kind: star")
ORDER = GenerationRequest(2, count=2, steps=2)


@pytest.fixture(scope="module")
def drawable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("judged")
    path = build_drawable_atlas(root, 24, pairs=6, models=("alpha",))
    save_judge(root / "judge", LABELS, sees=("kind: disc",))
    first = int(interesting(Atlas.open(path))[0])
    add_judge(path, "../judge", {2: "kind: disc", 5: "kind: star"} | {first: "kind: disc"})
    reseal(path)
    return path


@pytest.fixture
def path(drawable: Path, tmp_path: Path) -> Path:
    for folder in ("encoder", "prior", "judge"):
        (tmp_path / folder).symlink_to(drawable.parent / folder)
    return Path(shutil.copytree(drawable, tmp_path / "atlas"))


def test_every_image_of_a_matched_concept_is_judged_and_kept_so(drawable: Path, tmp_path: Path) -> None:
    atlas = Atlas.open(drawable)
    found = generate_images(atlas, ORDER)
    assert found.recognition is not None and found.recognition.label == "kind: disc"
    assert found.recognition.recognised == (True, True) and found.recognition.share == 1
    save_generation(found, tmp_path)
    assert load_generation(tmp_path)["recognition"] == {
        "label": "kind: disc", "recognised": [True, True], "missing": ""
    }  # fmt: skip
    star = generate_images(atlas, GenerationRequest(5, method="retrieval", count=1))
    assert star.recognition is not None and star.recognition.recognised == (False,)


def test_concepts_without_a_label_and_sets_are_not_judged(drawable: Path) -> None:
    atlas = Atlas.open(drawable)
    free = next(k for k in range(24) if k not in atlas.recognition().index and not atlas.concepts["dead"].iat[k])
    assert generate_images(atlas, GenerationRequest(free, method="retrieval", count=1)).recognition is None
    both = generate_images(atlas, GenerationRequest(2, others=(5,), method="prior", count=1, steps=2))
    assert both.recognition is None


def test_a_judge_that_was_not_agreed_to_is_not_loaded_and_the_images_are_drawn(
    path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("XDG_DATA_HOME", str(elsewhere / "data"))
    monkeypatch.delenv("BLINDSPOT_ALLOW_MODELS", raising=False)
    judge = save_judge(elsewhere / "judge", LABELS, sees=("kind: disc",))
    add_judge(path, str(judge), {2: "kind: disc"})
    found = generate_images(Atlas.open(path), ORDER)
    assert len(found.samples.images) == 2 and found.recognition is not None
    assert found.recognition.recognised == () and "if you trust the atlas" in found.recognition.missing
    monkeypatch.setenv("BLINDSPOT_ALLOW_MODELS", "1")
    assert generate_images(Atlas.open(path), ORDER).recognition.recognised == (True, True)


def test_a_judge_that_is_missing_is_one_sentence(path: Path) -> None:
    (path.parent / "judge").unlink()
    found = generate_images(Atlas.open(path), ORDER).recognition
    assert found is not None and not found.recognised and "there is no folder" in found.missing
    assert recognition_sentence(found.label, found.recognised, found.missing).startswith(
        "Not judged as disc: The atlas"
    )


def test_the_command_says_what_was_recognised(path: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def sample(*words: str) -> str:
        call = ["precompute", "sample", str(path), "--concept", "2", "--out", str(tmp_path / "out"), "--count", "2"]
        monkeypatch.setattr(sys, "argv", [*call, "--steps", "2", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 0
        return capsys.readouterr().out

    said = sample()
    assert "Recognised as disc: 2 of 2." in said and said.count("  recognised\n") == 2
    assert json.loads(sample("--json"))["recognition"]["recognised"] == [True, True]


def test_the_gallery_keeps_it_and_judges_what_was_drawn_before(path: Path) -> None:
    template, first = GenerationRequest(0, count=2, steps=2), int(interesting(Atlas.open(path))[0])
    table = (path / "recognition.parquet").read_bytes()
    (path / "recognition.parquet").unlink()
    reseal(path)
    draw_gallery(path, template, 2)
    assert Atlas.open(path).gallery()["recognised"].isna().all()
    (path / "recognition.parquet").write_bytes(table)
    reseal(path)
    made = draw_gallery(path, template, 2)
    rows = Atlas.open(path).gallery()
    assert made.drawn == 0 and rows["recognised"][rows["concept"] == first].tolist() == [True, True]
    assert not [problem for problem in map(str, verify(path)) if "gallery" in problem or "recognition" in problem]


def test_a_drawing_from_before_it_was_judged_is_judged_when_asked(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "drawing"
    save_generation(generate_images(Atlas.open(path), ORDER), folder)
    record = json.loads((folder / "drawing.json").read_text())
    record.pop("recognition")
    (folder / "drawing.json").write_text(json.dumps(record))
    assert "recognition" not in load_generation(folder)
    assert judge_generation(Atlas.open(path), folder)["recognition"]["recognised"] == [True, True]
    assert load_generation(folder)["recognition"]["label"] == "kind: disc"


def test_a_drawing_that_reaches_the_score_without_being_recognised_is_flagged() -> None:
    seen, scores = [True, False, False, None], [1.0, 0.96, 0.9, 1.0]
    assert verdicts(seen, scores, 1.0) == ["recognised", FOOLING, "not recognised", ""]
    assert verdicts([False], [9.0], None) == verdicts([False], [9.0], float("nan")) == ["not recognised"]
    assert recognition_sentence("kind: disc", [True, False]) == "Recognised as disc: 1 of 2"
    assert recognition_sentence("tabby, tabby cat", [False]) == "Recognised as tabby, tabby cat: 0 of 1"
