"""Files that hold the captions of many clips: `captions.txt`, JSON lines, and the metadata of length extension."""

from __future__ import annotations

import itertools
import json
import os.path
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ...wan.errors import UserError
from ...wan.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES

LIST_NAME = "captions.txt"
LIST_SUFFIXES = (".jsonl", ".json")
FILE_KEYS = ("file_name", "file", "video", "video_path", "image_path", "media_path", "path")
CAPTION_KEYS = ("caption", "text", "prompt")
EXTENSION_KEYS = ("negative_prompt", "base_frames", "extended_frames")
"""What rows for length extension hold beside the prompt, by which they are known; its file may be `video_id`."""
MAX_BYTES = 64 << 20
MAX_NAME, MAX_SEPARATORS = 4096, 64
"""A name in a line is looked for in so many characters and up to so many separators: the longest path of Linux."""
_HALF = re.compile("[\ud800-\udfff]")
_SEPARATOR = re.compile(r"[\t:|,]")


@dataclass
class CaptionList:
    """What one file says. `refusal`: why it cannot be used as a whole; then there are no texts."""

    path: Path
    texts: dict[Path, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    """Names in it that are no file."""
    outside: list[str] = field(default_factory=list)
    """Names in it that leave the dataset folder: they are not looked at."""
    twice: list[str] = field(default_factory=list)
    """Names that it gives another caption for; the first one counts."""
    notes: list[str] = field(default_factory=list)
    refusal: UserError | None = None

    def add(self, name: str, text: str, names: MediaNames) -> None:
        """A caption as written; the first one of a file stays."""
        inside = names.inside(self.path.parent, name)
        paths = names.find(inside)
        if not paths:
            (self.missing if inside else self.outside).append(name.strip())
        for path in paths:
            if self.texts.setdefault(path, one_line(text)) != one_line(text):
                self.twice.append(path.name)


class MediaNames:
    """The media files below a folder by the names that lists use for them. Nothing outside is ever looked at."""

    def __init__(self, folder: Path, media: Iterable[Path]) -> None:
        self._folder = folder
        self.by_name: dict[str, Path] = {}
        self.by_stem: dict[str, list[Path]] = defaultdict(list)
        self.by_folder: dict[Path, list[Path]] = defaultdict(list)
        self._names: dict[str, set[str]] = defaultdict(set)
        self._stems: dict[str, set[str]] = defaultdict(set)
        for path in media:
            name = path.relative_to(folder).as_posix()
            self.by_name[name] = path
            stem = name[: -len(path.suffix)]
            self.by_stem[stem].append(path)
            self._names[folded(name)].add(name)
            self._stems[folded(stem)].add(stem)
            self.by_folder[path.parent].append(path)

    def inside(self, base: Path, name: str) -> str | None:
        """`name`, as written in a list that lies in `base`, relative to the folder; None if it lies outside."""
        plain = name.strip().strip("\"'").replace("\\", "/")
        if plain.startswith("/") or re.match("[A-Za-z]:/", plain):
            roots = (self._folder.absolute().as_posix(), self._folder.resolve().as_posix())
            root = next((r for r in roots if plain.startswith(f"{r}/")), None)
            whole = plain[len(root) + 1 :] if root else "../"
        else:
            whole = f"{base.relative_to(self._folder).as_posix()}/{plain}"
        whole = os.path.normpath(whole).replace("\\", "/")
        return None if whole == ".." or whole.startswith("../") else whole

    def find(self, name: str | None) -> list[Path]:
        """The file of this name, or those that have it without their suffix: a film and a picture share a caption.

        Where there are none, the only one whose name differs in capitals or in the encoding of accents.
        """
        if name is None:
            return []
        return next((paths for look in self.ways() if (paths := look(name))), [])

    def ways(self) -> tuple[Callable[[str], list[Path]], ...]:
        """How a name is looked up, the surest first."""
        return (
            lambda name: [self.by_name[name]] if name in self.by_name else [],
            lambda name: self.by_stem.get(name, []),
            lambda name: [self.by_name[only] for only in _only(self._names, name)],
            lambda name: [path for only in _only(self._stems, name) for path in self.by_stem[only]],
        )


def _only(names: dict[str, set[str]], name: str) -> set[str]:
    found = names.get(folded(name), set())
    return found if len(found) == 1 else set()


def read_list(path: Path, names: MediaNames, chosen: Sequence[Path]) -> CaptionList:
    """Reads one of the files. `chosen` are the media files that will be read, in order."""
    found = CaptionList(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(
                f"{path.name} is larger than {MAX_BYTES >> 20} MiB.",
                "Captions of 100,000 clips need less.",
                "Split it, or move it out of the dataset folder.",
            )
        text = utf8_text(path)
        if path.name.lower() == LIST_NAME:
            _read_lines(found, text.split("\n"), names, chosen)
        else:
            _read_rows(found, _rows(path, text), names)
    except UserError as error:
        return CaptionList(path, refusal=error)
    except OSError as error:
        return CaptionList(path, refusal=_closed(path, error))
    return found


def _closed(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path.name} cannot be read ({error.strerror or error}).",
        "It is a text file that ComfyUI may read.",
        "Allow reading it, or move it out of the dataset folder.",
    )


def utf8_text(path: Path) -> str:
    """The text of a caption file. Raises `UserError` when it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path.name} is not UTF-8 text ({error}).",
            "Captions are plain UTF-8.",
            "Save it as UTF-8.",
        ) from error


def one_line(text: str) -> str:
    """Without line ends, and without halves of characters, which JSON can hold and no other text."""
    return " ".join(_HALF.sub("\ufffd", text).split())


def printable(text: str) -> str:
    """`text` that can be sent and written: bytes in file names that are no text become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def folded(name: str) -> str:
    """Equal for names that differ only in capitals or in how letters with accents are encoded."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _read_lines(
    found: CaptionList, lines: Sequence[str], names: MediaNames, chosen: Sequence[Path]
) -> None:
    base, plain, named = found.path.parent, [], 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, text = _named(line, base, names)
        if name is None:
            plain.append((number, line))
        else:
            named += 1
            found.add(name, text, names)
    if plain and named:
        number, line = plain[0]
        raise UserError(
            f"Line {number} of {found.path.name} names no file of its folder: {line.strip()[:60]!r}.",
            f"{named} other lines do, and then each line is a file and its caption: a.mp4: A red field.",
            "Put the file's name before it, or take the line out.",
        )
    if plain:
        texts = [one_line(line) for _, line in plain]
        found.texts = _in_order(found.path, texts, names, chosen)
        found.notes.append(
            f"{found.path.name} names no files: its {len(texts)} lines are the captions of the files in the order "
            "of their names."
        )


def _in_order(
    path: Path, texts: list[str], names: MediaNames, chosen: Sequence[Path]
) -> dict[Path, str]:
    every = names.by_folder[path.parent]
    read = [media for media in chosen if media.parent == path.parent]
    for files in (read, every):
        if files and len(files) == len(texts):
            return dict(zip(files, texts, strict=True))
    raise UserError(
        f"{path.name} has {len(texts)} captions without file names, and beside it lie {len(every)} files.",
        "Lines without names are taken in the order of the files, if there are as many.",
        "Put the file's name before each line: a.mp4: A red field.",
    )


def _named(line: str, base: Path, names: MediaNames) -> tuple[str | None, str]:
    """(the file that `line` begins with, the rest), or (None, ...) if it names none."""
    matches = itertools.islice(_SEPARATOR.finditer(line, 0, MAX_NAME), MAX_SEPARATORS)
    ends = [(line[: match.start()], match.end()) for match in matches]
    inside = [(name, end, names.inside(base, name)) for name, end in ends]
    for look in names.ways():  # a whole name anywhere is surer than a stem
        for name, end, place in inside:
            if place is not None and look(place):
                return name, line[end:]
    for name, end in ends:
        if PurePosixPath(name.strip()).suffix.lower() in VIDEO_SUFFIXES + IMAGE_SUFFIXES:
            return name, line[end:]
    return None, line


def _rows(path: Path, text: str) -> list[Any]:
    """The rows of a JSON or JSON-lines file; none of a JSON file that lists nothing of the kind."""
    if path.suffix.lower() == ".jsonl":
        lines = enumerate(text.split("\n"), 1)
        return [_json(line, f"Line {n} of {path.name}") for n, line in lines if line.strip()]
    whole = _json(text, path.name)
    rows = whole if isinstance(whole, list) else []
    return rows if any(isinstance(row, dict) for row in rows) else []


def _json(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where} is not JSON ({error}).",
            'A row is for example {"file": "a.mp4", "caption": "A red field."}.',
            "Mend it, or move it out of the dataset folder.",
        ) from error


def _read_rows(found: CaptionList, rows: list[Any], names: MediaNames) -> None:
    objects: list[dict[str, Any]] = [row for row in rows if isinstance(row, dict)]
    unread = len(rows) - len(objects)
    extension = any(key in row for row in objects for key in EXTENSION_KEYS)
    for row in objects:
        name = _first_text(row, (*FILE_KEYS, "video_id") if extension else FILE_KEYS)
        text = _first_text(row, CAPTION_KEYS)
        if name is None or text is None:
            unread += 1
            continue
        found.add(name, text, names)
    if unread:
        found.notes.append(
            f"{unread} of {len(rows)} rows in {found.path.name} have no file ({', '.join(FILE_KEYS)}) or no text "
            f"({', '.join(CAPTION_KEYS)}): they are left out."
        )
    if extension and found.texts:
        found.notes.append(
            f"{found.path.name} is metadata for length extension: its prompts are the captions; lengths, sizes and "
            "negative prompts in it are not used here."
        )


def _first_text(row: dict[str, Any], keys: Iterable[str]) -> str | None:
    def texts() -> Iterator[str]:
        for key in keys:
            if isinstance(value := row.get(key), str) and value.strip():
                yield value

    return next(texts(), None)
