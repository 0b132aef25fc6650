"""What the README shows, runs, and where it points, something is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import minilog

ROOT = Path(minilog.__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md") if (ROOT / name).exists()]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchor_of(heading: str) -> str:
    """Return what a heading is linked to by, as the forges make it."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").strip().lower())
    return kept.replace(" ", "-")


def test_every_python_block_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "README.md").read_text()
    blocks = list(BLOCK.finditer(text))
    assert blocks
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}  # shared: the page is read in order
    for block in blocks:
        line = text[: block.start(1)].count("\n")
        source = "\n" * line + block[1]  # so that an error names the line of the page
        exec(compile(source, "README.md", "exec"), namespace)
    for value in namespace.values():
        if isinstance(value, (minilog.Broker, minilog.Producer, minilog.Consumer)):
            value.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    without_code = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    anchors = {anchor_of(heading) for heading in HEADING.findall(without_code)}
    broken = []
    for link in LINK.findall(without_code):
        if re.match(r"[a-z]+:", link):
            continue  # elsewhere
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and target == page and anchor not in anchors):
            broken.append(link)
    assert not broken


def test_the_readme_speaks_of_no_machine_in_particular() -> None:
    text = (ROOT / "README.md").read_text()
    assert not re.findall(r"(?<![\w.])/(?:work|root|home/\w+)\b", text)
