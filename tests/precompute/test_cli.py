"""The command line: help everywhere, one sentence and exit code 1 for bad input, JSON alone on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from precompute import cli
from tests.precompute.materials import save_images, save_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command line in this process; gives exit code, stdout and stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["precompute", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        return caught.value.code, said.out, said.err

    return call


@pytest.mark.parametrize("words", [(), ("run",), ("demo",), ("verify",), ("sample",)])
def test_every_command_has_help(command, words: tuple[str, ...]):
    code, out, _ = command(*words, "--help")
    assert code == 0 and "Usage" in out


def test_an_own_folder_becomes_an_atlas(command, tmp_path: Path, encoder_folder: Path, monkeypatch):
    save_images(tmp_path / "photos", range(6))
    save_images(tmp_path / "generated", range(6), shift=2)
    save_recipe(tmp_path / "r.yaml", encoder={"id": str(encoder_folder)})
    monkeypatch.chdir(tmp_path)
    call = ("run", "r.yaml", "--set", "real=photos", "--set", "models.mine=generated", "--out", "made/atlas")
    code, out, err = command(*call, "--json")
    document = json.loads(out)
    assert code == 0 and [source["images"] for source in document["sources"]] == [6, 6] and "encode/real" in err
    code, out, _ = command(*call)
    assert code == 0 and "nothing to do" in out.replace("\n", " ") and "stem" in out
    code, out, _ = command("verify", "made/atlas")
    assert code == 0 and "is in order" in out


def test_verify_lists_what_is_wrong(command, tmp_path: Path, encoder_folder: Path):
    save_images(tmp_path / "photos", range(4))
    recipe = save_recipe(
        tmp_path / "r.yaml", encoder={"id": str(encoder_folder)}, real="photos", models={"m": "photos"}
    )
    assert command("run", str(recipe), "--out", str(tmp_path / "atlas"))[0] == 0
    path = tmp_path / "atlas" / "energy" / "real" / "values.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    code, out, err = command("verify", str(tmp_path / "atlas"), "--json")
    document = json.loads(out)
    assert code == 1 and not document["ok"] and "energy/real/values.npy" in str(document["problems"])
    assert "Traceback" not in err and "problem" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("run", "nowhere.yaml"), "There is no recipe nowhere.yaml"),
        (("run",), "Missing argument"),
        (("run", "x.yaml", "--outt", "y"), "No such option"),
        (("verify", "nowhere"), "There is no atlas at"),
        (("sample", "nowhere", "--concept", "3", "--out", "x"), "There is no atlas at"),
        (("sample", "nowhere", "--concept", "three", "--out", "x"), "valid integer"),
        (("paint",), "No such command"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_1(command, words: tuple[str, ...], sentence: str):
    code, out, err = command(*words)
    assert code == 1 and out == "" and sentence in err and len(err.strip().splitlines()) == 1


def test_the_module_runs_without_a_traceback(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "precompute", "verify", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "is not an atlas" in done.stderr


def test_an_error_is_one_json_document_too(command, tmp_path: Path):
    code, out, err = command("verify", str(tmp_path), "--json")
    assert code == 1 and "is not an atlas" in json.loads(out)["error"] and "is not an atlas" in err


@pytest.mark.parametrize("name", ["/tmp/x", "../x", "..", ""])
def test_a_recipes_name_stays_in_its_folder(command, tmp_path: Path, monkeypatch, name: str):
    monkeypatch.chdir(tmp_path)
    recipe = save_recipe(tmp_path / "r.yaml", name=name, real="photos", models={"m": "photos"})
    code, _, err = command("run", str(recipe))
    assert code == 1 and "is no folder's" in err


def test_a_negative_number_of_concepts_is_refused(command, tmp_path: Path):
    code, _, err = command("gallery", str(tmp_path), "--concepts", "-5")
    assert code == 1 and "--concepts" in err
