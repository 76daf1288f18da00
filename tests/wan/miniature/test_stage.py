"""A stage of training: stopped and resumed it ends where an unbroken one ends, to the last bit."""

from dataclasses import replace

import pytest
import torch
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.files import read_tensors
from tandem_wan.wan.miniature.recipe import stage as module
from tandem_wan.wan.miniature.recipe.stage import Stage, train_stage
from torch import nn

STAGE = Stage(name="toy", steps=12, learning_rate=0.05, warmup=3)


class Toy(nn.Module):
    """A matrix for Muon and a bias for AdamW."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.Linear(4, 4)])


def loss_of(toy: Toy, stop_at: int | None = None):
    def loss_at(step: int, generator: torch.Generator) -> torch.Tensor:
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(8, 4, generator=generator)
        return (toy.blocks[0](x) - x.flip(1)).square().mean()

    return loss_at


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(module, "CHECKPOINT_EVERY_S", -1.0)


def test_a_resumed_stage_ends_as_an_unbroken_one(tmp_path):
    whole, first, second = Toy(), Toy(), Toy()
    train_stage(STAGE, whole, loss_of(whole), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_stage(STAGE, first, loss_of(first, stop_at=7), tmp_path / "parts")
    nn.init.zeros_(second.blocks[0].weight)
    train_stage(STAGE, second, loss_of(second), tmp_path / "parts")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["toy.safetensors"]


def test_it_learns_and_leaves_the_running_mean_in_the_network(tmp_path):
    toy = Toy()
    before = loss_of(toy)(0, torch.Generator().manual_seed(5)).item()
    long = replace(STAGE, steps=120)
    train_stage(long, toy, loss_of(toy), tmp_path)
    assert loss_of(toy)(0, torch.Generator().manual_seed(5)).item() < before / 10
    saved = read_tensors(tmp_path / "toy.safetensors")
    assert torch.equal(saved["blocks.0.weight"], toy.blocks[0].weight)


def test_a_finished_stage_is_read_and_not_trained_again(tmp_path):
    toy = Toy()
    train_stage(STAGE, toy, loss_of(toy), tmp_path)
    again = Toy()
    train_stage(STAGE, again, loss_of(again, stop_at=0), tmp_path)
    assert torch.equal(again.blocks[0].weight, toy.blocks[0].weight)


@pytest.mark.parametrize("change", [{"steps": 13}, {"learning_rate": 0.1}, {"seed": 1}])
def test_weights_of_another_recipe_are_refused(tmp_path, change):
    toy = Toy()
    train_stage(STAGE, toy, loss_of(toy), tmp_path)
    with pytest.raises(UserError, match="another recipe"):
        train_stage(replace(STAGE, **change), toy, loss_of(toy), tmp_path)


def test_the_seed_decides_the_outcome(tmp_path):
    one, same, other = Toy(), Toy(), Toy()
    train_stage(STAGE, one, loss_of(one), tmp_path / "1")
    train_stage(STAGE, same, loss_of(same), tmp_path / "2")
    train_stage(replace(STAGE, seed=3), other, loss_of(other), tmp_path / "3")
    assert torch.equal(one.blocks[0].weight, same.blocks[0].weight)
    assert not torch.equal(one.blocks[0].weight, other.blocks[0].weight)
