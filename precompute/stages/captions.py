"""Captions beside images, as people keep them: tables of file names and texts, or one text file per image.

Tables are `metadata` as Hugging Face's imagefolder has it (csv, jsonl, parquet; also json), or `captions` of the same
formats, in any folder; file names in them are relative to the folder of the table. Names are compared in Unicode's
NFC, in which "é" is one character. What a table does not tell is looked for in `.txt` and `.caption` files.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from unicodedata import normalize

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import BlindspotError, printable
from engine.files import visible_files

TABLES = (
    *(f"metadata.{kind}" for kind in ("jsonl", "csv", "parquet", "json", "tsv")),
    *(f"captions.{kind}" for kind in ("csv", "jsonl", "parquet", "json", "tsv")),
)
"""Looked for in this order in each folder; the first that tells a caption is the folder's."""
BESIDE = (".txt", ".caption")
"""Endings of files that hold one caption: `a.txt` or `a.png.txt` beside `a.png`."""
FILE_COLUMNS = ("file_name", "file_names", "filename", "file", "image", "image_path", "path")
CAPTION_COLUMNS = ("text", "caption", "captions", "prompt", "description", "sentence", "sentences", "raw")
MARKS = (("utf-8-sig", b"\xef\xbb\xbf"), ("utf-32", b"\xff\xfe\0\0"), ("utf-32", b"\0\0\xfe\xff"),
         ("utf-16", b"\xff\xfe"), ("utf-16", b"\xfe\xff"))  # fmt: skip
"""Encodings by the byte order mark that a file begins with."""


class UnreadCaption(NamedTuple):
    """A file with captions, or a part of it, that was not read as it stands."""

    file: str
    reason: str


class Captions(NamedTuple):
    """The captions of a folder's images."""

    texts: dict[str, str]
    """Caption by the image's relative path, for the images that have one."""
    unread: list[UnreadCaption]


def read_captions(folder: Path, images: Iterable[str]) -> dict[str, str]:
    """`find_captions`, for those who want an error.

    Raises
    ------
    BlindspotError
        If there are captions and none can be read.
    """
    found = find_captions(folder, images)
    if found.unread and not found.texts:
        raise BlindspotError(found.unread[0].reason)
    return found.texts


def find_captions(folder: Path, images: Iterable[str]) -> Captions:
    """The captions of a folder's images, and what of them cannot be read.

    Parameters
    ----------
    folder : the folder.
    images : paths of its images relative to it, with `/`.
    """
    by_name = {_key(image): image for image in images}
    stems: dict[str, str] = {}
    for name in by_name:
        stem = str(PurePosixPath(name).with_suffix(""))
        stems[stem] = "" if stem in stems else name
    files = {_key(file): folder / file for file in visible_files(folder)}
    texts: dict[str, str] = {}
    unread: list[UnreadCaption] = []
    # A table in a subfolder replaces what one above it says.
    for below in sorted({str(PurePosixPath(file).parent) for file in files}, key=lambda at: (at.count("/"), at)):
        for table in TABLES:
            path = files.get(str(PurePosixPath(below, table)))
            if path and (known := _read_table(path, PurePosixPath(below), by_name, stems, len(by_name), unread)):
                texts |= known
                break
    for name in by_name.keys() - texts.keys():
        stem = str(PurePosixPath(name).with_suffix(""))
        for beside in (files.get(start + ending) for ending in BESIDE for start in (stem, name)):
            if beside and (text := _beside(beside, unread)):
                texts[name] = text
                break
    return Captions({by_name[name]: texts[name] for name in by_name if name in texts}, sorted(unread))


def _key(name: str) -> str:
    """A path as it is compared."""
    return normalize("NFC", str(PurePosixPath(name)))


