"""Build the engines (scripts/superbuild.py), then the Cython extensions on them.

Environment
-----------
CYLLAMA_BACKENDS       backends beside the CPU, separated by commas (default: rpc)
CYLLAMA_CPU_VARIANTS   native (default: the one of this machine), all, or names separated by commas
CYLLAMA_TOOLS          1: build the engines' native programs as well (make tools)
CMAKE_ARGS             more arguments for CMake
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import threading
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.modified import newer_group

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "scripts"))

import superbuild  # noqa: E402
from superbuild import LIB, THIRDPARTY  # noqa: E402

PACKAGE = ROOT / "src" / "cyllama"
INCLUDE = {
    "ggml": ["llama.cpp/ggml/include"],
    "llama": ["llama.cpp/include", "llama.cpp/common", "llama.cpp/vendor"],
    "llava": ["llama.cpp/include", "llama.cpp/tools/mtmd"],
    "whisper": ["whisper.cpp/include", "whisper.cpp/examples"],  # examples: the grammar parser
    "sd": ["stable-diffusion.cpp/include"],
}
# The extensions that use libllama-common beside libllama.
COMMON_EXTENSIONS = ("_adapter", "_common", "_engine", "_speculative", "_templates")
SERVER = superbuild.ENGINES / "archive" / "libserver-context.a"  # static in `_engine`, which alone uses it
# One build works with this version of Python and all later ones. It costs 30 to 160 ns a call
# (python -m benchmarks overhead).
LIMITED_API = ("0x030b0000", "cp311")


def share_compiler_cache() -> None:
    """Let ccache know the same source in another checkout again."""
    os.environ.setdefault("CCACHE_BASEDIR", str(ROOT))
    os.environ.setdefault("CCACHE_NOHASHDIR", "true")


def link_arguments() -> list[str]:
    """Relative run path, no symbol but PyInit_*."""
    if sys.platform == "darwin":
        return ["-Wl,-rpath,@loader_path/../lib", "-Wl,-exported_symbol,_PyInit_*"]
    script = ROOT / "build" / "exports.map"
    script.parent.mkdir(exist_ok=True)
    script.write_text("{ global: PyInit_*; local: *; };\n")
    return ["-Wl,-rpath,$ORIGIN/../lib", "-Wl,--exclude-libs,ALL", f"-Wl,--version-script={script}",
            "-Wl,--gc-sections", *superbuild.LINK_OPTIONS]  # fmt: skip


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
        libraries.insert(0, "cyllama-parakeet" if pyx.stem.startswith("_parakeet") else "cyllama-whisper")
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
                       ("LLAMA_SHARED", None), ("Py_LIMITED_API", LIMITED_API[0])],
        py_limited_api=True,
        library_dirs=[str(LIB)],
        libraries=libraries,
        extra_objects=archives,
        # -Os: a fifth smaller than -O1, and a third less compiler's time than -O2 (python -m benchmarks overhead)
        extra_compile_args=["-std=c++17", "-Os", "-g0", "-fvisibility=hidden", "-ffunction-sections",
                            *superbuild.COMPILE_OPTIONS, "-Wno-deprecated-declarations", "-Wno-unused-function",
                            "-Wno-sign-compare"],
        extra_link_args=link_arguments(),
        depends=[*archives, *map(str, PACKAGE.glob("_native/*.hpp")), *map(str, pyx.parent.glob("*.hpp"))],
    )  # fmt: skip


class BuildExt(build_ext):
    """Build the engines first; the extensions need their headers and libraries."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.editable_mode:
            # pip builds an editable install in temporary folders: all extensions would be compiled a second time.
            tag = f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
            self.build_lib, self.build_temp = (str(ROOT / "build" / f"{part}.{tag}") for part in ("lib", "temp"))

    def run(self) -> None:
        from Cython.Build import cythonize  # after the build requirements are there

        share_compiler_cache()
        superbuild.fetch()
        superbuild.build()
        superbuild.copy_libraries()
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
            nthreads=self.parallel,
            quiet=True,
        )
        self.distribution.ext_modules = self.extensions
        # Both forms of a name are asked for when a file gets its suffix, .abi3.so.
        self.ext_map = {name: ext for ext in self.extensions for name in (ext.name, ext.name.rpartition(".")[2])}
        for ext in self.extensions:
            ext._full_name = self.get_ext_fullname(ext.name)
            ext._links_to_dynamic = False
            ext._needs_stub = False
            ext._file_name = self.get_ext_filename(ext._full_name)
        self.remove_stale()
        super().run()

    def remove_stale(self) -> None:
        """Delete modules and libraries of an earlier build: Python imports them first, and a wheel contains them."""
        current = {self.get_ext_filename(ext.name) for ext in self.extensions}
        current |= {f"cyllama/lib/{path.name}" for path in LIB.iterdir()}
        for folder in (PACKAGE.parent, Path(self.build_lib)):
            for path in folder.glob("cyllama/*/*.so"):
                if path.relative_to(folder).as_posix() not in current:
                    path.unlink()

    def build_extensions(self) -> None:
        ccache = shutil.which("ccache")
        if ccache:
            self.compiler.set_executable("compiler_so", [ccache, *self.compiler.compiler_so])
            self.compiler.set_executable("compiler_so_cxx", [ccache, *getattr(self.compiler, "compiler_so_cxx", [])])
        self.outdated = {ext.name for ext in self.extensions if self.is_outdated(ext)}
        self.progress, self.built, self.counting = superbuild.Progress("extensions"), 0, threading.Lock()
        super().build_extensions()

    def is_outdated(self, ext: Extension) -> bool:
        return self.force or newer_group([*ext.sources, *ext.depends], self.get_ext_fullpath(ext.name), "newer")

    def build_extension(self, ext: Extension) -> None:
        super().build_extension(ext)
        if ext.name in self.outdated:
            with self.counting:
                self.built += 1
                self.progress.show(self.built, len(self.outdated))


class BuildPy(build_py):
    """Collect the package's files; the libraries in lib/ must exist before they are listed."""

    def run(self) -> None:
        self.run_command("build_ext")
        self.__dict__.pop("data_files", None)  # listed before
        super().run()


setup(
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
    ext_modules=[Extension("cyllama._native._core", ["src/cyllama/_native/_core.pyx"])],
    options={"bdist_wheel": {"py_limited_api": LIMITED_API[1]}},
)
