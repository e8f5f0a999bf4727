"""Look into the built package: exported symbols, run paths, SONAMEs, needed libraries, glibc floor.

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
    """SONAME, RUNPATH/RPATH and NEEDED of a library."""
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
    """Names of the symbols that the library offers to others."""
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
    """The newest glibc version that is asked for."""
    versions = [(0,)]
    for section in elf.iter_sections():
        if isinstance(section, GNUVerNeedSection):
            for _, auxiliaries in section.iter_versions():
                for auxiliary in auxiliaries:
                    if match := re.fullmatch(r"GLIBC_([\d.]+)", auxiliary.name):
                        versions.append(tuple(int(part) for part in match.group(1).split(".")))
    return max(versions)


def check_library(path: Path, package: Path) -> tuple[list[str], tuple[int, ...]]:
    """Breaches of one library, and the glibc it needs."""
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
    elif others := [name for name in symbols if not name.startswith("PyInit_")]:
        problems.append(f"exports {len(others)} symbols beside PyInit_*: {', '.join(others[:5])}")
    elif not symbols:
        problems.append("exports no PyInit_*")
    return [f"{path.relative_to(package)}: {problem}" for problem in problems], floor


def check_package(package: Path, newest: tuple[int, ...] | None = None) -> int:
    """Check all libraries of a package folder, and that they need no newer glibc than `newest`."""
    libraries = sorted(package.rglob("*.so"))
    if not any(path.parent.name == "lib" for path in libraries) or not any(
        path.parent.name != "lib" for path in libraries
    ):
        print(f"{package} holds no built package")
        return 1
    problems: list[str] = []
    floor: tuple[int, ...] = (0,)
    for path in libraries:
        found, needs = check_library(path, package)
        problems += found
        if newest and needs > newest:
            problems.append(f"{path.relative_to(package)}: needs glibc {'.'.join(map(str, needs))}")
        floor = max(floor, needs)
    extensions = sum(path.parent.name != "lib" for path in libraries)
    print(
        "\n".join(problems) or f"built: {extensions} extensions and {len(libraries) - extensions} libraries are right"
    )
    print(f"glibc {'.'.join(map(str, floor))} or later")
    return 1 if problems else 0


def main(argv: list[str] | None = None) -> int:
    """Check a folder, or a wheel unpacked to a temporary one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("target", type=Path, nargs="?", default=ROOT / "src" / "cyllama", help="folder or wheel")
    parser.add_argument("--glibc", metavar="VERSION", help="the newest glibc that may be asked for, such as 2.34")
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
        missing = sorted(licences - set(names))
        if missing or not any(name.endswith("/LICENSE") for name in names):
            print(f"licences are missing: {missing or 'LICENSE'}")
            return 1
        return check_package(Path(folder) / "cyllama", newest)


if __name__ == "__main__":
    sys.exit(main())
