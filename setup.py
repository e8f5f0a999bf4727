"""Builds the engines (CMake superbuild in thirdparty/), then the Cython extensions on them.

Environment
-----------
CYLLAMA_BACKENDS   backends beside the CPU, separated by commas (default: rpc)
CYLLAMA_TOOLS      1: build the engines' native programs as well (make tools)
CMAKE_ARGS         more arguments for CMake
"""

from __future__ import annotations

import filecmp
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
THIRDPARTY = ROOT / "thirdparty"
ENGINES = ROOT / "build" / "engines"
PACKAGE = ROOT / "src" / "cyllama"
LIB = PACKAGE / "lib"
BACKENDS = os.environ.get("CYLLAMA_BACKENDS", "rpc")
SHARED = ["ggml-base", "ggml", "llama", "llama-common", "mtmd", "whisper", "stable-diffusion"]
SHARED_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")

INCLUDE = {
    "ggml": ["llama.cpp/ggml/include"],
    "llama": ["llama.cpp/include", "llama.cpp/common", "llama.cpp/vendor"],
    "llava": ["llama.cpp/include", "llama.cpp/tools/mtmd"],
    "whisper": ["whisper.cpp/include", "whisper.cpp/examples"],  # examples: the grammar parser
    "sd": ["stable-diffusion.cpp/include"],
}
# The extensions that use libllama-common beside libllama.
COMMON_EXTENSIONS = ("_adapter", "_common", "_engine", "_speculative", "_templates")
SERVER = ENGINES / "archive" / "libserver-context.a"  # static in `_engine`, which alone uses it


def fail(sentence: str) -> None:
    """End the build with one sentence that says what is missing and how to get it."""
    sys.exit(f"cyllama: {sentence}")


def run(command: list[str], what: str, **kwargs: object) -> None:
    """Run a step of the build, its output visible."""
    print(f"-- {what}", flush=True)
    try:
        subprocess.run([str(part) for part in command], check=True, **kwargs)
    except FileNotFoundError:
        fail(f"the program {command[0]!r} is missing; install it (Debian: apt-get install {command[0]})")
    except subprocess.CalledProcessError as error:
        fail(f"{what} failed (exit code {error.returncode}); the reason stands above")


def compile_engines(command: list[str]) -> None:
    """Run ninja: its progress is shown; what the compilers say goes to a file, and is shown if they fail."""
    what, log = "building the engines", ENGINES / "build.log"
    print(f"-- {what} (the compilers' messages go to {log.relative_to(ROOT)})", flush=True)
    show = "\r\033[K{}" if sys.stdout.isatty() else "{}\n"
    failed: list[str] = []
    with log.open("w") as file, subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as ninja:
        for line in ninja.stdout or ():
            file.write(line)
            if failed or line.startswith(("FAILED", "ninja: error")):
                failed.append(line)
            elif line.startswith("["):
                print(show.format(line.rstrip()), end="", flush=True)
    print(show.format(""), end="")
    if ninja.returncode != 0:
        print("".join(failed))
        fail(f"{what} failed (exit code {ninja.returncode}); the reason stands above")


def program(name: str) -> str:
    """A build program, from the build environment's packages or from PATH."""
    beside = Path(sys.executable).parent / name
    if beside.exists():
        return str(beside)
    try:
        module = __import__(name)
        return str(Path(getattr(module, f"{name.upper()}_BIN_DIR", module.BIN_DIR)) / name)
    except (ImportError, AttributeError):
        pass
    found = shutil.which(name)
    if not found:
        fail(f"the program {name!r} is missing; install it with: pip install {name}")
    return str(found)


def record_engines() -> dict[str, dict[str, str]]:
    """Return upstream's version and commit and the source of each pinned engine."""
    if str(ROOT / "scripts") not in sys.path:
        sys.path.insert(0, str(ROOT / "scripts"))
    from engines.lock import build_record, read_lock

    return build_record(read_lock(THIRDPARTY / "engines.lock.toml"))


def share_compiler_cache() -> None:
    """Let ccache know the same source in another checkout again."""
    os.environ.setdefault("CCACHE_BASEDIR", str(ROOT))
    os.environ.setdefault("CCACHE_NOHASHDIR", "true")


