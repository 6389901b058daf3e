"""Judge a tox run: print one line per environment, fail unless at least three interpreters ran the tests."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

INTERPRETERS_NEEDED = 3


def main(result_json: str, workdir: str, tox_status: str) -> int:
    """Print the summary; return the exit status of the whole run."""
    try:
        results = json.loads(Path(result_json).read_text(encoding="utf-8"))["testenvs"]
    except (OSError, ValueError, KeyError) as error:
        print(f"tox left no result: {error}")
        results = {}
    passed = failed = skipped = 0
    versions = set()
    for name, result in results.items():
        if "result" not in result:
            continue  # not asked for, or the environment that builds the package
        if result["result"].get("skipped", False):
            print(f"{name:12} skipped (interpreter not found)")
            continue
        codes = [run["retcode"] for run in result.get("test", [])]
        succeeded = result["result"].get("success", False) and not any(codes)
        tests = bad = 0
        report = Path(workdir) / name / "junit.xml"
        if report.exists():
            for suite in ElementTree.parse(report).iter("testsuite"):
                count, off = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
                broken = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
                tests, bad = tests + count, bad + broken
                passed, skipped = passed + count - broken - off, skipped + off
        # An environment that fails without a failing test (lint, types, the demonstration) counts as one.
        failed += bad or int(not succeeded)
        state = "ok" if succeeded else "FAILED"
        print(f"{name:12} {state:8} {tests or '':>6} {'tests' if tests else ''}".rstrip())
        if re.fullmatch(r"py3\d+", name) and succeeded and tests:
            versions.add(name)
    status = int(tox_status)
    if len(versions) < INTERPRETERS_NEEDED:
        print(
            f"only {len(versions)} interpreters ran the tests with success; {INTERPRETERS_NEEDED} are needed"
        )
        status = status or 1
    if failed:
        status = status or 1
    if skipped:
        print(f"{skipped} skipped")
    print(f"{passed} passed, {failed} failed")
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
