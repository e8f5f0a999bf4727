"""Upstream's own tests of its server, against ours and against the native one with the same models.

usage: python scripts/upstream_tests [FILE ...] [--write]

Prints how many pass with each, and each test that passes with the native server alone. Exit 1 if one of these is not
among the known ones in known.toml, or one of the known ones passes. ``--write`` writes the page of docs/dev.
"""

from __future__ import annotations

import argparse
import collections
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LLAMA = ROOT / "thirdparty" / "llama.cpp"
TESTS = LLAMA / "tools" / "server" / "tests"
PAGE = ROOT / "docs" / "dev" / "upstream-server-tests.md"
# Files whose subject is not the server that runs models: llama-server's own router, tools, proxies and page.
LEFT_OUT = {
    "test_router.py": "the router starts a process for each model; ours has its own way to serve several",
    "test_mcp_servers.py": "starts programs for tools",
    "test_tools_builtin.py": "starts programs for tools",
    "test_proxy.py": "the proxy for tools",
    "test_vision_api.py": "fetches its pictures and its model",
    "test_tool_call.py": "fetches its models",
    "test_sleep.py": "a model that is not used is unloaded by the pool, not put to sleep",
    "test_stream.py": "streams that are taken up again belong to llama-server's page",
    "test_compat_gcp.py": "a cloud's own routes",
}
SECONDS = 20  # of one test


def main() -> int:
    """Run both, compare."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("files", nargs="*", help="such as test_basic.py")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    files = options.files or sorted(
        path.name for path in (TESTS / "unit").glob("test_*.py") if path.name not in LEFT_OUT
    )
    reasons = tomllib.loads((HERE / "known.toml").read_text())
    with tempfile.TemporaryDirectory() as folder:
        native, ours = (run(Path(folder) / name, files, native=name == "native") for name in ("native", "ours"))
    only_native = sorted(name for name, passed in native.items() if passed and not ours.get(name))
    known = {name for name in reasons if name.split("::")[0] in files}
    print(f"native {sum(native.values())} of {len(native)}, ours {sum(ours.values())} of {len(ours)}")
    print(f"ours alone: {sum(passed and not native.get(name) for name, passed in ours.items())}")
    for name in only_native:
        print(f"native alone: {name}: {reasons.get(name, 'UNKNOWN')}")
    wrong = set(only_native) ^ known
    for name in sorted(wrong):
        print(f"unexpected: {name}", file=sys.stderr)
    if options.write:
        write(native, ours, only_native, reasons)
    return 1 if wrong else 0


def run(folder: Path, files: list[str], *, native: bool) -> dict[str, bool]:
    """Whether each test passes."""
    folder.mkdir()
    (folder / "models").symlink_to(LLAMA / "models")  # the tests find templates three folders above theirs
    folder = folder / TESTS.relative_to(LLAMA)
    shutil.copytree(TESTS, folder)
    shutil.copy(HERE / "wget.py", folder / "wget.py")
    program = folder / "llama-server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "llama_server.py"}" "$@"\n')
    program.chmod(0o755)
    conftest = folder / "conftest.py"  # what it loads for all tests is not needed for some, and not there for others
    conftest.write_text(conftest.read_text().replace("ServerPreset.load_all()", "pass"))
    environment = {
        **os.environ,
        "LLAMA_SERVER_BIN_PATH": str(program),
        "PYTHONPATH": str(folder),
        "LLAMA_CACHE": "cache",
    }
    if native:
        environment["UPSTREAM_NATIVE"] = "1"
    words = [sys.executable, "-m", "pytest", "-q", "--junitxml=results.xml", "-p", "no:cacheprovider", "-o", "addopts="]
    words += ["--rootdir", str(folder), *[f"unit/{name}" for name in files]]
    subprocess.run(
        words, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    found: dict[str, bool] = {}
    for case in ElementTree.parse(folder / "results.xml").iter("testcase"):
        bad = [child for child in case if child.tag in ("failure", "error")]
        if not any(child.tag == "skipped" for child in case):
            found[f"{case.get('classname', '').rsplit('.', 1)[-1]}.py::{case.get('name')}"] = not bad
    return found


def write(native: dict[str, bool], ours: dict[str, bool], only: list[str], reasons: dict[str, str]) -> None:
    """The page."""
    lines = [
        "# Upstream's tests of its server",
        "",
        "Written by `python scripts/upstream_tests --write`: the tests in `tools/server/tests/unit` of llama.cpp, as "
        "they are, against `cyllama serve` and against the native `llama-server`. Their models come from a hub; here "
        "`cyllama.models` takes their place, so tests that expect certain words or numbers of tokens fail with both.",
        "",
        "| file | tests | native | ours |",
        "|---|---:|---:|---:|",
    ]
    counts: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    for name in ours:
        row = counts[name.split("::")[0]]
        row[0] += 1
        row[1] += native.get(name, False)
        row[2] += ours[name]
    lines += [f"| {file} | {' | '.join(map(str, row))} |" for file, row in sorted(counts.items())]
    total = [sum(row[i] for row in counts.values()) for i in range(3)]
    lines += [f"| all | {' | '.join(map(str, total))} |", "", "## Those that pass with the native server alone", ""]
    lines += [f"* `{name}`: {reasons.get(name, 'not known')}." for name in only] or ["None."]
    lines += ["", "## Files that are left out", ""]
    lines += [f"* `{name}`: {reason}." for name, reason in LEFT_OUT.items()]
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
