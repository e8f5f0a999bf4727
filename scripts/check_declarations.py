"""Hold the Cython declarations against the engines' headers.

Every function, field, enum constant and macro that a lib*.pxd declares is compiled against the header; every public
function of a header that is not deprecated is called by a .pyx, or stands with a reason in scripts/unwrapped.toml.

usage: check_declarations.py [--list]
       check_declarations.py --engine llama --diff OLD_TREE NEW_TREE
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# header -> (engine, folder of its tree, marker of public functions); complete: every function must be accounted for
HEADERS = {
    "llama.h": ("llama", "llama.cpp/include", "LLAMA_API", True),
    "gguf.h": ("llama", "llama.cpp/ggml/include", "GGML_API", True),
    "mtmd.h": ("llava", "llama.cpp/tools/mtmd", "MTMD_API", False),
    "mtmd-helper.h": ("llava", "llama.cpp/tools/mtmd", "MTMD_API", False),
    "whisper.h": ("whisper", "whisper.cpp/include", "WHISPER_API", False),
    "stable-diffusion.h": ("sd", "stable-diffusion.cpp/include", "SD_API", False),
}
INCLUDE = [
    "llama.cpp/include", "llama.cpp/ggml/include", "llama.cpp/common", "llama.cpp/vendor", "llama.cpp/tools/mtmd",
    "whisper.cpp/include", "stable-diffusion.cpp/include",
]  # fmt: skip


@dataclass
class Declarations:
    """What one lib*.pxd declares of one header."""

    functions: dict[str, str] = field(default_factory=dict)  # name -> declaration as a pointer *P
    fields: list[tuple[str, str, str]] = field(default_factory=list)  # struct, type with name N, name
    constants: list[str] = field(default_factory=list)


def logical_lines(text: str) -> list[str]:
    """Lines of a pxd, without comments, with continuation lines joined."""
    lines: list[str] = []
    depth = 0
    for raw in text.splitlines():
        line = re.sub(r"#.*", "", raw).rstrip()
        if not line.strip():
            continue
        if depth > 0:
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
        depth += line.count("(") - line.count(")")
    return lines


def parse_pxd(text: str) -> dict[str, Declarations]:
    """Declarations of each header that the pxd names; C++ classes are left out."""
    found: dict[str, Declarations] = {}
    current, block, skip = None, "", False
    for line in logical_lines(text):
        if match := re.match(r'cdef extern from "([\w.+-]+)"(.*)', line):
            skip = "namespace" in match.group(2) or match.group(1).startswith("std")
            current = found.setdefault(match.group(1), Declarations())
            continue
        if not line.startswith(" "):
            current = None
            continue
        if current is None or skip:
            continue
        indent, body = len(line) - len(line.lstrip()), line.strip()
        if indent == 4:
            block = ""
            if match := re.match(r"(?:cdef|ctypedef) (enum|struct|union|cppclass)\b\s*(\w*)", body):
                block = f"{match.group(1)} {match.group(2)}"
            elif not body.startswith("ctypedef"):
                parse_member(current, body)
        elif block.startswith("enum"):
            current.constants.append(body.split()[0])
        elif block.startswith("struct") and body != "pass" and "(" not in body:
            add_field(current, block.split()[1], body)
    return found


def parse_member(current: Declarations, body: str) -> None:
    """A function or a constant."""
    function = re.match(r'(.*?)\b(\w+)(?: "(\w+)")?\((.*)\)\s*(except.*|noexcept.*)?$', body)
    if function:
        kind, name, c_name, arguments = function.group(1), function.group(2), function.group(3), function.group(4)
        current.functions[c_name or name] = f"{kind.strip()} (*P)({arguments})"
    elif constant := re.match(r"const [\w ]+?(\w+)$", body):
        current.constants.append(constant.group(1))


def add_field(current: Declarations, struct: str, body: str) -> None:
    """A field of a struct."""
    renamed = re.match(r'(.*?)(\w+) "(\w+)"$', body)
    if renamed:
        body = f"{renamed.group(1)}{renamed.group(3)}"
    match = re.match(r"(.*[ *])(\w+)((?:\[\d+\])*)$", body)
    if match:
        current.fields.append((struct, f"{match.group(1)}(&N){match.group(3)}", match.group(2)))


def source_for(header: str, declared: Declarations) -> str:
    """A C++ file that compiles only if the declarations are those of the header."""
    lines = [
        "#include <cstdio>",
        "#include <cstdint>",
        "#include <cstddef>",
        "#include <string>",
        "#include <vector>",
        f'#include "{header}"',
    ]
    clashes = {*declared.functions, "ggml_backend_dev_type"}

    def elaborate(text: str) -> str:
        # C++ spelling; and a type with the name of a function needs its keyword
        text = re.sub(r"\bvector\[(\w+)\]", r"std::vector<\1>", re.sub(r"\bstring\b", "std::string", text))
        text = text.replace("std::vector<string>", "std::vector<std::string>")
        return re.sub(r"\b(\w+)\b(?=[ *])", lambda m: f"enum {m[1]}" if m[1] in clashes else m[1], text)

    for i, (name, pointer) in enumerate(declared.functions.items()):
        lines.append(f"{elaborate(pointer.replace('(*P)', f'(*f{i})', 1))} = &{name};")
    for i, (struct, kind, name) in enumerate(declared.fields):
        keyword = "struct " if struct in clashes else ""
        kind = elaborate(kind.replace("(&N)", "(&x)", 1))
        lines.append(f"void s{i}({keyword}{struct} * s) {{ {kind} = s->{name}; (void) x; }}")
    for i, name in enumerate(declared.constants):
        lines.append(f"const long long c{i} = (long long) ({name});")
    return "\n".join(lines) + "\n"


def compile_against(header: str, declared: Declarations, thirdparty: Path) -> list[str]:
    """What the compiler says of the declarations."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "check.cpp"
        source.write_text(source_for(header, declared))
        command = ["c++", "-std=c++17", "-fsyntax-only", "-w", "-DGGML_MAX_NAME=128"]
        command += [f"-I{thirdparty / path}" for path in INCLUDE]
        try:
            done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            sys.exit("check_declarations: a C++ compiler is missing; install one (Debian: apt-get install g++)")
    return [line for line in done.stderr.splitlines() if "error" in line]


