"""The layers and the limits of this pack, read from its source text; nothing of it is imported."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10; pytest brings its stand-in there
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
SHIPPED = ("radial_attention", "wan", "training", "cli", "nodes")
NOT_SHIPPED = ("dev", "tests", "benchmarks")
LONGEST_FILE, LONGEST_FUNCTION = 400, 70

MAY_IMPORT = {
    "radial_attention": set(),
    "wan": set(),
    "training": {"wan"},
    "cli": {"wan", "training", "radial_attention"},
    "nodes": {"wan", "training", "radial_attention"},
    "__init__.py": {"nodes"},
    "__main__.py": {"cli"},
}
TENSORS = {"torch", "safetensors", "einops", "numpy"}
# Packages beside the standard library. `nodes` and `cli` take what their host and their users have.
THIRD_PARTY = {
    "radial_attention": TENSORS | {"triton"},
    "wan": TENSORS | {"av", "tokenizers", "sentencepiece"},
    "training": TENSORS
    | {"accelerate", "filelock", "PIL", "matplotlib", "pytorch_optimizer"}
    | {"imagehash", "tomlkit", "yaml", "av"},
}
DIFFUSERS = {"diffusers", "peft"}
HOST = {"folder_paths", "server", "latent_preview", "node_helpers", "nodes", "execution"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}

Rule = Callable[[str, ast.Module], Iterator[str]]
"""rule(path below the root, its tree): a line for everything that breaks it."""


def top_of(path: str) -> str:
    return path.split("/")[0]


def imports(path: str, tree: ast.Module) -> Iterator[tuple[bool, str, ast.AST]]:
    """(is it ours, its first name, the statement); ours are relative, named from the root."""
    package = path.split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield False, alias.name.split(".")[0], node
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield False, (node.module or "").split(".")[0], node
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            beyond = node.level - 1 > len(package)
            target = [*base, *(node.module or "").split(".")] if node.module else base
            for alias in node.names:
                yield True, "(outside)" if beyond else [*target, alias.name][0], node


def imports_point_inwards(path: str, tree: ast.Module) -> Iterator[str]:
    for ours, name, node in imports(path, tree):
        if ours and name not in MAY_IMPORT[top_of(path)] | {top_of(path)}:
            yield f"{path}:{node.lineno} imports {name}/"


def the_pack_is_imported_by_relative_names(path: str, tree: ast.Module) -> Iterator[str]:
    # Below nodes/, an absolute `nodes` is the host's module of that name.
    names = {"tandem_wan", *SHIPPED, *NOT_SHIPPED} - (
        {"nodes"} if top_of(path) == "nodes" else set()
    )
    for ours, name, node in imports(path, tree):
        if not ours and name in names:
            yield f"{path}:{node.lineno} imports {name} by an absolute name"


def only_nodes_know_the_host(path: str, tree: ast.Module) -> Iterator[str]:
    for ours, name, node in imports(path, tree):
        of_the_host = name.startswith("comfy") or name in HOST
        if not ours and of_the_host and top_of(path) != "nodes":
            yield f"{path}:{node.lineno} imports {name} of the host"


def libraries_stay_within_their_packages(path: str, tree: ast.Module) -> Iterator[str]:
    allowed = THIRD_PARTY.get(top_of(path))
    if allowed is None:
        return
    if path.startswith("wan/miniature/"):
        allowed = allowed | {"diffusers", "transformers"}
    if path == "wan/diffusers_expert.py":
        allowed = allowed | DIFFUSERS
    inside = {id(n) for f in functions(tree) for n in ast.walk(f)}
    for ours, name, node in imports(path, tree):
        optional = top_of(path) == "radial_attention" and id(node) in inside
        if not ours and not optional and name not in allowed | sys.stdlib_module_names:
            yield f"{path}:{node.lineno} imports {name}, which its folder does not use"


def nobody_touches_the_search_path(path: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        attribute = isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path"
        imported = isinstance(node, ast.ImportFrom) and node.module == "sys"
        if attribute or (imported and any(alias.name == "path" for alias in node.names)):
            yield f"{path}:{node.lineno} uses sys.path"


def nothing_runs_code_from_outside(path: str, tree: ast.Module) -> Iterator[str]:
    for ours, name, node in imports(path, tree):
        if not ours and name in PICKLES | {"subprocess"}:
            yield f"{path}:{node.lineno} imports {name}"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"):
            yield f"{path}:{node.lineno} calls {called}"
        safe = any(
            k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True
            for k in node.keywords
        )
        if called == "torch.load" and not safe:
            yield f"{path}:{node.lineno} calls torch.load without weights_only=True"


def nothing_is_printed(path: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        printing = isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
        if printing and top_of(path) != "cli":
            yield f"{path}:{node.lineno} prints"


def loggers_have_names_of_their_own(path: str, tree: ast.Module) -> Iterator[str]:
    # The host loads the pack under its absolute path, so that __name__ would be a path.
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("getLogger"):
            name = node.args[0] if node.args else None
            if not (isinstance(name, ast.Constant) and str(name.value).split(".")[0] == "tandem"):
                yield f"{path}:{node.lineno} names its logger {ast.unparse(node)}"


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def functions_fit_a_screen(path: str, tree: ast.Module) -> Iterator[str]:
    for function in functions(tree):
        lines = function.end_lineno - function.lineno + 1
        if lines > LONGEST_FUNCTION and function.name != "define_schema":
            yield f"{path}:{function.lineno} {function.name} has {lines} lines"


def files_are_short(path: str, text: str) -> Iterator[str]:
    lines = len(text.splitlines())
    if lines > LONGEST_FILE:
        yield f"{path} has {lines} lines"


RULES_OF_THE_PACK: list[Rule] = [
    imports_point_inwards,
    the_pack_is_imported_by_relative_names,
    only_nodes_know_the_host,
    libraries_stay_within_their_packages,
    nobody_touches_the_search_path,
    nothing_runs_code_from_outside,
    nothing_is_printed,
    loggers_have_names_of_their_own,
]


def sources(*folders: str) -> dict[str, str]:
    """Path below the root to text, of all Python in the folders."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in paths}


