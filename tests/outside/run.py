"""Run the tests of autograd against nbad: python tests/outside/run.py [arguments of pytest].

The source distribution of autograd is fetched with pip and checked against its hash. Of it are used: its tests as they are,
its own checker of derivatives (`test_util.py`), and two modules of helpers that know nothing of derivatives. Everything else
that its tests import is `shim/`, which spells autograd's names in nbad.

A test that fails and is not in failures.toml is an error, and so is one that is there and passes.
"""

import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WORK = HERE.parents[1] / "build" / "outside"
#: What the checker and the operators of the shim are made with: names of functions, positions of arguments.
TAKEN = ("test_util.py", "wrap_util.py", "util.py")


def fetch() -> Path:
    """Return the folder of the unpacked source distribution."""
    WORK.mkdir(parents=True, exist_ok=True)
    if not list(WORK.glob("autograd-*.tar.gz")):
        options = ["--no-deps", "--no-binary", "autograd", "--require-hashes", "--quiet"]
        command = [sys.executable, "-m", "pip", "download", *options]
        subprocess.run([*command, "--dest", WORK, "--requirement", HERE / "requirements.txt"], check=True)
    archive = next(WORK.glob("autograd-*.tar.gz"))
    with tarfile.open(archive) as packed:
        packed.extractall(WORK, filter="data")
    return WORK / archive.name.removesuffix(".tar.gz")


def assemble(source: Path) -> Path:
    """Return a folder with the package `autograd` that nbad is behind, and the tests beside it."""
    stage = WORK / "stage"
    shutil.rmtree(stage, ignore_errors=True)
    shutil.copytree(HERE / "shim", stage)
    shutil.copytree(source / "tests", stage / "tests")
    for name in TAKEN:
        shutil.copy(source / "autograd" / name, stage / "autograd" / name)
    (stage / "pytest.ini").write_text("[pytest]\n")
    return stage


class Outcomes:
    """Which tests ran, and which of them did not pass."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.failed: set[str] = set()
        self.skipped: set[str] = set()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.add(self._name(report.nodeid))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = self._name(report.nodeid)
        if report.failed:
            self.failed.add(name)
        elif report.skipped:
            self.skipped.add(name)
        elif report.when == "call":
            self.passed.add(name)

    @staticmethod
    def _name(nodeid: str) -> str:
        return nodeid.removeprefix("tests/")


def expected() -> dict[str, str]:
    """Return the reason for each test that is known to fail."""
    groups = tomllib.loads((HERE / "failures.toml").read_text(encoding="utf-8"))["group"]
    return {test: group["reason"] for group in groups for test in group["tests"]}


def main(arguments: list[str]) -> int:
    """Run the tests; return 0 if exactly those fail that are known to."""
    stage = assemble(fetch())
    sys.path.insert(0, str(stage))
    outcomes = Outcomes()
    options = ["--rootdir", str(stage), "-c", str(stage / "pytest.ini"), "-p", "no:cacheprovider", "-q"]
    code = pytest.main([*options, *(arguments or [str(stage / "tests")])], plugins=[outcomes])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return int(code)
    known = expected()
    ran = outcomes.passed | outcomes.failed
    wrong = [f"fails and is not in failures.toml: {name}" for name in sorted(outcomes.failed - known.keys())]
    wrong += [f"passes and is in failures.toml: {name}" for name in sorted(outcomes.passed & known.keys())]
    if not arguments:
        wrong += [f"in failures.toml and did not run: {name}" for name in sorted(known.keys() - ran)]
    print(f"\n{len(outcomes.passed)} passed, {len(outcomes.failed)} failed, {len(outcomes.skipped)} skipped")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
