"""A real ComfyUI with the pack, its own front end, and a Chromium that opens it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path

import pytest
from tandem_wan.dev.browser import find_browser
from tandem_wan.dev.host import fill_base
from tandem_wan.dev.page import SETTINGS, SIZE, chromium, fill_for_page, wait_until_ready
from tandem_wan.dev.server import HostServer, prepare_base

ROOT = Path(__file__).absolute().parents[2]
NOISE = (
    # A new user has no files yet; the front end asks for these all the same.
    r"404 .*/user\.css$",
    r"404 .*/api/userdata[/?]",
    # The front end's own start: it looks at the graph before it has made one.
    r"^ComfyApp graph accessed before initialization",
)
"""Console errors that the page of a host without any pack has too."""


@pytest.fixture(scope="package")
def browser():
    if find_browser() is None:
        pytest.skip("needs Chromium: run `make browser`")
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def server(browser, comfyui, tmp_path_factory):
    base = prepare_base(tmp_path_factory.mktemp("page"), ROOT)
    fill_for_page(base, ROOT / "workflows")
    with HostServer(base, nodes=("TandemTrainer",)) as server:
        yield server


@pytest.fixture(scope="package")
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture(scope="package")
def trainer_server(browser, comfyui, footage, tmp_path_factory):
    """A host with the tiny family and clips, so that its trainer trains."""
    base = prepare_base(tmp_path_factory.mktemp("training_page"), ROOT)
    fill_base(base)
    with HostServer(base, nodes=("TandemTrainer",)) as server:
        yield server


@pytest.fixture
def page(server, browser):
    """A new user's page, ready; `page.problems` are the errors that it has reported."""
    with opened(server, browser) as page:
        yield page


@pytest.fixture
def trainer_page(trainer_server, browser):
    """The same on the host that can train."""
    with opened(trainer_server, browser) as page:
        yield page


@contextmanager
def opened(server, browser):
    page = browser.new_page(viewport=SIZE)
    page.problems = problems = []
    page.on("console", lambda message: problems.extend(_problems(message)))
    page.on("pageerror", lambda error: problems.append(str(error)))
    # The host keeps settings for all pages: undo what an earlier test has set.
    page.request.post(
        f"{server.url}/api/settings", data={**SETTINGS, "Comfy.VueNodes.Enabled": False}
    )
    page.goto(server.url)
    wait_until_ready(page)
    try:
        yield page
    finally:
        page.close()


def _problems(message) -> list[str]:
    text = f"{message.text} {message.location['url']}"
    noise = any(re.search(pattern, text) for pattern in NOISE)
    return [text] if message.type == "error" and not noise else []
