"""PyTorch files: plain tensors are taken, whatever else they hold is refused and never run."""

import collections
import io
import os
import pickle
import zipfile

import pytest
import torch
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.files import lora_header, read_lora, read_metadata, read_tensors

FACTORS = {
    "blocks.0.ffn.0.lora_A.weight": torch.randn(4, 6),
    "blocks.0.ffn.0.lora_B.weight": torch.randn(8, 4),
}


class Trap:
    def __reduce__(self):
        return os.mkdir, (os.environ["TANDEM_TRAP"],)


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A folder that exists once any code of a file has run."""
    path = tmp_path / "sprung"
    monkeypatch.setenv("TANDEM_TRAP", str(path))
    return path


@pytest.mark.parametrize("suffix", ["pt", "pth", "ckpt", "bin", "PT"])
@pytest.mark.parametrize(
    "wrap", [dict, collections.OrderedDict, lambda t: {"state_dict": t, "epoch": 3}]
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_plain_tensors_are_a_lora(tmp_path, suffix, wrap, zipped):
    path = tmp_path / f"x.{suffix}"
    torch.save(wrap(FACTORS), path, _use_new_zipfile_serialization=zipped)
    file = read_lora(path)
    assert file.tensors.keys() == FACTORS.keys()
    assert all(torch.equal(file.tensors[key], FACTORS[key]) for key in FACTORS)
    assert file.header == lora_header(path)
    assert file.metadata == read_metadata(path) == {}


@pytest.mark.parametrize(
    "content",
    [Trap(), {"x.lora_A.weight": Trap()}, {"state_dict": FACTORS, "more": Trap()}, [Trap()]],
    ids=["alone", "as a tensor", "beside the tensors", "in a list"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_file_is_never_run(tmp_path, trap, content, zipped):
    path = tmp_path / "evil.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for read in (read_lora, read_tensors, lora_header):
        with pytest.raises(UserError, match="it holds more than tensors") as caught:
            read(path)
        assert "evil.pt" in caught.value.came
    assert not trap.exists()
    torch.load(path, weights_only=False)
    assert trap.exists(), "the trap works"


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    "content",
    [
        torch.ones(3),
        {},
        {"state_dict": {}},
        {"a.lora_A.weight": 3.0},
        {"a.lora_A.weight": [torch.ones(1)]},
        {3: torch.ones(1)},
        {"a.lora_A.weight": torch.eye(3).to_sparse()},
    ],
    ids=[
        "one tensor",
        "nothing",
        "nothing inside",
        "a number",
        "a list",
        "a number as name",
        "sparse",
    ],
)
def test_what_is_no_table_of_plain_tensors_is_refused(tmp_path, content):
    path = tmp_path / "odd.ckpt"
    torch.save(content, path)
    with pytest.raises(UserError, match=r"odd\.ckpt cannot be used"):
        read_lora(path)


def broken_files() -> dict[str, bytes]:
    buffer = io.BytesIO()
    torch.save(FACTORS, buffer)
    whole, archive = buffer.getvalue(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "no tensors here")
    return {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "another zip": archive.getvalue(),
        "words": b"<html>404</html>",
        "a bare pickle": pickle.dumps({"x": 1}, protocol=2),
        "noise": bytes(range(256)),
    }


@pytest.mark.parametrize("content", broken_files().values(), ids=broken_files())
def test_a_broken_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "cut.bin"
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=r"cut\.bin cannot be used \(it (is truncated|holds no table)"
    ):
        read_lora(path)


def test_a_missing_file_is_named(tmp_path):
    for read in (read_lora, lora_header, read_metadata):
        with pytest.raises(UserError, match=r"gone\.pt is not there"):
            read(tmp_path / "gone.pt")


def test_only_loras_may_be_pickles(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(FACTORS, path)
    with pytest.raises(UserError, match=r"A text encoder is read from a \.safetensors file"):
        read_metadata(path, "text encoder")
