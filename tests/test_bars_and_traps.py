"""The table of bars and traps is true: every test and benchmark in it exists, and none is missing from it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).absolute().parent
ROOT = TESTS.parent
TABLE = (TESTS / "README.md").read_text(encoding="utf-8")
ROWS = {line.split("|")[1].strip(): line for line in TABLE.splitlines() if line.startswith("| ")}
NAMED = re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)(?:::(\w+))?`", TABLE)


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_bar_and_every_trap_has_a_row_with_something_that_holds_it():
    numbers = [f"C{n}" for n in range(1, 20)] + [str(n) for n in range(1, 17)]
    assert [number for number in ROWS if re.fullmatch(r"C?\d+", number)] == numbers
    for number in numbers:
        assert re.search(r"`(tests|benchmarks)/\w", ROWS[number]), number


def test_everything_that_is_named_exists():
    assert len(NAMED) > 40
    for file, name in NAMED:
        assert (ROOT / file).is_file(), file
        assert not name or name in functions(ROOT / file), f"{file}::{name}"


def test_every_test_of_a_bar_or_a_trap_stands_in_its_row():
    found = 0
    for path in TESTS.rglob("test_*.py"):
        for name in functions(path):
            if match := re.match(r"test_(bar_c|trap_)(\d\d)_", name):
                kind, number = match.groups()
                row = ROWS[f"{'C' if kind == 'bar_c' else ''}{int(number)}"]
                assert f"`{path.relative_to(ROOT).as_posix()}::{name}`" in row
                found += 1
    assert found >= 28
