"""`--device`, `--dtype`, `--prior` and tasks on the command line; a GPU's memory in benchmarks; where the app draws."""

from __future__ import annotations

import json
import socket
import sys

import pytest
import torch

from benchmarks import costs
from engine.devices import DEVICE, DTYPE
from engine.errors import BlindspotError
from pages.widgets import jobs
from precompute import cli, serve
from tests.app.serving import free_port
from tests.drawable import build_drawable_atlas
from tests.engine.vision.tiny_text import tiny_clip


@pytest.fixture(scope="module")
def drawable(tmp_path_factory):
    return build_drawable_atlas(tmp_path_factory.mktemp("placement"), 24, pairs=6, models=("alpha",))


@pytest.fixture
def command(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["precompute", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        return caught.value.code, said.out, said.err.replace("\n", " ")

    return call


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--device", "cuda"), "The device cuda is asked for, which this machine lacks"),
        (("--dtype", "bfloat16"), "drawn in float32 on a CPU, not in bfloat16"),
        (("--dtype", "float16"), "not in float16"),
        (("--prior", "sd"), "has no prior 'sd': choose one of default"),
    ],
)
@pytest.mark.parametrize("name", ["sample", "gallery"])
def test_what_is_not_there_is_one_sentence(command, drawable, tmp_path, name, words, sentence):
    own = ("--concept", 2, "--out", tmp_path / "out") if name == "sample" else ("--concepts", 1)
    code, out, err = command(name, drawable, *own, *words)
    assert code == 1 and out == "" and sentence in err


def test_sample_serves_a_text_and_says_all_that_made_the_images(command, drawable, tmp_path):
    words = ("sample", drawable, "--concept", 2, "--out", tmp_path / "out", "--steps", 2, "--count", 2)
    text = ("--text", "a ring", "--text-encoder", tiny_clip(tmp_path / "clip"), "--task-weight", 2)
    code, out, err = command(*words, *text, "--device", "cpu")
    assert code == 0, err
    assert "energy-guidance: prior ../prior (latent), to fit “a ring”, on cpu in float32." in out
    assert "Mean task score" in out and "a unit was worth 2 of score" in out
    record = json.loads((tmp_path / "out" / "drawing.json").read_text())
    assert record["parameters"]["text"] == "a ring" and len(record["task_scores"]) == 2
    code, out, _ = command(*words, "--like", 0, "--by", "pixels", "--json")
    found = json.loads(out)
    assert code == 0 and found["parameters"]["by"] == "pixels" and max(found["task_scores"]) <= 0
    code, _, err = command(*words, "--text", "a ring")
    assert code == 1 and "give a CLIP or SigLIP by --text-encoder" in err


@pytest.fixture
def gpu_memory(monkeypatch):
    """A GPU's allocator, as torch reports it: 3 GB held, 5 GB at the peak of the next work."""
    heard = []
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda device, name=name: heard.append((name, str(device))))
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: heard.append(("empty_cache", "")))
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 3_000_000_000)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: 5_000_000_000)
    return heard


def test_memory_of_a_gpu_is_its_peak_above_what_was_held(gpu_memory):
    found = costs.profiler_of("cuda:1")(lambda: gpu_memory.append("work") or 7)
    assert (found.result, found.gigabytes) == (7, 2.0) and found.seconds >= 0
    assert gpu_memory.index("work") > gpu_memory.index(("reset_peak_memory_stats", "cuda:1"))
    assert gpu_memory[0] == gpu_memory[-1] == ("synchronize", "cuda:1")


def test_memory_of_a_cpu_is_the_process_s():
    found = costs.profiler_of("cpu")(lambda: torch.ones(64, 1024, 1024).sum().item())
    assert found.result == 64 * 2**20 and 0.2 < found.gigabytes < 0.4


def test_the_app_draws_where_it_is_told(monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr(serve.subprocess, "run", lambda words, **more: started.append(more["env"]) or Done())
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    (tmp_path / "atlas.json").touch()
    serve.serve(tmp_path, port=free_port(), browser=False, device="cuda:1", dtype="bfloat16")
    serve.serve(tmp_path, port=free_port(), browser=False)
    assert (started[0][DEVICE], started[0][DTYPE]) == ("cuda:1", "bfloat16")
    assert not {DEVICE, DTYPE} & set(started[1])
    monkeypatch.setenv("BLINDSPOT_RESULTS", str(tmp_path / "results"))
    asked = []
    monkeypatch.setattr(jobs, "JobQueue", lambda results, devices, alive: asked.append(devices))
    for named, expected in ((None, "auto"), ("cuda:1", "cuda:1")):
        jobs.queue.clear()
        monkeypatch.delenv(DEVICE, raising=False) if named is None else monkeypatch.setenv(DEVICE, named)
        jobs.queue()
        assert asked.pop() == (expected,)
    jobs.queue.clear()


class Done:
    """A process that ended well."""

    returncode = 0


def test_a_port_that_is_taken_is_one_sentence(tmp_path):
    (tmp_path / "atlas.json").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BlindspotError, match=f"on port {port} of 127.0.0.1: something else listens there; choose"):
            serve.serve(tmp_path, port=port, browser=False)
