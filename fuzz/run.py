"""Run fuzz targets with Atheris (libFuzzer): ``python fuzz/run.py [TARGET ...] [--seconds N | --runs N]``.

Each target runs in a process of its own. It begins with the target's seeds and the files of ``fuzz/corpus/TARGET``,
and keeps the inputs that reach new code, and those that crash it, in ``build/fuzz/TARGET``. After a crash the target
starts again, until its time is over or it has crashed `MAX_CRASHES` times. Prints the executions and crashes of each
target, and ends with 1 if there was a crash.

``--replay FILE ...`` runs single inputs without Atheris, and shows the exception.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder, whose modules are those of the package `fuzz`

if TYPE_CHECKING:
    from fuzz.target import Target

# Of each target: its module in this folder, and the modules of Python code whose coverage guides it.
TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "gguf": ("model_files", ()),
    "llama-model": ("model_files", ()),
    "whisper-model": ("model_files", ()),
    "checkpoint": ("checkpoints", ("cyllama.sd._tensor_header", "cyllama.sd.families")),
    "state": ("states", ()),
    "audio": ("media", ("cyllama.media",)),
    "image": ("media", ("cyllama.media", "cyllama.sd.metadata", "PIL")),
    "infotext": ("media", ("cyllama.sd.metadata",)),
    "request": ("text_requests", ("cyllama.server", "cyllama.llama")),
    "message": ("text_requests", ("cyllama.media", "cyllama.llama._chat_request", "cyllama.llama._media")),
    "grammar": ("grammars", ("cyllama.whisper._grammar_check",)),
    "schema": ("grammars", ("cyllama.llama._json_schema",)),
    "template": ("grammars", ()),
}
COMMAND = [sys.executable, __file__]
WORK = ROOT / "build" / "fuzz"
CORPUS = ROOT / "fuzz" / "corpus"
MEMORY = 4096  # MiB of a process
MAX_CRASHES = 10
EXECUTIONS = re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)
ARTIFACT = re.compile(r"Test unit written to (.+)$", re.MULTILINE)
PROGRESS = re.compile(r"^#(\d+)\s", re.MULTILINE)


def load(name: str) -> Target:
    """Return a target."""
    found: Target = importlib.import_module(f"fuzz.{TARGETS[name][0]}").TARGETS[name]
    return found


def replay(name: str, paths: Sequence[Path]) -> None:
    """Run a target on files; the first finding is raised."""
    run = load(name).prepare()
    for path in paths:
        print(f"-- {path}", flush=True)
        run(path.read_bytes())


def fuzz(name: str, work: Path, options: Sequence[str]) -> None:
    """Run a target in this process, which libFuzzer ends."""
    import atheris

    target = load(name)
    run = target.prepare()
    seeds = work / "seeds"
    seeds.mkdir(exist_ok=True)
    for i, seed in enumerate(target.seeds()):
        (seeds / f"{i:02}").write_bytes(seed)
        run(seed)  # also imports what the first call imports
    for function in _functions(TARGETS[name][1]):
        atheris.instrument_func(function)

    def one(data: bytes) -> None:
        run(data)

    _add_native_counters()
    limits = [f"-max_len={target.max_length}", f"-timeout={target.seconds}", f"-rss_limit_mb={_memory_limit()}"]
    folders = [work / "corpus", seeds, CORPUS / name]
    folders[0].mkdir(exist_ok=True)
    found = [str(folder) for folder in folders if folder.exists()]
    atheris.Setup([sys.argv[0], *limits, "-print_final_stats=1", *options, *found], one)
    atheris.Fuzz()


def _functions(modules: Sequence[str]) -> Iterator[FunctionType]:
    """Yield the functions and methods of loaded modules; atheris.instrument_imports() takes whole packages only."""
    for name, module in list(sys.modules.items()):
        if any(f"{name}.".startswith(f"{prefix}.") for prefix in modules):
            values = list(vars(module).values())
            values += [item for value in values if isinstance(value, type) for item in vars(value).values()]
            for value in values:
                function = getattr(value, "__func__", getattr(value, "fget", value))
                if isinstance(function, FunctionType) and function.__module__ == name:
                    yield function


def _memory_limit() -> int:
    return MEMORY * (4 if "ASAN_OPTIONS" in os.environ else 1)


def _add_native_counters() -> None:
    """Give libFuzzer the counters of scripts/sanitizer_runtime.cpp, if that is loaded."""
    process = ctypes.CDLL(None)
    try:
        start = ctypes.addressof(ctypes.c_uint8.in_dll(process, "cyllama_coverage"))
        n = ctypes.c_size_t.in_dll(process, "cyllama_coverage_size").value
    except ValueError:
        return
    from atheris import core_with_libfuzzer

    library = ctypes.CDLL(core_with_libfuzzer.__file__)
    library.__sanitizer_cov_8bit_counters_init(ctypes.c_void_p(start), ctypes.c_void_p(start + n))
    table = (ctypes.c_size_t * (2 * n))(*range(2 * n))  # address and flags of each block
    address = ctypes.addressof(table)
    _kept.append(table)
    library.__sanitizer_cov_pcs_init(ctypes.c_void_p(address), ctypes.c_void_p(address + ctypes.sizeof(table)))


_kept: list[object] = []


def run_target(name: str, folder: Path, seconds: float | None, runs: int | None, seed: int) -> tuple[int, list[Path]]:
    """Run a target in processes of its own; return the number of executions, and the inputs that crashed it.

    Of a process that ended without writing its input, the output counts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + (3600.0 if seconds is None else seconds)
    executions, found = 0, set[Path]()
    for attempt in range(MAX_CRASHES):
        options = [f"-artifact_prefix={folder}/", f"-seed={seed + attempt}"]
        if runs is not None:
            options.append(f"-runs={runs - executions}")
        if seconds is not None:
            options.append(f"-max_total_time={max(1, round(end - time.monotonic()))}")
        log = folder / f"log{attempt}"
        code = _run_process(name, folder, options, log, end)
        text = log.read_text(errors="replace")
        counts = EXECUTIONS.findall(text) or PROGRESS.findall(text)
        executions += int(counts[-1]) if counts else 0
        if code == 0:
            break
        print(f"   {name}: a process ended with {code}; its output is in {log}", flush=True)
        found |= set(map(Path, ARTIFACT.findall(text))) or {log}
        if time.monotonic() >= end or (runs is not None and executions >= runs) or not counts:
            break
    return executions, sorted(found)


