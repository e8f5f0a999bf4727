"""ModelPool with real models: sharing, counting, evicting, failing, many threads."""

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
from cyllama.pipelines import ModelPool, kinds
from cyllama.pipelines.kinds import Spec
from cyllama.whisper import Whisper

TINY = "tiny-random-llama"
SMALL = {"n_ctx": 256, "n_parallel": 1}
GENEROUS = 60  # seconds; only a hang takes longer


def size(**settings: Any) -> int:
    return Spec.of("llm", TINY, settings).size()


@pytest.fixture
def pool() -> Iterator[ModelPool]:
    with ModelPool() as made:
        yield made


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + GENEROUS
    while not true():
        assert time.monotonic() < until
        time.sleep(0.005)


def ids(pool: ModelPool) -> list[Any]:
    return [model.settings.get("n_ctx") for model in pool.loaded]


def test_a_model_is_loaded_once_and_kept(pool: ModelPool) -> None:
    with pool.use("llm", TINY, **SMALL) as first:
        assert isinstance(first, LLM) and first.complete("a", max_tokens=3).usage.completion_tokens == 3
        (seen,) = pool.loaded
        assert seen.users == 1 and seen.ready and seen.seconds > 0 and seen.settings == SMALL
        assert seen.size == size(**SMALL) > models.get(TINY).stat().st_size
    assert pool.loaded[0].users == 0
    with pool.use("llm", models.get(TINY), n_parallel=1, n_ctx=256) as by_path:
        assert by_path.complete("a", max_tokens=2).usage.completion_tokens == 2
    with pool.use("llm", TINY.upper(), **SMALL) as again, pool.use("llm", TINY, n_ctx=512, n_parallel=1) as other:
        assert again is first and other is not first
        assert pool.loaded[-1].users == 1 and len(pool.loaded) == 3


def test_all_kinds_side_by_side(pool: ModelPool) -> None:
    with pool.use("whisper", "tiny.en") as whisper, pool.use("llm", TINY, **SMALL) as llm:
        with pool.use("sd", "tiny-shapes") as sd:
            assert isinstance(whisper, Whisper)
            assert whisper(np.zeros(16_000, np.float32)).duration == 1.0
            assert llm.complete("a", max_tokens=1).usage.completion_tokens == 1
            assert sd.txt2img("a red circle", width=64, height=64, steps=1, progress=False)[0].size == (64, 64)
            assert sorted(model.kind for model in pool.loaded) == ["llm", "sd", "whisper"]
            assert {model.users for model in pool.loaded} == {1}


def test_threads_that_ask_for_the_same_get_one_load(pool: ModelPool) -> None:
    together, told = threading.Barrier(8), []

    def ask(number: int) -> int:
        together.wait(GENEROUS)
        with pool.use("llm", TINY, **SMALL, on_progress=lambda part: told.append((number, part))) as llm:
            assert llm.complete("a", max_tokens=2, seed=1).usage.completion_tokens == 2
            return id(llm)

    with ThreadPoolExecutor(8) as executor:
        assert len(set(executor.map(ask, range(8)))) == 1
    assert len({number for number, _ in told}) == 1 and told[-1][1] == 1.0
    assert [model.users for model in pool.loaded] == [0]


def test_the_least_recently_used_goes_first() -> None:
    settings = [{"n_ctx": n, "n_parallel": 1} for n in (256, 512, 768)]
    with ModelPool(sum(size(**each) for each in settings)) as pool:
        for each in (*settings, settings[0]):
            with pool.use("llm", TINY, **each):
                pass
        assert ids(pool) == [512, 768, 256]
        with pool.use("llm", TINY, n_ctx=320, n_parallel=1) as llm:
            assert ids(pool) == [768, 256, 320]
            assert llm.complete("a", max_tokens=1).text is not None


