"""Write the Cython code that fills the engines' parameter structs, from the declarations in params.py.

For each class with a C struct (``class CacheParams(Params, c="sd_cache_params_t")``), a file ``CacheParams.pxi`` is
written beside the engine's params.py. It defines ``fill_CacheParams(values, c, memory)``, where `values` are of
``cyllama._params.checked``, and for tests ``_read_CacheParams(values)``, which fills a struct and returns its fields.
A module that includes it needs ``lib``, the engine's declarations, ``CMemory`` and ``set_enum``, and the files of
nested parameters first. Fields that the struct lacks fail to compile.

usage: gen_fill.py
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "cyllama"
SPEC = importlib.util.spec_from_file_location("_param_kinds", PACKAGE / "_param_kinds.py")
assert SPEC is not None and SPEC.loader is not None
_param_kinds = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(_param_kinds)  # the package itself cannot be imported before it is built

Field = tuple[str, str, dict[str, Any]]  # name, annotation, keywords of param()


def fields(node: ast.ClassDef) -> list[Field]:
    """Return the parameters that a class declares."""
    found = []
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and isinstance(item.value, ast.Call):
            keywords = {k.arg: _literal(k.value) for k in item.value.keywords if k.arg is not None}
            found.append((item.target.id, ast.unparse(item.annotation), keywords))
    return found


def _literal(node: ast.expr) -> Any:
    """Return a literal; of another expression, its text."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def generate(source: str) -> dict[str, str]:
    """Return the Cython code of each class with a C struct, by its name."""
    declared: dict[str, dict[str, Field]] = {}
    code = {}
    structs: dict[str, str] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            own: dict[str, Field] = {}
            for base in node.bases:
                own |= declared.get(ast.unparse(base), {})
            declared[node.name] = own | {field[0]: field for field in fields(node)}
            for keyword in node.keywords:
                if keyword.arg == "c":
                    structs[node.name] = ast.literal_eval(keyword.value)
                    code[node.name] = _fill(node.name, structs, list(declared[node.name].values()))
    return code


def _fill(name: str, structs: dict[str, str], parameters: list[Field]) -> str:
    arrays, body, read = [], [], []
    for field, annotation, keywords in parameters:
        target = keywords.get("c", "") if keywords.get("c", "") is not None else None
        if target is None:
            continue
        place = f"c.{target or field}"
        kind = _param_kinds.kind_of(annotation, keywords)
        inner = annotation.removesuffix(" | None").removeprefix("Sequence[").removesuffix("]")
        lines = {
            "enum": [f"set_enum({place}, value)"],
            "text": [f"{place} = memory.text(value)"],
            "path": [f"{place} = memory.text(value)"],
            "image": [f"{place} = c_image(value, memory)"],
            "images": [f"{place} = c_images(value, memory)"],
            "ints": [f"{place} = memory.ints(value)"],
            "floats": [f"{place} = memory.floats(value)"],
            "params": [f"fill_{inner}(value, &{place}, memory)"],
        }.get(kind, [f"{place} = value"])
        if kind == "list":
            arrays.append(f"    cdef lib.{structs[inner]} * {field}")
            lines = [
                f"{field} = <lib.{structs[inner]} *> memory.alloc(len(value), sizeof(lib.{structs[inner]}))",
                "for i, item in enumerate(value):",
                f"    fill_{inner}(item, &{field}[i], memory)",
                f"{place} = {field}",
            ]
        read += [f'        "{field}":\n            {seen},' for seen in [_read(kind, place, keywords)] if seen]
        if "count" in keywords:
            lines.append(f"c.{keywords['count']} = len(value)")
        body += [f'    value = values.get("{field}")', "    if value is not None:", *(f"        {x}" for x in lines)]
    head = f"cdef int fill_{name}(dict values, lib.{structs[name]} * c, CMemory memory) except -1:"
    tail = [
        f"\n\ndef _read_{name}(dict values):",
        f"    cdef lib.{structs[name]} c",
        "    cdef CMemory memory = CMemory()",
        "    memset(&c, 0, sizeof(c))",
        f"    fill_{name}(values, &c, memory)",
        "    return {",
        *read,
        "    }",
    ]
    first = ["# written by scripts/gen_fill.py", "from libc.string cimport memset", "", "", head]
    return "\n".join([*first, *arrays, *body, "    return 0", *tail, ""])


def _read(kind: str, place: str, keywords: dict[str, Any]) -> str:
    """Return the expression that reads a field of the C struct; empty for structs and images."""
    if kind in ("text", "path"):
        return f"None if {place} == NULL else <bytes> {place}"
    if kind in ("ints", "floats"):
        return f"[{place}[i] for i in range(c.{keywords['count']})]"
    if kind in ("list", "images"):
        return f"c.{keywords['count']}"
    if kind in ("params", "image"):
        return ""
    return f"<int> {place}" if kind == "enum" else place


def write() -> None:
    """Write the files whose content changed."""
    current = set()
    for params in sorted(PACKAGE.glob("*/params.py")):
        for name, code in generate(params.read_text()).items():
            path = params.with_name(f"{name}.pxi")
            current.add(path)
            if not path.exists() or path.read_text() != code:
                path.write_text(code)
    for path in PACKAGE.glob("*/*.pxi"):
        if path not in current:
            path.unlink()


if __name__ == "__main__":
    write()
