"""The thread budget of the process, and the team that follows the load."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import cyllama
from cyllama import _native
from cyllama._native import _core, threads
from cyllama.errors import EngineError
from cyllama.llama import LlamaBatch, LlamaContext


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    yield
    cyllama.set_threads()


def test_default_follows_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os; os.sched_setaffinity(0, {0}); import cyllama; print(cyllama.get_threads())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "1"


def test_default_follows_cgroup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_affinity", lambda: set(range(1000, 1016)))
    monkeypatch.setattr(threads, "_cgroup_quota", lambda: 3.5)
    assert threads.default_threads() == 3
    monkeypatch.setattr(threads, "_cgroup_quota", lambda: None)
    assert threads.default_threads() == 16


def test_sets_threads() -> None:
    cyllama.set_threads(1)
    assert cyllama.get_threads() == 1
    assert _native.threads_available() == 1
    cyllama.set_threads(2, adaptive=False)
    assert _native.threads_available() == 2


@pytest.mark.parametrize("bad", [0, -1, 513])
def test_rejects_number_of_threads_out_of_range(bad: int) -> None:
    with pytest.raises(ValueError, match=f"n is {bad}, expected 1 to 512"):
        cyllama.set_threads(bad)


@pytest.mark.parametrize("bad", ["2", 2.0, True])
def test_rejects_other_types(bad: object) -> None:
    with pytest.raises(TypeError, match="expected an integer or None"):
        cyllama.set_threads(bad)


# Replaces fopen, so that /proc/stat shows cores that are idle, or busy with other processes.
STAT = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static bool busy;
static double idle, before;

static void advance(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const double seconds = now.tv_sec + now.tv_nsec*1e-9;
    idle += busy ? 0 : seconds - before;
    before = seconds;
}

void set_busy(bool value) {
    advance();
    busy = value;
}

FILE * fopen(const char * path, const char * mode) {
    if (strcmp(path, "/proc/stat") != 0) {
        return ((FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, "fopen"))(path, mode);
    }
    static char text[1 << 16];
    size_t n = 0;
    advance();
    for (int cpu = 0; cpu < 1024; cpu++) {
        n += sprintf(text + n, "cpu%d 0 0 0 %lld 0\n", cpu, (long long) (idle*100));
    }
    return fmemopen(text, n, "r");
}
"""
FOLLOW = """
import ctypes, os, time
import cyllama
from cyllama import _native
set_busy, n_cores = ctypes.CDLL(None).set_busy, len(os.sched_getaffinity(0))
set_busy(False)
cyllama.set_threads(n_cores)
for busy, wanted in ((False, n_cores), (True, 1), (False, n_cores)):
    set_busy(busy)
    while _native.threads_available() != wanted:
        time.sleep(0.02)
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core has no room to give up")
def test_the_team_shrinks_beside_busy_processes_and_grows_back(tmp_path: Path) -> None:
    source, library = tmp_path / "stat.c", tmp_path / "stat.so"
    source.write_text(STAT)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    env = os.environ | {"LD_PRELOAD": str(library)}
    subprocess.run([sys.executable, "-c", FOLLOW], env=env, check=True, timeout=60)


def _spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core has no room to give up")
def test_load_of_other_processes_is_measured() -> None:
    n_cores = len(os.sched_getaffinity(0))
    cyllama.set_threads(n_cores)
    spawn = multiprocessing.get_context("spawn")
    busy = [spawn.Process(target=_spin, args=(60,)) for _ in range(n_cores)]
    for process in busy:
        process.start()
    try:
        end = time.monotonic() + 30
        while _native.threads_available() != 1:
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        for process in busy:
            process.kill()
            process.join()


def test_two_engines_share_the_budget(tiny_model: object) -> None:
    """While a graph runs, another one gets the remaining threads, at least one."""
    from cyllama.llama import LlamaBatch, LlamaContext, LlamaContextParams

    cyllama.set_threads(2, adaptive=False)
    ctx = LlamaContext(tiny_model, LlamaContextParams(n_ctx=2048, n_batch=2048, n_ubatch=2048))
    batch = LlamaBatch.from_tokens([1] * 2000)
    seen = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(_native.threads_available())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(5):
            ctx.memory.clear()
            ctx.decode(batch)
    finally:
        done.set()
        watcher.join()
    assert 1 in seen
    assert _native.threads_available() == 2


@pytest.mark.parametrize(("n_threads", "thread"), [(1, 0), (2, 0), (2, 1), (4, 0), (4, 2), (4, 3)])
def test_assertions_of_all_threads_are_exceptions(n_threads: int, thread: int, tiny_ctx: LlamaContext) -> None:
    cyllama.set_threads(4, adaptive=False)

    def logits() -> np.ndarray:
        tiny_ctx.memory.clear()
        tiny_ctx.decode(LlamaBatch.from_tokens([1, 5, 9, 100]))
        return tiny_ctx.get_logits_ith(-1)

    expected, n_before = logits(), 0
    for round in range(40):
        with pytest.raises(EngineError, match="provoked on purpose") as caught:
            _core.fail_assertion(n_threads, thread)
        assert caught.value.aborted
        n_before = n_before or len(os.listdir("/proc/self/task"))
        assert round % 10 or np.array_equal(logits(), expected)
    assert len(os.listdir("/proc/self/task")) <= n_before, "threads are left behind"
