"""What users install: the right files, nothing of the workshop, and no torch of its own."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10; pytest brings its stand-in there
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements() -> list[str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def bare_name(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower()


def test_torch_is_left_to_the_host():
    names = {bare_name(line) for line in requirements()}
    assert names, "the file is read"
    assert names.isdisjoint({"torch", "torchvision", "torchaudio", "xformers", "numpy"})


def test_pip_and_the_host_install_the_same():
    assert sorted(PROJECT["project"]["dependencies"]) == sorted(requirements())


def node_ids(text: str) -> list[str]:
    """The `node_id` of every schema in a source text."""
    return [
        keyword.value.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Schema")
        for keyword in node.keywords
        if keyword.arg == "node_id"
    ]


def all_node_ids() -> list[str]:
    paths = sorted((ROOT / "nodes").glob("*.py"))
    return [i for path in paths for i in node_ids(path.read_text(encoding="utf-8"))]


def test_the_contracts_nodes_are_found_and_no_id_comes_twice():
    ids = all_node_ids()
    assert {"TandemDataset", "TandemTrainer", "TandemApplyStack", "TandemDualSampler"} <= set(ids)
    assert len(ids) == len(set(ids))
    assert all(i.startswith("Tandem") for i in ids)


@pytest.mark.parametrize("node_id", all_node_ids())
def test_each_node_has_a_help_page_about_its_inputs(node_id):
    page = ROOT / "web" / "docs" / f"{node_id}.md"
    assert page.is_file()
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert len(text.split()) > 50


def test_no_help_page_is_left_of_a_node_that_is_gone():
    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    assert pages <= set(all_node_ids())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of a copy of this checkout, unpacked; the copy keeps build folders out of here."""
    version = importlib.metadata.version("setuptools") if find("setuptools") else "0"
    if int(version.split(".")[0]) < 77:
        pytest.skip(f"needs setuptools 77 or newer to build, found {version}")
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(
        ".git", "__pycache__", ".*_cache", ".hypothesis", "demo", "build", "*.egg-info"
    )
    shutil.copytree(ROOT, folder / "checkout-2", ignore=ignored)
    build = ["pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder)]
    subprocess.run(
        [sys.executable, "-m", *build, str(folder / "checkout-2")], check=True, capture_output=True
    )
    (built,) = folder.glob("tandem_wan-*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def find(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def contents(wheel: Path) -> set[str]:
    pack = wheel / "tandem_wan"
    return {path.relative_to(pack).as_posix() for path in pack.rglob("*") if path.is_file()}


def checkout_files(*folders: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


@pytest.mark.slow
def test_the_wheel_holds_all_that_the_host_needs(wheel):
    shipped = [f.removeprefix("tandem_wan.") for f in PROJECT["tool"]["setuptools"]["packages"]]
    folders = {name.split(".")[0] for name in shipped if name != "tandem_wan"}
    expected = checkout_files(*folders, "web", "workflows") | {"__init__.py"}
    assert any(name.startswith("web/docs/") for name in expected)
    assert any(name.startswith("workflows/api/") for name in expected)
    assert expected - contents(wheel) == set()


@pytest.mark.slow
def test_the_wheel_holds_nothing_of_the_workshop(wheel):
    tops = {path.name for path in wheel.iterdir()}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"tandem_wan"}
    inside = {name.split("/")[0] for name in contents(wheel)}
    assert inside.isdisjoint({"tests", "dev", "benchmarks", ".ci", "demo", "Makefile"})


@pytest.mark.slow
def test_the_wheel_says_what_it_needs_and_under_which_licence(wheel):
    (metadata,) = wheel.glob("*.dist-info/METADATA")
    lines = metadata.read_text(encoding="utf-8").splitlines()
    plain = [line for line in lines if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert [line.split(": ", 1)[1] for line in plain] == requirements()
    assert "License-Expression: Apache-2.0" in lines
    assert list(wheel.glob("*.dist-info/licenses/LICENSE"))


@pytest.mark.slow
def test_the_installed_pack_is_imported_from_any_folder_without_the_host(wheel, tmp_path):
    code = (
        "import sys, tandem_wan\n"
        "import tandem_wan.training.loop, tandem_wan.wan.video, tandem_wan.wan.miniature.layouts\n"
        "from tandem_wan.wan.shapes import ClipSize, latent_size\n"
        "assert not [name for name in sys.modules if name.startswith('comfy')]\n"
        "assert not [name for name in sys.modules if name == 'nodes' or name == 'wan']\n"
        "sys.stdout.write(f'{tandem_wan.__file__} {latent_size(ClipSize(832, 480, 81)).frames}')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(wheel)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert found == f"{wheel / 'tandem_wan' / '__init__.py'} 21"