def test_what_is_used_is_never_closed() -> None:
    with ModelPool(size(**SMALL) + size(n_ctx=768, n_parallel=1), wait=0) as pool:
        with pool.use("llm", TINY, **SMALL) as old, pool.use("llm", TINY, n_ctx=512, n_parallel=1):
            with pytest.raises(OutOfMemoryError, match=r"llm tiny-random-llama needs \d+ MiB.*MiB are left.*holds"):
                with pool.use("llm", TINY, n_ctx=768, n_parallel=1):
                    pass
            assert ids(pool) == [256, 512]
            assert old.complete("a", max_tokens=4).usage.completion_tokens == 4
        with pool.use("llm", TINY, n_ctx=768, n_parallel=1):
            assert ids(pool) == [256, 768]


def test_waiting_for_room() -> None:
    with ModelPool(size(**SMALL) * 3 // 2, wait=GENEROUS) as pool, ThreadPoolExecutor(1) as executor:

        def other() -> str:
            with pool.use("llm", TINY, n_ctx=320, n_parallel=1) as llm:
                return str(llm.complete("a", max_tokens=2).finish_reason)

        with pool.use("llm", TINY, **SMALL) as llm:
            waiting = executor.submit(other)
            eventually(lambda: len(pool.loaded) == 2)
            assert llm.complete("a", max_tokens=2).usage.completion_tokens == 2
            assert [model.ready for model in pool.loaded] == [True, False] and not waiting.done()
        assert waiting.result(GENEROUS) == "length"
        assert ids(pool) == [320]


def test_waiting_ends_when_it_is_cancelled() -> None:
    with ModelPool(size(**SMALL) * 3 // 2, wait=GENEROUS) as pool, ThreadPoolExecutor(2) as executor:
        stop = threading.Event()

        def other() -> None:
            with pool.use("llm", TINY, n_ctx=320, n_parallel=1, cancel=stop):
                pass

        with pool.use("llm", TINY, **SMALL):
            waiting = [executor.submit(other) for _ in range(2)]  # one waits for room, one for the other
            eventually(lambda: len(pool.loaded) == 2 and pool.loaded[1].users == 2)
            stop.set()
            for each in waiting:
                with pytest.raises(CancelledError):
                    each.result(GENEROUS)
        assert ids(pool) == [256]


def test_a_model_larger_than_the_budget() -> None:
    with ModelPool(1 << 20) as pool:
        with pytest.raises(MemoryError, match=r"needs \d+ MiB of memory, but 1 MiB of the pool's 1 MiB"):
            with pool.use("llm", TINY, **SMALL):
                pass
        assert pool.loaded == ()


def test_without_a_budget_the_machine_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from cyllama.pipelines import pool as module

    with ModelPool(wait=0) as pool:
        with pool.use("llm", TINY, **SMALL):
            pass
        with pytest.raises(OutOfMemoryError, match="MiB are free"):
            with pool.use("llm", TINY, n_ctx=40_000_000, n_parallel=1, check_memory=False):
                pass
        assert pool.loaded == ()  # it was tried
        with pool.use("llm", TINY, **SMALL):
            pass
        free = iter([0, 1 << 40])
        monkeypatch.setattr(module, "free_memory", lambda: next(free))
        with pool.use("whisper", "tiny.en"):  # what nobody uses makes room
            assert [model.kind for model in pool.loaded] == ["whisper"]


def test_a_failed_load_leaves_nothing(pool: ModelPool, tmp_path: Path) -> None:
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


def test_who_waits_loads_when_the_loader_gives_up(pool: ModelPool) -> None:
    """The first stops its loading (by cancelling, or by a failing callback): that is no matter of the second's."""
    for reason in (CancelledError, LookupError):
        started, stop = threading.Event(), threading.Event()

        def progress(part: float, started: Any = started, stop: Any = stop, reason: Any = reason) -> None:
            started.set()
            eventually(lambda: any(model.users == 2 for model in pool.loaded))
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
            assert started.wait(GENEROUS)
            assert executor.submit(second).result(GENEROUS) == 2
            with pytest.raises(reason):
                loading.result(GENEROUS)
        assert [model.users for model in pool.loaded] == [0]
        assert len(pool.unload()) == 1


class Slow:
    """Fails to load when it is told to."""

    go = threading.Event()

    def __init__(self, name: object, cancel: object) -> None:
        assert self.go.wait(GENEROUS)
        raise ModelLoadError("it is damaged")


def test_all_who_wait_get_the_error(pool: ModelPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kinds.KINDS, "slow", (__name__, "Slow"))
    monkeypatch.setattr(kinds.importlib, "import_module", lambda name: type("module", (), {"Slow": Slow}))

    def ask() -> None:
        with pool.use("slow", models.get(TINY)):
            pass

    with ThreadPoolExecutor(3) as executor:
        waiting = [executor.submit(ask) for _ in range(3)]
        eventually(lambda: sum(model.users for model in pool.loaded) == 3)
        Slow.go.set()
        for each in waiting:
            with pytest.raises(ModelLoadError, match="damaged"):
                each.result(GENEROUS)
    assert pool.loaded == ()


def test_closing() -> None:
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


def test_unloading(pool: ModelPool) -> None:
    for each in (SMALL, {"n_ctx": 512, "n_parallel": 1}):
        with pool.use("llm", TINY, **each):
            assert pool.unload("whisper") == ()
    with pool.use("whisper", "tiny.en"):
        assert [model.name for model in pool.unload()] == [TINY, TINY]
        assert pool.unload("whisper", "tiny.en") == ()
    assert [model.kind for model in pool.unload(name="whisper-tiny.en")] == ["whisper"]


def test_what_a_call_holds_beyond_its_block_is_not_closed() -> None:
    sound = np.zeros(40 * 16_000, np.float32)
    with ModelPool() as pool:
        with pool.use("whisper", "tiny.en") as whisper:
            segments, _ = whisper.transcribe(sound + np.sin(np.arange(len(sound)) / 20).astype(np.float32) / 9)
            next(segments, None)
        pool.unload()
        segments.close()
        assert len(pool.unload()) + len(pool.loaded) <= 1
        with pool.use("whisper", "tiny.en") as whisper:
            assert whisper(sound[:16_000]).duration == 1.0


def test_bad_budgets() -> None:
    for memory, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), ("1 GB", TypeError), (True, TypeError)):
        with pytest.raises(error, match="memory is"):
            ModelPool(memory)
    for wait, error in ((-1, ValueError), (float("nan"), ValueError), ("1", TypeError)):
        with pytest.raises(error, match="wait is"):
            ModelPool(wait=wait)