def fetch_engines() -> None:
    """Get the pinned sources, unless they are there."""
    script = [sys.executable, ROOT / "scripts" / "engines"]
    if subprocess.run([*map(str, script), "--check"], capture_output=True, check=False).returncode != 0:
        run(script, "fetching the engines' sources")


def build_engines() -> None:
    """Configure once, then let ninja decide what is out of date."""
    if not shutil.which("c++") and not os.environ.get("CXX"):
        fail("a C++ compiler is missing; install one (Debian: apt-get install g++)")
    tools = os.environ.get("CYLLAMA_TOOLS") == "1"
    cmake, ninja = program("cmake"), program("ninja")
    arguments = [
        f"-DCMAKE_MAKE_PROGRAM={ninja}",
        f"-DCYLLAMA_BACKENDS={BACKENDS}",
        f"-DCYLLAMA_LLAMA_COMMIT={record_engines()['llama']['commit'][:9]}",
        *os.environ.get("CMAKE_ARGS", "").split(),
    ]
    stamp = ENGINES / "cyllama-arguments.txt"
    # cmake's own path too: ninja calls it, and that of an isolated build is gone afterwards
    wanted = "\n".join([str(cmake), *arguments])
    with_tools = f"{wanted}\n-DCYLLAMA_TOOLS=ON"
    done = stamp.read_text() if stamp.exists() and (ENGINES / "build.ninja").exists() else ""
    if done != with_tools and (tools or done != wanted):  # programs that were built before are not taken away
        ENGINES.mkdir(parents=True, exist_ok=True)
        run(
            [
                cmake,
                "-S",
                THIRDPARTY,
                "-B",
                ENGINES,
                "-G",
                "Ninja",
                *arguments,
                f"-DCYLLAMA_TOOLS={'ON' if tools else 'OFF'}",
            ],
            "configuring the engines",
            stdout=subprocess.DEVNULL,
        )
        stamp.write_text(with_tools if tools else wanted)
    compile_engines([ninja, "-C", str(ENGINES), "engines", *(["tools"] if tools else [])])


def copy_libraries() -> None:
    """Put the shared libraries and backend modules into the package, with a record of the build."""
    LIB.mkdir(parents=True, exist_ok=True)
    modules = (ENGINES / "backends.txt").read_text().split()
    prefix = "" if sys.platform == "win32" else "lib"
    module_suffix = ".dll" if sys.platform == "win32" else ".so"
    wanted = {f"{prefix}cyllama-{name}{SHARED_SUFFIX}" for name in SHARED}
    wanted |= {f"{prefix}{name}{module_suffix}" for name in modules}
    for old in LIB.glob("*ggml*"):
        if old.name not in wanted:
            old.unlink()
    for name in sorted(wanted):
        source, target = ENGINES / "lib" / name, LIB / name
        if not target.exists() or not filecmp.cmp(source, target, shallow=True):
            beside = target.with_name(f"{name}.new")
            shutil.copy2(source, beside)
            beside.replace(target)  # written over, it would end the processes that have it open
    record = {
        "engines": record_engines(),
        "backends": [name.removeprefix("ggml-") for name in modules],
        "platform": platform.platform(terse=True),
    }
    text = json.dumps(record, indent=1)
    if not (LIB / "build.json").exists() or (LIB / "build.json").read_text() != text:
        (LIB / "build.json").write_text(text)
    for engine in ("llama.cpp", "whisper.cpp", "stable-diffusion.cpp"):
        target = LIB / f"LICENSE.{engine}"
        if not target.exists():
            shutil.copy2(THIRDPARTY / engine / "LICENSE", target)


def link_arguments() -> list[str]:
    """Relative run path, no symbol but PyInit_*."""
    if sys.platform == "darwin":
        return ["-Wl,-rpath,@loader_path/../lib", "-Wl,-exported_symbol,_PyInit_*"]
    script = ROOT / "build" / "exports.map"
    script.parent.mkdir(exist_ok=True)
    script.write_text("{ global: PyInit_*; local: *; };\n")
    return ["-Wl,-rpath,$ORIGIN/../lib", "-Wl,--exclude-libs,ALL", f"-Wl,--version-script={script}",
            "-Wl,--gc-sections", "-Wl,-s"]  # fmt: skip


