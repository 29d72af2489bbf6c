"""A real browser: Debian's Chromium, driven by playwright. See `tests/browser_checks.py`.

make browser-tools    axe-core, by npm, into tests/browser/node_modules
make test-browser     these tests; with REQUIRED=1 a missing browser is a failure, not a skip
"""

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser_checks import listen, missing

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder has the marker `browser`."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One browser for all tests of a process."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed: make venv")
    if not Path(CHROMIUM).exists():
        missing(f"{CHROMIUM} does not exist: apt-get install chromium")
    with sync_playwright() as playwright:
        # a container lacks the privileges of Chromium's sandbox, and these pages are our own
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page without memory of other tests, 1280 pixels wide, whose complaints are collected."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(10_000)
    listen(context)
    yield context.new_page()
    context.close()


@pytest.fixture
def serve() -> Iterator[Any]:
    """Serve a folder by HTTP on this machine: `serve(folder)` returns its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(folder: Path) -> str:
        handler = partial(_Quiet, directory=str(folder))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Write nothing on the screen."""
