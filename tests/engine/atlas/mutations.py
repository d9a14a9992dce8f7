"""Damages inputs again and again, and reads them: `mutations.py ATLAS FOLDER WHAT=COUNT...` prints one JSON document.

WHAT is atlas, recipe, image or metadata. Everything is imported once; each has a fork of this process to itself.
"""

import csv
import io
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
import numpy as np
import pandas as pd
from PIL import Image

from engine.atlas import Atlas
from engine.atlas.verify import verify
from engine.errors import BlindspotError
from engine.files import read_json
from engine.vision.preprocess import image_formats, load_image
from precompute.recipe import Folder, Limits, load_recipe
from precompute.stages.captions import TABLES
from precompute.stages.corpus import CAPTIONS, MANIFEST, SKIPPED, gather_folder, image_names, read_manifest
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
    file = path if path.is_file() else rng.choice(sorted(one for one in path.rglob("*") if one.is_file()))
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


def whole_images() -> list[bytes]:
    """Images of every format that is read here, in every mode that the format takes; some are sequences or turned."""
    values = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    found = []
    for name in sorted({*image_formats(), "TGA"} & {*Image.SAVE}):
        for mode in ("RGB", "L", "RGBA", "P", "1", "I;16", "F", "CMYK", "LA", "I"):
            image = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
            image = image if mode == "I;16" else Image.fromarray(values).convert(mode)
            options = {"exif": exif} if mode in ("L", "RGBA") else {}
            if name in ("GIF", "WEBP", "PNG", "TIFF", "AVIF") and mode == "P":
                options |= {"save_all": True, "append_images": [image] * 3}
            for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits") if name == "TIFF" else (None,):
                written = io.BytesIO()
                with suppress(OSError, ValueError, KeyError):  # a mode that the format does not have
                    image.save(written, format=name, **options, **({"compression": compression} if compression else {}))
                    found.append(written.getvalue())
    return found


def damaged_image(path: Path, rng: random.Random, images: list[bytes]) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.write_bytes(rng.choice(images))
    damage_file(path, rng)


def damaged_metadata(folder: Path, rng: random.Random) -> None:
    """A folder of images whose captions are told in any of the ways that are read, in odd encodings, and damaged."""
    (folder / "below").mkdir(parents=True)
    names = ["a.png", "b.png", "caf\u00e9.png", "below/d.png"]
    for name in names:
        Image.new("RGB", (4, 4)).save(folder / name)
    rows = [{"file_name": name, "text": rng.choice(["a cat", "\u732b", "=1+1", "e\u0301", *ODD])} for name in names]
    for _ in range(rng.choice([0, 0, 1, 3])):
        rng.choice(rows)[rng.choice(["file_name", "text", "n"])] = rng.choice(ODD)
    table = folder / rng.choice(["", "below/"]) / rng.choice(TABLES)
    encoding = rng.choice(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "shift_jis", "utf-7"])
    text = {
        ".jsonl": lambda: "\n".join(json.dumps(row, ensure_ascii=rng.random() < 0.5) for row in rows),
        ".json": lambda: json.dumps(
            rng.choice([rows, {row["text"]: 1 for row in rows if isinstance(row["text"], str)}])
        ),
        ".csv": lambda: separated(rows, ","),
        ".tsv": lambda: separated(rows, "\t"),
    }
    if table.suffix == ".parquet":
        pd.DataFrame([{key: ascii(value) for key, value in row.items()} for row in rows]).to_parquet(table)
    else:
        table.write_bytes(text[table.suffix]().encode(encoding, "replace"))
    beside = folder / rng.choice(["a.txt", "a.caption", "b.png.txt", "below/d.txt"])
    beside.write_bytes(rng.choice(["a dog", "\u732b", "\0" * 9, "x" * 10_000]).encode(encoding, "replace"))
    damage_file(rng.choice([table, table, beside]), rng)


def separated(rows: list[dict], sign: str) -> str:
    written = io.StringIO()
    writer = csv.DictWriter(written, ["file_name", "text", "n"], delimiter=sign)
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue()


def gather(source: Path, stage: Path) -> None:
    """Gather the images and captions; what is written is whole, and no image is lost without a word."""
    shutil.rmtree(stage, ignore_errors=True)
    gather_folder(Folder(folder=source), Limits(), stage, lambda done, total: None)
    assert {file.name for file in stage.iterdir()} == {MANIFEST, SKIPPED, CAPTIONS}
    assert len(read_manifest(stage)) == 4 == len(image_names(source))
    assert all(one["reason"].count("\n") == 0 for one in [*read_json(stage / SKIPPED), *read_json(stage / CAPTIONS)])


def memory(field: str) -> int:
    """Bytes of this process: `VmHWM` at the highest, `VmRSS` now. A child's `ru_maxrss` starts with its parent's."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def forked(what: str, whole: str, folder: str, count: int) -> dict:
    """What `mutate` finds in a process of its own, and the status with which that ended."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        status = 1
        try:
            with open(write, "w") as answer:
                json.dump(mutate(what, whole, folder, count), answer)
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    os.close(write)
    with open(read) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    return {"status": status} | (json.loads(text) if status == 0 else {})


def mutate(what: str, whole: str, folder: str, count: int) -> dict:
    """Damage and read one kind of input so many times."""
    # Before the limit, with which AVIF's encoder crashes.
    images = whole_images() if what == "image" else []
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, size + 2**30))
    wrong, sentences, place, before = [], 0, Path(folder) / what, memory("VmRSS")
    for seed in range(count):
        rng = random.Random(seed)
        signal.alarm(20)
        try:
            if what == "recipe":
                place.write_text(damaged_recipe(rng), encoding="utf-8")
                load_recipe(place)
            elif what == "image":
                damaged_image(place, rng, images)
                load_image(place)
            elif what == "metadata":
                shutil.rmtree(place, ignore_errors=True)
                damaged_metadata(place, rng)
                gather(place, Path(folder) / "stage")
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
        signal.alarm(0)
    grown = (memory("VmHWM") - before) >> 20
    return {"tried": count, "wrong": wrong, "sentences": sentences, "mebibytes": grown}


def main(whole: str, folder: str, *counts: str) -> None:
    asked = dict(one.split("=") for one in counts)
    print(json.dumps({what: forked(what, whole, folder, int(count)) for what, count in asked.items()}))


main(*sys.argv[1:])
