"""Build with the compiler's sanitizers, and run a command on that build.

``CYLLAMA_SANITIZE=address,undefined`` or ``CYLLAMA_SANITIZE=thread`` makes setup.py build into a folder of its own,
``build/sanitize-address`` or ``build/sanitize-thread``; the extensions in ``src`` stay as they are. The package of such
a build is in its folder ``python``: the shared objects are there, and the other files are links to those of ``src``.

usage: sanitizers.py KIND COMMAND...

Runs a command with the package of a build, prints the reports of the sanitizers, and ends with 1 if there are any. The
command ``tests`` runs pytest on the tests of `TESTS`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "cyllama"
RUNTIME = ROOT / "scripts" / "sanitizer_runtime.cpp"
SUPPRESSIONS = ROOT / "tests" / "native" / "sanitizers"
LIBRARIES = {"address,undefined": ("asan", "ubsan"), "thread": ("tsan",)}
# A build for ThreadSanitizer has only llama.cpp, whose scheduler, slots and threads are the subject.
TARGETS = {"thread": "engine-llama"}
PACKAGES = {"thread": ("_native", "llama")}
# -O1 keeps stack traces readable and compiles faster. An extension's shared object hides its type information, so the
# check of dynamic types would compare two copies of a type. _FORTIFY_SOURCE calls functions that are not intercepted.
OPTIONS = ("-fno-sanitize=vptr", "-O1", "-g1", "-fno-omit-frame-pointer", "-U_FORTIFY_SOURCE")
COVERAGE = ("-fsanitize-coverage=trace-pc",)  # for fuzz/run.py
ENVIRONMENT = {
    "address,undefined": {
        # Python keeps memory until the process ends, so leaks are not reported.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=16384"
        ":verify_asan_link_order=0",
        "UBSAN_OPTIONS": f"print_stacktrace=1:suppressions={SUPPRESSIONS / 'undefined.txt'}",
        "PYTHONMALLOC": "malloc",
    },
    "thread": {
        "TSAN_OPTIONS": "history_size=4:second_deadlock_stack=1:allocator_may_return_null=1"
        f":suppressions={SUPPRESSIONS / 'thread.txt'}",
    },
}
# Tests that read files and memory of others, and tests with several threads. Those that compare times, or that start
# the engines' own programs, are left out.
TESTS = {
    "address,undefined": (
        *("tests/native/test_handles.py", "tests/native/test_files.py", "tests/native/test_log.py"),
        *("tests/native/test_kernels.py", "tests/native/test_float_kernels.py"),
        *("tests/llama/test_gguf.py", "tests/llama/test_bad_models.py", "tests/llama/test_memory_state.py"),
        *("tests/llama/test_sampler.py", "tests/llama/test_sampler_chain.py", "tests/llama/test_vocab.py"),
        *("tests/llama/test_templates.py", "tests/llama/test_context.py", "tests/llama/test_adapter.py"),
        *("tests/language/test_grammars.py", "tests/language/test_cancel.py"),
        *("tests/whisper/test_context.py", "tests/sd/test_tensor_header.py", "tests/media"),
    ),
    "thread": (
        "tests/native/test_threads.py",
        # LD_PRELOAD of its own
        "--deselect=tests/native/test_threads.py::test_the_team_shrinks_beside_busy_processes_and_grows_back",
        *("tests/llama/test_context.py", "tests/llama/test_memory_state.py"),
        *("tests/language/test_cancel.py", "tests/language/test_slots.py"),
    ),
}


def build_folder(kind: str) -> Path:
    """Return the folder of a build; that of the build without sanitizers for an empty `kind`.

    Raises
    ------
    SystemExit
        There is no such kind.
    """
    if not kind:
        return ROOT / "build"
    if kind not in LIBRARIES:
        sys.exit(f"cyllama: CYLLAMA_SANITIZE is {kind!r}, expected one of: {' '.join(LIBRARIES)}")
    return ROOT / "build" / f"sanitize-{kind.partition(',')[0]}"


def options(kind: str) -> tuple[list[str], list[str], list[str]]:
    """Return the options of the compiler, those of the linker, and those of the compiler for coverage."""
    sanitize = f"-fsanitize={kind}"
    return [sanitize, *OPTIONS], [sanitize], list(COVERAGE if kind != "thread" else ())


def link_package(folder: Path) -> None:
    """Link the package's files into `folder`, which has its own extensions and libraries."""
    wanted = set()
    for source in sorted(PACKAGE.rglob("*")):
        relative = source.relative_to(PACKAGE.parent)
        if source.is_dir() or {"lib", "__pycache__"} & set(relative.parts) or source.suffix == ".so":
            continue
        target = folder / relative
        wanted.add(target)
        if not target.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
    for path in folder.rglob("*"):
        if path.is_symlink() and path not in wanted:
            path.unlink()


def runtime(folder: Path) -> Path:
    """Return the library of sanitizer_runtime.cpp, which is built if it is out of date."""
    target = folder / "runtime.so"
    if not target.exists() or target.stat().st_mtime < RUNTIME.stat().st_mtime:
        command = [os.environ.get("CXX", "c++"), "-std=c++17", "-O1", "-fPIC", "-shared", "-o", target, RUNTIME]
        subprocess.run(command, check=True)
    return target


def library(name: str) -> str:
    """Return the path of a sanitizer's library."""
    command = [os.environ.get("CXX", "c++"), f"-print-file-name=lib{name}.so"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def environment(kind: str, reports: Path) -> dict[str, str]:
    """Return the variables with which Python runs on a build."""
    folder = build_folder(kind)
    libraries = [library(name) for name in LIBRARIES[kind]]
    found = dict(ENVIRONMENT[kind])
    for name in found:
        if name.endswith("_OPTIONS"):
            found[name] += f":log_path={reports / 'report'}"
    return {
        **found,
        "LD_PRELOAD": " ".join([str(runtime(folder)), *libraries]),
        "PYTHONPATH": str(folder / "python"),
    }


def main(argv: list[str]) -> int:
    """Run a command; return its exit code, or 1 if a sanitizer reported something."""
    if len(argv) < 2:
        print(__doc__)
        return 2
    kind, *command = argv
    folder = build_folder(kind)
    if not (folder / "python" / "cyllama" / "lib" / "modules.txt").exists():
        sys.exit(f"cyllama: {folder.relative_to(ROOT)} is missing; run: make sanitize KIND={kind}")
    if command == ["tests"]:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *TESTS[kind]]
    with tempfile.TemporaryDirectory(prefix="reports-", dir=folder) as temporary:
        reports = Path(temporary)
        code = subprocess.run(command, env=os.environ | environment(kind, reports), check=False).returncode
        found = [path.read_text(errors="replace") for path in sorted(reports.iterdir())]
    for text in found:
        print(text)
    print(f"-- {len(found)} processes with reports of the sanitizers")
    return code or bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
