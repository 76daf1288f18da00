"""Lines of a benchmark's output: what was measured, its figure, the goal, and whether that is reached."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def row(
    name: str, figure: float, goal: float | None = None, *, unit: str = "", more: str = ""
) -> None:
    """One line; a goal is the most that the figure may be."""
    verdict = ""
    if goal is not None:
        verdict = f"goal {goal:g}{unit}: {'reached' if figure <= goal else 'MISSED'}"
    print(f"  {name:64} {figure:9.3f}{unit:3} {verdict:28} {more}".rstrip())


def ratio_row(
    name: str, ours: Sequence[float], theirs: Sequence[float], goal: float | None = None
) -> None:
    """The median of the ratios within each turn, with the least and the most."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    more = f"({min(ratios):.3f} to {max(ratios):.3f})"
    row(name, statistics.median(ratios), goal, more=more)


def take_turns(runs: dict, rounds: int) -> dict[str, list[float]]:
    """What each of `runs` returns, round after round, so that drift of the machine cancels; the first warms up."""
    figures: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            figure = run()
            if turn:
                figures[name].append(figure)
    return figures
