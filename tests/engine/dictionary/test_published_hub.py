"""Fetching from the Hugging Face hub: the real client, against a hub on this machine, in a process of its own."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlparse

import pytest
import torch
from safetensors.torch import save

from engine.dictionary.published.reading import files_of_one
from engine.errors import BlindspotError

ROOT = Path(__file__).parents[3]
COMMIT = "0123456789" * 4
DIM, CONCEPTS, K = 4, 9, 2
LARGE = 16 * 2**20
CODE = """
import sys
from engine.dictionary.published import read_published
from engine.errors import BlindspotError
for src in sys.argv[1:]:
    try: print(read_published(src)[0].dictionary.settings())
    except BlindspotError as error: print(error)
"""


def files() -> dict[str, bytes]:
    """A repository with a dictionary in a folder, and things beside it that nobody asked for."""
    tensors = {"encoder.weight": torch.randn(CONCEPTS, DIM), "encoder.bias": torch.randn(CONCEPTS)}
    tensors |= {"W_dec": torch.randn(CONCEPTS, DIM), "b_dec": torch.randn(DIM)}
    described = json.dumps({"d_in": DIM, "k": K}).encode()
    return {"README.md": b"hello", "code.py": b"raise SystemExit", "layer/optimizer.pt": b"large"} | {
        "layer/cfg.json": described,
        "layer/sae.safetensors": save(tensors),
        "plain/cfg.json": described + b" ",  # files of equal content are fetched once
        "plain/sae.pt": saved(tensors),
        "trapped/sae.pth": saved({"large": torch.zeros(LARGE, dtype=torch.uint8), "args": argparse.Namespace()}),
    }


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


class Hub(BaseHTTPRequestHandler):
    """The three answers of the hub that the client needs: a repository, its tree, and a file."""

    content: dict[str, bytes]
    fetched: list[str]
    peeked: list[int]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlparse(self.path).path
        if path.startswith("/api/models/owner/name/tree/"):
            self._json([{"type": "file", "path": f, "size": len(c), "oid": _tag(c)} for f, c in self.content.items()])
        elif path.startswith("/api/models/owner/name"):
            self._json({"id": "owner/name", "sha": COMMIT, "siblings": [{"rfilename": f} for f in self.content]})
        elif path.startswith("/owner/name/resolve/") and (name := path.split("/", 5)[5]) in self.content:
            self._file(name, self.headers.get("Range"))
        else:
            self._answer(b"", 404, **{"X-Error-Code": "RepoNotFound"})

    def _file(self, name: str, asked: str | None) -> None:
        content, headers = self.content[name], {"ETag": f'"{_tag(self.content[name])}"', "X-Repo-Commit": COMMIT}
        if asked:
            first, last = (int(end) for end in asked.removeprefix("bytes=").split("-"))
            self.peeked.append(last - first + 1)
            self._answer(content[first : last + 1], 206, **headers)
            return
        if self.command == "GET":
            self.fetched.append(name)
        self._answer(content, **headers)

    def _json(self, document: object) -> None:
        self._answer(json.dumps(document).encode(), **{"Content-Type": "application/json"})

    def _answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def _tag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    """Address of the hub, and what was fetched from it: names of whole files, and bytes of parts."""
    handler = type("Handler", (Hub,), {"content": files(), "fetched": [], "peeked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def ask(folder: Path, *srcs: str, **environment: str) -> list[str]:
    """What importing each of these says, in a new process with a cache of its own."""
    patient = {"HF_HUB_ETAG_TIMEOUT": "120", "HF_HUB_DOWNLOAD_TIMEOUT": "120", "HF_HUB_DISABLE_XET": "1"}
    new = {**os.environ, **patient, "HF_HOME": str(folder), "HF_HUB_OFFLINE": "0", **environment}
    done = subprocess.run([sys.executable, "-c", CODE, *srcs], cwd=ROOT, env=new, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_one_dictionary_is_fetched_and_later_opened_offline(tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    endpoint, handler = hub
    settings = str({"dim": DIM, "concepts": CONCEPTS, "sparsity": K})
    srcs = ("owner/name/layer", "owner/name/layer/sae.safetensors@main", "owner/absent", "owner/name/plain/sae.pt@main")
    opened, named, absent, pickled, trapped = ask(tmp_path, *srcs, "owner/name/trapped", HF_ENDPOINT=endpoint)
    assert opened == named == pickled == settings
    assert absent.startswith("owner/absent is not on this machine and could not be fetched")
    assert trapped.startswith("owner/name/trapped/sae.pth is a pickle of objects (argparse.Namespace), which could run")
    assert sorted(handler.fetched) == ["layer/cfg.json", "layer/sae.safetensors", "plain/cfg.json", "plain/sae.pt"]
    assert 0 < sum(handler.peeked) < LARGE / 2
    again, unknown = ask(tmp_path, "owner/name/layer", "owner/other", HF_HUB_OFFLINE="1")
    assert again == settings and unknown.startswith("owner/other is not on this machine")


def test_of_a_repository_one_dictionary_is_chosen_safetensors_first() -> None:
    listed = ["README.md", "config.json", "ra_sae.py", "sae.pth", "model.safetensors", "layer_1/cfg.json"]
    listed += ["layer_1/sae.safetensors", "layer_1/optimizer.bin"]
    assert files_of_one(listed, "", "o/r") == ["model.safetensors", "config.json"]
    assert files_of_one(listed, "sae.pth", "o/r") == ["sae.pth", "config.json"]
    assert files_of_one(listed, "layer_1", "o/r") == ["layer_1/sae.safetensors", "layer_1/cfg.json"]
    with pytest.raises(BlindspotError, match="no folder or file layer_2"):
        files_of_one(listed, "layer_2", "o/r/layer_2")
