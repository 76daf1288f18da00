"""LoRA files: never half visible, never code, and an error that says what to do."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora import files
from tandem_wan.wan.lora.adapters import AdapterSet, LoraAdapter
from tandem_wan.wan.lora.files import (
    adapter_tensors,
    read_metadata,
    read_tensors,
    tandem_metadata,
    write_safetensors,
)

TENSORS = {"a": torch.arange(1000.0), "b": torch.ones(3, 5)}


def assert_three_parts(error: UserError, name: str) -> None:
    assert name in error.came
    assert error.can_be.endswith(".")
    assert error.to_do.endswith(".")


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "new" / "folder" / "x.safetensors"
    write_safetensors(path, TENSORS, {"who": "me"})
    found = read_tensors(path)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)
    assert read_metadata(path) == {"who": "me"}


def test_adapters_are_written_under_the_native_names_with_alpha_beside_them():
    adapter = LoraAdapter(torch.randn(4, 6), torch.randn(8, 4), 2.5)
    tensors = adapter_tensors(AdapterSet({"blocks.0.ffn.0": adapter}))
    stem = "diffusion_model.blocks.0.ffn.0"
    assert tensors.keys() == {
        f"{stem}.lora_A.weight",
        f"{stem}.lora_B.weight",
        f"{stem}.alpha",
    }
    assert torch.equal(tensors[f"{stem}.lora_A.weight"], adapter.down)
    assert torch.equal(tensors[f"{stem}.lora_B.weight"], adapter.up)
    assert tensors[f"{stem}.alpha"].item() == 2.5


def dies_halfway(tensors, path, metadata=None):
    Path(path).write_bytes(b"\x08" * 100)
    raise KeyboardInterrupt


def nothing_runs_after_a_kill(monkeypatch):
    monkeypatch.setattr(Path, "unlink", lambda *args, **kwargs: None)


@pytest.mark.parametrize("killed", [False, True], ids=["interrupted", "killed"])
def test_a_crash_in_the_middle_of_writing_leaves_the_old_file(tmp_path, monkeypatch, killed):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, TENSORS, {"version": "old"})
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        if killed:
            nothing_runs_after_a_kill(patched)
        patched.setattr(files, "save_file", dies_halfway)
        with pytest.raises(KeyboardInterrupt):
            write_safetensors(path, {"a": torch.zeros(1)}, {"version": "new"})
    assert path.read_bytes() == before
    assert list(tmp_path.rglob("*.safetensors")) == [path], "no other file looks like a LoRA"
    if not killed:
        assert list(tmp_path.iterdir()) == [path]


def test_a_crash_before_the_rename_leaves_nothing_that_looks_like_a_lora(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"

    def full_disk(source, target):
        assert Path(source).parent == path.parent, "a rename is whole only within one folder"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_safetensors(path, TENSORS, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("read", [read_tensors, read_metadata])
@pytest.mark.parametrize("kept", [0, 4, 60, 0.5, 0.999])
def test_a_truncated_file_is_refused_by_name(tmp_path, read, kept):
    path = tmp_path / "cut.safetensors"
    write_safetensors(path, TENSORS, {})
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(len(whole) * kept)])
    with pytest.raises(UserError, match="truncated or not a safetensors file") as caught:
        read(path)
    assert_three_parts(caught.value, "cut.safetensors")


@pytest.mark.parametrize("content", [b"GGUF" * 99, b"{}", b"<html>404</html>", b"\xff" * 64])
def test_a_file_that_only_claims_to_be_safetensors_is_refused(tmp_path, content):
    path = tmp_path / "fake.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_tensors(path)
    assert_three_parts(caught.value, "fake.safetensors")


class Trap:
    def __reduce__(self):
        return os.mkdir, (os.environ["TANDEM_TRAP"],)


@pytest.mark.parametrize("name", ["evil.pt", "evil.ckpt", "evil.bin", "evil.pth", "evil"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_is_refused_and_its_code_never_runs(tmp_path, monkeypatch, name):
    trap = tmp_path / "sprung"
    monkeypatch.setenv("TANDEM_TRAP", str(trap))
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match=r"Convert it to safetensors") as caught:
        read_tensors(path)
    assert_three_parts(caught.value, name)
    renamed = path.rename(tmp_path / "evil.safetensors")
    with pytest.raises(UserError):
        read_tensors(renamed)
    assert not trap.exists()
    pickle.loads(renamed.read_bytes())
    assert trap.exists(), "the trap works"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="is not there") as caught:
        read_metadata(tmp_path / "gone.safetensors")
    assert_three_parts(caught.value, "gone.safetensors")


def test_a_folder_with_the_name_of_a_lora_is_refused(tmp_path):
    path = tmp_path / "folder.safetensors"
    path.mkdir()
    with pytest.raises(UserError) as caught:
        read_metadata(path)
    assert_three_parts(caught.value, "folder.safetensors")


@pytest.mark.parametrize(
    ("metadata", "entry"),
    [
        ({"tandem": json.dumps({"expert": "low_noise"})}, {"expert": "low_noise"}),
        ({}, {}),
        ({"tandem": "no json"}, {}),
        ({"tandem": "[1]"}, {}),
        ({"ss_network_dim": "16"}, {}),
    ],
)
def test_only_our_own_entry_is_taken_from_metadata(metadata, entry):
    assert tandem_metadata(metadata) == entry
