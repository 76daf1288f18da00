"""A recipe of a stack whose pairs were found: rows as they were written, notes of both halves."""

from dataclasses import replace

import pytest
import torch
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.digests import Digests
from tandem_wan.wan.lora.file_notes import completed, recipe_of
from tandem_wan.wan.lora.files import write_safetensors
from tandem_wan.wan.lora.pairing import PairFinder
from tandem_wan.wan.lora.recipes import FileNote, Recipe, read_recipe, recipe_text
from tandem_wan.wan.lora.resolution import resolve
from tandem_wan.wan.lora.stack import Blend, LoraStack, Row, with_pairs

HIGH, LOW, STYLE = "x_high_noise.safetensors", "x_low_noise.safetensors", "style.safetensors"


class Shelf:
    """A loras folder with a pair and a style."""

    def __init__(self, tmp_path):
        self.root, self.digests = tmp_path / "loras", Digests(tmp_path / "digests.json")
        for number, name in enumerate((HIGH, LOW, STYLE)):
            metadata = {"trigger": f"word{number}"}
            write_safetensors(self.root / name, {"x": torch.full((4,), number + 1.0)}, metadata)

    def path(self, name):
        path = self.root / name
        return path if path.is_file() else None

    def names(self):
        return sorted(path.name for path in self.root.iterdir())

    def paired(self, *rows):
        return with_pairs(rows, PairFinder(self.names(), lambda _: {}))[0]

    def recipe(self, *rows):
        return recipe_of(LoraStack(self.paired(*rows)), self.path, self.digests)

    def loaded(self, recipe, **chosen):
        found = resolve(recipe, self.names(), self.path, self.digests, chosen.get("chosen"))
        found.check(recipe)
        return found.applied_to(recipe)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


@pytest.mark.parametrize("named", [HIGH, LOW])
def test_rows_are_saved_as_written_and_both_halves_have_notes(shelf, named):
    written = (Row(lora=named, kind="motion"), Row(lora=STYLE, blend=Blend(lora=named)))
    recipe = read_recipe(recipe_text(shelf.recipe(*written)))
    assert recipe.rows == written
    notes = recipe.notes()
    other = LOW if named == HIGH else HIGH
    assert list(notes) == [named, STYLE, other]
    assert (notes[other].half_of, notes[other].side) == (named, "low" if other == LOW else "high")
    assert notes[other].sha256 == shelf.digests(shelf.root / other)
    assert notes[other].kind == "motion"
    assert set(recipe.words()) == {"word0", "word1", "word2"}
    assert completed(recipe, shelf.path, shelf.digests) == recipe
    here = shelf.loaded(recipe)
    assert here.rows == written and shelf.paired(*here.rows) == shelf.paired(*written)


def test_halves_that_were_renamed_are_written_out_as_a_pair(shelf):
    recipe = shelf.recipe(Row(lora=LOW), Row(lora=STYLE, blend=Blend(lora=HIGH)))
    (shelf.root / HIGH).rename(shelf.root / "one.safetensors")
    (shelf.root / LOW).rename(shelf.root / "two.safetensors")
    here = read_recipe(recipe_text(shelf.loaded(recipe)))
    row, mixed = here.rows
    assert (row.lora, row.lora_low) == ("one.safetensors", "two.safetensors")
    assert (mixed.blend.lora, mixed.blend.lora_low) == ("one.safetensors", "two.safetensors")


def test_a_half_that_was_chosen_takes_its_place_in_the_pair(shelf):
    recipe = shelf.recipe(Row(lora=HIGH))
    (row,) = shelf.loaded(recipe, chosen={LOW: STYLE}).rows
    assert (row.lora, row.lora_low) == (HIGH, STYLE)


def test_a_found_half_that_is_not_here_is_missing_unless_its_row_is_off(shelf):
    recipe = shelf.recipe(Row(lora=HIGH))
    (shelf.root / LOW).unlink()
    with pytest.raises(UserError, match=f"(?s)needs 1 file .*{LOW}"):
        shelf.loaded(recipe)
    off = replace(recipe, rows=(replace(recipe.rows[0], on=False),))
    assert shelf.loaded(off).rows == off.rows


@pytest.mark.parametrize(
    "change", [{"side": "up"}, {"side": None}, {"half_of": None}, {"half_of": "gone"}]
)
def test_a_note_of_a_half_names_a_file_of_a_row_and_a_side(change):
    half = replace(FileNote(name=LOW, half_of=HIGH, side="low"), **change)
    with pytest.raises(UserError, match="The recipe: file"):
        read_recipe(recipe_text(Recipe(rows=(Row(lora=HIGH),), files=(half,))))