def public_functions(text: str, marker: str) -> dict[str, str]:
    """name -> declaration, of the public functions of a header that are not deprecated."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    text = re.sub(r"//[^\n]*", " ", text)
    text = re.sub(r"^[ \t]*#[^\n]*(?:\\\n[^\n]*)*", " ", text, flags=re.MULTILINE)
    while match := re.search(r"\bDEPRECATED\s*\(", text):
        end, depth = match.end(), 1
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        text = text[: match.start()] + text[end:]
    found = {}
    for match in re.finditer(rf"\b{marker}\b([^;{{]*?)\b(\w+)\s*(\([^;{{]*\))\s*(?=[;{{])", text):
        found[match.group(2)] = " ".join((match.group(1) + match.group(2) + match.group(3)).split())
    return found


def called_functions(package: Path, names: set[str]) -> set[str]:
    """Those of `names` that some .pyx calls."""
    text = "\n".join(path.read_text() for path in [*package.rglob("*.pyx"), *package.rglob("*.hpp")])
    calls = set(re.findall(r"(?<!def )\b(\w+)\s*\(", re.sub(r"^\s*def \w+", "", text, flags=re.MULTILINE)))
    renamed = {"llama_pooling_type": "llama_get_pooling_type", "llama_vocab_type": "llama_get_vocab_type"}
    return {name for name in names if renamed.get(name, name) in calls}


def check_wrapped(header: str, thirdparty: Path, package: Path, reasons: dict[str, str], listing: bool) -> list[str]:
    """Problems with the completeness of one header; prints its figures."""
    _, folder, marker, complete = HEADERS[header]
    names = set(public_functions((thirdparty / folder / header).read_text(), marker))
    wrapped = called_functions(package, names)
    missing = names - wrapped
    print(f"{header}: {len(names)} public functions, {len(wrapped)} wrapped", end="")
    print(f", {len(missing & set(reasons))} left out with a reason" if complete else ", not bound completely yet")
    if listing:
        print("  " + "\n  ".join(sorted(wrapped)))
    if not complete:
        return []
    for name in sorted(missing & set(reasons)):
        print(f"  {name}: {reasons[name]}")
    problems = [f"{name} is neither wrapped nor in scripts/unwrapped.toml" for name in sorted(missing - set(reasons))]
    problems += [f"{name} is in scripts/unwrapped.toml, but it is wrapped" for name in sorted(wrapped & set(reasons))]
    problems += [f"{name} is in scripts/unwrapped.toml, but not in {header}" for name in sorted(set(reasons) - names)]
    return problems


def diff(old: Path, new: Path, engine: str, package: Path) -> int:
    """Which public functions appeared, vanished or changed between two trees, and which of those we declare."""
    for header, (owner, folder, marker, _) in HEADERS.items():
        if owner != engine and not (engine == "llama" and owner == "llava"):
            continue
        path = Path(*Path(folder).parts[1:]) / header
        before = public_functions((old / path).read_text(), marker) if (old / path).exists() else {}
        after = public_functions((new / path).read_text(), marker) if (new / path).exists() else {}
        ours = called_functions(package, set(before) | set(after))
        print(f"{header}:")
        for what, names in (
            ("appeared", set(after) - set(before)),
            ("vanished", set(before) - set(after)),
            ("changed", {name for name in set(before) & set(after) if before[name] != after[name]}),
        ):
            for name in sorted(names):
                print(
                    f"  {what}: {after.get(name, before.get(name))}{'  (used by the package)' if name in ours else ''}"
                )
    return 0


def main(argv: list[str] | None = None) -> int:
    """Check, or compare two versions of an engine."""
    parser = argparse.ArgumentParser(description="Hold the Cython declarations against the engines' headers.")
    parser.add_argument("--list", action="store_true", help="print the wrapped functions as well")
    parser.add_argument("--diff", nargs=2, type=Path, metavar=("OLD", "NEW"), help="two trees of an engine")
    parser.add_argument("--engine", default="llama", choices=["llama", "whisper", "sd"])
    parser.add_argument("--root", type=Path, default=ROOT)
    arguments = parser.parse_args(argv)
    package, thirdparty = arguments.root / "src" / "cyllama", ROOT / "thirdparty"
    if arguments.diff:
        return diff(*arguments.diff, arguments.engine, package)
    problems: list[str] = []
    for pxd in sorted(package.rglob("lib*.pxd")):
        for header, declared in parse_pxd(pxd.read_text()).items():
            if header.startswith("shim_") or header.endswith(".hpp"):
                continue
            errors = compile_against(header, declared, thirdparty)
            count = len(declared.functions) + len(declared.fields) + len(declared.constants)
            print(f"{pxd.name}: {count} declarations of {header} {'do not match' if errors else 'match'}")
            problems += [f"{pxd.name}: {error}" for error in errors]
    reasons = tomllib.loads((arguments.root / "scripts" / "unwrapped.toml").read_text())
    for header in HEADERS:
        problems += check_wrapped(header, thirdparty, package, reasons.get(header, {}), arguments.list)
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
