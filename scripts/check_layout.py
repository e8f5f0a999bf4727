"""Check the rules of docs/dev/architecture.md: sizes, direction of imports, no circular imports.

Prints a line for each violation; the exit code is 1 if there are any.
"""

from __future__ import annotations

import argparse
import ast
import graphlib
import re
import sys
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENGINES = ("llama", "llava", "whisper", "sd")
MAX_PYX, MAX_PY, MAX_FUNCTION = 900, 500, 60
# The other parts of the package that each part may import.
BASE = {"errors", "log", "_params", "_paths", "_cancel", "_progress", "_html", "_json_check"}
BELOW = {part: BASE - {part} for part in BASE}
BELOW |= {"_native": BASE, "media": BASE, "models": BASE | {"_native"}}
BELOW |= {engine: BASE | {"_native", "media", "models"} for engine in ENGINES}
BELOW["llava"] |= {"llama"}  # it uses llama's model and context
ABOVE = {"batch", "cli", "server", "pipelines", "integrations"}
# What a .pyx may not do, and the files that may.
FORBIDDEN_IN_PYX = {
    "HTTP or sockets": (r"^\s*(?:import|from)\s+(?:http|urllib|httpx|requests|socket|ssl)\b", set()),
    "argument parsing": (r"^\s*(?:import|from)\s+(?:argparse|click|typer)\b", set()),
    "JSON": (r"^\s*(?:import|from)\s+json\b", {"_native/_core.pyx", "llama/_common.pyx"}),
    "reading or writing of files": (
        r"^\s*(?:import|from)\s+tempfile\b|(?<![\w.])open\(",
        {f"llama/_{name}.pyx" for name in ("context", "model", "state")}
        | {f"_native/_{name}.pyx" for name in ("files", "gguf", "handle")},
    ),
}
IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(cyllama[\w.]*|\.\.[\w.]*)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n]*)"
    r"|c?import[ \t]+(cyllama[\w.]*))",
    re.MULTILINE,
)
EXCEPTION = re.compile(r"^\s*class (\w+)\(.*(?:Error|Exception)\b.*\):", re.MULTILINE)
DEFINITION = re.compile(
    r"^(\s*)(?:cp?def|def|async def)\s+(?!class|extern|struct|enum|packed)(?=[^\n]*\()", re.MULTILINE
)


def python_functions(text: str) -> list[tuple[str, int]]:
    """Return the name and the number of lines, without the docstring, of each function of a .py file."""
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
    """Return the first line and the number of lines, without the docstring, of each function of a .pyx file."""
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
    """Check the length of a file and of its functions."""
    limit = MAX_PYX if path.suffix == ".pyx" else MAX_PY
    problems = []
    if (n := text.count("\n")) > limit:
        problems.append(f"{n} lines, at most {limit} are allowed")
    functions = cython_functions(text) if path.suffix == ".pyx" else python_functions(text)
    problems += [f"{name}: {n} lines, at most {MAX_FUNCTION} are allowed" for name, n in functions if n > MAX_FUNCTION]
    return problems


def imported(text: str) -> list[list[str]]:
    """Return the names after `cyllama` of each import of the package's own modules."""
    found = []
    for module_from, names, module_import in IMPORT.findall(text):
        module = re.sub(r"^\.\.", "cyllama.", module_from or module_import).rstrip(".")
        path = module.split(".")[1:]
        if path or module_import:
            found.append(path)
        else:  # from cyllama import a, b
            words = [name.split()[0] for name in names.split("#")[0].strip("()").split(",") if name.split()]
            found += [[word] for word in words]
    return found


def check_imports(part: str, text: str) -> list[str]:
    """Check that imports point downwards, and that upper layers import only the public API of the engines."""
    problems = []
    if re.search(r"^\s*from\s+\S+\s+c?import\s+\*", text, re.MULTILINE) and part != "":
        problems.append("import * is not allowed")
    for path in imported(text):
        target = path[0] if path else ""
        if part == "" or not target or target == part:
            continue
        name = ".".join(["cyllama", *path])
        if part in BELOW:
            is_part = target in BELOW or target in ABOVE
            if is_part and target not in BELOW[part]:
                problems.append(f"{part} must not import {name}")
        elif target in ENGINES and len(path) > 1 and path[1].startswith(("_", "lib")):
            problems.append(f"{part} must use the public API, not {name}")
    return problems


def module_imports(path: Path, name: str, modules: Collection[str]) -> set[str]:
    """Return the modules of the package that a .py file imports when it is imported."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending += node.orelse
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
            base = [*package[: len(package) - node.level + 1], node.module] if node.level else [node.module]
            full = ".".join(part for part in base if part)
            found |= {f"{full}.{alias.name}" if f"{full}.{alias.name}" in modules else full for alias in node.names}
        else:
            pending += ast.iter_child_nodes(node)
    return found & set(modules) - {name}


def check_circles(package: Path) -> list[str]:
    """Report modules that import each other, directly or through others."""
    paths = {}
    for path in [*package.rglob("*.py"), *package.rglob("*.pyx")]:
        parts = path.relative_to(package.parent).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {name: module_imports(path, name, paths) for name, path in paths.items() if path.suffix == ".py"}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [f"{package}: circular import: {' -> '.join(reversed(error.args[1]))}"]
    return []


def check_file(path: Path, package: Path) -> list[str]:
    """Check all rules for one file."""
    text = path.read_text()
    relative = path.relative_to(package)
    part = relative.parts[0] if len(relative.parts) > 1 else ("" if path.stem == "__init__" else path.stem)
    problems = check_imports("" if part == "__main__" else part, text)
    if path.suffix != ".pxd":
        problems += check_sizes(path, text)
    if path.suffix == ".pyx":
        for what, (pattern, exempt) in FORBIDDEN_IN_PYX.items():
            if str(relative) not in exempt and re.search(pattern, text, re.MULTILINE):
                problems.append(f"no {what} in a .pyx")
        if not path.with_suffix(".pyi").exists():
            problems.append("there is no .pyi beside it; run `make stubs`")
    # FILE of the C library may be declared where it is used
    extern = re.search(r'^\s*cdef extern (?!from "stdio\.h")', text, re.MULTILINE)
    if extern and path.suffix != ".py" and not re.fullmatch(r"lib\w+\.pxd", path.name):
        problems.append("cdef extern belongs into a lib*.pxd")
    if part != "errors" and path.suffix != ".pxd":
        problems += [f"exception class {name} belongs into errors.py" for name in EXCEPTION.findall(text)]
    return [f"{path}: {problem}" for problem in problems]


def main(argv: list[str] | None = None) -> int:
    """Check the package, scripts, tests and benchmarks; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, nargs="?", default=ROOT)
    root = parser.parse_args(argv).root
    package = root / "src" / "cyllama"
    problems: list[str] = []
    for path in sorted(path for suffix in ("py", "pyx", "pxd") for path in package.rglob(f"*.{suffix}")):
        problems += check_file(path, package)
    problems += check_circles(package)
    for folder in ("scripts", "tests", "benchmarks", "fuzz"):
        for path in sorted((root / folder).rglob("*.py")):
            found = check_sizes(path, path.read_text())
            # tests/simple.py is upstream's example, kept in one piece
            problems += [f"{path}: {problem}" for problem in found if path.name != "simple.py"]
    print("\n".join(problems) or "layout: no violation")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
