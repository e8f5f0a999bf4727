"""The thread budget of the process, and the team that follows the load."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

import cyllama
from cyllama import _native
from cyllama._native import threads


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


def test_set_threads() -> None:
    cyllama.set_threads(1)
    assert cyllama.get_threads() == 1
    assert _native.threads_available() == 1
    cyllama.set_threads(2, adaptive=False)
    assert _native.threads_available() == 2


@pytest.mark.parametrize("bad", [0, -1, 513])
def test_set_threads_out_of_range(bad: int) -> None:
    with pytest.raises(ValueError, match=f"n is {bad}, expected 1 to 512"):
        cyllama.set_threads(bad)


@pytest.mark.parametrize("bad", ["2", 2.0, True])
def test_set_threads_wrong_type(bad: object) -> None:
    with pytest.raises(TypeError, match="expected an integer or None"):
        cyllama.set_threads(bad)


def _spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def _wait_for(room: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if _native.threads_available() == room:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core has no room to give up")
def test_the_team_shrinks_beside_busy_processes_and_grows_back() -> None:
    n_cores = len(os.sched_getaffinity(0))
    cyllama.set_threads(n_cores)
    assert _wait_for(n_cores, 60), "the machine is too busy for this test"
    spawn = multiprocessing.get_context("spawn")
    busy = [spawn.Process(target=_spin, args=(60,)) for _ in range(n_cores)]
    for process in busy:
        process.start()
    try:
        assert _wait_for(1, 20)
    finally:
        for process in busy:
            process.kill()
            process.join()
    assert _wait_for(n_cores, 60)


def test_two_engines_share_the_budget(tiny_model: object) -> None:
    """While a graph runs, another one gets what is left, at least one thread."""
    import threading

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