PACK = sources(*SHIPPED) | {"__init__.py": (ROOT / "__init__.py").read_text(encoding="utf-8")}
EVERYTHING = PACK | sources(*NOT_SHIPPED)


def problems(rule: Rule, files: dict[str, str]) -> list[str]:
    return [line for path, text in files.items() for line in rule(path, ast.parse(text))]


def test_the_sources_are_found():
    assert {"wan/flow.py", "training/loop.py", "nodes/host/expert.py"} <= set(PACK)
    assert {"dev/pack.py", "tests/test_architecture.py"} <= set(EVERYTHING)


@pytest.mark.parametrize("rule", RULES_OF_THE_PACK, ids=lambda rule: rule.__name__)
def test_the_pack_keeps_the_rule(rule):
    assert problems(rule, PACK) == []


def test_every_function_here_fits_a_screen():
    assert problems(functions_fit_a_screen, EVERYTHING) == []


def test_every_file_here_is_short():
    assert [line for path, text in EVERYTHING.items() for line in files_are_short(path, text)] == []


BAD = [
    (imports_point_inwards, "wan/a.py", "from ..training.plan import TrainingPlan"),
    (imports_point_inwards, "wan/a.py", "from .. import nodes"),
    (imports_point_inwards, "wan/miniature/a.py", "from ...training import plan"),
    (imports_point_inwards, "training/a.py", "def f():\n    from ..nodes import trainer"),
    (imports_point_inwards, "training/a.py", "from ..radial_attention import mask"),
    (imports_point_inwards, "radial_attention/a.py", "from ..wan import shapes"),
    (imports_point_inwards, "nodes/a.py", "from ..cli import main"),
    (imports_point_inwards, "nodes/host/a.py", "from ...dev import pack"),
    (imports_point_inwards, "cli/a.py", "from ..nodes import trainer"),
    (imports_point_inwards, "wan/a.py", "from ... import beside"),
    (imports_point_inwards, "__init__.py", "from .wan import shapes"),
    (the_pack_is_imported_by_relative_names, "nodes/a.py", "import tandem_wan.wan"),
    (the_pack_is_imported_by_relative_names, "training/a.py", "from wan.shapes import ClipSize"),
    (the_pack_is_imported_by_relative_names, "wan/a.py", "import nodes"),
    (the_pack_is_imported_by_relative_names, "wan/a.py", "from dev import pack"),
    (only_nodes_know_the_host, "wan/a.py", "import comfy.utils"),
    (only_nodes_know_the_host, "training/a.py", "def f():\n    import folder_paths"),
    (only_nodes_know_the_host, "training/a.py", "from comfy_api.latest import io"),
    (only_nodes_know_the_host, "__init__.py", "import server"),
    (libraries_stay_within_their_packages, "wan/a.py", "import diffusers"),
    (libraries_stay_within_their_packages, "training/a.py", "import pandas"),
    (libraries_stay_within_their_packages, "wan/miniature/a.py", "import peft"),
    (libraries_stay_within_their_packages, "radial_attention/a.py", "import flash_attn"),
    (nobody_touches_the_search_path, "nodes/a.py", "import sys\nsys.path.insert(0, 'x')"),
    (nobody_touches_the_search_path, "wan/a.py", "import sys\nsys.path = []"),
    (nobody_touches_the_search_path, "wan/a.py", "from sys import path"),
    (nothing_runs_code_from_outside, "wan/a.py", "eval('1')"),
    (nothing_runs_code_from_outside, "wan/a.py", "def f():\n    exec('1')"),
    (nothing_runs_code_from_outside, "wan/a.py", "import os\nos.system('ls')"),
    (nothing_runs_code_from_outside, "wan/a.py", "import subprocess"),
    (nothing_runs_code_from_outside, "wan/a.py", "from pickle import loads"),
    (nothing_runs_code_from_outside, "wan/a.py", "torch.load(p)"),
    (nothing_runs_code_from_outside, "wan/a.py", "torch.load(p, weights_only=False)"),
    (nothing_is_printed, "nodes/a.py", "print('x')"),
    (loggers_have_names_of_their_own, "nodes/a.py", "log = logging.getLogger(__name__)"),
    (loggers_have_names_of_their_own, "nodes/a.py", "log = getLogger()"),
    (functions_fit_a_screen, "wan/a.py", "def f():\n" + "    x = 1\n" * LONGEST_FUNCTION),
    (functions_fit_a_screen, "wan/a.py", "async def f():\n" + "    x = 1\n" * LONGEST_FUNCTION),
]


