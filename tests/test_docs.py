"""The documentation runs: every Python block of README.md and docs/, page by page, and its output where it is shown."""

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbad

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FUNCTIONS = DOCS / "reference" / "functions.md"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Functions of the oldest supported NumPy that the one which the page is written with does not have any more.
GONE = {"`np.in1d`"}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(text: str) -> list[tuple[str, str, int]]:
    """List (language, content, line of the content) of the fenced blocks of a page."""
    return [(m[1], m[2], text.count("\n", 0, m.start()) + 2) for m in FENCE.finditer(text)]


def run_plain(code: str, line: int, name: str, names: dict[str, Any]) -> str:
    """Run a block without prompts and return what it printed."""
    # The empty lines make line numbers those of the page.
    compiled = compile("\n" * (line - 1) + code, name, "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compiled, names)
    return printed.getvalue()


def run_session(code: str, line: int, name: str, names: dict[str, Any]) -> str:
    """Run a block with prompts and return what differed."""
    test = doctest.DocTestParser().get_doctest(code, names, name, name, line - 1)
    report = io.StringIO()
    doctest.DocTestRunner(optionflags=OPTIONS, verbose=False).run(test, out=report.write, clear_globs=False)
    names.update(test.globs)
    return report.getvalue()


def run_page(text: str, name: str) -> list[str]:
    """Run the Python blocks of a page in order; list what went wrong."""
    names: dict[str, Any] = {"__name__": "__page__"}
    printed = ""
    wrong = []
    for language, content, line in blocks_of(text):
        if language == "python" and ">>>" in content:
            found = run_session(content, line, name, names)
            wrong += [found] if found else []
        elif language == "python":
            printed = run_plain(content, line, name, names)
        elif language == "output" and not doctest.OutputChecker().check_output(content, printed, OPTIONS):
            wrong.append(f"{name}, line {line}: printed\n{printed}\nand the page shows\n{content}")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_run_and_print_what_is_shown(page: Path) -> None:
    with np.errstate(), np.printoptions():
        assert run_page(page.read_text(encoding="utf-8"), name_of(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        found = (page.parent / path).resolve() if path else page
        if not found.is_file() or (anchor and anchor not in anchors_of(found)):
            broken.append(target)
    assert broken == []


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as web renderers make them."""
    found = set()
    for line in FENCE.sub("", page.read_text(encoding="utf-8")).splitlines():
        if line.startswith("#"):
            words = re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower())
            found.add(words.replace(" ", "-"))
    return found


def test_every_public_name_is_in_the_reference() -> None:
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    missing = [name for name in nbad.__all__ if f"`{name}" not in page and f"nbad.{name}" not in page]
    assert missing == []


def rows_of(table: str) -> dict[str, str]:
    """Return the rows of the tables of a page by their first cell, without the column of other spellings."""
    rows = {}
    for line in table.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            rows[cells[0]] = " | ".join(cell for cell in cells[1:] if cell and not cell.startswith("also "))
    return rows


def test_the_table_of_functions_is_not_stale() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(nbad.__file__).parents[1])}
    made = subprocess.run(
        [sys.executable, str(DOCS / "generate_functions.py"), "--print"],
        env=environment, capture_output=True, encoding="utf-8", check=True,
    ).stdout  # fmt: skip
    now, then = rows_of(made), rows_of(FUNCTIONS.read_text(encoding="utf-8"))
    # Functions that this NumPy does not have are in no table of this process.
    known = {
        name: row for name, row in then.items() if not name.startswith("`np.") or exists(name.strip("`"))
    }
    assert len(now) > 200
    assert {name: row for name, row in now.items() if name not in GONE} == known, (
        "run: python docs/generate_functions.py"
    )


def exists(name: str) -> bool:
    """Tell whether this NumPy has the function `name`, such as ``np.fft.fft``."""
    found: Any = np
    for part in name.split(".")[1:]:
        found = getattr(found, part, None)
    return found is not None


def test_a_wrong_page_is_found() -> None:
    assert run_page("```python\n>>> 1 + 1\n3\n```\n", "page") != []
    assert run_page("```python\nprint(2)\n```\n\n```output\n3\n```\n", "page") != []
    with pytest.raises(NameError):
        run_page("```python\nnot_there\n```\n", "page")


def test_names_live_as_long_as_their_page() -> None:
    blocks = [
        ("python", "x = 1"),
        ("python", ">>> x + 1\n2\n>>> y = 3"),
        ("python", "print(x + y)"),
        ("output", "4"),
    ]
    text = "\n".join(f"```{language}\n{content}\n```\n" for language, content in blocks)
    assert run_page(text, "page") == []
