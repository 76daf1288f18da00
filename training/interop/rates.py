"""How a learning rate moves, in the words of other trainers and of a plan."""

from __future__ import annotations

from .draft import Draft, Values

CONSTANT, RESTARTS = "constant", "cosine with restarts"
WARMED = "constant_with_warmup"
"""What trainers whose constant rate has no warm-up call the one that has."""
_OURS = {
    CONSTANT: CONSTANT,
    WARMED: CONSTANT,
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_restarts": RESTARTS,
    "cosine_with_min_lr": "cosine",
    "polynomial": "linear",
}
_NEAREST = {
    "cosine_with_min_lr": "it ends above 0 there, and at 0 here",
    "polynomial": "it is a straight line here",
}


def our_schedule(draft: Draft, theirs: str, *, straight: bool = False) -> str:
    """The schedule of a plan; what differs is noted. `straight`: a polynomial of power 1."""
    name = theirs.strip().lower() or CONSTANT
    if name not in _OURS:
        draft.note(f"lr_scheduler {theirs:.40} is not here: the rate stays constant.")
    elif name in _NEAREST and not (straight and name == "polynomial"):
        draft.note(f"lr_scheduler {name} is read as {_OURS[name]}: {_NEAREST[name]}.")
    return _OURS.get(name, CONSTANT)


def halves(warmup: int) -> Values:
    """A warm-up that both experts share, as each expert's own steps."""
    return {"high.warmup": warmup - warmup // 2, "low.warmup": warmup // 2}
