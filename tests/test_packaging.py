"""The project as others install it: one list of requirements, locked files, a console script that finds the demo."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import tomllib
import urllib.request

import pytest

from tests.app.serving import ROOT, free_port
from tests.requirements import UNLOCKED, wanted

LOCKS = {"requirements.lock": "requirements.txt", "requirements-dev.lock": "requirements-dev.txt"}


def test_the_requirement_files_say_what_pyproject_says():
    for name, text in wanted().items():
        assert (ROOT / name).read_text() == text, f"{name} is old: run `make lock`"


@pytest.mark.parametrize(("lock", "source"), LOCKS.items())
def test_every_locked_requirement_has_a_version_and_hashes(lock: str, source: str):
    blocks = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / lock).read_text().split("\n", 1)[1].strip())
    assert all("==" in block.split("\n")[0] and "--hash=sha256:" in block for block in blocks)
    locked = {_name(block) for block in blocks}
    named = {_name(line) for line in wanted()[source].splitlines() if line and line[0] not in "#-"}
    assert {name for name in named if not UNLOCKED.match(name)} <= locked


def test_the_lock_of_the_app_is_part_of_the_lock_of_the_tests():
    app, tests = ((ROOT / lock).read_text() for lock in LOCKS)
    pins = re.compile(r"^([A-Za-z0-9._-]+==\S+)", re.MULTILINE)
    assert set(pins.findall(app)) <= set(pins.findall(tests))


def test_no_file_of_the_project_names_the_host_of_a_registry():
    hosts = ("py" + "pi.org", "pythonhosted" + ".org", "registry.npm" + "js.org", "deb.debian" + ".org")
    found = subprocess.run(["git", "grep", "-lE", "|".join(hosts)], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == ""


def test_the_wheel_holds_every_package_that_the_app_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    for package in wheel["packages"]:
        assert (ROOT / package / "__init__.py").is_file()
    assert all((ROOT / source).exists() for source in (*wheel["force-include"], *wheel["shared-data"]))
    module, function = project["project"]["scripts"]["blindspot-atlas"].split(":")
    code = f"import {module} as module; assert callable(module.{function})"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.slow
def test_the_console_script_opens_the_demo_from_any_folder(tmp_path):
    port = free_port()
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from precompute.__main__ import console; console()"
    command = [sys.executable, "-c", code, "demo", "--port", str(port), "--no-browser"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert _answers(f"http://127.0.0.1:{port}/_stcore/health", 60)
    finally:
        process.terminate()
        process.wait(10)


def test_an_atlas_that_is_not_there_is_one_sentence(tmp_path):
    command = [sys.executable, "-m", "precompute", "app", str(tmp_path / "nothing")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "There is no atlas at" in done.stderr and "Traceback" not in done.stderr


def _name(line: str) -> str:
    return re.split(r"[\[<>=;! ]", line)[0].lower().replace("_", "-").replace(".", "-")


def _answers(address: str, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=1) as response:
                return response.status == 200
        except OSError:
            time.sleep(0.3)
    return False
