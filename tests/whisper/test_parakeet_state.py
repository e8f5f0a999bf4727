"""ParakeetState: results, callbacks, cancelling and threads."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from data.parakeet import parakeet_model, with_number
from data.process import heartbeat
from data.sounds import jfk_float32

from cyllama.errors import CancelledError, DecodeError, InUseError
from cyllama.whisper import ParakeetContext, ParakeetFullParams, ParakeetState, ParakeetToken


@pytest.fixture(scope="module")
def context() -> ParakeetContext:
    return ParakeetContext(parakeet_model())


@pytest.fixture
def state(context: ParakeetContext) -> ParakeetState:
    return ParakeetState(context)


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    return jfk_float32()


def params(**values: object) -> ParakeetFullParams:
    return ParakeetFullParams(n_threads=1, **values)


def text(state: ParakeetState) -> str:
    return "".join(state.get_segment_text(i) for i in range(state.n_segments))


def test_full_gives_one_segment_with_tokens(state: ParakeetState, audio: np.ndarray) -> None:
    state.full(audio, params())
    assert state.n_segments == 1 and (state.get_segment_t0(0), state.get_segment_t1(0)) == (0, 1101)
    tokens = state.get_tokens(0)
    assert len(tokens) == state.n_tokens(0) > 20
    assert b"".join(token.text for token in tokens).decode() == text(state)
    for i, token in enumerate(tokens):
        assert token.id == state.get_token_id(0, i) and token.p == pytest.approx(state.get_token_p(0, i))
        assert 0 < token.p <= 1 and token.t0 == 8 * token.frame_index
        assert token.t1 == token.t0 + 8 * token.duration_value
        assert state.get_token_text(0, i) in ("<unk>", "<s>", "</s>", *"abcdefg")
    assert [token.frame_index for token in tokens] == sorted(token.frame_index for token in tokens)


def test_callbacks_see_tokens_and_segments(state: ParakeetState, audio: np.ndarray) -> None:
    seen: list[ParakeetToken] = []
    ranges: list[tuple[int, int, str]] = []
    progress: list[float] = []
    begun: list[int] = []
    state.full(
        audio,
        params(
            new_token_callback=seen.append,
            new_segment_callback=lambda first, last: ranges.append((first, last, text(state))),
            progress_callback=progress.append,
            encoder_begin_callback=lambda: begun.append(1),
        ),
    )
    assert seen == state.get_tokens(0) and ranges == [(0, 1, text(state))] and progress == [0.0] and begun == [1]


def test_encoder_begin_callback_ends_the_call(state: ParakeetState, audio: np.ndarray) -> None:
    state.full(audio, params(encoder_begin_callback=lambda: False))
    assert state.n_segments == 0


@pytest.mark.parametrize("name", ["new_token", "new_segment", "progress", "encoder_begin"])
def test_exception_in_a_callback_is_raised(state: ParakeetState, audio: np.ndarray, name: str) -> None:
    def fail(*args: object) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        state.full(audio, params(**{f"{name}_callback": fail}))
    state.full(audio, params())
    assert text(state)


def test_no_context_makes_calls_independent(state: ParakeetState, context: ParakeetContext, audio: np.ndarray) -> None:
    """Without `no_context`, the decoder continues the previous call."""
    state.full(audio, params())
    first = text(state)
    state.full(audio, params(no_context=False))
    assert text(state) != first
    state.full(audio, params())
    assert text(state) == first


def test_transcribes_a_mel_spectrogram(state: ParakeetState, audio: np.ndarray) -> None:
    with pytest.raises(DecodeError):
        state.full()
    assert state.n_len == 0
    state.full(audio, params())
    wanted = text(state)
    state.pcm_to_mel(audio, 1)
    assert state.n_len == 1101
    state.full(params=params())
    assert text(state) == wanted
    state.set_mel(np.zeros((500, 16), np.float32))
    assert state.n_len == 500
    state.full(params=params())
    assert text(state) != wanted
    for bad in (np.zeros((16, 500)), np.zeros(16), np.zeros((0, 16)), np.zeros((3201, 16)), np.full((9, 16), np.nan)):
        with pytest.raises(ValueError, match="mel"):
            state.set_mel(bad)


@pytest.mark.parametrize("n", [1, 159, 160, 319, 320, 1599, 1601, 3200 * 160 - 1])
def test_audio_of_any_length(state: ParakeetState, n: int) -> None:
    samples = np.random.default_rng(n).uniform(-1, 1, n).astype(np.float32)
    state.full(samples, params())
    tokens = state.get_tokens(0) if state.n_segments else []
    assert all(np.isfinite(token.p) for token in tokens) and (tokens or n < 3200)


def test_silence(state: ParakeetState, audio: np.ndarray) -> None:
    state.full(np.zeros(16_000, np.float32), params())
    assert all(np.isfinite(token.p) for i in range(state.n_segments) for token in state.get_tokens(i))
    state.full(audio, params())
    assert state.n_segments == 1


def test_rejects_wrong_audio(state: ParakeetState) -> None:
    with pytest.raises(ValueError, match="n_audio_ctx"):
        state.full(np.zeros(3200 * 160, np.float32))
    for bad in (np.zeros(0, np.float32), np.array([np.nan] * 1000, np.float32)):
        with pytest.raises(ValueError):
            state.full(bad)
    with pytest.raises(TypeError):
        state.full("text")


def test_audio_ctx_limits_the_encoder(state: ParakeetState, audio: np.ndarray) -> None:
    state.full(audio, params(audio_ctx=400))
    assert max(token.t0 for token in state.get_tokens(0)) < 400
    state.full(audio, params())
    assert max(token.t0 for token in state.get_tokens(0)) > 1000
    with pytest.raises(ValueError, match="audio_ctx"):
        state.full(audio, params(audio_ctx=3201))


def test_rejects_wrong_parameters(state: ParakeetState, audio: np.ndarray) -> None:
    for name in ("offset_ms", "duration_ms", "language", "beam_size", "strategy"):
        with pytest.raises(TypeError, match=name):
            ParakeetFullParams(**{name: 1})
    for values, error in (
        ({"n_threads": 0}, ValueError),
        ({"audio_ctx": -1}, ValueError),
        ({"no_context": "no"}, TypeError),
        ({"new_token_callback": 5}, TypeError),
    ):
        with pytest.raises(error):
            state.full(audio, ParakeetFullParams(**values))
    with pytest.raises(TypeError, match="ParakeetFullParams"):
        state.full(audio, {"n_threads": 1})
    for i, error in ((0, IndexError), (-1, IndexError), ("a", TypeError)):
        with pytest.raises(error):
            state.get_segment_text(i)
    state.full(audio)
    with pytest.raises(IndexError):
        state.get_token_id(0, 10**6)


def test_cancel_before_and_by_progress(state: ParakeetState, audio: np.ndarray) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        state.full(audio, params(), cancel=stop)
    with pytest.raises(CancelledError):
        state.full(audio, params(progress_callback=lambda part: False))
    state.full(audio, params())
    assert text(state)


def test_cancel_within_the_decoder(state: ParakeetState, audio: np.ndarray) -> None:
    stop = threading.Event()
    seen: list[ParakeetToken] = []

    def token(found: ParakeetToken) -> None:
        seen.append(found)
        stop.set()
        time.sleep(0.06)  # until `stop` is checked again

    with pytest.raises(CancelledError):
        state.full(audio, params(new_token_callback=token), cancel=stop)
    assert len(seen) <= 2


def test_cancel_within_the_encoder() -> None:
    """One encoder graph of 200 s: the call ends long before the graph does."""
    data = with_number(parakeet_model().read_bytes(), "n_audio_ctx", 20_001)
    stop = threading.Event()
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, 3_200_000).astype(np.float32)
    with ParakeetContext.from_bytes(data) as context, ParakeetState(context) as state:
        state.pcm_to_mel(audio, 1)
        begin, times = time.perf_counter(), []

        def first_token(token: ParakeetToken) -> None:
            times.append(time.perf_counter() - begin)
            stop.set()

        with pytest.raises(CancelledError):
            state.full(params=ParakeetFullParams(n_threads=1, new_token_callback=first_token), cancel=stop)
        stop.clear()
        begin = time.perf_counter()
        with pytest.raises(CancelledError):
            state.full(params=ParakeetFullParams(n_threads=1, encoder_begin_callback=stop.set), cancel=stop)
        assert time.perf_counter() - begin < times[0] / 2


def test_ctrl_c(state: ParakeetState, audio: np.ndarray) -> None:
    with pytest.raises(KeyboardInterrupt):
        state.full(audio, params(encoder_begin_callback=lambda: signal.raise_signal(signal.SIGINT)))
    state.full(audio, params())
    assert text(state)


def test_states_in_many_threads(context: ParakeetContext, audio: np.ndarray) -> None:
    parts = [audio[i * 20_000 : i * 20_000 + 60_000] for i in range(4)]

    def run(part: np.ndarray) -> str:
        with ParakeetState(context) as state:
            for _ in range(3):
                state.full(part, ParakeetFullParams(n_threads=1))
            return text(state)

    wanted = [run(part) for part in parts]
    with ThreadPoolExecutor(4) as workers:
        assert list(workers.map(run, parts * 4)) == wanted * 4


def test_running_state_rejects_other_calls(state: ParakeetState, context: ParakeetContext, audio: np.ndarray) -> None:
    rejected: list[int] = []

    def token(found: ParakeetToken) -> None:
        for use in (state.close, context.close, lambda: state.full(audio), lambda: state.n_segments):
            with pytest.raises(InUseError):
                use()
            rejected.append(1)

    state.full(audio[:30_000], params(new_token_callback=token))
    assert len(rejected) >= 4


def test_full_releases_the_gil() -> None:
    data = with_number(parakeet_model().read_bytes(), "n_audio_ctx", 10_001)
    with ParakeetContext.from_bytes(data) as context, ParakeetState(context) as state:
        state.pcm_to_mel(np.random.default_rng(0).uniform(-0.5, 0.5, 1_600_000).astype(np.float32))
        with heartbeat() as heart:
            state.full(params=params())
    assert heart.beats > 5
