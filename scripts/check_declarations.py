"""Compare the Cython declarations with the engines' headers.

Every function, type, field, constant and macro that a lib*.pxd declares is compiled against its header; every public
function of a header that is not deprecated is used by a .pyx, or listed with a reason in scripts/unwrapped.toml.

usage: check_declarations.py [--list] [--allow-missing] [--engine NAME]
       check_declarations.py --diff OLD_TREE NEW_TREE --engine NAME
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from Cython.Compiler.Errors import CompileError
from Cython.Compiler.TreeFragment import parse_from_strings
from Cython.Compiler.Visitor import TreeVisitor

ROOT = Path(__file__).resolve().parent.parent
MAX_FAULTS = 20
GGML = "llama.cpp/ggml/include"  # all engines are compiled with the same ggml headers


@dataclass(frozen=True)
class Engine:
    """Where the headers of the declarations in one folder of the package are found."""

    tree: str  # folder in thirdparty/
    include: tuple[str, ...]
    headers: tuple[str, ...]
    complete: bool = True  # every function is wrapped or listed; ggml's are declared as they are needed


GGML_HEADERS = tuple(f"ggml/include/{name}.h" for name in ("ggml", "ggml-backend", "ggml-cpu", "ggml-opt"))
MTMD_HEADERS = ("tools/mtmd/mtmd.h", "tools/mtmd/mtmd-helper.h")
LLAMA_FOLDERS = ("include", "common", "vendor", ".", "tools/server", "tools/mtmd")
ENGINES = {
    "_native": Engine("llama.cpp", ("ggml/include",), GGML_HEADERS, complete=False),
    "llama": Engine("llama.cpp", LLAMA_FOLDERS, ("include/llama.h", "ggml/include/gguf.h")),
    "llava": Engine("llama.cpp", ("include", "tools/mtmd"), MTMD_HEADERS),
    "whisper": Engine("whisper.cpp", ("include", "examples", ".."), ("include/whisper.h", "include/parakeet.h")),
    "sd": Engine("stable-diffusion.cpp", ("include",), ("include/stable-diffusion.h",)),
}
C_HEADERS = {Path(header).name for engine in ENGINES.values() for header in engine.headers}


class CheckError(Exception):
    """The check cannot be made; the text is one sentence."""


def compiler(variable: str, default: str) -> list[str]:
    """Return the command of a compiler."""
    command = shlex.split(os.environ.get(variable, "")) or [default]
    if shutil.which(command[0]) is None:
        raise CheckError(f"there is no compiler {command[0]!r}: install one (Debian: g++) or set {variable}")
    return command


# ---------------------------------------------------------------- public functions of the C headers

# With these, each engine's API macro expands to the visibility attribute, which marks a public function.
NAMES = ("LLAMA", "GGML", "GGML_BACKEND", "WHISPER", "PARAKEET")
SHARED = (*(f"{name}_SHARED" for name in NAMES), "SD_BUILD_SHARED_LIB")
ATTRIBUTE = re.compile(r"__attribute__\s*\(\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)\)")
QUALIFIERS = {"const", "volatile", "struct", "enum", "union"}
KEYWORDS = {"void", "char", "short", "int", "long", "float", "double", "signed", "unsigned", "_Bool"} | QUALIFIERS


class Function(NamedTuple):
    """A public function: as declared, and without the names of its parameters."""

    text: str
    signature: str
    deprecated: bool


def without_name(parameter: str) -> str:
    """Return the type of a parameter: `const char * key` -> `const char *`."""
    tokens = re.findall(r"\w+|\.\.\.|[^\w\s]", re.sub(r"\(\s*\*\s*\w+\s*\)", "(*)", parameter))
    last = len(tokens) - 1
    while last > 0 and re.fullmatch(r"[\[\]]|\d+", tokens[last]):
        last -= 1
    if re.fullmatch(r"[A-Za-z_]\w*", tokens[last]) and tokens[last] not in KEYWORDS and {*tokens[:last]} - QUALIFIERS:
        del tokens[last]
    return " ".join(tokens)


def preprocess(path: Path, include: list[Path]) -> str:
    """Return what the header itself declares, as C, without what it includes."""
    command = [*compiler("CC", "cc"), "-E", "-x", "c", "-std=c11", *(f"-D{name}" for name in SHARED)]
    command += [part for folder in include for part in ("-I", str(folder))]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        error = re.search(r"error: (.*)", done.stderr)
        raise CheckError(f"{path.name} cannot be preprocessed: {error[1] if error else done.stderr.strip()[:200]}")
    lines, inside = [], False
    for line in done.stdout.splitlines():
        if marker := re.match(r'# \d+ "(.*?)"', line):
            inside = marker[1] == str(path)
        elif inside and not line.startswith("#"):
            lines.append(line)
    return "\n".join(lines)


def public_functions(path: Path, include: list[Path]) -> dict[str, Function]:
    """Return the public functions in the order of the header."""
    if not path.is_file():
        raise CheckError(f"there is no {path}: run: python scripts/engines")
    text, blocks = preprocess(path, include), 1
    while blocks:
        text, blocks = re.subn(r"\{[^{}]*\}", "@", text)
    found = {}
    for declaration in re.findall(r"[^;@]*visibility[^;@]*(?=;)", text):
        plain = ATTRIBUTE.sub(" ", re.sub(r'"[^"]*"|\bextern\b', "", declaration)).replace("_Bool", "bool")
        plain = " ".join(plain.split())
        match = re.fullmatch(r"(?P<result>[\w\s*]+?)\s*\b(?P<name>\w+)\s*\((?P<parameters>.*)\)", plain)
        if match is None:
            raise CheckError(f"{path.name}: cannot read the declaration `{plain}`")
        parameters = ", ".join(without_name(part) for part in re.split(r",(?![^(]*\))", match["parameters"] or "void"))
        signature = f"{' '.join(re.findall('[*]|[^ *]+', match['result']))} ({parameters})"
        plain = f"{match['result']} {match['name']}({match['parameters']})"
        found[match["name"]] = Function(plain, signature, "deprecated" in declaration)
    return found


# ------------------------------------------------------------------- what a lib*.pxd declares, as C++

# Types of Cython's own libc and libcpp that C++ spells otherwise.
STANDARD = ("string", "vector", "map", "unordered_map", "set", "pair", "unique_ptr", "shared_ptr", "function")
SPELLED = {"bint": "int"} | {name: f"std::{name}" for name in STANDARD}
INCLUDE = re.compile(r'^include "\w+\.pxi"$', re.MULTILINE)  # generated code (scripts/gen_fill.py)
INCLUDED = "cstddef cstdint cstdio functional map memory set string type_traits unordered_map utility vector"


def parse_cython(path: Path, level: str) -> Any:
    """Return the syntax tree of a .pxd or .pyx file."""
    try:
        return parse_from_strings(path.stem, INCLUDE.sub("", path.read_text()), level=level)
    except CompileError as error:
        raise CheckError(f"{path}: Cython cannot parse it: {error.message_only}") from error


def kind(node: Any) -> str:
    """Return the class of a node, shortened: Name, Func, CVarDef; the one of `const` has two names."""
    name = type(node).__name__.removesuffix("Node").removesuffix("Declarator")
    return {"CQualifierType": "Const", "CConstOrVolatileType": "Const", "CConst": "CQualifier"}.get(name, name)


def statements(node: Any) -> list[Any]:
    """Return the declarations of a block."""
    if node is None or isinstance(node, list):
        return node or []
    return list(node.stats) if kind(node) == "StatList" else [node]


def named(declarator: Any) -> Any:
    """Return the innermost declarator, which holds the name."""
    while hasattr(declarator, "base"):
        declarator = declarator.base
    return declarator


def function_in(declarator: Any) -> Any | None:
    """Return the declarator with the arguments of a function; None for a variable or a pointer to a function."""
    while kind(declarator) in ("CPtr", "CReference", "CQualifier"):
        declarator = declarator.base
    return declarator if kind(declarator) == "CFunc" and kind(declarator.base) == "CName" else None


@dataclass
class Declarations:
    """All that one file declares."""

    path: Path
    includes: list[str] = field(default_factory=list)
    blocks: list[tuple[Any, str]] = field(default_factory=list)  # (cdef extern, its namespace)
    functions: dict[str, str] = field(default_factory=dict)  # name in Cython -> name in C
    types: dict[str, str] = field(default_factory=dict)  # name in Cython -> spelling in C++
    foreign: dict[str, str] = field(default_factory=dict)  # types of the other files
    assertions: list[str] = field(default_factory=list)

    def collect(self) -> None:
        """Read the names of all `cdef extern` blocks."""
        for block in statements(parse_cython(self.path, "module_pxd").body):
            if kind(block) != "CDefExtern":
                continue
            namespace = f"{block.namespace}::" if block.namespace else ""
            self.blocks.append((block, namespace))
            self.includes += [f'#include "{block.include_file}"'] if block.include_file else []
            self.includes += [str(block.verbatim_include)] if block.verbatim_include else []
            for node in statements(block.body):
                self.collect_one(node, namespace)

    def collect_one(self, node: Any, namespace: str) -> None:
        """Read the names of one declaration."""
        match kind(node):
            case "CEnumDef" | "CStructOrUnionDef" | "CppClass":
                tag = {"CEnumDef": "enum", "CStructOrUnionDef": getattr(node, "kind", "")}.get(kind(node), "")
                tag = f"{tag} " if tag and not node.typedef_flag else ""
                unnamed = (node.cname or "").startswith("decltype(")  # a struct without a name, inside of another
                self.types[node.name] = ("" if unnamed else tag) + (node.cname or f"{namespace}{node.name}")
            case "CTypeDef":
                name = named(node.declarator)
                self.types[name.name] = name.cname or f"{namespace}{name.name}"
            case "CVarDef":
                names = [named(part) for part in node.declarators if function_in(part)]
                self.functions |= {name.name: name.cname or f"{namespace}{name.name}" for name in names}

    def base(self, node: Any) -> str:
        """Return a base type: `const unsigned long long`, `std::vector<float>`."""
        match kind(node):
            case "Const":
                qualifiers = "const " * bool(node.is_const) + "volatile " * bool(node.is_volatile)
                return f"{qualifiers}{self.base(node.base_type)}"
            case "TemplatedType":
                return f"{self.base(node.base_type_node)}<{', '.join(map(self.parameter, node.positional_args))}>"
            case "CComplexBaseType":
                return self.parameter(node)
            case "CSimpleBaseType" | "Name":
                if node.name not in ("char", "int", "float", "double"):
                    return self.types.get(node.name) or self.foreign.get(node.name) or SPELLED.get(node.name, node.name)
                sign = {0: "unsigned ", 1: "", 2: "signed "}[node.signed]
                return sign + {-1: "short ", 0: "", 1: "long ", 2: "long long "}[node.longness] + str(node.name)
        raise CheckError(f"{self.path}:{node.pos[1]}: cannot read this type ({kind(node)})")

    def parameter(self, node: Any) -> str:
        """Return the type of a parameter or of a template's argument."""
        if kind(node) in ("Name", "CSimpleBaseType"):
            return self.base(node)
        if kind(node) == "Index":  # a template among the arguments of a template
            inner = getattr(node.index, "args", [node.index])
            return f"{self.base(node.base)}<{', '.join(map(self.parameter, inner))}>"
        if kind(node.base_type) == "CSimpleBaseType" and node.base_type.name is None:  # a type without a name
            return self.base(node.declarator)
        return self.declared(node.base_type, node.declarator)

    def declared(self, base: Any, declarator: Any) -> str:
        """Return a whole type: `const char *`, `int (*)(void *)`, `float [128]`."""
        return f"{self.base(base)} {self.shape(declarator)}".strip()

    def shape(self, node: Any) -> str:
        """Return a declarator without its name."""
        if kind(node) == "CName":
            return ""
        inner = self.shape(node.base)
        if kind(node) in ("CPtr", "CReference", "CQualifier"):
            return {"CPtr": "*", "CReference": "&", "CQualifier": "const "}[kind(node)] + inner
        inner = f"({inner})" if inner.startswith(("*", "&")) else inner
        if kind(node) == "CArray":
            return f"{inner}[{getattr(node.dimension, 'value', None) or getattr(node.dimension, 'name', '')}]"
        if kind(node) == "CFunc":
            return f"{inner}({', '.join([*map(self.parameter, node.args), *['...'] * bool(node.has_varargs)])})"
        raise CheckError(f"{self.path}:{node.pos[1]}: cannot read this type ({kind(node)})")

    def program(self) -> str:
        """Return a C++ program that compiles when every declaration matches its header."""
        self.assertions = []
        for block, namespace in self.blocks:
            for node in statements(block.body):
                self.check(node, namespace, strict=block.include_file in C_HEADERS)
        return "\n".join([*(f"#include <{name}>" for name in INCLUDED.split()), *self.includes, *self.assertions, ""])

    def emit(self, node: Any, code: str) -> None:
        """Add a line that the compiler takes for the one in the pxd."""
        self.assertions.append(f'#line {node.pos[1]} "{self.path}"\n{code}')

    def same(self, node: Any, left: str, right: str, text: str) -> None:
        """Two types must be one."""
        self.emit(node, f'static_assert(std::is_same_v<{left}, {right}>, "{text}");')

    def check(self, node: Any, namespace: str, strict: bool) -> None:
        """Add the assertions of one declaration."""
        match kind(node):
            case "CEnumDef":
                for item in node.items:
                    name = item.cname or f"{namespace}{item.name}"
                    wanted = self.types[node.name] if node.name else f"decltype({name})"
                    self.same(item, f"decltype({name})", wanted, f"{name} is no constant of {node.name}")
            case "CStructOrUnionDef" | "CppClass":
                owner = re.sub(r"^(struct|union) ", "", self.types[node.name])
                self.emit(node, f"static_assert(sizeof({owner} *) > 0);")  # `struct owner` would declare it
                for attribute in statements(node.attributes):
                    for part in getattr(attribute, "declarators", []):
                        self.check_member(attribute, part, owner)
            case "CTypeDef":
                name = self.types[named(node.declarator).name]
                self.same(node, name, self.declared(node.base_type, node.declarator), f"{name} is another type")
            case "CVarDef":
                for part in node.declarators:
                    if kind(part) == "CFunc" and kind(part.base) == "CArray":  # a template: the compiler checks uses
                        continue
                    name = named(part).cname or f"{namespace}{named(part).name}"
                    declared = self.declared(node.base_type, part)
                    if function_in(part) is None:  # braces refuse a value that does not fit
                        self.emit(node, f"constexpr {declared} check_{node.pos[1]}{{{name}}};")
                    elif strict:
                        self.same(node, f"decltype({name})", declared, f"{name} has another signature in the header")
                    else:  # C++ may overload
                        self.check_call(node, part, name)
            case _:
                raise CheckError(f"{self.path}:{node.pos[1]}: cannot check this ({kind(node)})")

    def check_member(self, attribute: Any, declarator: Any, owner: str) -> None:
        """A field has the same type; a method can be called."""
        name = named(declarator).cname or named(declarator).name
        if function_in(declarator) is None:
            text = f"{owner}::{name} has another type in the header"
            self.same(declarator, f"decltype({owner}::{name})", self.declared(attribute.base_type, declarator), text)
        elif name != owner.rpartition("::")[2]:  # not the constructor
            self.check_call(attribute, declarator, f"std::declval<{owner} &>().{name}")

    def check_call(self, node: Any, declarator: Any, name: str) -> None:
        """The call must compile, and give a type that converts to the declared one."""
        arguments = ", ".join(f"std::declval<{self.parameter(part)}>()" for part in function_in(declarator).args)
        call = f"{name}({arguments})"
        result = self.declared(node.base_type, declarator).rpartition("(")[0]
        text = f"{name.rpartition('.')[2]} returns another type"
        self.emit(node, f'static_assert(std::is_convertible_v<decltype({call}), {result}>, "{text}");')


