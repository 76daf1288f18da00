"""An export's folder: whole or not there, and nothing that was there is lost."""

from __future__ import annotations

import os

import pytest
from tandem_wan.training.interop import saving
from tandem_wan.training.interop.saving import save_files
from tandem_wan.wan.errors import UserError


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.t*")}


def test_other_content_is_kept_under_a_number_and_the_same_is_left(tmp_path):
    folder = tmp_path / "plans" / "mine_x"
    assert save_files(folder, {"a.toml": "1"}) is None
    assert save_files(folder, {"a.toml": "1"}) is None
    assert contents(tmp_path) == {"plans/mine_x/a.toml": "1"}
    (folder / "by_hand.txt").write_text("note")
    assert save_files(folder, {"a.toml": "2"}).name == "mine_x.old.1"
    assert save_files(folder, {"b.toml": "3"}).name == "mine_x.old.2"
    assert contents(tmp_path) == {
        "plans/mine_x/b.toml": "3",
        "plans/mine_x.old.1/a.toml": "1",
        "plans/mine_x.old.1/by_hand.txt": "note",
        "plans/mine_x.old.2/a.toml": "2",
    }


def test_a_disk_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    save_files(folder, {"a.toml": "1"})
    monkeypatch.setattr(
        saving.Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(UserError, match="could not be written"):
        save_files(folder, {"a.toml": "2"})
    monkeypatch.undo()
    assert contents(tmp_path) == {"mine/a.toml": "1"}
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_when_the_last_rename_fails_the_old_folder_comes_back(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    save_files(folder, {"a.toml": "1"})
    real = os.replace

    def replace(source, target):
        if target == folder and ".old." not in str(source):
            raise OSError("busy")
        return real(source, target)

    monkeypatch.setattr(saving.os, "replace", replace)
    with pytest.raises(UserError):
        save_files(folder, {"a.toml": "2"})
    assert contents(tmp_path) == {"mine/a.toml": "1"}
