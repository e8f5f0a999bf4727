"""Check the built package: shared objects, exported symbols, run paths, SONAMEs, needed libraries, glibc version.

usage: check_built.py [--glibc VERSION] [FOLDER or WHEEL]    default: the package in src/
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import zipfile
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.sections import SymbolTableSection

ROOT = Path(__file__).resolve().parent.parent
SYSTEM = re.compile(
    r"^(libc|libm|libdl|libpthread|librt|libstdc\+\+|libgcc_s|ld-linux[\w-]*)\.so"
    r"|^lib(vulkan|cuda|cudart|cublas\w*|amdhip64|hipblas|rocblas|sycl|OpenCL)\b"
)


def dynamic(elf: ELFFile) -> dict[str, list[str]]:
    """Return SONAME, RUNPATH or RPATH, and NEEDED of a library."""
    tags: dict[str, list[str]] = {"soname": [], "rpath": [], "needed": []}
    for section in elf.iter_sections():
        if isinstance(section, DynamicSection):
            for tag in section.iter_tags():
                for kind in tags:
                    value = getattr(tag, "runpath" if kind == "rpath" and hasattr(tag, "runpath") else kind, None)
                    if value is not None:
                        tags[kind] += value.split(":") if kind == "rpath" else [value]
    return tags


def exported(elf: ELFFile) -> list[str]:
    """Return the names of the symbols that a library exports."""
    table = elf.get_section_by_name(".dynsym")
    assert isinstance(table, SymbolTableSection)
    return [
        symbol.name
        for symbol in table.iter_symbols()
        if symbol["st_shndx"] != "SHN_UNDEF"
        and symbol["st_info"]["bind"] in ("STB_GLOBAL", "STB_WEAK", "STB_LOOS")
        and symbol["st_other"]["visibility"] == "STV_DEFAULT"
        and symbol.name
    ]


def glibc(elf: ELFFile) -> tuple[int, ...]:
    """Return the newest glibc version that a library needs."""
    versions = [(0,)]
    for section in elf.iter_sections():
        if isinstance(section, GNUVerNeedSection):
            for _, auxiliaries in section.iter_versions():
                for auxiliary in auxiliaries:
                    if match := re.fullmatch(r"GLIBC_([\d.]+)", auxiliary.name):
                        versions.append(tuple(int(part) for part in match.group(1).split(".")))
    return max(versions)


def read_table(package: Path) -> dict[str, set[str]]:
    """Return the modules of each shared object, by its path in the package (lib/modules.txt)."""
    table = package / "lib" / "modules.txt"
    lines = table.read_text().splitlines() if table.exists() else []
    return {f"{folder}/{name}": set(modules) for folder, name, *modules in map(str.split, lines)}


def check_exports(symbols: list[str], modules: set[str] | None) -> list[str]:
    """Return what is wrong with the exported symbols of a shared object that contains `modules`."""
    wrong = sorted(name for name in symbols if not name.startswith("PyInit_"))
    problems = [f"exports {len(wrong)} symbols beside PyInit_*: {', '.join(wrong[:5])}"] if wrong else []
    found = {name.removeprefix("PyInit_") for name in symbols if name not in wrong}
    if modules is None:
        problems.append("is not in lib/modules.txt")
    elif found != modules:
        problems.append(f"exports PyInit_* of {sorted(found)}, expected {sorted(modules)}")
    return problems


def check_library(path: Path, package: Path, table: dict[str, set[str]]) -> tuple[list[str], tuple[int, ...]]:
    """Return the problems of one library, and the glibc version that it needs."""
    with path.open("rb") as f:
        elf = ELFFile(f)
        tags, symbols, floor = dynamic(elf), exported(elf), glibc(elf)
    problems = []
    ours = {library.name for library in (package / "lib").iterdir()}
    for entry in tags["rpath"]:
        if not re.match(r"^\$ORIGIN(/|$)", entry):
            problems.append(f"run path {entry!r} is not relative")
        elif not (path.parent / entry.replace("$ORIGIN", ".")).resolve().is_relative_to(package.resolve()):
            problems.append(f"run path {entry!r} leaves the package")
    for needed in tags["needed"]:
        if needed not in ours and not SYSTEM.match(needed):
            problems.append(f"needs {needed}, which is neither in lib/ nor a system library")
    if path.parent.name == "lib":
        is_module = path.name.startswith("libggml-")
        if not is_module and tags["soname"] != [path.name]:
            problems.append(f"SONAME is {tags['soname']}, expected {path.name}")
        if not is_module and not path.name.startswith("libcyllama-"):
            problems.append("its name is not private")
    else:
        problems += check_exports(symbols, table.get(path.relative_to(package).as_posix()))
    return [f"{path.relative_to(package)}: {problem}" for problem in problems], floor


def check_package(package: Path, newest: tuple[int, ...] | None = None) -> int:
    """Check all libraries of a package folder, also for a newer glibc than `newest`; return the exit code."""
    libraries = sorted(package.rglob("*.so"))
    if not any(path.parent.name == "lib" for path in libraries) or not any(
        path.parent.name != "lib" for path in libraries
    ):
        print(f"{package} contains no built package")
        return 1
    table = read_table(package)
    missing = [name for name in table if package / name not in libraries]
    problems = [f"{name}: in lib/modules.txt, but not built" for name in missing]
    floor: tuple[int, ...] = (0,)
    for path in libraries:
        found, needs = check_library(path, package, table)
        problems += found
        if newest and needs > newest:
            problems.append(f"{path.relative_to(package)}: needs glibc {'.'.join(map(str, needs))}")
        floor = max(floor, needs)
    extensions = sum(path.parent.name != "lib" for path in libraries)
    print(
        "\n".join(problems)
        or f"built: {extensions} shared objects with {sum(map(len, table.values()))} modules, "
        f"and {len(libraries) - extensions} libraries are right"
    )
    print(f"glibc {'.'.join(map(str, floor))} or later")
    return 1 if problems else 0


def main(argv: list[str] | None = None) -> int:
    """Check a folder, or a wheel unpacked to a temporary one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("target", type=Path, nargs="?", default=ROOT / "src" / "cyllama", help="folder or wheel")
    parser.add_argument("--glibc", metavar="VERSION", help="the newest glibc that a library may need, such as 2.34")
    options = parser.parse_args(argv)
    target: Path = options.target
    newest = tuple(int(part) for part in options.glibc.split(".")) if options.glibc else None
    if target.suffix != ".whl":
        return check_package(target, newest)
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(target) as wheel:
            names = wheel.namelist()
            wheel.extractall(folder)
        licences = {f"cyllama/lib/LICENSE.{name}" for name in ("llama.cpp", "whisper.cpp", "stable-diffusion.cpp")}
        licences |= {f"cyllama/server/page/vendor/LICENSE.{name}" for name in ("marked", "dompurify")}
        missing = sorted(licences - set(names))
        if missing or not any(name.endswith("/LICENSE") for name in names):
            print(f"licences are missing: {missing or 'LICENSE'}")
            return 1
        return check_package(Path(folder) / "cyllama", newest)


if __name__ == "__main__":
    sys.exit(main())
