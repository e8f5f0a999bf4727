"""Run mypy and pyright on a folder of files that use the package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

__all__ = ["CHECKERS", "ROOT", "errors", "python_blocks"]

ROOT = Path(__file__).resolve().parent.parent
CHECKERS = ("mypy", "pyright")
Errors = dict[str, dict[int, str]]  # file name, line, message


def errors(checker: str, folder: Path) -> Errors:
    """Return the first error of each line of the files in a folder."""
    return _mypy(folder) if checker == "mypy" else _pyright(folder)


def _mypy(folder: Path) -> Errors:
    files = sorted(folder.glob("*.py"))
    command = [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent", "--allow-redefinition",
               "--ignore-missing-imports", "--hide-error-context", "--no-error-summary",
               f"--cache-dir={folder / 'cache'}", *map(str, files)]  # fmt: skip
    environment = {**os.environ, "MYPYPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: Errors = {file.name: {} for file in files}
    for name, line, text in re.findall(r"^\S*?(\w+\.py):(\d+): error: (.*)$", done.stdout, re.MULTILINE):
        found[name].setdefault(int(line), text)
    return found


def _pyright(folder: Path) -> Errors:
    settings = {"include": ["."], "extraPaths": [str(ROOT / "src")], "reportMissingImports": "none"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "-p", str(folder), "--pythonpath", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.lstrip().startswith("{"), done.stdout + done.stderr
    found: Errors = {file.name: {} for file in folder.glob("*.py")}
    for item in json.loads(done.stdout)["generalDiagnostics"]:
        if item["severity"] == "error":
            name, line = Path(item["file"]).name, item["range"]["start"]["line"] + 1
            found[name].setdefault(line, f"{item['message']} ({item.get('rule')})")
    return found


def python_blocks(document: Path) -> str:
    """Return the Python code of a Markdown file; its lines keep their numbers, and top-level await is in a function."""
    lines, code, inside = document.read_text().splitlines(), [], False
    for line in lines:
        if line.strip().startswith("```"):
            inside = line.strip() == "```python"
            code.append("")
        else:
            code.append(line if inside else "")
    return "\n".join(code) + "\n"
