"""`python -m precompute quality`: folders of images against real ones, every number with its error and its n."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.atlas import Atlas
from engine.samplers.batches import draw_into
from engine.samplers.generation import GenerationRequest
from precompute import cli
from tests.drawable import build_drawable_atlas

IMAGES = 20


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """An atlas, and folders of its real images, of noise, of one image, and of a drawing."""
    root = tmp_path_factory.mktemp("quality")
    atlas = Atlas.open(build_drawable_atlas(root, 24, pairs=IMAGES, models=("alpha",)))
    rng = np.random.default_rng(0)
    for name in ("copies", "noise", "single"):
        (root / name).mkdir()
    for number in range(IMAGES):
        atlas.image(number).save(root / "copies" / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(root / "noise" / f"{number}.png")
    atlas.image(3).save(root / "single" / "3.png")
    draw_into(root / "drawing", atlas, GenerationRequest(2, "retrieval", 4), "cpu")
    return root


@pytest.fixture
def quality(drawn, monkeypatch, capsys):
    """Runs the command on folders of `drawn`; gives exit code, stdout (JSON read) and stderr."""

    def call(*words: str):
        folders = [str(drawn / word) if (drawn / word).exists() else word for word in words]
        monkeypatch.setattr(sys, "argv", ["precompute", "quality", str(drawn / "atlas"), *folders])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        return caught.value.code, json.loads(said.out) if "--json" in words else said.out, said.err

    return call


def test_real_images_are_nearer_to_real_ones_than_noise_is(quality):
    code, found, _ = quality("copies", "noise", "drawing", "single", "--json")
    copies, noise, drawing, single = found["rows"]
    assert code == 0 and found["reference_images"] == IMAGES and not found["licenses"]
    for space in ("class token", "patches"):
        assert abs(copies[f"fd {space}"]["value"]) < 1e-6 < noise[f"fd {space}"]["value"]
        assert copies[f"precision {space}"] == copies[f"recall {space}"] == {"value": 1, "error": 0, "n": IMAGES}
        near, far = copies[f"kid {space}"], noise[f"kid {space}"]
        assert near["value"] < far["value"] and far["error"] > 0 and far["n"] == IMAGES
    assert drawing["images"] == drawing["score"]["n"] == 4 and drawing["seconds"]["n"] == 4
    assert not any(name.startswith(("kid", "fd", "precision")) for name in {**drawing, **single})
    assert set(single) == {"method", "images"} and copies["pair distance"]["value"] > 0


def test_tables_show_errors_and_say_what_is_left_out(quality):
    code, text, _ = quality("noise", "drawing")
    lines = text.splitlines()
    assert code == 0 and lines[0].split() == ["method", "features", "n", "KID", "FD", "precision", "recall"]
    assert lines[1].startswith("noise    class token  20  ") and lines[1].count(" ± ") == 3
    assert lines[4].split() == ["drawing", "patches", "4", "-", "-", "-", "-"]
    assert lines[5].split() == ["method", "n", "s(x)", "pair", "distance", "seconds"]
    assert "- Not shown: KID, precision and recall need 8 images of both sets." in lines
    assert "- Not shown: FD by patches needs more than 16 images of both sets, as many as it has features." in lines
    assert any(line.startswith(f"Compared with {IMAGES} images: the real images of") for line in lines)


def test_a_folder_is_compared_with_another_one_in_another_network(quality, drawn):
    network = str(drawn / "encoder")
    _, found, _ = quality("copies", "--reference", "noise", "--features", network, "--json")
    (row,) = found["rows"]
    assert found["reference"] == str(drawn / "noise") and row["kid encoder"]["value"] > 0 < row["fd encoder"]["value"]


def test_what_is_not_there_is_one_sentence(quality):
    assert quality("nowhere")[2].splitlines()[-1].startswith("There is no folder nowhere")
    code, _, said = quality("copies", "--judge", "qualiclip")
    assert code == 1 and "needs the package pyiqa, which is not installed" in said.splitlines()[-1]
