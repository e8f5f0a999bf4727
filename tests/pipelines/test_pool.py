"""Tests of ModelPool with real models: sharing, memory budget, eviction, failures, threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cyllama import LLM, models
from cyllama.errors import CancelledError, ClosedError, InUseError, ModelLoadError, OutOfMemoryError
from cyllama.pipelines import ModelPool
from cyllama.pipelines import _model_spec as kinds
from cyllama.pipelines._model_spec import Spec
from cyllama.whisper import Whisper

TINY = "tiny-random-llama"
SMALL = {"n_ctx": 256, "n_parallel": 1}
TIMEOUT = 60  # seconds


def size(**settings: Any) -> int:
    return Spec.of("llm", TINY, settings).size()


@pytest.fixture
def pool() -> Iterator[ModelPool]:
    with ModelPool() as made:
        yield made


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def contexts(pool: ModelPool) -> list[Any]:
    return [model.settings.get("n_ctx") for model in pool.loaded]


def test_a_model_is_loaded_once_and_shared(pool: ModelPool) -> None:
    with pool.use("llm", TINY, **SMALL) as first:
        assert isinstance(first, LLM) and first.complete("a", max_tokens=3).usage.completion_tokens == 3
        (info,) = pool.loaded
        assert info.users == 1 and info.ready and info.seconds > 0 and info.settings == SMALL
        assert info.size == size(**SMALL) > models.get(TINY).stat().st_size
    assert pool.loaded[0].users == 0
    with pool.use("llm", models.get(TINY), n_parallel=1, n_ctx=256) as by_path:
        assert by_path.complete("a", max_tokens=2).usage.completion_tokens == 2
    with pool.use("llm", TINY.upper(), **SMALL) as again, pool.use("llm", TINY, n_ctx=512, n_parallel=1) as other:
        assert again is first and other is not first
        assert pool.loaded[-1].users == 1 and len(pool.loaded) == 3


def test_holds_models_of_several_kinds(pool: ModelPool) -> None:
    with pool.use("whisper", "tiny.en") as whisper, pool.use("llm", TINY, **SMALL) as llm:
        with pool.use("sd", "tiny-shapes") as sd:
            assert isinstance(whisper, Whisper)
            assert whisper(np.zeros(16_000, np.float32)).duration == 1.0
            assert llm.complete("a", max_tokens=1).usage.completion_tokens == 1
            assert sd.txt2img("a red circle", width=64, height=64, steps=1, progress=False)[0].size == (64, 64)
            assert sorted(model.kind for model in pool.loaded) == ["llm", "sd", "whisper"]
            assert {model.users for model in pool.loaded} == {1}


def test_concurrent_requests_load_a_model_once(pool: ModelPool) -> None:
    start, reports = threading.Barrier(8), []

    def request(number: int) -> LLM:
        start.wait(TIMEOUT)
        with pool.use("llm", TINY, **SMALL, on_progress=lambda part: reports.append((number, part))) as llm:
            assert llm.complete("a", max_tokens=2, seed=1).usage.completion_tokens == 2
            return llm

    with ThreadPoolExecutor(8) as executor:
        models_used = list(executor.map(request, range(8)))  # kept, so that their ids are those of different objects
    assert len({id(llm) for llm in models_used}) == 1 and len(pool.loaded) == 1
    assert len({number for number, _ in reports}) == 1 and reports[-1][1] == 1.0
    assert [model.users for model in pool.loaded] == [0]


def test_closes_the_least_recently_used_model_first() -> None:
    settings = [{"n_ctx": n, "n_parallel": 1} for n in (256, 512, 768)]
    with ModelPool(sum(size(**each) for each in settings)) as pool:
        for each in (*settings, settings[0]):
            with pool.use("llm", TINY, **each):
                pass
        assert contexts(pool) == [512, 768, 256]
        with pool.use("llm", TINY, n_ctx=320, n_parallel=1) as llm:
            assert contexts(pool) == [768, 256, 320]
            assert llm.complete("a", max_tokens=1).usage.completion_tokens == 1


def test_never_closes_a_model_in_use() -> None:
    with ModelPool(size(**SMALL) + size(n_ctx=768, n_parallel=1), wait=0) as pool:
        with pool.use("llm", TINY, **SMALL) as old, pool.use("llm", TINY, n_ctx=512, n_parallel=1):
            with pytest.raises(OutOfMemoryError, match=r"llm tiny-random-llama needs \d+ MiB.*MiB are left.*holds"):
                with pool.use("llm", TINY, n_ctx=768, n_parallel=1):
                    pass
            assert contexts(pool) == [256, 512]
            assert old.complete("a", max_tokens=4).usage.completion_tokens == 4
        with pool.use("llm", TINY, n_ctx=768, n_parallel=1):
            assert contexts(pool) == [256, 768]


def test_waits_for_memory() -> None:
    with ModelPool(size(**SMALL) * 3 // 2, wait=TIMEOUT) as pool, ThreadPoolExecutor(1) as executor:

        def other() -> str:
            with pool.use("llm", TINY, n_ctx=320, n_parallel=1) as llm:
                return str(llm.complete("a", max_tokens=2).finish_reason)

        with pool.use("llm", TINY, **SMALL) as llm:
            waiting = executor.submit(other)
            wait_until(lambda: len(pool.loaded) == 2)
            assert llm.complete("a", max_tokens=2).usage.completion_tokens == 2
            assert [model.ready for model in pool.loaded] == [True, False] and not waiting.done()
        assert waiting.result(TIMEOUT) == "length"
        assert contexts(pool) == [320]


def test_cancel_ends_waiting() -> None:
    with ModelPool(size(**SMALL) * 3 // 2, wait=TIMEOUT) as pool, ThreadPoolExecutor(2) as executor:
        stop = threading.Event()

        def other() -> None:
            with pool.use("llm", TINY, n_ctx=320, n_parallel=1, cancel=stop):
                pass

        with pool.use("llm", TINY, **SMALL):
            waiting = [executor.submit(other) for _ in range(2)]  # one waits for memory, one for the first
            wait_until(lambda: len(pool.loaded) == 2 and pool.loaded[1].users == 2)
            stop.set()
            for each in waiting:
                with pytest.raises(CancelledError):
                    each.result(TIMEOUT)
        assert contexts(pool) == [256]


def test_rejects_a_model_larger_than_the_budget() -> None:
    with ModelPool(1 << 20) as pool:
        with pytest.raises(MemoryError, match="llm tiny-random-llama"):
            with pool.use("llm", TINY, **SMALL):
                pass
        assert pool.loaded == ()


def test_default_budget_is_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from cyllama.pipelines import model_pool as module

    with ModelPool(wait=0) as pool:
        with pool.use("llm", TINY, **SMALL):
            pass
        with pytest.raises(OutOfMemoryError, match="MiB are free"):
            with pool.use("llm", TINY, n_ctx=40_000_000, n_parallel=1, check_memory=False):
                pass
        assert pool.loaded == ()  # the unused model was closed
        with pool.use("llm", TINY, **SMALL):
            pass
        free = iter([0, 1 << 40])
        monkeypatch.setattr(module, "free_memory", lambda: next(free))
        with pool.use("whisper", "tiny.en"):  # closes the unused model
            assert [model.kind for model in pool.loaded] == ["whisper"]


def test_a_failed_load_leaves_no_entry(pool: ModelPool, tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"GGUF" + bytes(64))
    for kind, name, settings, error in (
        ("llm", tmp_path / "no.gguf", {}, ModelLoadError),
        ("whisper", tmp_path / "no.gguf", {}, ModelLoadError),
        ("sd", tmp_path / "no.gguf", {}, ModelLoadError),
        ("llm", "no-such-model", {}, FileNotFoundError),
        ("llm", TINY, {"n_ctxx": 1}, TypeError),
        ("whisper", "tiny.en", {"nothing": 1}, TypeError),
        ("sd", None, {}, ValueError),
        ("llm", TINY, {"n_ctx": {1, 2}}, TypeError),
        ("llm", 7, {}, TypeError),
        ("lm", TINY, {}, ValueError),
    ):
        with pytest.raises(error):
            with pool.use(kind, name, **settings):
                pass
        assert pool.loaded == ()
    with pool.use("llm", TINY, **SMALL) as llm:
        assert llm.complete("a", max_tokens=1).usage.completion_tokens == 1


def test_a_waiting_request_loads_after_the_first_was_stopped(pool: ModelPool) -> None:
    """The first request is cancelled, or its callback raises."""
    for reason in (CancelledError, LookupError):
        started, stop = threading.Event(), threading.Event()

        def progress(part: float, started: Any = started, stop: Any = stop, reason: Any = reason) -> None:
            started.set()
            wait_until(lambda: any(model.users == 2 for model in pool.loaded))
            if reason is LookupError:
                raise LookupError("not any more")
            stop.set()

        def first(progress: Any = progress, stop: Any = stop) -> None:
            with pool.use("llm", TINY, **SMALL, on_progress=progress, cancel=stop):
                pass

        def second() -> int:
            with pool.use("llm", TINY, **SMALL) as llm:
                return int(llm.complete("a", max_tokens=2).usage.completion_tokens)

        with ThreadPoolExecutor(2) as executor:
            loading = executor.submit(first)
            assert started.wait(TIMEOUT)
            assert executor.submit(second).result(TIMEOUT) == 2
            with pytest.raises(reason):
                loading.result(TIMEOUT)
        assert [model.users for model in pool.loaded] == [0]
        assert len(pool.unload()) == 1


class Slow:
    """A model that waits for an event and fails to load."""

    go = threading.Event()

    def __init__(self, name: object, cancel: object) -> None:
        assert self.go.wait(TIMEOUT)
        raise ModelLoadError("it is damaged")


def test_all_waiting_requests_get_the_load_error(pool: ModelPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kinds.KINDS, "slow", (__name__, "Slow"))
    monkeypatch.setattr(kinds.importlib, "import_module", lambda name: type("module", (), {"Slow": Slow}))

    def request() -> None:
        with pool.use("slow", models.get(TINY)):
            pass

    with ThreadPoolExecutor(3) as executor:
        waiting = [executor.submit(request) for _ in range(3)]
        wait_until(lambda: sum(model.users for model in pool.loaded) == 3)
        Slow.go.set()
        for each in waiting:
            with pytest.raises(ModelLoadError, match="damaged"):
                each.result(TIMEOUT)
    assert pool.loaded == ()


def test_close_requires_that_no_model_is_in_use() -> None:
    pool = ModelPool()
    with pool.use("llm", TINY, **SMALL) as llm:
        with pytest.raises(InUseError, match="llm tiny-random-llama"):
            pool.close()
        assert llm.complete("a", max_tokens=1).usage.completion_tokens == 1
    pool.close()
    pool.close()
    assert pool.closed and pool.loaded == ()
    with pytest.raises(ClosedError):
        llm.complete("a")
    with pytest.raises(ClosedError):
        with pool.use("llm", TINY, **SMALL):
            pass


def test_unload_closes_unused_models(pool: ModelPool) -> None:
    for each in (SMALL, {"n_ctx": 512, "n_parallel": 1}):
        with pool.use("llm", TINY, **each):
            assert pool.unload("whisper") == ()
    with pool.use("whisper", "tiny.en"):
        assert [model.name for model in pool.unload()] == [TINY, TINY]
        assert pool.unload("whisper", "tiny.en") == ()
    assert [model.kind for model in pool.unload(name="whisper-tiny.en")] == ["whisper"]


def test_unload_keeps_a_model_with_an_open_iterator() -> None:
    audio = np.zeros(40 * 16_000, np.float32)
    with ModelPool() as pool:
        with pool.use("whisper", "tiny.en") as whisper:
            segments, _ = whisper.transcribe(audio + np.sin(np.arange(len(audio)) / 20).astype(np.float32) / 9)
            next(segments, None)
        pool.unload()
        segments.close()
        assert len(pool.unload()) + len(pool.loaded) <= 1
        with pool.use("whisper", "tiny.en") as whisper:
            assert whisper(audio[:16_000]).duration == 1.0


def test_rejects_invalid_memory_and_wait() -> None:
    for memory, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), ("1 GB", TypeError), (True, TypeError)):
        with pytest.raises(error, match="memory is"):
            ModelPool(memory)
    for wait, error in ((-1, ValueError), (float("nan"), ValueError), ("1", TypeError)):
        with pytest.raises(error, match="wait is"):
            ModelPool(wait=wait)


def test_equal_settings_share_a_model() -> None:
    def key(**settings: Any) -> Spec:
        return Spec.of("llm", TINY, settings)

    assert key(loras=["a"]) == key(loras=("a",)) and key(mmproj=Path("a")) == key(mmproj="a")
    assert key(options={"a": 1, "b": [2]}) == key(options={"b": (2,), "a": 1})
    assert key(n_ctx=1) != key(n_ctx=2) and key(warmup=True) != key(warmup=1) and key(n_ctx=None) != key(n_ctx=0)
    assert len({key(a=[1]), key(a=(1,)), key(a=[1, 1])}) == 2


def test_stays_within_the_budget_with_many_threads() -> None:
    choices = [{"n_ctx": n, "n_parallel": 1} for n in (256, 320, 384, 448)]
    sizes = [size(**each) for each in choices]
    with ModelPool(sum(sorted(sizes)[-2:]), wait=TIMEOUT) as pool, ThreadPoolExecutor(4) as executor:

        def work(number: int) -> int:
            done = 0
            for step in range(6):
                with pool.use("llm", TINY, **choices[(number + step * (number + 1)) % 4]) as llm:
                    done += llm.complete("a", max_tokens=2).usage.completion_tokens
                    assert sum(model.size for model in pool.loaded) <= pool.memory
            return done

        assert list(executor.map(work, range(4))) == [12] * 4
        assert all(model.users == 0 and model.ready for model in pool.loaded) and len(pool.loaded) <= 2


MEASURE = """
import numpy as np
from cyllama.pipelines import ModelPool

