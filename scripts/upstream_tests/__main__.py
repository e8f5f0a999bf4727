"""Run upstream's server tests against cyllama's server and against the native one, with the same models.

usage: python scripts/upstream_tests [FILE ...] [--write]

Prints how many pass with each server, and each test that passes with the native server only. The exit code is 1 if one
of these is not in known.toml, or if one of known.toml passes with both. ``--write`` writes the page of docs/dev.
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
# Files about features of llama-server that cyllama's server does not have.
EXCLUDED = {
    "test_router.py": "llama-server's router starts a process for each model; here one process serves all",
    "test_mcp_servers.py": "tools that start programs",
    "test_tools_builtin.py": "tools that start programs",
    "test_proxy.py": "llama-server's proxy for tools",
    "test_vision_api.py": "downloads its images and its model",
    "test_tool_call.py": "downloads its models",
    "test_sleep.py": "the model pool unloads unused models; they have no sleep state",
    "test_stream.py": "resumable streams, which llama-server's own page uses",
    "test_compat_gcp.py": "routes of Google Cloud",
}
SECONDS = 20  # of one test


def main() -> int:
    """Run the tests against both servers and compare the results."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("files", nargs="*", help="such as test_basic.py")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    files = options.files or sorted(
        path.name for path in (TESTS / "unit").glob("test_*.py") if path.name not in EXCLUDED
    )
    reasons = tomllib.loads((HERE / "known.toml").read_text())
    with tempfile.TemporaryDirectory() as folder:
        native, failures = (run(Path(folder) / name, files, native=name == "native") for name in ("native", "ours"))
    ours = {name: failure is None for name, failure in failures.items()}
    native = {name: failure is None for name, failure in native.items()}
    only_native = sorted(name for name, passed in native.items() if passed and not ours.get(name))
    known = {name for name in reasons if name.split("::")[0] in files}
    print(f"native {sum(native.values())} of {len(native)}, ours {sum(ours.values())} of {len(ours)}")
    print(f"ours only: {sum(passed and not native.get(name) for name, passed in ours.items())}")
    for name in only_native:
        print(f"native only: {name}: {reasons.get(name) or f'UNKNOWN: {failures.get(name)}'}")
    wrong = set(only_native) ^ known
    for name in sorted(wrong):
        print(f"unexpected: {name}", file=sys.stderr)
    if options.write:
        write(native, ours, only_native, reasons)
    return 1 if wrong else 0


def run(folder: Path, files: list[str], *, native: bool) -> dict[str, str | None]:
    """Return the failure of each test, or None."""
    folder.mkdir()
    (folder / "models").symlink_to(LLAMA / "models")  # the tests find templates three folders above theirs
    folder = folder / TESTS.relative_to(LLAMA)
    shutil.copytree(TESTS, folder)
    shutil.copy(HERE / "wget.py", folder / "wget.py")
    program = folder / "llama-server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "llama_server.py"}" "$@"\n')
    program.chmod(0o755)
    conftest = folder / "conftest.py"  # the presets of all tests would be downloaded
    conftest.write_text(conftest.read_text().replace("ServerPreset.load_all()", "pass"))
    utils = folder / "utils.py"  # names of headers have no case, but those of a dict have
    utils.write_text(utils.read_text().replace("dict(response.headers)", "response.headers"))
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
    found: dict[str, str | None] = {}
    for case in ElementTree.parse(folder / "results.xml").iter("testcase"):
        bad = [child.get("message", "") for child in case if child.tag in ("failure", "error")]
        if not any(child.tag == "skipped" for child in case):
            found[f"{case.get('classname', '').rsplit('.', 1)[-1]}.py::{case.get('name')}"] = bad[0] if bad else None
    return found


def write(native: dict[str, bool], ours: dict[str, bool], only: list[str], reasons: dict[str, str]) -> None:
    """Write the page of docs/dev."""
    lines = [
        "# Upstream's tests of its server",
        "",
        "Written by `python scripts/upstream_tests --write`: the tests in `tools/server/tests/unit` of llama.cpp, as "
        "they are, against `cyllama serve` and against the native `llama-server`. Upstream's models come from a hub; "
        "here models of `cyllama.models` replace them, so tests that expect certain words or numbers of tokens fail "
        "with both. Names of headers are compared without case. `cors_origins` is `*`, llama-server's default.",
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
    lines += [f"| all | {' | '.join(map(str, total))} |", "", "## Tests that pass with the native server only", ""]
    lines += [f"* `{name}`: {reasons.get(name, 'not known')}." for name in only] or ["None."]
    lines += ["", "## Excluded files", ""]
    lines += [f"* `{name}`: {reason}." for name, reason in EXCLUDED.items()]
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
