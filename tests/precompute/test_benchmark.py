"""`python -m precompute benchmark`: lists the benchmarks and hands everything after a name to that one."""

from __future__ import annotations

from importlib import import_module

import pytest

from precompute.benchmark import NAMES


@pytest.mark.parametrize("words", [(), ("--help",)])
def test_without_a_name_all_are_listed_with_what_they_ask(run_command, words):
    code, out, err = run_command("benchmark", *words)
    assert code == 0 and err == "" and "planted     Are the planted blindspots found?" in out
    assert [line.split()[0] for line in out.splitlines()[2:]] == list(NAMES)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"click", "dictionary"}))
def test_every_benchmark_can_be_run(name):
    assert callable(import_module(f"benchmarks.{name}").main)


def test_options_after_the_name_are_the_benchmarks_own(run_command):
    code, out, _ = run_command("benchmark", "planted", "--help")
    assert code == 0 and "--estimator" in out


def test_an_unknown_name_is_one_sentence(run_command):
    code, out, err = run_command("benchmark", "speed")
    assert code == 1 and out == "" and "There is no benchmark 'speed': choose among adm, " in err