def held():
    status = open("/proc/self/status").read()
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon", "RssFile"))) * 1024

with ModelPool() as pool:
    with pool.use({kind!r}, {name!r}, **{settings!r}) as model:
        pass
    pool.unload()
    before = held()
    with pool.use({kind!r}, {name!r}, **{settings!r}) as model:
        print(held() - before, pool.loaded[0].size)
"""


@pytest.mark.parametrize(
    ("kind", "name", "settings"),
    [("llm", "smollm2-135m-instruct", {"n_ctx": 2048}), ("whisper", "tiny.en", {}), ("sd", "tiny-shapes", {})],
)
def test_size_matches_the_growth_of_the_process(kind: str, name: str, settings: dict[str, Any]) -> None:
    """The buffers of a language model are committed when they are used."""
    code = MEASURE.format(kind=kind, name=name, settings=settings)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown, counted = map(int, done.stdout.split())
    assert counted / (2 if kind == "llm" else 1.5) < grown < counted * 1.5, (grown, counted)


def test_a_symbolic_link_shares_the_model(pool: ModelPool, tmp_path: Path) -> None:
    os.symlink(models.get(TINY), tmp_path / "other.gguf")
    with pool.use("llm", models.get(TINY), **SMALL) as one, pool.use("llm", tmp_path / "other.gguf", **SMALL) as two:
        assert one is two
