"""Build the engines (scripts/superbuild.py), then the Cython extensions on them.

Environment
-----------
CYLLAMA_BACKENDS       backends beside the CPU, separated by commas (default: rpc)
CYLLAMA_CPU_VARIANTS   native (default: the one of this machine), all, or names separated by commas
CYLLAMA_TOOLS          1: build the engines' native programs as well (make tools)
CYLLAMA_SANITIZE       address,undefined or thread: a build of its own with the compiler's sanitizers (make sanitize)
CMAKE_ARGS             more arguments for CMake
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.modified import newer_group

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "scripts"))

import gen_fill  # noqa: E402
import sanitizers  # noqa: E402
import superbuild  # noqa: E402
from superbuild import LIB, THIRDPARTY  # noqa: E402

PACKAGE = ROOT / "src" / "cyllama"
ARCHIVE = superbuild.ENGINES / "archive"
# Of each engine: folders of headers, static libraries in the order of their dependencies, shared libraries beside ggml.
INCLUDE = {
    "llama": ["llama.cpp", "llama.cpp/include", "llama.cpp/common", "llama.cpp/vendor", "llama.cpp/tools/server",
              "llama.cpp/tools/mtmd"],
    "llava": ["llama.cpp/include", "llama.cpp/tools/mtmd"],
    "whisper": [".", "whisper.cpp/include", "whisper.cpp/examples"],  # examples: the grammar parser
    "sd": ["stable-diffusion.cpp/include"],
}  # fmt: skip
STATIC = {
    "llama": ["server-context", "cyllama-mtmd", "cyllama-llama-common", "llama-common-base", "cpp-httplib",
              "vendor-hash"],
    "llava": ["cyllama-mtmd", "vendor-hash"],
    "whisper": ["cyllama-whisper", "cyllama-parakeet"],
    "sd": ["cyllama-stable-diffusion"],
}  # fmt: skip
SHARED = {"llama": ["cyllama-llama"], "llava": ["cyllama-llama"]}
# One build works with this version of Python and all later ones. It costs 30 to 160 ns a call
# (python -m benchmarks overhead).
LIMITED_API = ("0x030b0000", "cp311")


def share_compiler_cache() -> None:
    """Let ccache know the same source in another checkout again."""
    os.environ.setdefault("CCACHE_BASEDIR", str(ROOT))
    os.environ.setdefault("CCACHE_NOHASHDIR", "true")


def module_name(pyx: Path) -> str:
    """Return the full name of the module that a .pyx file is the source of."""
    return ".".join(pyx.relative_to(PACKAGE.parent).with_suffix("").parts)


def link_arguments() -> list[str]:
    """Relative run path, no symbol but PyInit_*."""
    if sys.platform == "darwin":
        return ["-Wl,-rpath,@loader_path/../lib", "-Wl,-exported_symbol,_PyInit_*"]
    script = superbuild.BUILD / "exports.map"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text("{ global: PyInit_*; local: *; };\n")
    return ["-Wl,-rpath,$ORIGIN/../lib", "-Wl,--exclude-libs,ALL", f"-Wl,--version-script={script}",
            "-Wl,--gc-sections", *superbuild.LINK_OPTIONS]  # fmt: skip


def shared_object(package: str) -> Extension:
    """Return the shared object of a sub-package; BuildExt gives it the C++ sources of its modules."""
    includes = ["llama.cpp/ggml/include", *INCLUDE.get(package, [])]
    return Extension(
        f"cyllama.{package}._{package.lstrip('_')}",
        sources=[],
        language="c++",
        include_dirs=[str(PACKAGE / "_native"), str(PACKAGE / package), *(str(THIRDPARTY / path) for path in includes)],
        define_macros=[("GGML_MAX_NAME", "128"), ("GGML_SHARED", None), ("GGML_BACKEND_SHARED", None),
                       ("LLAMA_SHARED", None), ("Py_LIMITED_API", LIMITED_API[0])],
        py_limited_api=True,
        library_dirs=[str(LIB)],
        libraries=[*SHARED.get(package, []), "cyllama-ggml", "cyllama-ggml-base"],
        extra_objects=[str(ARCHIVE / f"lib{name}.a") for name in STATIC.get(package, [])],
        # -Os: a fifth smaller than -O1, and a third less compiler's time than -O2 (python -m benchmarks overhead)
        extra_compile_args=["-std=c++17", "-Os", "-g0", "-fvisibility=hidden", "-ffunction-sections",
                            *superbuild.COMPILE_OPTIONS, *superbuild.COVERAGE_OPTIONS,
                            "-Wno-deprecated-declarations", "-Wno-unused-function", "-Wno-sign-compare", "-MMD"],
        extra_link_args=link_arguments(),
    )  # fmt: skip


def make_static(source: Path) -> None:
    """Make a helper function in Cython's output static: Cython 3.3 exports it from every module."""
    text = source.read_bytes()
    changed = re.sub(rb"(?m)^int (__Pyx_ApplySequenceOrMappingFlag\(PyTypeObject)", rb"static int \1", text)
    if changed != text:
        source.write_bytes(changed)


