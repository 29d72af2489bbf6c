"""The hooks of the documentation's build."""

import base64
import importlib.util
import json
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest

pytest.importorskip("mkdocs", reason="the extra docs is not installed")
ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / "mkdocs.yml").is_file():
    pytest.skip("the documentation is not here (the image with the tests)", allow_module_level=True)


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_of_root_files_work_on_the_site(hooks: ModuleType) -> None:
    text = "[a](docs/methods.md#anatomy) [b](CHANGELOG.md) [c](LICENSE) [d](https://x.org/y)"
    expected = "[a](methods.md#anatomy) [b](changes.md) [c](../LICENSE) [d](https://x.org/y)"
    assert hooks.links_from_root(text) == expected


def test_links_that_leave_the_docs_become_addresses(hooks: ModuleType) -> None:
    page = PurePosixPath("docs/reference/networks.md")
    text = "[a](../../NOTICE) [b](../methods.md) [c](../../CHANGELOG.md) [d](#here)"
    expected = f"[a]({hooks.REPOSITORY}/NOTICE) [b](../methods.md) [c](../changes.md) [d](#here)"
    assert hooks.links_to_repository(text, page) == expected


def test_a_link_to_a_missing_file_fails_the_build(hooks: ModuleType) -> None:
    with pytest.raises(hooks.PluginError, match="no-such-file"):
        hooks.links_to_repository("[a](../no-such-file)", PurePosixPath("docs/index.md"))


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://unpkg.com/mermaid.js"></script>',
        '<img alt="" src="http://example.org/a.png">',
        '<link rel="stylesheet" href="https://fonts.googleapis.com/css?family=Roboto">',
    ],
)
def test_a_site_that_loads_from_elsewhere_is_refused(
    hooks: ModuleType, tmp_path: Path, html: str
) -> None:
    page = tmp_path / "index.html"
    config = type("Config", (), {"site_dir": str(tmp_path)})()
    page.write_text('<a href="https://github.com">a link is fine</a><img src="a.png">')
    hooks.on_post_build(config)
    page.write_text(html)
    with pytest.raises(hooks.PluginError, match="from elsewhere"):
        hooks.on_post_build(config)


def test_a_notebook_becomes_a_page(hooks: ModuleType, tmp_path: Path) -> None:
    code = {"cell_type": "code", "source": ["1 + 1"], "outputs": [], "execution_count": None}
    cells = [{"cell_type": "markdown", "source": ["# Title"]}, code]
    notebook, executed = tmp_path / "sums.ipynb", tmp_path / "build" / "sums.ipynb"
    notebook.write_text(json.dumps({"cells": cells}))
    text, pictures = hooks.notebook_pages.page_of(notebook, executed)
    assert text.startswith("# Title") and "```python\n1 + 1\n```" in text and not pictures

    picture = base64.b64encode(b"a picture").decode()
    outputs = [
        {"output_type": "stream", "name": "stderr", "text": ["a warning"]},
        {"output_type": "execute_result", "data": {"text/plain": ["2"]}},
        {"output_type": "display_data", "data": {"image/png": picture, "text/plain": ["<Fig>"]}},
    ]
    executed.parent.mkdir()
    executed.write_text(json.dumps({"cells": [cells[0], {**code, "outputs": outputs}]}))
    text, pictures = hooks.notebook_pages.page_of(notebook, executed)
    assert pictures == {"sums-0.png": b"a picture"} and "(sums-0.png)" in text
    assert "\n2\n" in text and "a warning" not in text and "<Fig>" not in text
    # outputs of an older notebook are not those of this one
    notebook.write_text(json.dumps({"cells": [cells[0], {**code, "source": ["1 + 2"]}]}))
    text, pictures = hooks.notebook_pages.page_of(notebook, executed)
    assert not pictures and "\n2\n" not in text
