"""Hooks of the documentation's build: what MkDocs cannot do by itself.

Pages made from files outside of docs/ (the change log, the guide for contributors) and from the
notebooks; links to files of the repository that are not part of the site; and a last look at the
built pages, which must load nothing from elsewhere.
"""

import importlib.util
import re
from pathlib import Path, PurePosixPath
from types import ModuleType

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = "https://github.com/brainlm-bids/brainlm-bids/blob/main"
PAGES_FROM_ROOT = {"CHANGELOG.md": "changes.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(?<=\]\()(?P<path>[^)#:\s]+)(?=[)#])")
EXTERNAL = re.compile(
    r"<(?:script|img|iframe)[^>]+src=\"?https?:|<link[^>]+href=\"?https?:[^>]*css"
)


def _load(path: Path) -> ModuleType:
    """A module that lies beside this file: MkDocs loads hooks without their folder."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path}: cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


notebook_pages = _load(Path(__file__).with_name("notebook_pages.py"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from other files."""
    for source, name in PAGES_FROM_ROOT.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=links_from_root(text)))
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        text, pictures = notebook_pages.page_of(path, ROOT / "build" / "notebooks" / path.name)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that leave docs/ point to the repository, and those to notebooks to their pages."""
    text = links_to_repository(markdown, PurePosixPath("docs") / page.file.src_uri)
    return re.sub(r"(?<=\]\()([^):\s]+)\.ipynb\)(?!\{ download)", r"\1.md)", text)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that loads pictures, scripts or styles from elsewhere."""
    for path in sorted(Path(config.site_dir).rglob("*.html")):
        found = EXTERNAL.search(path.read_text(encoding="utf-8"))
        if found:
            raise PluginError(f"{path}: loads something from elsewhere: {found.group()}")


def links_from_root(text: str) -> str:
    """Links of a file at the repository's root, as they are for a page at the site's root.

    >>> links_from_root("[Methods](docs/methods.md#anatomy), [licence](LICENSE)")
    '[Methods](methods.md#anatomy), [licence](../LICENSE)'
    """

    def relative(match: re.Match[str]) -> str:
        path = match["path"]
        if path in PAGES_FROM_ROOT:
            return PAGES_FROM_ROOT[path]
        return path.removeprefix("docs/") if path.startswith("docs/") else f"../{path}"

    return LINK.sub(relative, text)


def links_to_repository(text: str, page: PurePosixPath) -> str:
    """Links from `page` (path in the repository) that leave docs/, as addresses.

    Raises
    ------
    PluginError
        If such a link names a file that does not exist.

    >>> links_to_repository("[licence](../LICENSE)", PurePosixPath("docs/x.md"))
    '[licence](https://github.com/brainlm-bids/brainlm-bids/blob/main/LICENSE)'
    """

    def absolute(match: re.Match[str]) -> str:
        target = (ROOT / page.parent / match["path"]).resolve()
        if target.is_relative_to(ROOT / "docs") or not target.is_relative_to(ROOT):
            return match["path"]
        inside = target.relative_to(ROOT).as_posix()
        if inside in PAGES_FROM_ROOT:
            depth = len(page.parent.parts) - 1
            return "../" * depth + PAGES_FROM_ROOT[inside]
        if not target.exists():
            raise PluginError(f"{page}: there is no {match['path']}")
        return f"{REPOSITORY}/{inside}"

    return LINK.sub(absolute, text)
