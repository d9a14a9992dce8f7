"""Starts the real app on a free port and a real browser beside it, for browser tests and for the click benchmark."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    # WebGL stays in software; pages are painted by the CPU at once, not by a simulated GPU.
    "--disable-gpu-rasterization",
    "--disable-gpu-compositing",
)
ARTIFACTS = ROOT / "tests" / "artifacts"
START_SECONDS = 180


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(
    atlas: Path, results: Path, variables: Mapping[str, str] | None = None, by_command: bool = False
) -> Iterator[str]:
    """Run ``streamlit run app.py -- ATLAS``, or the command `app`, with more `variables`, and give its address."""
    port = free_port()
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port),
               "--server.address", "127.0.0.1", "--", str(atlas)]  # fmt: skip
    if by_command:
        command = [sys.executable, "-m", "precompute", "app", str(atlas), "--port", str(port), "--no-browser"]
    environment = {
        "OMP_NUM_THREADS": "1",
        "STREAMLIT_SERVER_FILE_WATCHER_TYPE": "none",
        **os.environ,
        **(variables or {}),
    }
    environment["BLINDSPOT_RESULTS"] = str(results)
    log = results / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(address, process, log)
            yield address
        finally:
            process.terminate()
            process.wait(60)


def _wait(address: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"The app ended before it was ready: {log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=10):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"The app was not ready after {START_SECONDS} s: {log.read_text()[-2000:]}")


@contextmanager
def chromium() -> Iterator[object]:
    """Give a headless Chromium with software WebGL."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(CHROMIUM))
        try:
            yield browser
        finally:
            browser.close()


def foreign(urls: list[str], address: str) -> list[str]:
    """Return those of the addresses that a browser asked which are not the app's own."""
    own = urlsplit(address).netloc
    return [url for url in urls if urlsplit(url).netloc != own and not url.startswith(("data:", "blob:"))]


def visit(page: object, address: str) -> None:
    """Open a page and wait for it; where the app is open, as a link within it does, so that it is loaded once."""
    if not page.evaluate("(address) => 'blindspotVisit' in window && address.startsWith(location.origin)", address):
        page.goto(address)
        settled(page)
        return
    page.evaluate(
        """([address, patience]) => new Promise((resolve) => {
            const begun = new MutationObserver(() => { begun.disconnect(); resolve(); });
            begun.observe(document.querySelector("[data-testid=stApp]"),
                          { attributes: true, attributeFilter: ["data-test-script-state"] });
            setTimeout(resolve, patience);
            window.blindspotVisit(address);
        })""",
        [address, 10_000],
    )
    settled(page)


def wait_for_map(page: object, timeout: float = 90_000) -> None:
    """Wait until the concept map is drawn and restyled, and what stands above it is there and moves it no more."""
    page.wait_for_selector(".st-key-map .ba-plot[data-ready]", timeout=timeout)
    settled(page, timeout)


def settled(page: object, timeout: float = 120_000) -> None:
    """Wait until the page's script has run and its figures and images are there."""
    page.wait_for_function(
        """() => document.querySelector("[data-testid=stApp]")?.dataset.testScriptState === "notRunning"
                 && document.querySelector("h1, h2, .ba-plot")
                 && [...document.querySelectorAll(".ba-plot")].every((plot) => plot.dataset.ready)
                 && [...document.images].every((image) => image.complete || image.loading === "lazy")""",
        polling=100,
        timeout=timeout,
    )
    page.wait_for_timeout(200)


def point(page: object, concept: int, subplot: str = ".st-key-map") -> tuple[float, float]:
    """Return where on the screen a concept's dot is, from plotly's own axes."""
    where = page.evaluate(
        """([subplot, concept]) => {
            const gd = document.querySelector(`${subplot} .ba-gd`), index = gd.concepts.indexOf(concept);
            const { xaxis, yaxis, _size } = gd._fullLayout, box = gd.getBoundingClientRect();
            return [box.left + xaxis._offset + xaxis.l2p(gd.arrays[0].x[index]),
                    box.top + yaxis._offset + yaxis.l2p(gd.arrays[0].y[index])];
        }""",
        [subplot, concept],
    )
    return where[0], where[1]
