"""Damages an atlas or a recipe again and again, and reads it: `mutations.py atlas|recipe ATLAS FOLDER COUNT`."""

import json
import os
import random
import resource
import shutil
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import faiss  # noqa: F401  (its memory is not the damaged atlas's)

from engine.atlas import Atlas
from engine.atlas.verify import verify
from engine.errors import BlindspotError
from precompute.recipe import load_recipe
from tests.engine.atlas.test_verify import reseal

RECIPE = """name: fuzz
real: {folder: photos}
models: {mine: {folder: generated, pairing: stem}, drawn: {pipeline: someone/model, steps: 20, guidance: 7.5}}
encoder: {id: facebook/dinov2-base, batch: 4}
dictionary: {concepts: 64, sparsity: 4}
delta: {estimator: gap, temperature: 0.8}
limits: {images: 10}
"""
ODD = [
    None, True, -1, 0, 2**31 - 1, 2**31, 2**63, 10**400, float("inf"), float("nan"), "", "x" * 10_000, "../../x",
    "/etc", "\x00", "\ud800", [], {}, [[]], [0, -1], {"a": {"b": []}}, "10000000000", -0.5,
]  # fmt: skip
ODD_YAML = [
    ".nan", "1.0e+400", "9" * 4400, "-5", "!!python/object:os.system x", "!!binary xx", "2024-02-31", "*a", "&a [*a]",
    "? [1]", "[" * 1200, "{" * 1200, '"\\ud800"', '"\\0"', "~nobody-here/x", "1: 2", "!!set {a}", "!!int x", "\t", "'",
    "&a [&b [1,1,1,1,1,1,1,1,1],*b,*b,*b,*b,*b,*b,*b]", "0x" + "f" * 40, "/", "../..", "!!timestamp x", "<<: 5",
]  # fmt: skip


def damage_header(path: Path, rng: random.Random) -> None:
    document = json.loads((path / "atlas.json").read_text())
    block = document
    while True:
        key = rng.choice(list(block) if isinstance(block, dict) else range(len(block)))
        if not isinstance(block[key], dict | list) or not block[key] or rng.random() < 0.4:
            break
        block = block[key]
    block[key] = rng.choice(ODD)
    (path / "atlas.json").write_text(json.dumps(document))


def damage_file(path: Path, rng: random.Random) -> None:
    file = rng.choice(sorted(one for one in path.rglob("*") if one.is_file()))
    content = bytearray(file.read_bytes())
    kind = rng.choice(["flip", "flip", "flip", "head", "cut", "empty", "link", "pipe", "folder", "device", "grow"])
    if kind in ("link", "pipe", "folder", "device"):
        file.unlink()
        if kind == "pipe":
            os.mkfifo(file)
        elif kind == "folder":
            file.mkdir()
        else:
            file.symlink_to("/etc/passwd" if kind == "link" else "/dev/zero")
        return
    if kind in ("flip", "head"):
        for _ in range(rng.choice([1, 4, 64])):
            content[rng.randrange(len(content) if kind == "flip" else min(len(content), 100))] = rng.randrange(256)
    elif kind == "grow":
        content += bytes(rng.randrange(1, 5000))
    else:
        del content[rng.randrange(len(content)) if kind == "cut" else 0 :]
    file.write_bytes(content)


def use(path: Path) -> int:
    """Ask for everything; return the number of sentences."""
    verify(path)
    atlas = Atlas.open(path)
    model = (atlas.models or ["none"])[0]
    asked = [
        lambda: atlas.concepts, lambda: atlas.images, lambda: atlas.delta(model), lambda: atlas.exemplars("real", 0),
        lambda: atlas.heatmap(0, 1), lambda: atlas.image(0), lambda: atlas.nearest_images(0), lambda: atlas.labels(),
        lambda: atlas.neighbours(0), lambda: atlas.search("a"), lambda: atlas.codes("real").rows(0, 50),
        lambda: atlas.counterparts(0), lambda: atlas.dictionary_report(), lambda: atlas.gallery(),
        lambda: atlas.frequency(), lambda: atlas.energy(model),
    ]  # fmt: skip
    sentences = 0
    for one in asked:
        try:
            one()
        except BlindspotError:
            sentences += 1
    return sentences


def damaged_recipe(rng: random.Random) -> str:
    lines = RECIPE.splitlines()
    at = rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            key = lines[at].split(":")[0]
            lines[at] = f"{key}: {rng.choice(ODD_YAML)}"
        case 1:
            lines.insert(at, rng.choice(ODD_YAML))
        case 2:
            values = lines[at].split(": ")
            values[-1] = rng.choice(ODD_YAML) + "}" * values[-1].count("}")
            lines[at] = ": ".join(values)
        case _:
            text = list("\n".join(lines))
            for _ in range(rng.choice([1, 3, 10])):
                text[rng.randrange(len(text))] = chr(rng.randrange(1, 300))
            return "".join(text)
    return "\n".join(lines)


def main(what: str, whole: str, folder: str, count: str) -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, size + 2**30))
    wrong, sentences, place = [], 0, Path(folder) / what
    for seed in range(int(count)):
        rng = random.Random(seed)
        signal.alarm(20)
        try:
            if what == "recipe":
                place.write_text(damaged_recipe(rng), encoding="utf-8")
                load_recipe(place)
            else:
                shutil.rmtree(place, ignore_errors=True)
                shutil.copytree(whole, place)
                for _ in range(rng.choice([1, 1, 3])):
                    (damage_header if rng.random() < 0.35 else damage_file)(place, rng)
                if rng.random() < 0.7 and (place / "atlas.json").is_file():
                    with suppress(ValueError, TypeError):  # of a header that is damaged
                        reseal(place)
                sentences += use(place) > 0
        except BlindspotError as error:
            sentences += 1
            if "\n" in str(error).strip() or len(str(error)) > 1000:
                wrong.append(f"{seed}: {str(error)[:300]}")
        except BaseException:
            wrong.append(f"{seed}: {traceback.format_exc()[-1200:]}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"tried": int(count), "wrong": wrong, "sentences": sentences, "mebibytes": peak}))


main(*sys.argv[1:])
