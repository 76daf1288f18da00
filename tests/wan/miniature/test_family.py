"""The shipped family: whole, of this version, and refused with what to do when it is not."""

from __future__ import annotations

import shutil

import pytest
from safetensors.torch import load_file, save_file
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.miniature import family
from tandem_wan.wan.miniature.layouts import (
    TransformerSize,
    transformer_layout,
    vae_layout,
)


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(family.SHIPPED, tmp_path / "weights")


def test_the_files_go_where_the_hosts_loaders_look(tmp_path):
    files = family.install_family(tmp_path)
    assert (
        files.high_noise == tmp_path / "diffusion_models" / "mini_wan2.2_i2v_high_noise.safetensors"
    )
    assert files.vae.parent.name == "vae" and files.text_encoder.parent.name == "text_encoders"
    for placed in tmp_path.rglob("*.safetensors"):
        from_where = family.SHIPPED_LORAS if placed.parent.name == "mini" else family.SHIPPED
        assert placed.read_bytes() == (from_where / placed.name).read_bytes()
    assert len(list(tmp_path.rglob("*.safetensors"))) == 5 + 6
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()], "nothing half written"


def test_the_tensors_are_those_of_the_layouts():
    for role in ("high", "low"):
        tensors = load_file(family.SHIPPED / f"mini_wan2.2_i2v_{role}_noise.safetensors")
        expected = transformer_layout(TransformerSize())
        assert {name: tuple(t.shape) for name, t in tensors.items()} == expected
    tensors = load_file(family.SHIPPED / "mini_wan2.2_vae.safetensors")
    assert {name: tuple(t.shape) for name, t in tensors.items()} == vae_layout(8)


def test_all_of_it_is_at_most_twelve_megabytes():
    shipped = [*family.SHIPPED.glob("*.safetensors"), *family.SHIPPED_LORAS.glob("*.safetensors")]
    assert len(shipped) == 5 + 6
    assert sum(file.stat().st_size for file in shipped) < 12e6


def test_a_missing_file_is_named_and_how_to_make_it_again(copied, tmp_path):
    (copied / "mini_wan2.2_vae.safetensors").unlink()
    with pytest.raises(
        UserError, match=r"mini_wan2.2_vae.safetensors is not there.*miniature train"
    ):
        family.install_family(tmp_path / "models", copied)
    assert not (tmp_path / "models").exists(), "nothing is copied of a family that is not whole"


@pytest.mark.parametrize("metadata", [{}, {"tandem_miniature": "0"}])
def test_a_file_of_another_version_is_refused(copied, tmp_path, metadata):
    path = copied / "mini_wan2.2_umt5.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(UserError, match=r"is of version (None|0), this code is of version 1"):
        family.install_family(tmp_path / "models", copied)
