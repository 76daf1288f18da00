"""A stack as a document: read back as written, its files found by content, its examples filled."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.digests import Digests
from tandem_wan.wan.lora.example_stacks import EXAMPLES
from tandem_wan.wan.lora.file_notes import completed, recipe_of
from tandem_wan.wan.lora.files import write_safetensors
from tandem_wan.wan.lora.recipes import (
    FileNote,
    Recipe,
    read_recipe,
    recipe_document,
    recipe_text,
    row_files,
    with_files,
    write_recipe,
)
from tandem_wan.wan.lora.resolution import parse_choices, resolve
from tandem_wan.wan.lora.stack import LoraStack, parse_rows

ROWS = parse_rows(
    json.dumps(
        [
            {"lora": "speed_high_noise.safetensors", "lora_low": "speed_low_noise.safetensors"},
            {"lora": "look/anime.safetensors", "kind": "style", "high": 0.9, "low": 0.8},
            {
                "lora": "hero.safetensors",
                "on": False,
                "schedule": "1@0, 0@1",
                "blend": {"lora": "villain.safetensors", "share": 0.25},
            },
        ]
    )
)
FILES = [
    "speed_high_noise.safetensors",
    "speed_low_noise.safetensors",
    "look/anime.safetensors",
    "hero.safetensors",
    "villain.safetensors",
]


@pytest.fixture
def shelf(tmp_path):
    """A loras folder with every file of `ROWS`."""
    return Shelf(tmp_path)


class Shelf:
    def __init__(self, tmp_path):
        self.root = tmp_path / "loras"
        self.digests = Digests(tmp_path / "user" / "digests.json")
        for number, name in enumerate(FILES):
            self.put(name, number)

    def put(self, name, number, size=8, metadata=None):
        write_safetensors(
            self.root / name, {"a": torch.full((size,), float(number))}, metadata or {}
        )

    def names(self):
        return [p.relative_to(self.root).as_posix() for p in self.root.rglob("*.safetensors")]

    def path(self, name):
        path = self.root / name
        return path if path.exists() else None

    def recipe(self, rows=ROWS, **words):
        return recipe_of(LoraStack(rows), self.path, self.digests, name="mine", **words)

    def resolve(self, recipe, **chosen):
        return resolve(recipe, self.names(), self.path, self.digests, chosen.get("chosen"))


def test_a_recipe_is_read_back_as_it_was_written(shelf, tmp_path):
    recipe = shelf.recipe(note='Rain, "night" and ümlauts\n2nd line')
    write_recipe(tmp_path / "r" / "mine.json", recipe)
    text = (tmp_path / "r" / "mine.json").read_text(encoding="utf-8")
    assert read_recipe(text) == recipe
    assert list(tmp_path.glob("r/*")) == [tmp_path / "r" / "mine.json"]
    assert list(json.loads(text)) == [
        "version",
        "name",
        "note",
        "triggers",
        "rows",
        "files",
        "made_with",
    ]


def test_text_that_no_file_can_hold_does_not_break_a_recipe(tmp_path):
    write_recipe(tmp_path / "a.json", Recipe(note="half \ud83d of a smile"))
    assert read_recipe((tmp_path / "a.json").read_text("utf-8")).note == "half ? of a smile"


def test_a_note_has_the_hash_and_size_that_the_slow_way_gives(shelf):
    for note in shelf.recipe().files:
        content = (shelf.root / note.name).read_bytes()
        assert note.sha256 == hashlib.sha256(content).hexdigest()
        assert note.size == len(content)


def test_every_file_of_the_rows_has_a_note_blends_and_rows_that_are_off_too(shelf):
    assert [note.name for note in shelf.recipe().files] == FILES == row_files(ROWS)
    assert [note.kind for note in shelf.recipe().files] == [None, None, "style", None, None]


def test_files_are_renamed_wherever_a_row_names_them():
    renamed = with_files(ROWS, {name: f"new/{name}" for name in FILES})
    assert row_files(renamed) == [f"new/{name}" for name in FILES]
    assert with_files(renamed, {f"new/{name}": name for name in FILES}) == ROWS


def test_made_with_names_the_version_of_the_project_file(shelf):
    from pathlib import Path

    project = Path(__file__).parents[3] / "pyproject.toml"
    version = next(
        line.split('"')[1] for line in project.read_text().splitlines() if "version = " in line
    )
    assert shelf.recipe().made_with == f"tandem-wan {version}"


def test_a_bare_list_of_rows_is_a_recipe_of_version_0():
    rows = json.dumps(json.loads(recipe_text(Recipe(rows=ROWS)))["rows"])
    assert read_recipe(rows) == Recipe(rows=ROWS)


GOOD = {"version": 1, "rows": [{"lora": "a"}], "files": [{"name": "a"}]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rowz": []}, "The recipe has rowz."),
        ({"version": 2}, "The recipe has version 2."),
        ({"version": None}, "The recipe has no version."),
        ({"version": "1"}, "version is '1'"),
        ({"version": True}, "version is True"),
        ({"rows": {}}, "no list `rows`"),
        ({"rows": [{"lora": "a", "strenght": 1}]}, "The recipe: Row 1 has strenght."),
        ({"note": 5}, "note is 5"),
        ({"triggers": "MERMAID"}, "triggers is 'MERMAID'"),
        ({"files": {"a": 1}}, "files is {'a': 1}"),
        ({"files": ["a"]}, "file 1 has no name"),
        ({"files": [{"name": "a", "hash": "x"}]}, "file 1 has hash."),
        ({"files": [{"name": "a", "sha256": "abc", "size": 1}]}, "sha256 is 'abc'"),
        ({"files": [{"name": "a", "sha256": "0" * 64}]}, "file 1 has sha256 but no size"),
        ({"files": [{"name": "a", "size": -1}]}, "size is -1"),
        ({"files": [{"name": "a"}, {"name": "a"}]}, "files has a twice"),
        ({"files": [{"name": "b"}]}, "files has b, which no row names"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named_with_its_place(change, said):
    read_recipe(json.dumps(GOOD))
    with pytest.raises(UserError) as caught:
        read_recipe(json.dumps({**GOOD, **change}))
    assert said in caught.value.came
    assert caught.value.can_be.endswith(".") and caught.value.to_do.endswith(".")


@pytest.mark.parametrize(
    "text", ["", "{", "null", "3", '"a"', "[" * 100_000, "x" * 2_000_000, "[" + "1" * 5000 + "]"]
)
def test_text_that_is_no_recipe_is_refused(text):
    with pytest.raises(UserError, match="recipe"):
        read_recipe(text)


def test_words_and_source_come_from_the_file_or_from_what_lies_beside_it(shelf):
    shelf.put("a.safetensors", 1, metadata={"tandem": json.dumps({"trigger": "MERMAID"})})
    shelf.put("b.v2.safetensors", 2, metadata={"source": "https://example.org/b"})
    shelf.put("c.safetensors", 3)
    civitai = {"modelId": 12, "id": 34, "trainedWords": ["neon, rain", "fog"]}
    (shelf.root / "c.civitai.info").write_text(json.dumps(civitai))
    shelf.put("d.safetensors", 4)
    managed = {"civitai": {"modelId": 5, "trainedWords": ["drone"]}, "sha256": "00"}
    (shelf.root / "d.metadata.json").write_text(json.dumps(managed))
    shelf.put("e.safetensors", 5, metadata={"source": "javascript:alert(1)"})
    (shelf.root / "e.civitai.info").write_text("{ broken")
    rows = parse_rows(
        json.dumps([{"lora": name} for name in sorted(shelf.names()) if name[1] == "."])
    )
    assert [(n.name[0], n.triggers, n.source) for n in shelf.recipe(rows).files] == [
        ("a", ("MERMAID",), None),
        ("b", (), "https://example.org/b"),
        ("c", ("neon, rain", "fog"), "https://civitai.com/models/12?modelVersionId=34"),
        ("d", ("drone",), "https://civitai.com/models/5"),
        ("e", (), None),
    ]


def test_the_words_of_rows_that_are_off_are_not_put_into_the_prompt():
    notes = tuple(FileNote(name=name, triggers=(name[:4],)) for name in FILES)
    recipe = Recipe(rows=ROWS, files=notes)
    assert recipe.words() == ("spee", "look")
    assert replace(recipe, triggers=("MINE",)).words() == ("MINE",)


def test_a_file_that_was_moved_and_renamed_is_found_by_its_content(shelf):
    recipe = shelf.recipe()
    (shelf.root / "deep").mkdir()
    (shelf.root / "look/anime.safetensors").rename(shelf.root / "deep/other.safetensors")
    shelf.put("anime.safetensors", 77)
    found = {f.note.name: f for f in shelf.resolve(recipe).found}
    assert found["look/anime.safetensors"].name == "deep/other.safetensors"
    assert found["look/anime.safetensors"].how == "same content"
    here = shelf.resolve(recipe).applied_to(recipe)
    assert row_files(here.rows)[2] == "deep/other.safetensors"
    assert completed(here, shelf.path, shelf.digests).files == here.files


def test_content_goes_before_the_name(shelf):
    recipe = shelf.recipe()
    (shelf.root / "hero.safetensors").rename(shelf.root / "old_hero.safetensors")
    shelf.put("hero.safetensors", 55)
    found = {f.note.name: f.name for f in shelf.resolve(recipe).found}
    assert found["hero.safetensors"] == "old_hero.safetensors"


def test_a_missing_file_is_refused_with_its_namesake_of_other_content(shelf):
    recipe = shelf.recipe()
    (shelf.root / "look/anime.safetensors").unlink()
    shelf.put("elsewhere/Anime.safetensors", 99)
    resolution = shelf.resolve(recipe)
    assert [missing.note.name for missing in resolution.needed()] == ["look/anime.safetensors"]
    with pytest.raises(UserError) as caught:
        resolution.check(recipe)
    assert (
        "elsewhere/Anime.safetensors (same file name, other content)" in caught.value.came
        and "look/anime.safetensors = elsewhere/Anime.safetensors" in caught.value.to_do
    )


def test_a_file_with_the_right_name_and_other_content_is_taken_and_said_or_refused(shelf):
    recipe = shelf.recipe()
    shelf.put("look/anime.safetensors", 99)
    resolution = shelf.resolve(recipe)
    resolution.check(recipe)
    assert resolution.text() == (
        "look/anime.safetensors: same name, other content than in the recipe"
    )
    with pytest.raises(UserError, match=r"look/anime\.safetensors has another content"):
        resolution.check(recipe, changed="error")


def test_a_missing_file_of_a_row_that_is_off_does_not_refuse_the_stack(shelf):
    recipe = shelf.recipe()
    (shelf.root / "villain.safetensors").unlink()
    resolution = shelf.resolve(recipe)
    resolution.check(recipe)
    assert resolution.text() == "villain.safetensors is not here (its row is off)"


def test_only_files_of_the_right_size_are_hashed(shelf):
    recipe = shelf.recipe()
    (shelf.root / "hero.safetensors").unlink()
    shelf.put("other_size.safetensors", 3, size=9)
    hashed = []
    resolve(
        recipe,
        shelf.names(),
        shelf.path,
        lambda path: hashed.append(path.name) or shelf.digests(path),
    )
    assert "other_size.safetensors" not in hashed and "villain.safetensors" in hashed


def test_names_from_another_system_are_found_whichever_way_their_slashes_lean(shelf):
    rows = parse_rows(json.dumps([{"lora": "look\\anime.safetensors"}]))
    recipe = Recipe(rows=rows)
    assert row_files(shelf.resolve(recipe).applied_to(recipe).rows) == ["look/anime.safetensors"]


def test_a_person_chooses_files_for_roles_and_the_example_becomes_a_stack(shelf):
    recipe = EXAMPLES["example: fast anime"]
    text = """
        style = look/anime.safetensors
        speed_high_noise=speed_high_noise.safetensors
        speed_low_noise = speed_low_noise.safetensors
    """
    resolution = shelf.resolve(recipe, chosen=parse_choices(text, recipe))
    resolution.check(recipe)
    here = resolution.applied_to(recipe)
    assert [(row.lora, row.lora_low, row.high, row.low) for row in here.rows] == [
        ("speed_high_noise.safetensors", "speed_low_noise.safetensors", 1.0, 1.0),
        ("look/anime.safetensors", None, 0.9, 0.9),
    ]
    assert not [note for note in here.files if note.choose]
    assert recipe_document(here) == recipe_document(read_recipe(recipe_text(here)))


def test_an_example_without_files_says_what_to_put_where(shelf):
    shelf.put("wan2.2_i2v_A14b_high_noise_lora_rank64_lightx2v_4step_1022.safetensors", 7)
    recipe = EXAMPLES["example: cinematic character"]
    with pytest.raises(UserError) as caught:
        shelf.resolve(recipe).check(recipe)
    said = str(caught.value)
    for part in (
        "5 files for you to choose",
        "speed_high_noise: a 4-step speed LoRA for the high-noise expert",
        "https://huggingface.co/lightx2v/Wan2.2-Distill-Loras",
        "here: wan2.2_i2v_A14b_high_noise_lora_rank64_lightx2v_4step_1022.safetensors",
        "character: a LoRA of your character",
        "speed_high_noise = wan2.2_i2v",
    ):
        assert part in said
    low = next(line for line in said.splitlines() if line.startswith("- speed_low_noise"))
    assert "here:" not in low, "the other expert's file is no suggestion"


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("fast anime", {"speed": (1, 1), "style": (0.9, 0.9)}),
        (
            "cinematic character",
            {"speed": (1, 1), "character": (1.1, 1.1), "style": (0.8, 0.8), "quality": (None, 0.4)},
        ),
        ("influencer", {"speed": (1, 1), "style": (0.85, 0.85), "character": (1, 1)}),
    ],
)
def test_the_examples_have_the_strengths_that_were_promised(name, rows):
    """The specification's section on stacking; quality goes to the low-noise expert alone."""
    recipe = EXAMPLES[f"example: {name}"]
    assert read_recipe(recipe_text(recipe)) == recipe
    told = {
        row.kind: (None if row.route == "low" else row.high, row.low)
        for row in recipe.rows
        if row.on
    }
    assert told == rows
    assert all(note.choose for note in recipe.notes().values())


@pytest.mark.parametrize(
    "line", ["nonsense = a.safetensors", "style", "style =", "stylea.safetensors"]
)
def test_a_line_of_choices_that_means_nothing_is_refused(line):
    with pytest.raises(UserError, match="line 2"):
        parse_choices(f"\n{line}", EXAMPLES["example: fast anime"])


def test_a_chosen_file_that_is_not_here_is_refused_with_what_is_like_it(shelf):
    recipe = EXAMPLES["example: fast anime"]
    with pytest.raises(UserError, match=r"'anime' is not in a loras folder.*look/anime"):
        shelf.resolve(recipe, chosen={"style": "anime"})
