"""Hold the rules of docs/dev/architecture.md: sizes, and which way imports go. Exit 1 with one line for each breach."""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENGINES = ("llama", "llava", "whisper", "sd")
MAX_PYX, MAX_PY, MAX_FUNCTION = 900, 500, 60
# What each part of the package may use of the others, beside itself.
BELOW = {"errors": set(), "log": set(), "_native": {"errors", "log"}, "models": {"errors", "log"}} | {
    engine: {"errors", "log", "_native", "models"} for engine in ENGINES
}
BELOW["llava"] |= {"llama"}  # it works on llama's model and context
BELOW["models"] |= {"llama"}  # writes GGUF files with the public class, imported when needed
LAZY_ONLY = {("models", "llama")}
FORBIDDEN_IN_PYX = re.compile(r"^\s*(?:import|from)\s+(argparse|http|urllib|httpx|requests|socket|ssl)\b", re.MULTILINE)
IMPORT = re.compile(r"^(\s*)(?:from\s+(cyllama[\w.]*)\s+c?import|c?import\s+(cyllama[\w.]*))", re.MULTILINE)
DEFINITION = re.compile(
    r"^(\s*)(?:cp?def|def|async def)\s+(?!class|extern|struct|enum|packed)(?=[^\n]*\()", re.MULTILINE
)


def python_functions(text: str) -> list[tuple[str, int]]:
    """(name, lines without the docstring) of each function of a .py file."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                lines -= (first.end_lineno or first.lineno) - first.lineno + 1
            found.append((node.name, lines))
    return found


def cython_functions(text: str) -> list[tuple[str, int]]:
    """(first line, lines without the docstring) of each function of a .pyx file, by its indentation."""
    lines = text.splitlines()
    found = []
    for match in DEFINITION.finditer(text):
        start = text.count("\n", 0, match.start() + len(match.group(0)))
        indent = len(match.group(1).lstrip("\n"))
        end = start + 1
        while end < len(lines) and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > indent):
            end += 1
        body = "\n".join(lines[start:end]).rstrip()
        docstring = re.search(r'"""(?:.|\n)*?"""', body)
        length = body.count("\n") + 1 - (docstring.group(0).count("\n") + 1 if docstring else 0)
        found.append((lines[start].strip(), length))
    return found


def check_sizes(path: Path, text: str) -> list[str]:
    """Length of the file and of its functions."""
    limit = MAX_PYX if path.suffix == ".pyx" else MAX_PY
    problems = []
    if (n := text.count("\n")) > limit:
        problems.append(f"{n} lines, at most {limit} are allowed")
    functions = cython_functions(text) if path.suffix == ".pyx" else python_functions(text)
    problems += [f"{name}: {n} lines, at most {MAX_FUNCTION} are allowed" for name, n in functions if n > MAX_FUNCTION]
    return problems


def check_imports(part: str, text: str) -> list[str]:
    """Imports go one way; the public API of the engines is for everybody above them."""
    problems = []
    if re.search(r"^\s*(?:from\s+\S+\s+c?import\s+\*)", text, re.MULTILINE) and part != "":
        problems.append("import * is not allowed")
    for indent, module_from, module_import in IMPORT.findall(text):
        names = (module_from or module_import).split(".")
        target = names[1] if len(names) > 1 else ""
        if part == "" or not target or target == part:
            continue
        if part in BELOW:
            lazy = bool(indent.strip("\n"))
            if target not in BELOW[part] or ((part, target) in LAZY_ONLY and not lazy):
                problems.append(f"{part} must not import {'.'.join(names)}")
        elif target in ENGINES and len(names) > 2 and names[2].startswith("_"):
            problems.append(f"{part} must use the public API, not {'.'.join(names)}")
    return problems


def check_file(path: Path, package: Path) -> list[str]:
    """All rules for one file."""
    text = path.read_text()
    relative = path.relative_to(package)
    part = relative.parts[0] if len(relative.parts) > 1 else ("" if path.stem == "__init__" else path.stem)
    problems = check_sizes(path, text) + check_imports("" if part == "__main__" else part, text)
    if path.suffix == ".pyx":
        if FORBIDDEN_IN_PYX.search(text):
            problems.append("no HTTP, sockets or argument parsing in a .pyx")
        if re.search(r'cdef extern from "(?!stdio\.h)', text):
            problems.append("cdef extern belongs into a lib*.pxd")
        if not path.with_suffix(".pyi").exists():
            problems.append("there is no .pyi beside it; run `make stubs`")
    elif part != "errors":
        classes = re.findall(r"^class (\w+)\(.*(?:Error|Exception)\b.*\):", text, re.MULTILINE)
        problems += [f"exception class {name} belongs into errors.py" for name in classes]
    return [f"{path}: {problem}" for problem in problems]


def main(argv: list[str] | None = None) -> int:
    """Check the package, the scripts, the tests and the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, nargs="?", default=ROOT)
    root = parser.parse_args(argv).root
    package = root / "src" / "cyllama"
    problems: list[str] = []
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.pyx")]):
        problems += check_file(path, package)
    for folder in ("scripts", "tests", "benchmarks"):
        for path in sorted((root / folder).rglob("*.py")):
            found = check_sizes(path, path.read_text())
            # tests/simple.py is the original example, in one piece as its readers know it
            problems += [f"{path}: {problem}" for problem in found if path.name != "simple.py"]
    print("\n".join(problems) or "layout: all rules hold")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