def _clean(text: str) -> str:
    """A caption on one line, with a replacement character for what is not text."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


def _beside(path: Path, unread: list[UnreadCaption]) -> str:
    """The text of a file beside an image, or an empty string."""
    try:
        text, note = decode(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        unread.append(UnreadCaption(str(path), f"The caption in {path} cannot be read: {error}."))
        return ""
    if note:
        unread.append(UnreadCaption(str(path), f"The caption in {path} {note}."))
    return _clean(text)


def decode(data: bytes) -> tuple[str, str]:
    """The text of a file in whatever encoding it is, and what is to be said of it.

    Raises
    ------
    UnicodeDecodeError
        If it is in none of UTF-8, UTF-16, UTF-32 and Windows-1252.
    """
    for encoding, mark in MARKS:
        if data.startswith(mark):
            return data.decode(encoding), ""
    for encoding, zeros in (("utf-16-le", data[1::2]), ("utf-16-be", data[::2])):
        if len(data) % 2 == 0 and 4 * zeros.count(0) > len(zeros) > 0:
            return data.decode(encoding), ""
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError:
        return data.decode("cp1252"), "is not UTF-8 and was read as Windows-1252; check its accents"


def _read_table(
    table: Path,
    below: PurePosixPath,
    by_name: Mapping[str, str],
    stems: Mapping[str, str],
    images: int,
    unread: list[UnreadCaption],
) -> dict[str, str]:
    """The captions that a table tells; what is wrong with it goes to `unread`, each kind once."""
    found: dict[str, str] = {}
    named, example, wrong = 0, "", Counter[str]()
    first: dict[str, int] = {}
    columns: dict[str, None] = {}
    try:
        rows, note = _rows(table)
        for number, row in rows:
            problem = ""
            if not isinstance(row, Mapping):
                problem = 'is not a JSON object such as {"file_name": ..., "text": ...}'
            else:
                cells = {key.strip().lower(): value for key, value in row.items() if isinstance(key, str)}
                columns |= dict.fromkeys(cells)
                names, caption = _files(cells), _caption(cells)
                if names is None or caption is None:
                    problem = "has a file name or a caption that is not text"
                    problem = _not_text(cells) or problem
                elif caption:
                    for name in names:
                        named, example = named + 1, example or name
                        if image := _image(name, below, table.parent, by_name, stems):
                            found[image] = caption
            if problem:
                wrong[problem] += 1
                first.setdefault(problem, number)
    except (OSError, ValueError, RecursionError, csv.Error, pa.ArrowException) as error:
        reason = f"The captions in {table} cannot be read: {' '.join(str(error).split())}."
        unread.append(UnreadCaption(str(table), printable(reason)))
        return found
    said = [f"{table} {note}."] if note else []
    for problem, times in wrong.items():
        more = f", and so are {times - 1} more" if times > 1 else ""
        said.append(f"{table} line {first[problem]} {problem}{more}.")
    for wanted in (FILE_COLUMNS, CAPTION_COLUMNS):
        if columns and not any(_is(column, wanted) for column in columns):
            said = [f"{table} has the columns {', '.join(columns)}, but needs one of "
                    f"{', '.join(wanted)}."]  # fmt: skip
            break
    if named and images and not found:
        said.append(
            f"{table} names {named} files, but none of the {images} images in {table.parent} is among them (for "
            f"example '{example}'); its file names must be relative to the folder."
        )
    unread += [UnreadCaption(str(table), printable(reason)) for reason in said]
    return found


def _rows(table: Path) -> tuple[Iterable[tuple[int, Any]], str]:
    """The rows of a table with their line numbers, and what is to be said of its encoding."""
    if table.suffix == ".parquet":
        with pq.ParquetFile(table) as file:
            # Only the path of an image column: its other part is the image.
            wanted = [
                f"{field.name}.path" if pa.types.is_struct(field.type) and field.type.get_field_index("path") >= 0
                else field.name
                for field in file.schema_arrow
                if _is(field.name.strip().lower(), (*FILE_COLUMNS, *CAPTION_COLUMNS)) or len(file.schema_arrow) < 20
            ]  # fmt: skip
            return list(enumerate(file.read(columns=wanted).to_pylist(), start=1)), ""
    text, note = decode(table.read_bytes())
    if not text.strip():
        raise ValueError("it is empty")
    if table.suffix in (".csv", ".tsv"):
        head = text[: text.find("\n")] if "\n" in text else text
        delimiter = max(",;\t", key=lambda sign: (head.count(sign), sign == ","))
        return enumerate(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter), start=2), note
    if table.suffix == ".json":
        return enumerate(_records(json.loads(text)), start=1), note
    lines = ((number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip())
    return ((number, _parsed(line)) for number, line in lines), note


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _records(document: Any) -> Iterator[Any]:
    """The rows of a JSON document: a list of them, a mapping by file name, or COCO's images and annotations."""
    if isinstance(document, list):
        yield from document
    elif isinstance(document, dict) and isinstance(document.get("annotations"), list):
        images = document.get("images")
        rows = images if isinstance(images, list) else []
        by_id = {str(one.get("id")): one for one in rows if isinstance(one, dict)}
        for one in document["annotations"]:
            yield {**by_id.get(str(one.get("image_id")), {}), **one} if isinstance(one, dict) else one
    elif isinstance(document, dict):
        inner = [
            value for value in document.values() if isinstance(value, list) and value and isinstance(value[0], dict)
        ]
        if len(inner) == 1 and not _files({key.lower(): value for key, value in document.items()}):
            yield from inner[0]
        else:
            for name, value in document.items():
                yield {**value, "file_name": name} if isinstance(value, dict) else {"file_name": name, "text": value}
    else:
        yield document


