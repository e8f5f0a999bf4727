"""Cancelling by callbacks, `cancel` and Ctrl-C, while loading, computing, tiling and waiting."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from sd.support import flux_params, small

import cyllama
from cyllama.errors import CancelledError
from cyllama.sd import SDContext, SDTilingParams, Upscaler, convert


class CancelAfter:
    """An event that is set after n checks."""

    def __init__(self, n: int) -> None:
        self.n = n

    def is_set(self) -> bool:
        self.n -= 1
        return self.n < 0


def test_cancel_before_the_call(flux: SDContext, flux_path: Path) -> None:
    event = threading.Event()
    event.set()
    with pytest.raises(CancelledError):
        flux.generate_image(small(), cancel=event)
    with pytest.raises(CancelledError):
        SDContext(flux_params(flux_path), cancel=event)
    with pytest.raises(TypeError, match="is_set"):
        flux.generate_image(small(), cancel=True)


def test_progress_returns_false(flux: SDContext, base_image: np.ndarray) -> None:
    steps: list[int] = []

    def stop(step: int, total: int, seconds: float) -> bool:
        steps.append(step)
        return step < 2

    with pytest.raises(CancelledError):
        flux.generate_image(small(), progress=stop)
    assert steps == [0, 1, 2]
    np.testing.assert_array_equal(flux.generate_image(small())[0], base_image)


@pytest.mark.parametrize("where", ["progress", "preview"])
@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_exceptions_of_callbacks_propagate(
    flux: SDContext, base_image: np.ndarray, where: str, kind: type[BaseException]
) -> None:
    calls: list[int] = []

    def fail(step: int, *rest: object) -> None:
        calls.append(step)
        if step == 2:
            raise kind("from the callback")

    with pytest.raises(kind, match="from the callback"):
        flux.generate_image(small(), **{where: fail})
    assert calls[-1] == 2
    np.testing.assert_array_equal(flux.generate_image(small())[0], base_image)


def test_preview_returns_false(flux: SDContext) -> None:
    with pytest.raises(CancelledError):
        flux.generate_image(small(), preview=lambda step, frames, noisy: False)


def latency(flux: SDContext, **more: object) -> float:
    """Return the seconds from setting the event, 0.3 seconds into a long call, to the exception."""
    event, set_at = threading.Event(), 0.0

    def fire() -> None:
        nonlocal set_at
        set_at = time.monotonic()
        event.set()

    timer = threading.Timer(0.3, fire)
    timer.start()
    try:
        with pytest.raises(CancelledError):
            flux.generate_image(small(**more), cancel=event)
        return time.monotonic() - set_at
    finally:
        timer.join()


def test_cancel_within_a_step(flux: SDContext, base_image: np.ndarray) -> None:
    assert latency(flux, sampling={"steps": 1000}) < 1.0
    assert latency(flux, width=1024, height=1024, sampling={"steps": 2}) < 2.0  # within one step
    np.testing.assert_array_equal(flux.generate_image(small())[0], base_image)


def test_cancel_in_the_vae_and_in_the_encoder(flux: SDContext, base_image: np.ndarray) -> None:
    large = np.zeros((1024, 1024, 3), np.uint8)
    tiling = SDTilingParams(enabled=True, tile_size_x=8, tile_size_y=8)
    event = threading.Event()
    with pytest.raises(CancelledError):
        flux.generate_image(
            small(width=1024, height=1024, init_image=large, vae_tiling=tiling),
            tile_progress=lambda tile, total, seconds: event.set() if tile == 2 else None,
            cancel=event,
        )
    with pytest.raises(ZeroDivisionError):
        flux.generate_image(small(vae_tiling=tiling), tile_progress=lambda tile, *_: 1 // (tile - 3))
    with pytest.raises(CancelledError):
        flux.generate_image(small(vae_tiling=tiling), tile_progress=lambda tile, *_: tile < 2)
    assert latency(flux, width=1024, height=1024, init_image=large) < 2.0
    np.testing.assert_array_equal(flux.generate_image(small())[0], base_image)


def test_cancel_in_encoder_steps_and_decoder_keeps_the_context_usable(flux: SDContext, base_image: np.ndarray) -> None:
    cancelled = 0
    for n in range(1, 40, 2):
        try:
            flux.generate_image(small(sampling={"steps": 20}), cancel=CancelAfter(n))
        except CancelledError:
            cancelled += 1
    assert cancelled >= 10
    np.testing.assert_array_equal(flux.generate_image(small())[0], base_image)


def test_cancel_while_loading(flux_path: Path) -> None:
    for n in range(3):
        with pytest.raises(CancelledError):
            SDContext(flux_params(flux_path), progress=lambda *_, n=n: False)

    def fail(step: int, total: int, seconds: float) -> None:
        raise ZeroDivisionError("while loading")

    with pytest.raises(ZeroDivisionError, match="while loading"):
        SDContext(flux_params(flux_path), progress=fail)
    seen: list[tuple[int, int]] = []
    with SDContext(flux_params(flux_path), progress=lambda step, total, seconds: seen.append((step, total))):
        assert seen[-1][0] == seen[-1][1] > 100


def test_cancel_while_waiting(flux: SDContext, flux_path: Path) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold(step: int, total: int, seconds: float) -> None:
        inside.set()
        leave.wait(30)

    thread = threading.Thread(target=lambda: flux.generate_image(small(), progress=hold))
    with SDContext(flux_params(flux_path)) as other:
        thread.start()
        assert inside.wait(30)
        event = threading.Event()
        threading.Timer(0.2, event.set).start()
        begin = time.monotonic()
        try:
            with pytest.raises(CancelledError):
                other.generate_image(small(), cancel=event)
            assert time.monotonic() - begin < 1.0
        finally:
            leave.set()
            thread.join(60)


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal to itself")
def test_ctrl_c(flux: SDContext, base_image: np.ndarray) -> None:
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        flux.generate_image(small(sampling={"steps": 1000}))
    assert time.monotonic() - begin < 3.0
    np.testing.assert_array_equal(flux.generate_image(small())[0], base_image)


def test_cancel_the_upscaler() -> None:
    path = cyllama.models.get("realesrgan-x4plus-anime")
    image = np.zeros((96, 96, 3), np.uint8)
    with Upscaler(path, tile_size=32) as upscaler:
        tiles: list[int] = []

        def stop(tile: int, total: int, seconds: float) -> bool:
            tiles.append(tile)
            return tile < 2

        with pytest.raises(CancelledError):
            upscaler.upscale(image, progress=stop)
        assert tiles == [0, 1, 2]
        event = threading.Event()
        threading.Timer(0.2, event.set).start()
        begin = time.monotonic()
        with pytest.raises(CancelledError):
            upscaler.upscale(image, cancel=event)
        assert time.monotonic() - begin < 2.0
        assert upscaler.upscale(image[:16, :16]).shape == (64, 64, 3)


def test_cancel_a_conversion(flux_path: Path, tmp_path: Path) -> None:
    with pytest.raises(CancelledError):
        convert(flux_path, tmp_path / "out.gguf", progress=lambda *_: False)
    assert list(tmp_path.iterdir()) == []


def rss() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_fifty_cancelled_calls_do_not_leak(flux: SDContext, base_image: np.ndarray) -> None:
    trim = ctypes.CDLL(None).malloc_trim

    def cancels(n: int) -> None:
        for i in range(n):
            with pytest.raises(CancelledError):
                if i % 2:
                    flux.generate_image(small(), progress=lambda step, *_: step < 1)
                else:
                    flux.generate_image(small(sampling={"steps": 50}), cancel=CancelAfter(2))
        gc.collect()
        trim(0)

    cancels(10)
    before = rss()
    cancels(50)
    assert rss() - before < 3_000_000
    np.testing.assert_array_equal(flux.generate_image(small())[0], base_image)
