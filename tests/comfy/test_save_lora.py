"""A stack saved as LoRA files: what lies there already, and what makes the two files a pair."""

from __future__ import annotations

import json

import pytest
import torch
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.files import read_metadata, read_tensors, tandem_metadata
from tandem_wan.wan.lora.stack import LoraStack, Row

pytestmark = pytest.mark.comfy
HIGH, LOW = "one_high_noise.safetensors", "one_low_noise.safetensors"


@pytest.fixture
def save(host, pair, tmp_path, monkeypatch):
    """Saves a stack of the host's folder as `one` through the node; gives the names of its files."""
    import folder_paths
    from tandem_wan.nodes.save_lora import TandemSaveLora

    import nodes

    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "TandemSaveLora", TandemSaveLora)

    def run(rows, *, roles=("high_noise", "low_noise"), name="one", **inputs):
        prompt = {"stack": host.node("TandemLoraStack", rows=json.dumps(rows))}
        for role in roles:
            prompt[role] = host.give(pair[role])
            inputs[f"model_{role.split('_')[0]}"] = [role, 0]
        inputs = {"family": "wan 2.2 A14B", **inputs}
        host.run(prompt, "TandemSaveLora", stack=["stack", 0], name=name, **inputs)
        return sorted(path.name for path in host.folder.glob("one*"))

    return run


STYLE = [{"lora": "style.safetensors"}]


def test_both_halves_carry_one_pair_id_and_are_found_as_a_pair(host, save):
    from tandem_wan.nodes.host.loras import paired

    assert save(STYLE) == [HIGH, LOW]
    entries = [tandem_metadata(read_metadata(host.folder / name)) for name in (HIGH, LOW)]
    assert entries[0]["pair_id"] == entries[1]["pair_id"]
    assert [entry["expert"] for entry in entries] == ["high_noise", "low_noise"]
    (row,), (note,) = paired((Row(lora=LOW),))
    assert (row.lora, row.lora_low) == (HIGH, LOW) and "their metadata names one run" in note


def test_halves_that_are_saved_one_after_the_other_are_a_pair(host, save):
    save(STYLE, roles=["high_noise"])
    assert save(STYLE, roles=["low_noise"]) == [HIGH, LOW]
    ids = {tandem_metadata(read_metadata(host.folder / name))["pair_id"] for name in (HIGH, LOW)}
    assert len(ids) == 1


@pytest.mark.parametrize("roles", [("high_noise", "low_noise"), ("high_noise",)])
def test_a_stale_other_half_is_put_aside_and_never_lost(host, save, roles):
    save(STYLE)
    stale = (host.folder / LOW).read_bytes()
    rows = [{"lora": "style.safetensors", "route": "high", "high": 0.5}]
    with pytest.raises(RuntimeError, match="exist already, with another content"):
        save(rows, roles=roles)
    assert save(rows, roles=roles, overwrite=True) == [HIGH, f"{LOW}.old"]
    assert (host.folder / f"{LOW}.old").read_bytes() == stale
    save(STYLE, overwrite=True)
    assert save(rows, roles=roles, overwrite=True) == [HIGH, f"{LOW}.old", f"{LOW}.old2"]


def test_saving_the_same_again_is_no_error_and_writes_nothing(host, save):
    save(STYLE)
    before = [(host.folder / name).stat().st_mtime_ns for name in (HIGH, LOW)]
    for overwrite in (False, True):
        save(STYLE, overwrite=overwrite, dtype="float16")
        assert [(host.folder / name).stat().st_mtime_ns for name in (HIGH, LOW)] == before
    with pytest.raises(RuntimeError, match="exist already"):
        save(STYLE, dtype="float32")
    save(STYLE, dtype="float32", overwrite=True)
    assert {t.dtype for t in read_tensors(host.folder / HIGH).values()} == {torch.float32}


def test_what_cannot_be_read_is_replaced_only_when_asked_for(host, save):
    (host.folder / HIGH).write_bytes(b"no safetensors")
    with pytest.raises(RuntimeError, match="exist already"):
        save(STYLE)
    assert save(STYLE, overwrite=True) == [HIGH, LOW]


def test_a_file_that_was_deleted_or_changed_is_saved_again(host, save):
    from tandem_wan.nodes.save_lora import TandemSaveLora

    prints = [TandemSaveLora.fingerprint_inputs(name="one")]
    save(STYLE)
    prints += [TandemSaveLora.fingerprint_inputs(name="one") for _ in range(2)]
    (host.folder / LOW).unlink()
    prints.append(TandemSaveLora.fingerprint_inputs(name="one"))
    assert prints[1] == prints[2] and len({tuple(each) for each in prints}) == 3


def test_a_bad_name_is_told_as_the_files(host):
    from tandem_wan.nodes.host.saving import Target, file_name
    from tandem_wan.nodes.save_lora import TandemSaveLora

    assert str(TandemSaveLora.validate_inputs(name="a/b")).startswith("The file's name is 'a/b'")
    with pytest.raises(UserError, match="The file's name is ''"):
        file_name("")
    rows = LoraStack((Row(lora="style.safetensors"),))
    ids = [Target(name, (), rows, overwrite=False).pair_id for name in ("one", "two")]
    assert ids[0] != ids[1]