def extension(pyx: Path) -> Extension:
    """One extension module."""
    engine = pyx.parent.name
    name = ".".join(pyx.relative_to(PACKAGE.parent).with_suffix("").parts)
    libraries = ["cyllama-ggml", "cyllama-ggml-base"]
    if engine in ("llama", "llava"):
        libraries.insert(0, "cyllama-llama")
    if engine == "llama" and pyx.stem in COMMON_EXTENSIONS:
        libraries.insert(0, "cyllama-llama-common")
    if engine == "llava":
        libraries.insert(0, "cyllama-mtmd")
    if engine == "whisper":
        libraries.insert(0, "cyllama-whisper")
    if engine == "sd":
        libraries.insert(0, "cyllama-stable-diffusion")
    includes = INCLUDE["ggml"] + INCLUDE.get(engine, [])
    archives = []
    if pyx.stem == "_engine":
        libraries.insert(0, "cyllama-mtmd")
        includes += ["llama.cpp", "llama.cpp/tools/server", "llama.cpp/tools/mtmd"]
        archives.append(str(SERVER))
    return Extension(
        name,
        [str(pyx.relative_to(ROOT))],
        language="c++",
        include_dirs=[str(PACKAGE / "_native"), str(pyx.parent), *(str(THIRDPARTY / path) for path in includes)],
        define_macros=[("GGML_MAX_NAME", "128"), ("GGML_SHARED", None), ("GGML_BACKEND_SHARED", None),
                       ("LLAMA_SHARED", None)],
        library_dirs=[str(LIB)],
        libraries=libraries,
        extra_objects=archives,
        extra_compile_args=["-std=c++17", "-O2", "-g0", "-fvisibility=hidden", "-ffunction-sections",
                            "-Wno-deprecated-declarations", "-Wno-unused-function", "-Wno-sign-compare"],
        extra_link_args=link_arguments(),
        depends=[*archives, *map(str, PACKAGE.glob("_native/*.hpp")), *map(str, pyx.parent.glob("*.hpp"))],
    )  # fmt: skip


class BuildExt(build_ext):
    """Engines first; the extensions need their headers and libraries."""

    def run(self) -> None:
        from Cython.Build import cythonize  # after the build requirements are there

        share_compiler_cache()
        fetch_engines()
        build_engines()
        copy_libraries()
        self.parallel = self.parallel or os.cpu_count()
        pyx_files = sorted(PACKAGE.glob("*/_*.pyx"))
        self.extensions = cythonize(
            [extension(pyx) for pyx in pyx_files],
            build_dir=str(ROOT / "build" / "cython"),
            include_path=[str(ROOT / "src")],
            compiler_directives={
                "language_level": 3,
                "embedsignature": True,
                "binding": True,
                "annotation_typing": False,
            },
            nthreads=0,
            quiet=True,
        )
        self.distribution.ext_modules = self.extensions
        for ext in self.extensions:
            ext._full_name = self.get_ext_fullname(ext.name)
            ext._links_to_dynamic = False
            ext._needs_stub = False
            ext._file_name = self.get_ext_filename(ext._full_name)
        super().run()

    def build_extensions(self) -> None:
        ccache = shutil.which("ccache")
        if ccache:
            self.compiler.set_executable("compiler_so", [ccache, *self.compiler.compiler_so])
            self.compiler.set_executable("compiler_so_cxx", [ccache, *getattr(self.compiler, "compiler_so_cxx", [])])
        super().build_extensions()


class BuildPy(build_py):
    """The package's files, among them the libraries in lib/, which must be there before they are listed."""

    def run(self) -> None:
        self.run_command("build_ext")
        self.__dict__.pop("data_files", None)  # listed before
        super().run()


setup(
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
    ext_modules=[Extension("cyllama._native._core", ["src/cyllama/_native/_core.pyx"])],
)
