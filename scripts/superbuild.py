"""Build the engines with CMake and Ninja (thirdparty/CMakeLists.txt), and put their libraries into the package."""

from __future__ import annotations

import filecmp
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import cpu_variants
import sanitizers
from engines.lock import build_record, read_lock

ROOT = Path(__file__).resolve().parent.parent
THIRDPARTY = ROOT / "thirdparty"
SANITIZE = os.environ.get("CYLLAMA_SANITIZE", "")
BUILD = sanitizers.build_folder(SANITIZE)
ENGINES = BUILD / "engines"
CONFIGURATION = ENGINES / "cyllama-configuration.json"
LIB = (BUILD / "python" if SANITIZE else ROOT / "src") / "cyllama" / "lib"
SHARED = ["ggml-base", "ggml", "llama"]
SHARED_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
# Hardening: checked string functions, a canary in functions with arrays, read-only relocations.
# Symbols are stripped.
LINUX = sys.platform == "linux"
COMPILE_OPTIONS = ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"] if LINUX else []
LINK_OPTIONS = ["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-s"] if LINUX else []
COVERAGE_OPTIONS: list[str] = []
if SANITIZE:
    COMPILE_OPTIONS, LINK_OPTIONS, COVERAGE_OPTIONS = sanitizers.options(SANITIZE)
LICENSED = ("llama.cpp", "whisper.cpp", "stable-diffusion.cpp")
# Ninja's progress in a form that is easy to parse: done, total, time left.
NINJA_STATUS = "@%f %t %W@ "
STATUS = re.compile(r"^@(?P<done>\d+) (?P<total>\d+) (?P<left>\S*)@ (?P<what>.*)")


def fail(sentence: str) -> NoReturn:
    """End the build with one sentence: what is missing and how to install it."""
    sys.exit(f"cyllama: {sentence}")


def program(name: str) -> str:
    """Return the path of a build program, from the build environment's packages or from PATH."""
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
    return build_record(read_lock(THIRDPARTY / "engines.lock.toml"))


def fetch() -> None:
    """Download the pinned sources, unless they are present."""
    script = [sys.executable, str(ROOT / "scripts" / "engines")]
    if subprocess.run([*script, "--check"], capture_output=True, check=False).returncode == 0:
        return
    print("-- fetching the engines' sources", flush=True)
    if subprocess.run(script, check=False).returncode != 0:
        fail("the engines' sources could not be fetched; the reason is above")


