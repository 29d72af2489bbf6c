"""Links between pages: only to what exists, kept right while pages are added one by one."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import pytest

from brainlm_bids.report import places
from brainlm_bids.report.page import Places, environment
from brainlm_bids.report.places import publish, refresh, subject_pages
from brainlm_bids.report.subject import build_report


def _links(page: Path) -> dict[str, str]:
    block = re.search(r"<!-- places -->(.*?)<!-- /places -->", page.read_text(), re.DOTALL)
    assert block is not None
    found = re.findall(r'<a href="\./(.*?)"(?: rel="(\w+)")?>(\w+)', block[1])
    return {rel or text: unquote(href) for href, rel, text in found}


def _frame() -> str:
    block = environment().get_template("places.html.j2").render(places=Places())
    return f"<html>{block}<main>text</main></html>"


def test_every_link_is_right_after_every_page(tmp_path: Path) -> None:
    for added, label in enumerate(["10", "1", "9", "2", "A b"]):
        publish(tmp_path, label, _frame())
        pages = subject_pages(tmp_path)
        assert len(pages) == added + 1
        for before, page, after in zip(["", *pages], pages, [*pages[1:], ""], strict=False):
            links = _links(tmp_path / page)
            assert links == {k: v for k, v in {"prev": before, "next": after}.items() if v}
    assert pages == [f"sub-{label}.html" for label in ("1", "2", "9", "10", "A b")]


def test_jobs_at_the_same_time_lose_no_link(tmp_path: Path) -> None:
    labels = [f"{n:02d}" for n in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda label: publish(tmp_path, label, _frame()), labels))
    pages = subject_pages(tmp_path)
    assert [_links(tmp_path / page).get("next", "") for page in pages] == [*pages[1:], ""]
    assert [_links(tmp_path / page).get("prev", "") for page in pages] == ["", *pages[:-1]]


def test_a_job_touches_its_page_and_two_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(1, 30, 2):
        publish(tmp_path, f"{n:02d}", _frame())
    written: list[str] = []
    write = places.files.write_text
    monkeypatch.setattr(
        places.files,
        "write_text",
        lambda path, text: (written.append(path.name), write(path, text))[1],
    )
    publish(tmp_path, "16", _frame())
    assert sorted(written) == ["sub-15.html", "sub-16.html", "sub-17.html"]
    written.clear()
    publish(tmp_path, "16", _frame())
    assert written == ["sub-16.html"], "its neighbours lead to it already"


def test_pages_lead_to_an_index_and_a_group_that_exist(tmp_path: Path) -> None:
    for label in ("01", "02"):
        publish(tmp_path, label, _frame())
    assert _links(tmp_path / "sub-01.html") == {"next": "sub-02.html"}
    for name in ("index.html", "group.html"):
        (tmp_path / name).write_text("")
    refresh(tmp_path, ["01"])
    assert _links(tmp_path / "sub-01.html")["Index"] == "index.html"
    assert "Index" not in _links(tmp_path / "sub-02.html")
    refresh(tmp_path)
    for page in subject_pages(tmp_path):
        assert {"Index": "index.html", "Group": "group.html"}.items() <= _links(
            tmp_path / page
        ).items()
    (tmp_path / "sub-02.html").unlink()
    refresh(tmp_path)
    assert "next" not in _links(tmp_path / "sub-01.html")


def test_work_grows_with_the_pages_and_not_with_their_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 300
    for k in range(n):
        (tmp_path / f"sub-{k}.html").write_text(_frame())
    compared: list[str] = []
    order = places._order
    monkeypatch.setattr(places, "_order", lambda name: (compared.append(name), order(name))[1])
    refresh(tmp_path)
    assert len(compared) < 20 * n
    pages = [f"sub-{k}.html" for k in range(n)]
    assert [_links(tmp_path / page).get("next", "") for page in pages] == [*pages[1:], ""]


def test_a_page_of_an_earlier_version_and_a_damaged_one_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "sub-01.html").write_text("<html>earlier</html>")
    (tmp_path / "sub-03.html").write_bytes(b"\xff\xfe\x00")
    publish(tmp_path, "02", _frame())
    assert (tmp_path / "sub-01.html").read_text() == "<html>earlier</html>"
    assert (tmp_path / "sub-03.html").read_bytes() == b"\xff\xfe\x00"


def test_the_page_of_a_subject_leads_to_the_next(tmp_path: Path) -> None:
    for label in ("02", "01"):
        build_report(tmp_path, label, version="0")
    assert _links(tmp_path / "sub-01.html") == {"next": "sub-02.html"}
    before = (tmp_path / "sub-02.html").read_bytes()
    assert _links(build_report(tmp_path, "02", version="0")) == {"prev": "sub-01.html"}
    assert (tmp_path / "sub-02.html").read_bytes() == before, "the same bytes"
