"""`python -m precompute import-dictionary`: our folder, the list of assumptions, one sentence for bad input."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.dictionary.base import Dictionary

DIM, CONCEPTS, K = 4, 9, 2


@pytest.fixture
def command(run_command):
    """Runs the command in this process; gives exit code, stdout and stderr."""
    return partial(run_command, "import-dictionary")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder in sparsify's layout."""
    folder = tmp_path / "published"
    folder.mkdir()
    tensors = {"encoder.weight": torch.randn(CONCEPTS, DIM), "encoder.bias": torch.randn(CONCEPTS)}
    tensors |= {"W_dec": torch.randn(CONCEPTS, DIM), "b_dec": torch.randn(DIM)}
    save_file(tensors, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": DIM, "k": K, "activation": "topk"}))
    return folder


def test_it_writes_our_folder_and_lists_what_was_assumed(command, published: Path, tmp_path: Path) -> None:
    code, out, err = command(published, "--out", tmp_path / "a" / "made")
    assert code == 0 and err == ""
    assert out.startswith(f"{tmp_path / 'a' / 'made'}: 9 concepts of width 4, from sparsify. Assumed:\n")
    for topic in ("normalisation", "centring", "threshold", "decoder bias", "atom norm", "sparsity"):
        assert f"- {topic}: " in out
    loaded = Dictionary.from_pretrained(tmp_path / "a" / "made")
    assert loaded.settings() == {"dim": DIM, "concepts": CONCEPTS, "sparsity": K}


def test_json_is_one_document_and_agrees_with_the_folder(command, published: Path, tmp_path: Path) -> None:
    code, out, _ = command(published, "--kind", "sparsify", "--sparsity", 3, "--out", tmp_path / "made", "--json")
    document = json.loads(out)
    assert code == 0 and document["kind"] == "sparsify" and document["sparsity"] == 3
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert config["imported"] == {key: document[key] for key in ("source", "kind", "assumed")}


def test_help_and_bad_input(command, published: Path, tmp_path: Path) -> None:
    code, out, _ = command("--help")
    assert code == 0 and "--kind" in out and "--threshold" in out
    bad = [
        ((published, "--kind", "nonsense"), "There is no published kind 'nonsense'; choose one of auto,"),
        ((published, "--kind", "saelens"), "has no tensor 'W_enc'"),
        ((published, "--sparsity", 99), "99 active of 9 concepts is impossible"),
        ((tmp_path / "absent",), "There is no file or folder"),
    ]
    for words, message in bad:
        code, out, err = command(*words, "--out", tmp_path / "made")
        assert code == 1 and out == "" and message in err and err.count("\n") == 1
        assert not (tmp_path / "made").exists()
    code, _, err = command(published)
    assert code == 1 and "--out" in err