@pytest.mark.parametrize(("rule", "path", "text"), BAD)
def test_a_file_that_breaks_a_rule_is_found(rule, path, text):
    assert len(problems(rule, {path: text})) == 1


GOOD = {
    "wan/a.py": "import torch, math\nfrom .shapes import ClipSize\nmodel.eval()\nre.compile('x')",
    "wan/miniature/a.py": "from ..shapes import ClipSize\nfrom .layouts import Shapes",
    "training/a.py": "from ..wan import flow\nfrom . import plan\nfrom matplotlib import figure",
    "nodes/host/a.py": "import nodes, comfy.sd\nfrom .. import sockets\nfrom ...wan import flow",
    "radial_attention/a.py": "def f():\n    import flash_attn\ntorch.load(p, weights_only=True)",
    "cli/a.py": "from ..training import loop\nprint('x')\nlog = logging.getLogger('tandem.cli')",
    "__init__.py": "def f():\n    from .nodes.extension import TandemExtension",
    "nodes/b.py": "def define_schema():\n" + "    x = 1\n" * LONGEST_FUNCTION,
}


@pytest.mark.parametrize(
    "rule", [*RULES_OF_THE_PACK, functions_fit_a_screen], ids=lambda rule: rule.__name__
)
def test_what_is_allowed_breaks_no_rule(rule):
    assert problems(rule, GOOD) == []


def test_a_long_file_is_found():
    assert list(files_are_short("wan/a.py", "x = 1\n" * LONGEST_FILE)) == []
    assert len(list(files_are_short("wan/a.py", "x = 1\n" * (LONGEST_FILE + 1)))) == 1


def test_pyproject_lists_exactly_the_packages_that_exist():
    found = {
        ".".join(["tandem_wan", *path.parent.relative_to(ROOT).parts])
        for folder in SHIPPED
        for path in (ROOT / folder).rglob("__init__.py")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["setuptools"]["packages"]) == found | {"tandem_wan"}


def test_every_folder_of_source_is_a_package():
    folders = {(ROOT / path).parent for path in PACK}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_no_other_folder_of_source_lies_in_the_checkout():
    known = {*SHIPPED, *NOT_SHIPPED, "demo", "build", "node_modules"}
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert found <= known