def headers_of(compiled: Path) -> list[str]:
    """Return the files that a source included when `compiled` was made from it (the compiler's -MMD)."""
    try:
        text = compiled.with_suffix(".d").read_text()
    except FileNotFoundError:
        return []
    return text.partition(":")[2].replace("\\\n", " ").split()


class BuildExt(build_ext):
    """Build the engines first; the extensions need their headers and libraries."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.editable_mode:
            # pip builds an editable install in temporary folders: all extensions would be compiled a second time.
            tag = f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
            self.build_lib, self.build_temp = (str(ROOT / "build" / f"{part}.{tag}") for part in ("lib", "temp"))
        if superbuild.SANITIZE:  # beside the libraries of that build, never into src
            self.build_lib, self.build_temp = (str(superbuild.BUILD / part) for part in ("python", "temp"))
            self.inplace = False

    def run(self) -> None:
        from Cython.Build import cythonize  # after the build requirements are there

        share_compiler_cache()
        superbuild.fetch()
        superbuild.build()
        superbuild.copy_libraries()
        if superbuild.SANITIZE:
            sanitizers.link_package(Path(self.build_lib))
        gen_fill.write()
        self.parallel = self.parallel or os.cpu_count()
        pyx_files = sorted(PACKAGE.glob("*/_*.pyx"))
        if superbuild.SANITIZE in sanitizers.PACKAGES:
            pyx_files = [pyx for pyx in pyx_files if pyx.parent.name in sanitizers.PACKAGES[superbuild.SANITIZE]]
        self.remove_outdated()
        modules = cythonize(
            [Extension(module_name(pyx), [str(pyx.relative_to(ROOT))], language="c++") for pyx in pyx_files],
            build_dir=str(superbuild.BUILD / "cython"),
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
        for module in modules:
            make_static(Path(module.sources[0]))
        # Cython copies the headers, but not again when only a header changes: the compiler must find the originals.
        for header in (superbuild.BUILD / "cython").rglob("*.hpp"):
            header.unlink()
        packages = sorted({pyx.parent.name for pyx in pyx_files})
        self.extensions = [shared_object(package) for package in packages]
        for package, ext in zip(packages, self.extensions, strict=True):
            ext.sources = [module.sources[0] for module in modules if module.name.split(".")[1] == package]
        self.distribution.ext_modules = self.extensions
        # Both forms of a name are asked for when a file gets its suffix, .abi3.so.
        self.ext_map = {name: ext for ext in self.extensions for name in (ext.name, ext.name.rpartition(".")[2])}
        for ext in self.extensions:
            ext._full_name = self.get_ext_fullname(ext.name)
            ext._links_to_dynamic = False
            ext._needs_stub = False
            ext._file_name = self.get_ext_filename(ext._full_name)
        self.remove_stale()
        self.write_table(packages, pyx_files)
        super().run()

    def remove_outdated(self) -> None:
        """Delete Cython's output when a .pxd is newer: Cython overlooks `from package cimport module as name`."""
        changed = max(pxd.stat().st_mtime for pxd in PACKAGE.rglob("*.pxd"))
        for source in (superbuild.BUILD / "cython").rglob("*.cpp"):
            if source.stat().st_mtime < changed:
                source.unlink()

    def remove_stale(self) -> None:
        """Delete modules and libraries of an earlier build: Python imports them first, and a wheel contains them."""
        current = {self.get_ext_filename(ext.name) for ext in self.extensions}
        current |= {f"cyllama/lib/{path.name}" for path in LIB.iterdir()}
        for folder in {LIB.parents[1], Path(self.build_lib)}:
            for path in folder.glob("cyllama/*/*.so"):
                if path.relative_to(folder).as_posix() not in current:
                    path.unlink()

    def write_table(self, packages: list[str], pyx_files: list[Path]) -> None:
        """Write the table with which cyllama/_extensions.py finds a module's shared object."""
        lines = []
        for package, ext in zip(packages, self.extensions, strict=True):
            modules = [pyx.stem for pyx in pyx_files if pyx.parent.name == package]
            lines.append(" ".join([package, Path(self.get_ext_filename(ext.name)).name, *modules]))
        superbuild.write_if_changed(LIB / "modules.txt", "\n".join(lines) + "\n")

    def build_extensions(self) -> None:
        """Compile what is out of date, one translation unit for each module, then link each sub-package's objects."""
        ccache = shutil.which("ccache")
        if ccache:
            self.compiler.set_executable("compiler_so", [ccache, *self.compiler.compiler_so])
            self.compiler.set_executable("compiler_so_cxx", [ccache, *getattr(self.compiler, "compiler_so_cxx", [])])
        jobs = [job for ext in self.extensions for job in self.outdated(ext)]
        progress = superbuild.Progress("extensions")
        with ThreadPoolExecutor(self.parallel) as pool:
            running = [pool.submit(self.compile, ext, source) for ext, source in jobs]
            for done, job in enumerate(as_completed(running), 1):
                job.result()
                progress.show(done, len(jobs))
            list(pool.map(self.link, self.extensions))

    def compiled(self, source: str) -> Path:
        """Return the path of the compiled form of a source."""
        return Path(self.compiler.object_filenames([source], output_dir=self.build_temp)[0])

    def outdated(self, ext: Extension) -> list[tuple[Extension, str]]:
        """Return the sources that changed since they were compiled, or whose headers did."""
        found = []
        for source in ext.sources:
            target = self.compiled(source)
            needed = [source, __file__, superbuild.__file__, *headers_of(target)]
            if self.force or not target.with_suffix(".d").exists() or newer_group(needed, str(target), "newer"):
                found.append((ext, source))
        return found

    def compile(self, ext: Extension, source: str) -> None:
        """Compile one source."""
        self.compiler.compile(
            [source],
            output_dir=self.build_temp,
            macros=ext.define_macros,
            include_dirs=ext.include_dirs,
            debug=self.debug,
            extra_postargs=ext.extra_compile_args,
        )

    def link(self, ext: Extension) -> None:
        """Link a shared object, unless it is newer than all its parts."""
        target = self.get_ext_fullpath(ext.name)
        parts = [*(str(self.compiled(source)) for source in ext.sources), *ext.extra_objects]
        if self.force or newer_group([*parts, __file__], target):
            self.compiler.link_shared_object(
                parts,
                target,
                libraries=self.get_libraries(ext),
                library_dirs=ext.library_dirs,
                extra_postargs=ext.extra_link_args,
                debug=self.debug,
                build_temp=self.build_temp,
                target_lang="c++",
            )


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
