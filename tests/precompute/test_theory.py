"""`python -m precompute theory`: the exact values of the toy mixture, and options that take several values."""

from __future__ import annotations

import json
import sys

import pytest

from precompute import cli

EXACT = {
    5: {"hard": (0.2866, 0.0104, 0.2030, 0.0168, 0.2269), "tilt": (0.1284, 0.0055, 0.1500, 0.0126, 0.0633)},
    6: {"hard": (3.5234, 0.0140, 0.4183, 0.0320, 0.5419), "tilt": (0.2815, 0.0063, 0.3138, 0.0148, 0.2647)},
    7: {"hard": (4.7263, 0.0186, 0.6199, 0.0347, 0.9672), "tilt": (0.5259, 0.0048, 0.5096, 0.0188, 0.6544)},
}
SHARED = ["boundary_mass", "tv_prior", "tv_step", "kl_prior"]


@pytest.fixture
def theory(monkeypatch, capsys):
    """Runs the command in this process; gives exit code, stdout and stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["precompute", "theory", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        return caught.value.code, said.out, said.err

    return call


def test_the_papers_targets_have_their_exact_values(theory):
    code, out, err = theory("--targets", "5", "6", "7", "--json")
    rows = json.loads(out)
    assert code == 0 and err == "" and [row["target"] for row in rows] == [5, 6, 7]
    for row in rows:
        for law, knob in (("hard", "threshold"), ("tilt", "beta")):
            assert list(row[law]) == [knob, *SHARED]
            assert tuple(row[law].values()) == pytest.approx(EXACT[row["target"]][law], abs=2e-4)


@pytest.mark.parametrize(
    "words",
    [
        ("--targets", "6.5", "5", "--json"),
        ("--json", "--targets", "6.5", "5"),
        ("--targets", "6.5", "--json", "--targets", "5"),
        ("--targets=6.5", "5", "--json"),
    ],
)
def test_targets_keep_their_order_however_they_are_given(theory, words: tuple[str, ...]):
    code, out, _ = theory(*words)
    assert code == 0 and [row["target"] for row in json.loads(out)] == [6.5, 5]


def test_without_json_a_person_reads_it_and_the_papers_targets_are_the_default(theory):
    code, out, _ = theory()
    assert code == 0 and "tilt  beta 0.2815" in out and "hard  s > 4.7263" in out and "kl_prior 0.0633" in out
    assert theory("--help")[0] == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--targets", "5", "3"), "The target 3 is out of reach: choose at least 4"),
        (("--targets", "-1", "5"), "The target -1 is out of reach"),
        (("--targets", "7.95"), "less than 7.92"),
        (("--targets", "nan"), "The target nan is out of reach"),
        (("--targets", "5", "six"), "Invalid value for '--targets'"),
        (("--targets",), "requires an argument"),
        (("6",), "unexpected extra argument"),
        (("--json", "6", "--targets", "5"), "unexpected extra argument"),
        (("--target", "5"), "No such option"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_1(theory, words: tuple[str, ...], sentence: str):
    code, out, err = theory(*words)
    assert code == 1 and out == "" and sentence in err and len(err.strip().splitlines()) == 1


def test_level_sets_are_compared_with_the_exact_law(theory):
    code, out, err = theory("--level-set", "2", "0.7", "--members", "500", "--json")
    found = json.loads(out)
    assert code == 0, err
    assert list(found) == ["gradient", "projection", "walk"]
    assert all(len(row["arcs"]) == 24 and sum(row["arcs"]) == pytest.approx(1) for row in found.values())
    assert found["projection"]["evaluations"] < found["gradient"]["evaluations"] / 10
    assert all(row["residual"] <= 1e-3 and 0 <= row["tv"] <= 0.3 for row in found.values())
    code, out, _ = theory("--level-set", "2", "0.7", "--members", "200")
    assert code == 0 and "evaluations a member" in out


@pytest.mark.parametrize("words", [("2",), ("2", "1", "3"), ("0", "1"), ("9", "9"), ("nan", "1")])
def test_odd_ellipses_are_one_sentence(theory, words):
    code, _, err = theory("--level-set", *words)
    assert code == 1 and len(err.strip().splitlines()) == 1
