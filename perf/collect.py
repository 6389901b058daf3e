"""Turn the JSON files of the benchmarks into Markdown tables, and put them into the README of this folder.

Run ``python perf/collect.py results/*.json`` to print them, with ``--write`` to put them into perf/README.md: each file takes
the place of what stood there of its script, and the rest stays.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from _bench import Table, as_markdown

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- numbers: begin -->", "<!-- numbers: end -->"
ORDER = ("seed", "fft", "elementwise", "compiled", "njit", "overhead", "memory", "cold_start")


def section(result: dict[str, Any]) -> str:
    """Return what one file says."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    load = "unknown" if machine["load"] is None else f"{machine['load']:.1f}"
    lines = [
        f"### `{result['command']}`",
        "",
        f"{machine['date']}; {machine['cpu']} ({', '.join(machine['vector_instructions'])}), "
        f"{result['threads']} threads, {machine['system']}, Python {machine['python']}; {versions}; "
        f"{result['rounds']} rounds; load average before the run {load}.",
        "",
    ]
    if result["quick"]:
        lines += ["A smoke test (`--quick`): these numbers mean nothing.", ""]
    for table in result["tables"]:
        lines += [as_markdown(Table(**table))]
    if result["targets"]:
        lines += ["Targets:", "", *(f"- {target['sentence']}" for target in result["targets"]), ""]
    lines += [f"- **FAILED**: {failure}" for failure in result["failures"]]
    return "\n".join(lines).rstrip() + "\n"


def sections(text: str) -> dict[str, str]:
    """Split numbers by the script that they are of."""
    found: dict[str, str] = {}
    for part in re.split(r"^(?=### `)", text, flags=re.MULTILINE):
        script = re.match(r"### `python perf/(\w+)\.py", part)
        if script is not None:
            found[script[1]] = (
                found.get(script[1], "") + ("\n" if script[1] in found else "") + part.rstrip() + "\n"
            )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE", help="what the scripts wrote with --json")
    parser.add_argument("--write", action="store_true", help="replace the numbers in perf/README.md")
    options = parser.parse_args()
    results = [json.loads(Path(name).read_text()) for name in options.files]
    results.sort(key=lambda result: (ORDER.index(result["script"]), result["machine"]["python"]))
    text = "\n".join(section(result) for result in results)
    if not options.write:
        print(text)
        return 0
    page = README.read_text(encoding="utf-8")
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        print(f"{README.name} must have one line {BEGIN} and one line {END}", file=sys.stderr)
        return 1
    before, after = page[: page.index(BEGIN)], page[page.index(END) :]
    known = sections(page[page.index(BEGIN) + len(BEGIN) : page.index(END)])
    known |= sections(text)
    text = "\n".join(known[script] for script in ORDER if script in known)
    README.write_text(f"{before}{BEGIN}\n\n{text}\n{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