def _run_process(name: str, folder: Path, options: list[str], log: Path, end: float) -> int:
    command = [*COMMAND, name, "--work", str(folder.parent), "--in-process", *options]
    with tempfile.TemporaryDirectory(prefix="cyllama-fuzz-") as temporary, open(log, "wb") as file:
        environment = os.environ | {"TMPDIR": temporary}
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        try:
            return process.wait(max(0.0, end - time.monotonic()) + 300)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the targets of the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=float, help="seconds of each target (default: 60)")
    parser.add_argument("--runs", type=int, help="executions of each target")
    parser.add_argument("--seed", type=int, default=1, help="of libFuzzer's random numbers")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of inputs and logs (default: build/fuzz)")
    parser.add_argument("--replay", nargs="+", type=Path, metavar="FILE", help="run these inputs of one target")
    parser.add_argument("--in-process", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    logging.disable()
    warnings.simplefilter("ignore")
    if given.in_process is not None:
        fuzz(given.targets[0], given.work / given.targets[0], given.in_process)
        return 0
    for name in given.targets:
        if name not in TARGETS:
            parser.error(f"TARGET is {name!r}, expected one of: {' '.join(TARGETS)}")
    if given.replay:
        replay(given.targets[0], given.replay)
        return 0
    seconds = 60.0 if given.seconds is None and given.runs is None else given.seconds
    crashes = 0
    for name in given.targets or TARGETS:
        begin = time.monotonic()
        executions, found = run_target(name, given.work / name, seconds, given.runs, given.seed)
        taken = time.monotonic() - begin
        print(f"{name:14} {executions:9,} executions in {taken:4.0f} s, {len(found)} crashes", flush=True)
        for path in found:
            print(f"   {path}")
        crashes += len(found)
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
