"""Captions from wherever a folder has them; what is unclear is refused and not guessed."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tandem_wan.training.data.dataset import DatasetSettings
from tandem_wan.training.data.lists import MediaNames
from tandem_wan.training.data.reader import folder_stamp, load_dataset
from tandem_wan.wan.errors import UserError

TEXTS = {"a.png": "A red field.", "b.png": "A blue field, wide: very | wide.", "deep/c.png": "Sea."}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep").mkdir()
    for number, name in enumerate(TEXTS):
        Image.new("RGB", (32, 32), (number, 9, 9)).save(tmp_path / name)
    return tmp_path


def write(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.write_bytes(text.encode(encoding))


def read(folder: Path, media: str = "auto"):
    dataset = load_dataset(
        DatasetSettings(folder=folder, media=media, width=32, height=32, frames=1)
    )
    texts = {c.path.relative_to(folder).as_posix(): c.caption for c in dataset.clips}
    return texts, " / ".join(dataset.notes)


def lines(form: str) -> str:
    return "\n".join(form.format(*item) for item in TEXTS.items())


def rows(file_key: str, caption_key: str) -> list[dict]:
    return [{file_key: name, caption_key: text} for name, text in TEXTS.items()]


def jsonl(rows: list[dict]) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"


@pytest.mark.parametrize(
    "form", ["{}: {}", "{}\t{}", "{}, {}", "{} | {}", "  {} :{}  \r", '"{}": {}']
)
def test_lines_that_name_their_file(folder, form):
    write(folder / "captions.txt", "\ufeff" + lines(form) + "\n\n")
    assert read(folder) == (TEXTS, "")


@pytest.mark.parametrize(
    "key", ["file_name", "file", "video", "video_path", "image_path", "media_path", "path"]
)
@pytest.mark.parametrize("caption_key", ["caption", "text", "prompt"])
def test_rows_of_json_lines(folder, key, caption_key):
    write(folder / "metadata.jsonl", jsonl(rows(key, caption_key)))
    assert read(folder) == (TEXTS, "")


def test_a_row_may_have_a_line_separator_and_the_name_of_its_control_film(folder):
    row = {"file": "a.png", "caption": "A\u2028red field.", "control_path": "x.png"}
    write(folder / "metadata.jsonl", jsonl([row]))
    assert read(folder) == ({"a.png": "A red field.", "b.png": "", "deep/c.png": ""}, "")


def test_the_metadata_of_length_extension(folder):
    extra = {"negative_prompt": "blur", "base_frames": 69, "extended_frames": 161, "height": 768}
    rows = [
        {"video_id": "a", "prompt": "A red field.", **extra},
        {"video_id": "x17", "video": "b.png", "prompt": TEXTS["b.png"], **extra},
        {"video_id": "deep/c", "prompt": "Sea.", "width": 1280, **extra},
    ]
    write(folder / "metadata.json", json.dumps(rows))
    texts, notes = read(folder)
    assert texts == TEXTS
    assert "metadata for length extension: its prompts are the captions" in notes
    assert "blur" not in "".join(texts.values())


def test_a_name_may_be_a_full_path_a_windows_path_or_lack_its_suffix(folder):
    names = [str(folder / "a.png"), "b", ".\\deep\\c.png"]
    rows = [{"path": n, "text": t} for n, t in zip(names, TEXTS.values(), strict=True)]
    write(folder / "metadata.jsonl", jsonl(rows))
    assert read(folder) == (TEXTS, "")


def test_a_list_in_a_folder_counts_from_there_and_before_one_further_up(folder):
    write(folder / "deep" / "captions.txt", "c.png: Sea.")
    write(folder / "captions.txt", lines("{}: {}").replace("Sea", "Lake"))
    texts, notes = read(folder)
    assert texts == TEXTS
    assert "Captions in deep/captions.txt are used, not the others in captions.txt: c.png" in notes


def test_lines_without_names_are_taken_in_order_if_there_are_as_many_as_files(folder):
    write(folder / "captions.txt", "A red field.\n\nA blue field, wide: very | wide.\n")
    texts, notes = read(folder)
    assert texts == {**TEXTS, "deep/c.png": ""}
    assert "its 2 lines are the captions of the files in the order of their names" in notes


def test_with_media_chosen_the_order_is_that_of_the_chosen_or_of_all(folder, film):
    film(folder / "a0.mp4", frames=1)
    write(folder / "captions.txt", "A red field.\nA blue field, wide: very | wide.\n")
    assert read(folder, "image")[0] == {**TEXTS, "deep/c.png": ""}
    write(folder / "captions.txt", "One.\nTwo.\nThree.\n")
    assert read(folder, "image")[0] == {"a.png": "One.", "b.png": "Three.", "deep/c.png": ""}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("captions.txt", "One.\nTwo.\nThree.\n", r"3 captions without file names, .* lie 2 files"),
        (
            "captions.txt",
            "a.png: One.\nand more\n",
            r"Line 2 of captions.txt names no file.*'and more'",
        ),
        ("metadata.jsonl", '{"file": "a.png"\n', r"Line 1 of metadata.jsonl is not JSON"),
        ("metadata.json", "[" * 100_000, r"metadata.json is not JSON"),
    ],
)
def test_what_is_unclear_is_refused_unless_every_clip_has_another_caption(folder, name, text, said):
    write(folder / name, text)
    with pytest.raises(UserError, match=said):
        read(folder)
    for clip in TEXTS:
        write((folder / clip).with_suffix(".txt"), TEXTS[clip])
    texts, notes = read(folder)
    assert texts == TEXTS
    assert notes.startswith("Not used, every clip has another caption: ")
    assert re.search(said, notes)


@pytest.mark.parametrize("name", ["captions.txt", "rows.jsonl", "rows.json"])
def test_a_list_that_is_not_utf_8_is_named(folder, name):
    write(folder / name, "a.png: Zürich", "latin-1")
    with pytest.raises(UserError, match=rf"{name} is not UTF-8 text .*Save it as UTF-8"):
        read(folder)


def test_the_text_beside_a_file_wins_and_a_note_says_so(folder):
    write(folder / "captions.txt", lines("{}: {}"))
    write(folder / "a.txt", "A green field.")
    write(folder / "b.txt", TEXTS["b.png"])
    texts, notes = read(folder)
    assert texts == {**TEXTS, "a.png": "A green field."}
    assert notes == "Captions in the .txt beside it are used, not the others in captions.txt: a.png"


def test_lines_come_before_json_lines_and_those_before_json(folder):
    write(folder / "captions.txt", "a.png: One.")
    write(folder / "m.jsonl", jsonl([{"file": n, "text": "Two."} for n in ("a.png", "b.png")]))
    write(folder / "m.json", json.dumps([{"file": n, "text": "Three."} for n in TEXTS]))
    texts, notes = read(folder)
    assert list(texts.values()) == ["One.", "Two.", "Three."]
    assert "Captions in captions.txt are used, not the others in m.jsonl: a.png" in notes
    assert "Captions in m.jsonl are used, not the others in m.json: b.png" in notes


def test_names_that_are_missing_outside_or_twice_are_noted(folder):
    outside = [{"file": n, "text": "x"} for n in ("../a.png", "/etc/passwd.png", "C:\\b.png")]
    rest = [{"file": "z.mp4", "text": "x"}, *rows("file", "text"), {"file": "a.png", "text": "y"}]
    write(folder / "m.jsonl", jsonl([*outside, *rest, {"clip": "a.png"}, {"file": "a.png"}]))
    texts, notes = read(folder)
    assert texts == TEXTS
    assert "m.jsonl names files that are not there: z.mp4" in notes
    assert (
        "outside the dataset folder, which are left alone: ../a.png, /etc/passwd.png, C:" in notes
    )
    assert "m.jsonl has several captions, the first is used, for: a.png" in notes
    assert "2 of 10 rows in m.jsonl have no file" in notes


def test_a_line_for_a_missing_file_is_noted(folder):
    write(folder / "captions.txt", lines("{}: {}") + "\nz.mp4: Gone.")
    texts, notes = read(folder)
    assert (texts, notes) == (TEXTS, "captions.txt names files that are not there: z.mp4")


def test_other_json_is_no_list_of_captions(folder):
    write(folder / "workflow.json", '{"nodes": []}')
    write(folder / "a.json", "not JSON: it is the clip's own, of another program")
    write(folder / "numbers.json", "[1, 2]")
    (folder / "empty.jsonl").touch()
    assert read(folder) == (dict.fromkeys(TEXTS, ""), "")


def test_captions_txt_beside_a_film_of_that_name_is_its_own(folder):
    Image.new("RGB", (32, 32)).save(folder / "captions.png")
    write(folder / "captions.txt", "Just words.")
    assert read(folder)[0]["captions.png"] == "Just words."


def test_a_film_and_a_picture_of_one_name_share_a_caption_by_that_name(folder, film):
    film(folder / "a.mp4", frames=1)
    write(folder / "captions.txt", "a: Both.")
    assert {"a.mp4": "Both.", "a.png": "Both."}.items() <= read(folder)[0].items()


@pytest.mark.parametrize(
    "name", ["captions.txt", "m.jsonl", "m.json", "deep/captions.txt", "a.txt"]
)
def test_the_stamp_notices_every_source(folder, name):
    before = folder_stamp(folder, "auto")
    write(folder / name, "a")
    added = folder_stamp(folder, "auto")
    write(folder / name, "ab")
    changed = folder_stamp(folder, "auto")
    (folder / name).unlink()
    assert len({before, added, changed}) == 3
    assert folder_stamp(folder, "auto") == before


@given(st.text(alphabet="ab./\\: ", max_size=24), st.sampled_from(["", "deep", "deep/er"]))
def test_no_name_leads_out_of_the_folder(name, base):
    root = Path("/clips")
    inside = MediaNames(root, []).inside(root / base, name)
    if inside is not None:
        parts = []
        for part in inside.split("/"):
            assert part != ".." or parts
            parts = parts[:-1] if part == ".." else [*parts, part]
        assert not inside.startswith("/")
