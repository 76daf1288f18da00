"""What an optimizer remembers, as plain tensors and plain values that a file can hold, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]
Values = dict[str, Any]
"""As JSON holds it."""


def packed(optimizer: torch.optim.Optimizer) -> tuple[Tensors, Values]:
    """Tensors by INDEX/NAME of their weight, and all else: what is no tensor, and what counts for all weights alike.

    Raises TypeError where it remembers what is neither.
    """
    weights = _weights(optimizer)
    if len(optimizer.state.keys() - set(weights)):
        raise TypeError("the optimizer keeps memory that belongs to no weight")
    tensors: Tensors = {}
    states: Values = {}
    for index, weight in enumerate(weights):
        for name, value in optimizer.state.get(weight, {}).items():
            if torch.is_tensor(value):
                tensors[f"{index}/{name}"] = value
            else:
                encoded = _encoded(value, tensors, f"{index}/{name}")
                states.setdefault(str(index), {})[name] = encoded
    groups = [
        _group_values(group, tensors, number) for number, group in enumerate(optimizer.param_groups)
    ]
    return tensors, {"states": states, "groups": groups}


def restore(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]
) -> None:
    """Puts back what `packed` gave, bit for bit and in its own dtypes; tensors go where their weights are, single
    numbers stay on the CPU. Empty `values`, as older files have them, leave what they would change as it is."""
    weights = _weights(optimizer)
    states: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        index, *names = key.split("/")
        if index.isdigit() and len(names) == 1:
            states.setdefault(int(index), {})[names[0]] = _placed(
                tensor, weights[int(index)].device
            )
    for index, named in values.get("states", {}).items():
        device = weights[int(index)].device
        for name, value in named.items():
            states.setdefault(int(index), {})[name] = _decoded(value, tensors, device)
    for index, state in states.items():
        optimizer.state[weights[index]] = state
    for group, saved in zip(optimizer.param_groups, values.get("groups", ()), strict=False):
        device = group["params"][0].device
        group.update({name: _decoded(value, tensors, device) for name, value in saved.items()})


def move(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """All tensors that are more than one number."""
    for memory in (*optimizer.state.values(), *optimizer.param_groups):
        memory.update({name: _moved(v, device) for name, v in memory.items() if name != "params"})


def _weights(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _group_values(group: Mapping[str, Any], tensors: Tensors, number: int) -> Values:
    values = {}
    for name, value in group.items():
        if name == "params":
            continue
        try:
            values[name] = _encoded(value, tensors, f"group/{number}/{name}")
        except TypeError:
            continue  # A setting, such as a dtype: the plan makes it again.
    return values


def _encoded(value: object, tensors: Tensors, key: str) -> object:
    """A tree of lists, tuples and dicts as JSON holds it; its tensors are put aside."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if torch.is_tensor(value):
        name = f"{key}/{len(tensors)}"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        pairs = [[_encoded(k, tensors, key), _encoded(v, tensors, key)] for k, v in value.items()]
        return {"dict": pairs}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_encoded(each, tensors, key) for each in value]}  # type: ignore[attr-defined]
    raise TypeError(f"the optimizer remembers a {type(value).__name__}, which a file cannot hold")


def _decoded(value: Any, tensors: Mapping[str, torch.Tensor], device: torch.device) -> Any:  # noqa: ANN401
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return _placed(tensors[inner], device)
    if kind == "dict":
        return {_decoded(k, tensors, device): _decoded(v, tensors, device) for k, v in inner}
    make: Callable[[list[Any]], Any] = tuple if kind == "tuple" else list
    return make([_decoded(each, tensors, device) for each in inner])


def _placed(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    # A clone: two optimizers restored from one file share nothing.
    return tensor.detach().clone().to(device if tensor.ndim else "cpu")


def _moved(value: Any, device: torch.device) -> Any:  # noqa: ANN401
    if torch.is_tensor(value):
        return value.to(device) if value.ndim else value
    if isinstance(value, dict):
        return {name: _moved(each, device) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_moved(each, device) for each in value)
    return value