def test_settings_that_are_shared() -> None:
    def key(**settings: Any) -> Spec:
        return Spec.of("llm", TINY, settings)

    assert key(loras=["a"]) == key(loras=("a",)) and key(mmproj=Path("a")) == key(mmproj="a")
    assert key(options={"a": 1, "b": [2]}) == key(options={"b": (2,), "a": 1})
    assert key(n_ctx=1) != key(n_ctx=2) and key(warmup=True) != key(warmup=1) and key(n_ctx=None) != key(n_ctx=0)
    assert len({key(a=[1]), key(a=(1,)), key(a=[1, 1])}) == 2


def test_many_threads_many_models() -> None:
    """Never more than the budget, never a model that is closed under its user."""
    choices = [{"n_ctx": n, "n_parallel": 1} for n in (256, 320, 384, 448)]
    sizes = [size(**each) for each in choices]
    with ModelPool(sum(sorted(sizes)[-2:]), wait=GENEROUS) as pool, ThreadPoolExecutor(4) as executor:

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
def test_sizes_are_honest(kind: str, name: str, settings: dict[str, Any]) -> None:
    """What is counted is what the process grows by; a language model's buffers come into memory as they are used."""
    code = MEASURE.format(kind=kind, name=name, settings=settings)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown, counted = map(int, done.stdout.split())
    assert counted / (2 if kind == "llm" else 1.5) < grown < counted * 1.5, (grown, counted)


def test_a_file_is_the_same_under_another_name(pool: ModelPool, tmp_path: Path) -> None:
    os.symlink(models.get(TINY), tmp_path / "other.gguf")
    with pool.use("llm", models.get(TINY), **SMALL) as one, pool.use("llm", tmp_path / "other.gguf", **SMALL) as two:
        assert one is two