class Progress:
    """A count of finished steps: one line that is rewritten on a terminal, elsewhere a line for each tenth."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.shown = -1
        self.terminal = sys.stdout.isatty()

    def show(self, done: int, total: int, left: str = "") -> None:
        """Show the count, and the remaining time as ``m:ss``."""
        estimate = f", about {left} left" if ":" in left and left != "00:00" and done < total else ""
        line = f"   {self.what}: {done} of {total}{estimate}"
        if self.terminal:
            print(f"\r\033[K{line}", end="\n" if done == total else "", flush=True)
        elif (tenth := done * 10 // max(total, 1)) > self.shown:
            self.shown = tenth
            print(line, flush=True)


def run_logged(command: list[str], log: Path, progress: Progress | None = None) -> bool:
    """Run a command with its output in a file; return whether it succeeded."""
    environment = os.environ | {"NINJA_STATUS": NINJA_STATUS}
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
        )
    except FileNotFoundError:
        fail(f"the program {command[0]!r} is missing")
    with log.open("w") as file, process:
        for line in process.stdout or ():
            status = STATUS.match(line)
            file.write(f"[{status['done']}/{status['total']}] {status['what']}\n" if status else line)
            if status and progress:
                progress.show(int(status["done"]), int(status["total"]), status["left"])
    return process.returncode == 0


def end_of(log: Path) -> str:
    """Return the part of a log that shows why a build failed."""
    lines = log.read_text(errors="replace").splitlines()
    reasons = [i for i, line in enumerate(lines) if re.search(r"^FAILED|^CMake Error|error:", line)]
    return "\n".join(lines[reasons[0] :][:40] if reasons else lines[-40:])


def configured() -> dict:
    """Return the configuration of the build folder; empty if it has none."""
    try:
        return json.loads(CONFIGURATION.read_text()) if (ENGINES / "build.ninja").exists() else {}
    except (OSError, json.JSONDecodeError):
        return {}


def configure(cmake: str, arguments: list[str], tools: bool, variants: list[str]) -> None:
    """Run CMake, unless the build folder has this configuration.

    The folder keeps programs and CPU variants that it already has: ``make`` after ``make wheel`` removes nothing.
    """
    before = configured()
    # with the path of cmake: ninja calls it, and that of an isolated build is deleted afterwards
    wanted = {"cmake": cmake, "arguments": arguments, "tools": tools, "variants": sorted(variants)}
    if before:
        wanted["tools"] = tools or before["tools"]
        wanted["variants"] = sorted({*variants, *before["variants"]})
    if wanted == before:
        return
    print("-- configuring the engines", flush=True)
    ENGINES.mkdir(parents=True, exist_ok=True)
    log = ENGINES / "configure.log"
    command = [
        *(cmake, "-S", str(THIRDPARTY), "-B", str(ENGINES), "-G", "Ninja", *arguments),
        f"-DCYLLAMA_TOOLS={'ON' if wanted['tools'] else 'OFF'}",
        f"-DGGML_CPU_VARIANTS={';'.join(wanted['variants'])}",
    ]
    if not run_logged(command, log):
        print(end_of(log))
        fail(f"configuring the engines failed; the whole output is in {log.relative_to(ROOT)}")
    CONFIGURATION.write_text(json.dumps(wanted, indent=1))


def build_number(version: str) -> int:
    """Return the number in a version of llama.cpp such as ``b11549``, and 0 for another version."""
    return int(version[1:]) if version[:1] == "b" and version[1:].isdigit() else 0


def build() -> None:
    """Configure if necessary, then let ninja build what is out of date."""
    if not shutil.which("c++") and not os.environ.get("CXX"):
        fail("a C++ compiler is missing; install one (Debian: apt-get install g++)")
    tools = os.environ.get("CYLLAMA_TOOLS") == "1"
    llama = record_engines()["llama"]
    cmake, ninja = program("cmake"), program("ninja")
    arguments = [
        f"-DCMAKE_MAKE_PROGRAM={ninja}",
        f"-DCYLLAMA_BACKENDS={os.environ.get('CYLLAMA_BACKENDS', 'rpc')}",
        f"-DCYLLAMA_COMPILE_OPTIONS={';'.join(COMPILE_OPTIONS)}",
        f"-DCYLLAMA_LINK_OPTIONS={';'.join(LINK_OPTIONS)}",
        f"-DCYLLAMA_COVERAGE_OPTIONS={';'.join(COVERAGE_OPTIONS)}",
        f"-DCYLLAMA_SANITIZE={'ON' if SANITIZE else 'OFF'}",
        f"-DCYLLAMA_PYTHON={sys.executable}",
        f"-DCYLLAMA_LLAMA_BUILD={build_number(llama['version'])}",
        f"-DCYLLAMA_LLAMA_COMMIT={llama['commit'][:9]}",
        *os.environ.get("CMAKE_ARGS", "").split(),
    ]
    variants = cpu_variants.chosen(os.environ.get("CYLLAMA_CPU_VARIANTS", "native"), fail)
    configure(cmake, arguments, tools, variants)
    log = ENGINES / "build.log"
    targets = [sanitizers.TARGETS.get(SANITIZE, "engines"), *(["tools"] if tools else [])]
    print(f"-- building the engines (the compilers' messages go to {log.relative_to(ROOT)})", flush=True)
    if not run_logged([ninja, "-C", str(ENGINES), *targets], log, Progress("compiled")):
        print(end_of(log))
        fail(f"building the engines failed; the whole output is in {log.relative_to(ROOT)}")


def note() -> str:
    """Return a sentence about the CPU variants of the build, and how to build all."""
    built = configured().get("variants", [])
    if not built or len(built) > 1:
        return f"built with {len(built) or 'all'} CPU variants"
    return (
        f"built for this machine (CPU variant {built[0]}); "
        "CYLLAMA_CPU_VARIANTS=all make, or make wheel, builds for all processors"
    )


def write_if_changed(path: Path, text: str) -> None:
    """Write a file, unless it has this text."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def copy_libraries() -> None:
    """Copy the shared libraries and backend modules into the package, and write the record of the build."""
    LIB.mkdir(parents=True, exist_ok=True)
    modules = (ENGINES / "backends.txt").read_text().split()
    prefix = "" if sys.platform == "win32" else "lib"
    module_suffix = ".dll" if sys.platform == "win32" else ".so"
    wanted = {f"{prefix}cyllama-{name}{SHARED_SUFFIX}" for name in SHARED}
    wanted |= {f"{prefix}{name}{module_suffix}" for name in modules}
    for old in LIB.iterdir():
        if old.suffix in (SHARED_SUFFIX, module_suffix) and old.name not in wanted:
            old.unlink()
    for name in sorted(wanted):
        source, target = ENGINES / "lib" / name, LIB / name
        if not target.exists() or not filecmp.cmp(source, target, shallow=True):
            beside = target.with_name(f"{name}.new")
            shutil.copy2(source, beside)
            beside.replace(target)  # overwriting would crash processes that use it
    record = {
        "engines": record_engines(),
        "backends": [name.removeprefix("ggml-") for name in modules],
        "platform": platform.platform(terse=True),
    }
    write_if_changed(LIB / "build.json", json.dumps(record, indent=1))
    for engine in LICENSED:
        target = LIB / f"LICENSE.{engine}"
        if not target.exists():
            shutil.copy2(THIRDPARTY / engine / "LICENSE", target)


if __name__ == "__main__":
    print(f"-- {note()}")
