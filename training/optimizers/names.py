"""The names by which a plan calls an optimizer."""

from __future__ import annotations

from difflib import get_close_matches

from ...wan.errors import UserError

AUTOMAGIC, PRODIGY = "automagic", "prodigy"
AVAILABLE = ("adamw", AUTOMAGIC, "adamw 8-bit", "adamw kahan", "adamw 8-bit kahan", PRODIGY)
LIBRARY = "library:"
"""Before the name of a class of pytorch_optimizer: `library:Lion`."""
DTYPES = ("float32", "bfloat16")
"""What trained adapters are held in."""


def library_class(name: str) -> str:
    """The class that `library:CLASS` names; empty for another name."""
    return name.removeprefix(LIBRARY) if name.startswith(LIBRARY) else ""


def is_eight_bit(name: str) -> bool:
    """Whether the optimizer's memory is held in 8 bits."""
    return name in ("adamw 8-bit", "adamw 8-bit kahan")


def is_kahan(name: str) -> bool:
    """Whether an update that bfloat16 would round away is kept. Automagic does so of itself."""
    return name in ("adamw kahan", "adamw 8-bit kahan", AUTOMAGIC)


def rate_is_factor(name: str) -> bool:
    """Whether the optimizer finds its rate itself, and a plan's rate only multiplies it: 1 is usual."""
    return name == PRODIGY or library_class(name).startswith(("Prodigy", "DAdapt"))


def require_name(name: str) -> None:
    """Raises `UserError` for a name that no optimizer has. Whether the library has the class is seen before a run."""
    if name in AVAILABLE or library_class(name).isidentifier():
        return
    near = get_close_matches(name.lower(), AVAILABLE, 1)
    raise UserError(
        f"optimizer.name is {name!r}.",
        f"It can be {', '.join(AVAILABLE)}, or {LIBRARY}CLASS for a class of pytorch_optimizer, such as {LIBRARY}Lion.",
        f"Is {near[0]} meant? Change it in the plan." if near else "Change it in the plan.",
    )
