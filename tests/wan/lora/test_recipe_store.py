"""Saved stacks: whatever is deleted, replaced or broken, nothing of a user's is lost."""

import json
from dataclasses import replace

import pytest
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora import recipes
from tandem_wan.wan.lora.recipe_store import (
    DELETED,
    NoSuchRecipeError,
    RecipeExistsError,
    RecipeStore,
)
from tandem_wan.wan.lora.recipes import Recipe, read_recipe
from tandem_wan.wan.lora.stack import Row

ROWS = (Row(lora="a.safetensors", lora_low="b.safetensors"), Row(lora="c.safetensors", on=False))


@pytest.fixture
def store(tmp_path):
    return RecipeStore(tmp_path / "stacks")


def test_saving_over_a_stack_needs_overwrite_and_keeps_what_was_there(store):
    one, two = Recipe(name="a", note="1"), Recipe(name="a", note="2", rows=ROWS)
    path = store.save(one)
    assert store.read("a") == one
    with pytest.raises(RecipeExistsError):
        store.save(two)
    store.save(replace(one, made_with="another version"))  # the same stack is no other stack
    assert store.read("a") == one
    store.save(two, overwrite=True)
    store.save(one, overwrite=True)
    assert store.read("a") == one
    kept = [read_recipe(p.read_text()) for p in sorted((store.folder / DELETED).iterdir())]
    assert kept == [one, two]
    assert store.names() == ["a"] and path == store.folder / "a.json"


def test_a_deleted_stack_lies_in_the_deleted_folder_and_comes_back_by_hand(store):
    store.save(Recipe(name="a", rows=ROWS))
    kept = store.delete("a")
    assert (kept.parent.name, kept.name, store.names()) == (DELETED, "a.1.json", [])
    with pytest.raises(NoSuchRecipeError):
        store.delete("a")
    kept.rename(store.folder / "back.json")
    assert store.read("back") == Recipe(name="back", rows=ROWS)


def test_a_stack_is_renamed_inside_too_and_never_over_another(store):
    store.save(Recipe(name="a", note="1"))
    store.save(Recipe(name="b", note="2"))
    with pytest.raises(RecipeExistsError):
        store.rename("a", "b")
    store.rename("a", "c")
    assert store.names() == ["b", "c"]
    assert json.loads((store.folder / "c.json").read_text())["name"] == "c"
    with pytest.raises(NoSuchRecipeError, match="Saved are: b, c"):
        store.rename("a", "d")


@pytest.mark.parametrize(
    "name",
    [
        *[
            "",
            " ",
            ".",
            "..",
            ".hidden",
            "a/b",
            "a\\b",
            "../a",
            "a\0b",
            "a\nb",
            "a:b",
            "con",
            "NUL.x",
        ],
        *["x" * 81, "ü" * 101, "a.", 'a"b', None, 5, "\ud800"],
    ],
)
def test_a_name_that_leaves_the_folder_or_fits_no_file_system_is_refused(store, name):
    for act in (store.path, store.read, store.delete, lambda n: store.save(Recipe(name=n))):
        with pytest.raises(UserError, match=r"The stack's name is"):
            act(name)
    assert not store.folder.exists()


def test_names_of_any_script_are_taken_and_composed_alike(store):
    store.save(Recipe(name="アニメ u\u0308 v1.2 (fast)"))
    assert store.read("アニメ \u00fc v1.2 (fast)").name == "アニメ \u00fc v1.2 (fast)"


def test_the_list_shows_a_broken_stack_with_the_reason(store):
    store.save(Recipe(name="good", rows=ROWS, note="n"))
    (store.folder / "bad.json").write_text("{")
    (store.folder / "latin.json").write_bytes(b"\xff\xfe")
    bad, good, latin = store.list()
    assert (good.name, good.rows, good.files, good.error) == (
        "good",
        2,
        ("a.safetensors", "b.safetensors", "c.safetensors"),
        None,
    )
    assert "is not JSON" in bad.error and "is not text" in latin.error
    with pytest.raises(RecipeExistsError):
        store.save(Recipe(name="bad"))
    store.save(Recipe(name="bad"), overwrite=True)
    assert (store.folder / DELETED / "bad.1.json").read_text() == "{"


def test_a_crash_while_writing_leaves_the_old_stack(store, monkeypatch):
    store.save(Recipe(name="a", note="old"))
    with monkeypatch.context() as patched:
        patched.setattr(recipes.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.save(Recipe(name="a", note="new"), overwrite=True)
    assert store.read("a").note == "old" and store.names() == ["a"]
    assert [p.name for p in store.folder.iterdir() if p.is_file()] == ["a.json"]
