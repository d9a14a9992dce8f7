"""Opens the app on an atlas: the command `app`.

Streamlit runs in a process of its own; this module only chooses its address and opens the browser.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from engine.atlas.schema import HEADER
from engine.devices import DEVICE, DTYPE, drawing_placement
from engine.errors import BlindspotError
from engine.files import DATA

ROOT = Path(__file__).resolve().parents[1]
DEMO_ATLAS = DATA / "demo" / "atlas"
START_SECONDS = 60
EVERYWHERE = ("0.0.0.0", "::")
"""Addresses to listen on that are no addresses to visit."""

AtlasPlace = Annotated[
    str | None,
    typer.Argument(
        help="Folder of an atlas, or of several; or the address of a published one (hf://OWNER/NAME, https://...), "
        "which is fetched first.",
        show_default="the demo atlas",
    ),
]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")]
Port = Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)]
Browser = Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser when the app is ready.")]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device", help="Where Generate draws: auto (the first CUDA GPU, or else the CPU), cpu, cuda, cuda:1."
    ),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype", help="Precision of encoder and prior on a GPU: float32 or bfloat16.", show_default="float32"
    ),
]


def serve(
    atlas: AtlasPlace = None,
    host: Host = "127.0.0.1",
    port: Port = 8501,
    browser: Browser = True,
    device: DeviceOption = "auto",
    dtype: DtypeOption = None,
) -> None:
    """Open the app on an atlas in the browser; Ctrl-C ends it."""
    if device != "auto" or dtype:
        drawing_placement(device, dtype)  # now, not when the first image is asked for
    if atlas and "://" in str(atlas):
        from precompute.sharing.commands import bring

        folder = bring(str(atlas)).absolute()
    else:
        folder = Path(atlas or DEMO_ATLAS).expanduser().absolute()
    if not (folder / HEADER).is_file() and not any(folder.glob(f"*/{HEADER}")):
        raise BlindspotError(
            f"There is no atlas at {folder}: give the folder that holds {HEADER}, or one whose folders do."
        )
    _require_free(host, port)
    shown = "localhost" if host in EVERYWHERE else host
    if browser and _has_display():
        threading.Thread(target=_open_when_ready, args=(f"http://{shown}:{port}",), daemon=True).start()
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app.py"), "--server.address", host,
               "--server.port", str(port), "--browser.serverAddress", shown, "--", str(folder)]  # fmt: skip
    try:
        done = subprocess.run(command, cwd=DATA.parent, env=_environment(device, dtype))
    except KeyboardInterrupt:
        return
    if done.returncode:
        raise BlindspotError(f"The app ended with code {done.returncode}: see above, or choose another --port.")


def _require_free(host: str, port: int) -> None:
    """Raise `BlindspotError` where nothing can listen: said before the app's own message, which names no remedy."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family):
            pass
    except OSError as error:
        reason = "something else listens there" if error.errno == errno.EADDRINUSE else error.strerror or error
        raise BlindspotError(
            f"The app cannot listen on port {port} of {host}: {reason}; choose another --port."
        ) from error


def open_demo(host: Host = "127.0.0.1", port: Port = 8501, browser: Browser = True) -> None:
    """Open the app on the bundled demo atlas."""
    serve(None, host, port, browser)


def _environment(device: str, dtype: str | None) -> dict[str, str]:
    """The app's environment, with what was asked for of its device."""
    asked = {DEVICE: None if device == "auto" else device, DTYPE: dtype}
    return {**os.environ, **{name: value for name, value in asked.items() if value}}


def _has_display() -> bool:
    """Whether a browser could show itself: always on macOS and Windows, with a display elsewhere."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _open_when_ready(address: str) -> None:
    """Open the browser once the server answers."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=1):
                webbrowser.open(address)
                return
        except OSError:
            time.sleep(0.3)