def read_all(package: Path) -> list[Declarations]:
    """Read all lib*.pxd files."""
    found = [Declarations(path) for path in sorted(package.rglob("lib*.pxd"))]
    for pxd in found:
        pxd.collect()
    for pxd in found:
        pxd.foreign = {name: spelled for other in found for name, spelled in other.types.items()}
    return found


def compile_against(pxd: Declarations, include: list[Path]) -> list[str]:
    """Compile the program of one file; return what is wrong, a line each."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "check.cpp"
        source.write_text(pxd.program())
        command = [*compiler("CXX", "c++"), "-std=c++17", "-fsyntax-only", "-Werror", "-DGGML_MAX_NAME=128"]
        command += ["-I", str(pxd.path.parent), "-I", str(pxd.path.parent.parent / "_native")]
        command += [part for path in [*include, sysconfig.get_path("include")] for part in ("-isystem", str(path))]
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False, env=environment)
    if done.returncode == 0:
        return []
    found: dict[str, str] = {}
    for place, text in re.findall(r"^(\S+?:\d+)(?::\d+)?: (?:fatal )?error: (.*)$", done.stderr, re.MULTILINE):
        text = re.sub(r"^static assertion failed(?: due to requirement)?: | \[-Werror.*\]$", "", text)
        found.setdefault(place, f"{place}: error: {text}")  # the first fault of a line is the cause of the others
    return list(found.values()) or [f"{pxd.path}: the compiler failed: {done.stderr.strip()[:500]}"]


# --------------------------------------------------------------------------------- wrapped, or listed


class Uses(TreeVisitor):  # type: ignore[misc]
    """Collects what a module uses of the lib*.pxd files: what it calls, or hands on as a pointer."""

    def __init__(self) -> None:
        super().__init__()
        self.modules, self.found = set[str](), set[str]()
        self.direct: dict[str, str] = {}

    visit_Node = TreeVisitor.visitchildren

    def visit_FromCImportStatNode(self, node: Any) -> None:
        for _, name, alias in node.imported_names:
            if node.module_name.rpartition(".")[2].startswith("lib"):
                self.direct[alias or name] = name
            elif name.startswith("lib"):
                self.modules.add(alias or name)

    def visit_AttributeNode(self, node: Any) -> None:
        if getattr(node.obj, "name", None) in self.modules:
            self.found.add(node.attribute)
        self.visitchildren(node)

    def visit_NameNode(self, node: Any) -> None:
        self.found.add(self.direct.get(node.name, ""))


def uses_in(package: Path, pxds: list[Declarations]) -> dict[str, list[str]]:
    """Return which C functions the .pyx files use, and where."""
    c_names = {name: c_name for pxd in pxds for name, c_name in pxd.functions.items()}
    uses: dict[str, list[str]] = {}
    for path in sorted(package.rglob("*.pyx")):
        visitor = Uses()
        visitor.visit(parse_cython(path, "module"))
        for name in sorted(visitor.found & c_names.keys()):
            uses.setdefault(c_names[name], []).append(str(path.relative_to(package)))
    return uses


def check_wrapped(
    path: Path, include: list[Path], uses: dict[str, list[str]], reasons: dict[str, str], listing: bool
) -> tuple[list[str], list[str]]:
    """Print the figures of one header; return (functions that are missing, faults of the list)."""
    header = path.name
    public = [name for name, function in public_functions(path, include).items() if not function.deprecated]
    wrapped = [name for name in public if name in uses]
    missing = [name for name in public if name not in uses and name not in reasons]
    left_out = len(public) - len(wrapped) - len(missing)
    print(f"{header}: {len(public)} public functions, {len(wrapped)} wrapped, {left_out} left out with a reason")
    if listing:
        print("".join(f"    {name}: {', '.join(uses[name])}\n" for name in wrapped), end="")
    faults = [f"{name} is in scripts/unwrapped.toml, but it is wrapped" for name in reasons if name in wrapped]
    faults += [f"{name} is in scripts/unwrapped.toml, but not in {header}" for name in reasons if name not in public]
    faults += [f"{name} is in scripts/unwrapped.toml without a reason" for name in reasons if not reasons[name].strip()]
    return [f"{name} is neither wrapped nor in scripts/unwrapped.toml" for name in missing], faults


def check(options: argparse.Namespace) -> int:
    """Check all declarations; return the exit code."""
    package, thirdparty = options.root / "src" / "cyllama", options.thirdparty
    engines = {name: engine for name, engine in ENGINES.items() if options.engine in (None, name)}
    include = {n: [*(thirdparty / e.tree / path for path in e.include), thirdparty / GGML] for n, e in engines.items()}
    pxds, faults = read_all(package), []
    for pxd in pxds:
        if (name := pxd.path.parent.name) in engines:
            errors = compile_against(pxd, include[name])
            print(f"{pxd.path.name}: {len(pxd.assertions)} declarations, {len(errors) or 'none'} wrong")
            faults += errors
    uses = uses_in(package, pxds)
    reasons = tomllib.loads((options.root / "scripts" / "unwrapped.toml").read_text())
    faults += [f"unwrapped.toml: there is no header {name}" for name in reasons if name not in C_HEADERS]
    for name, engine in engines.items():
        for header in engine.headers if engine.complete else ():
            path = thirdparty / engine.tree / header
            listed = reasons.get(path.name, {})
            missing, wrong = check_wrapped(path, include[name], uses, listed, options.list)
            faults += wrong
            if options.allow_missing:
                print("".join(f"    {line}\n" for line in missing), end="")
            else:
                faults += missing
    shown = [fault.replace(f"{ROOT}/", "") for fault in faults[:MAX_FAULTS]]
    shown += [f"... and {len(faults) - MAX_FAULTS} more"] if len(faults) > MAX_FAULTS else []
    print("\n".join(shown) or "declarations: all rules hold")
    return 1 if faults else 0


def diff(options: argparse.Namespace) -> int:
    """Print which public functions appeared, vanished or changed; llava's and ggml's come with llama.cpp."""
    declared = {name for pxd in read_all(options.root / "src" / "cyllama") for name in pxd.functions.values()}
    touched: set[str] = set()
    for engine in [engine for engine in ENGINES.values() if engine.tree == ENGINES[options.engine or "llama"].tree]:
        for header in engine.headers:
            sides = []  # old, new
            for tree in options.diff:
                include = [*(tree / path for path in (*engine.include, "ggml/include")), options.thirdparty / GGML]
                sides.append(public_functions(tree / header, include) if (tree / header).is_file() else {})
            old, new = sides
            print(f"{Path(header).name}: {len(old)} -> {len(new)} public functions")
            for name in {**old, **new}:
                before, after = old.get(name), new.get(name)
                ours = "  (used by the package)" if name in declared else ""
                if before is None or after is None:
                    print(
                        f"  appeared: {after.text}" if after else f"  vanished: {before.text if before else ''}{ours}"
                    )
                elif before.signature != after.signature:
                    print(f"  changed: {after.text}{ours}\n     was: {before.text}")
                elif after.deprecated and not before.deprecated:
                    print(f"  deprecated: {after.text}{ours}")
                else:
                    continue
                touched |= {name} & declared
    print(f"touched declarations: {', '.join(sorted(touched)) or 'none'}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Check, or compare two versions of an engine; what cannot be done is one sentence and exit code 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--list", action="store_true", help="print everything that is wrapped, and where")
    parser.add_argument("--allow-missing", action="store_true", help="a function that is not wrapped is no fault")
    parser.add_argument("--diff", nargs=2, type=Path, metavar=("OLD", "NEW"), help="two trees of an engine")
    parser.add_argument("--engine", choices=list(ENGINES), help="only this one")
    parser.add_argument("--root", type=Path, default=ROOT, help="holds src/cyllama and scripts/unwrapped.toml")
    parser.add_argument("--thirdparty", type=Path, default=ROOT / "thirdparty", help="the unpacked trees")
    options = parser.parse_args(argv)
    try:
        return diff(options) if options.diff else check(options)
    except (CheckError, OSError, tomllib.TOMLDecodeError) as error:
        print(f"check_declarations: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