def _is(column: str, names: tuple[str, ...]) -> bool:
    """Whether a column is one of these, or one for a kind of them, such as `edited_file_name` or `blip_caption`."""
    ends = ("_file_name", "_file_names") if names is FILE_COLUMNS else ("_caption", "_text", "_prompt")
    return column in names or column.endswith(ends)


def _files(cells: Mapping[str, Any]) -> list[str] | None:
    """The files that a row names; None if it has such a column and no text in it."""
    plain = [cells[name] for name in FILE_COLUMNS if cells.get(name) is not None][:1]
    values = plain or [value for name, value in cells.items() if _is(name, FILE_COLUMNS) and value is not None]
    values = [value for one in values for value in (one if isinstance(one, list) else [one])]
    values = [value.get("path") if isinstance(value, Mapping) else value for value in values]
    return None if not all(isinstance(value, str) for value in values) else values


def _caption(cells: Mapping[str, Any]) -> str | None:
    """A row's caption, empty if it has none; None if what it has is not text."""
    named = [name for name in CAPTION_COLUMNS if name in cells]
    named += [name for name in cells if name not in named and _is(name, CAPTION_COLUMNS)]
    wrong = False
    for value in (cells[name] for name in named):
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, Mapping):
                one = _caption({str(key).lower(): inner for key, inner in one.items()})
            if isinstance(one, str) and (text := _clean(one)):
                return text
            wrong |= one is not None and not isinstance(one, str)
    return None if wrong else ""


def _not_text(cells: Mapping[str, Any]) -> str:
    file = next((name for name in cells if _is(name, FILE_COLUMNS)), "file_name")
    caption = next(
        (name for name in (*CAPTION_COLUMNS, *cells) if name in cells and _is(name, CAPTION_COLUMNS)), "text"
    )
    return f"must give '{file}' and '{caption}' as text"


def _image(
    name: str, below: PurePosixPath, folder: Path, by_name: Mapping[str, str], stems: Mapping[str, str]
) -> str | None:
    """The image that a table in `below` calls `name`: its path, from the table's folder on, or without the ending."""
    name = normalize("NFC", name.strip().replace("\\", "/"))
    top = normalize("NFC", folder.as_posix()) + "/"
    parts: list[str] = []
    for part in PurePosixPath(below, name.removeprefix(top)).parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    key = "/".join(parts)
    return key if key in by_name else stems.get(key) or None
