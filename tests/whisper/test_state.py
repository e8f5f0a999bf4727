"""WhisperState: transcription, single steps, callbacks, cancelling, threads, and invalid arguments."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from data.process import heartbeat, resident_bytes
from data.sounds import jfk_float32, jfk_int16
from data.speech import Speech
from whisper.short import SHORT_CTX, SHORT_TEXT, transcribe_short

from cyllama import models
from cyllama.errors import CancelledError, ClosedError, DecodeError, GrammarError, InUseError
from cyllama.whisper import (
    Whisper,
    WhisperContext,
    WhisperContextParams,
    WhisperFullParams,
    WhisperGrammar,
    WhisperState,
    WhisperVad,
    load_audio,
)

TEXT = " And so my fellow Americans ask not what your country can do for you ask what you can do for your country."


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    return jfk_float32()


@pytest.fixture
def state(tiny_en: WhisperContext) -> WhisperState:
    return WhisperState(tiny_en)


@pytest.fixture(scope="module")
def used_state(tiny_en: WhisperContext, short: np.ndarray) -> WhisperState:
    """A state with the results of a call."""
    state = WhisperState(tiny_en)
    transcribe_short(state, short)
    return state


def text(state: WhisperState) -> str:
    return "".join(state.get_segment_text(i) for i in range(state.n_segments))


# ------------------------------------------------------------------------------------ transcription


def test_full_returns_text_tokens_and_timings(state: WhisperState, audio: np.ndarray) -> None:
    state.full(audio)
    assert text(state) == TEXT and state.lang_id == 0
    assert state.get_segment_t0(0) == 0 and state.get_segment_t1(state.n_segments - 1) == 1100
    assert 0 <= state.get_segment_no_speech_prob(0) < 0.1 and state.get_segment_speaker_turn_next(0) is False
    tokens = state.get_tokens(0)
    assert len(tokens) == state.n_tokens(0)
    for j, token in enumerate(tokens):
        assert token.id == state.get_token_id(0, j) and token.p == state.get_token_p(0, j)
        assert token.text == state.get_token_text(0, j) and token.plog == pytest.approx(np.log(token.p), abs=1e-3)
    assert state.timings.encode_ms > 0 and state.timings.decode_ms > 0
    state.reset_timings()
    assert state.timings.encode_ms == 0


def test_accepts_arrays_of_any_type_and_layout(state: WhisperState, short: np.ndarray) -> None:
    integers = jfk_int16()[: len(short)]
    strided = np.zeros((len(short), 3), np.float32)
    strided[:, 1] = short
    for samples in (integers, integers.astype(">i2"), strided[:, 1], short.astype(np.float64), memoryview(short)):
        assert transcribe_short(state, samples) == SHORT_TEXT


def test_callback_reads_segments_during_the_call(state: WhisperState, audio: np.ndarray) -> None:
    seen: list[str] = []
    progress: list[float] = []

    def new_segment(first: int, last: int) -> None:
        assert state.n_segments == last
        seen.extend(state.get_segment_text(i) for i in range(first, last))
        assert state.get_tokens(first)

    state.full(audio, WhisperFullParams(new_segment_callback=new_segment, progress_callback=progress.append))
    assert "".join(seen) == TEXT
    assert progress[-1] == 1.0 and progress == sorted(progress)


def test_parameters_have_effect(state: WhisperState, audio: np.ndarray, short: np.ndarray) -> None:
    def run(**values: Any) -> str:
        return transcribe_short(state, short, temperature_inc=0.0, **values)

    assert run(strategy="beam_search", beam_size=3).startswith(" And so my fellow Americans")
    assert "And so" not in run(offset_ms=1500)
    state.full(audio, WhisperFullParams(duration_ms=3000))
    early = text(state)
    assert early.startswith(" And so my fellow Americans") and early != TEXT
    assert "Americans" not in run(suppress_regex=" Americans?")
    assert "fellow" not in run(suppress_tokens=[5891])
    assert "[_BEG_]" in run(print_special=True)
    assert run(max_len=10, split_on_word=True) and state.n_segments >= 3
    assert max(len(state.get_segment_text(i)) for i in range(state.n_segments)) <= 12
    run(token_timestamps=True)
    times = [token.t0 for i in range(state.n_segments) for token in state.get_tokens(i) if token.id < 50256]
    assert times == sorted(times) and 100 < times[-1] <= 400
    assert len(run(max_tokens=3)) < len(SHORT_TEXT)
    state.full(short, WhisperFullParams(audio_ctx=SHORT_CTX - 64, temperature_inc=0.0, max_tokens=12))
    assert text(state) != SHORT_TEXT


def test_audio_ctx_does_not_affect_the_next_call(
    state: WhisperState, tiny_en: WhisperContext, audio: np.ndarray, speeches: dict[str, Speech]
) -> None:
    other = load_audio(speeches["busy-en"].path)
    with WhisperState(tiny_en) as fresh:
        fresh.full(other)
        wanted = [(fresh.get_segment_t1(i), fresh.get_tokens(i)) for i in range(fresh.n_segments)]
    state.full(audio[:64_000], WhisperFullParams(audio_ctx=SHORT_CTX))
    state.full(other)
    assert [(state.get_segment_t1(i), state.get_tokens(i)) for i in range(state.n_segments)] == wanted


def test_dtw_times_are_ordered_and_within_the_audio(tiny_en_path: Any, audio: np.ndarray) -> None:
    params = WhisperContextParams(dtw_token_timestamps=True, dtw_aheads_preset="tiny.en")
    with WhisperContext(tiny_en_path, params) as context, WhisperState(context) as state:
        state.full(audio, WhisperFullParams(token_timestamps=True))
        times = [token.t_dtw for i in range(state.n_segments) for token in state.get_tokens(i) if token.id < 50256]
    assert all(0 <= time <= 1100 for time in times) and times == sorted(times) and times[-1] > 900


def test_grammar_constrains_the_text(state: WhisperState, short: np.ndarray) -> None:
    grammar = WhisperGrammar('root ::= " And so my fellow"')
    assert transcribe_short(state, short, grammar_rules=grammar, grammar_penalty=100.0) == " And so my fellow"
    found = transcribe_short(
        state, short, grammar_rules='start ::= " " [a-z ]+', i_start_rule="start", grammar_penalty=100.0
    )
    assert found.strip() and found == found.lower()


@pytest.mark.parametrize(
    "bad",
    [
        'root ::= "a',
        "root",
        "root ::= missing",
        'other ::= "a"',
        "root ::= root",
        'root ::= root "a" | "b"',
        'root ::= a*\na ::= root "x" | ""',
        'root ::= ("x" | root)',
        "",
        'root ::= "\0"',
        "root ::= " + "(" * 5000 + '"a"' + ")" * 5000,
    ],
)
def test_rejects_invalid_grammar(bad: str) -> None:
    with pytest.raises(GrammarError):
        WhisperGrammar(bad)


def test_logits_filter_changes_the_text(state: WhisperState, short: np.ndarray, tiny_en: WhisperContext) -> None:
    sizes: list[int] = []

    def only_special_tokens(tokens: list[int], logits: np.ndarray) -> None:
        sizes.append(len(tokens))
        logits[: tiny_en.token_eot] = -np.inf

    found = transcribe_short(state, short, logits_filter_callback=only_special_tokens, temperature_inc=0.0)
    assert sizes and not found.strip()


# --------------------------------------------------------------------------------------- single steps


def test_greedy_decoding_with_single_steps(state: WhisperState, audio: np.ndarray, tiny_en: WhisperContext) -> None:
    state.pcm_to_mel(audio)
    assert 1098 <= state.n_len <= 1101
    state.encode()
    tokens = [tiny_en.token_sot, tiny_en.token_not]
    state.decode(tokens)
    found: list[int] = []
    while len(found) < 60:
        token = int(state.get_logits()[: tiny_en.token_eot + 1].argmax())
        if token == tiny_en.token_eot:
            break
        found.append(token)
        state.decode([token], n_past=len(tokens) + len(found) - 1)
    assert "my fellow Americans" in "".join(map(tiny_en.token_to_str, found))


def test_set_mel_checks_shape_and_values(state: WhisperState) -> None:
    state.set_mel(np.zeros((80, 3000), np.float32))
    assert state.n_len == 3000
    state.encode(0)
    for bad in (np.zeros((3, 3000)), np.zeros(80), np.zeros((80, 0)), np.full((80, 9), np.nan)):
        with pytest.raises(ValueError, match="mel"):
            state.set_mel(bad)


def test_rejects_steps_in_wrong_order(state: WhisperState, audio: np.ndarray) -> None:
    for step in (state.encode, state.get_logits, lambda: state.decode([1]), state.lang_auto_detect):
        with pytest.raises(DecodeError):
            step()
    state.pcm_to_mel(audio)
    with pytest.raises(ValueError, match="English only"):
        state.lang_auto_detect()
    for offset in (-1, 10**6):
        with pytest.raises(ValueError, match="offset"):
            state.encode(offset)
    state.encode()
    with pytest.raises(DecodeError):
        state.get_logits()
    for tokens, n_past, error in (
        ([], 0, ValueError), ([1], 1, ValueError), ([1], -1, ValueError), ([1] * 449, 0, ValueError),
        ([51864], 0, IndexError), ([-1], 0, IndexError), (["a"], 0, TypeError),
    ):  # fmt: skip
        with pytest.raises(error):
            state.decode(tokens, n_past)


def test_detects_language(base: Whisper, speeches: dict[str, Speech]) -> None:
    context = base._whisper
    with WhisperState(context) as state:
        for name in ("busy-fr", "espeak-park"):
            state.pcm_to_mel(load_audio(speeches[name].path))
            code, found = state.lang_auto_detect()
            assert code == speeches[name].language and len(found) == 99 and abs(sum(found.values()) - 1) < 1e-6
            assert found[code] == max(found.values())
    with pytest.raises(ValueError, match="cantonese"):
        context.language_code("cantonese")


# ------------------------------------------------------------------------------- invalid arguments


@pytest.mark.parametrize(
    ("samples", "error"),
    [
        (np.zeros(0, np.float32), ValueError),
        (np.array([0.0, np.nan], np.float32), ValueError),
        (np.array([0.0, np.inf], np.float32), ValueError),
        (np.array(["a"]), TypeError),
        (np.zeros(9, np.int64), TypeError),
        (np.zeros(9, complex), TypeError),
        (np.zeros((2, 2, 2), np.float32), ValueError),
        (np.full(9, 1e5, np.float32), ValueError),
        ("text", TypeError),
        (None, TypeError),
    ],
)
def test_rejects_invalid_samples(state: WhisperState, samples: Any, error: type) -> None:
    for use in (state.full, state.pcm_to_mel):
        with pytest.raises(error):
            use(samples)


@pytest.mark.parametrize("n", [1, 2, 160, 399, 1599, 3200])
def test_very_short_audio(state: WhisperState, short: np.ndarray, n: int) -> None:
    """The engine ignores audio below 0.1 s; the state stays usable."""
    state.full(np.full(n, 0.01, np.float32), WhisperFullParams(audio_ctx=SHORT_CTX))
    assert state.n_segments == 0 or n >= 1600
    assert transcribe_short(state, short) == SHORT_TEXT


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"language": "xx"}, ValueError),
        ({"language": "german"}, ValueError),
        ({"translate": True}, ValueError),
        ({"audio_ctx": 1501}, ValueError),
        ({"beam_size": 9}, ValueError),
        ({"best_of": 0}, ValueError),
        ({"beam_size": 2, "strategy": "greedy"}, ValueError),
        ({"strategy": "sampling"}, ValueError),
        ({"temperature": float("nan")}, ValueError),
        ({"temperature": -1.0}, ValueError),
        ({"temperature_inc": 1e-9}, ValueError),
        ({"offset_ms": -1}, ValueError),
        ({"max_len": -1}, ValueError),
        ({"n_threads": 0}, ValueError),
        ({"prompt_tokens": [51864]}, IndexError),
        ({"suppress_tokens": [-1]}, IndexError),
        ({"suppress_regex": "("}, ValueError),
        ({"suppress_regex": "(" * 2000}, ValueError),
        ({"initial_prompt": "a\0b"}, ValueError),
        ({"initial_prompt": 5}, TypeError),
        ({"grammar_rules": 5}, TypeError),
        ({"grammar_rules": "root = 5"}, GrammarError),
        ({"new_segment_callback": 5}, TypeError),
        ({"split_on_word": True}, ValueError),
    ],
)
def test_rejects_invalid_parameters_before_computing(
    used_state: WhisperState, short: np.ndarray, values: dict[str, Any], error: type
) -> None:
    with pytest.raises(error):
        used_state.full(short, WhisperFullParams(**values))
    assert text(used_state) == SHORT_TEXT  # the result of the call before


def test_rejects_unknown_parameter() -> None:
    with pytest.raises(TypeError, match="did you mean 'beam_size'"):
        WhisperFullParams(beamsize=5)


def test_rejects_index_out_of_range(state: WhisperState) -> None:
    for use in (state.get_segment_text, state.get_tokens, state.get_segment_t0, state.n_tokens):
        for bad, error in ((0, IndexError), (-1, IndexError), ("a", TypeError), (True, TypeError)):
            with pytest.raises(error):
                use(bad)


# ----------------------------------------------------------------------- threads and cancelling


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, CancelledError])
@pytest.mark.parametrize("name", ["new_segment", "progress", "encoder_begin", "logits_filter"])
def test_exception_in_a_callback_is_raised(
    state: WhisperState, short: np.ndarray, name: str, error: type[BaseException]
) -> None:
    def fail(*_: object) -> None:
        raise error("mine")

    with pytest.raises(error, match="mine"):
        transcribe_short(state, short, **{f"{name}_callback": fail})
    assert transcribe_short(state, short) == SHORT_TEXT


def test_callback_that_returns_false_stops_the_call(state: WhisperState, short: np.ndarray) -> None:
    with pytest.raises(CancelledError):
        transcribe_short(state, short, progress_callback=lambda part: False)
    assert transcribe_short(state, short) == SHORT_TEXT
    assert transcribe_short(state, short, encoder_begin_callback=lambda: False) == ""


class After:
    """An event that is set after some seconds."""

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds

    def is_set(self) -> bool:
        return time.monotonic() >= self.until


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.3, 1.0])
def test_cancel_at_any_time(state: WhisperState, audio: np.ndarray, short: np.ndarray, seconds: float) -> None:
    long = np.tile(audio, 12)
    with pytest.raises(CancelledError):
        state.full(long, WhisperFullParams(strategy="beam_search", beam_size=5), cancel=After(seconds))
    assert transcribe_short(state, short) == SHORT_TEXT


def test_cancels_mel_spectrogram_and_vad(state: WhisperState) -> None:
    hour = np.zeros(16_000 * 3600, np.float32)
    with pytest.raises(CancelledError):
        state.pcm_to_mel(hour, cancel=After(0.2))
    with pytest.raises(CancelledError), WhisperVad(models.get("silero-vad")) as vad:
        vad.segments(hour, cancel=After(0.2))


def test_ctrl_c(state: WhisperState, audio: np.ndarray, short: np.ndarray) -> None:
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        state.full(np.tile(audio, 20))
    timer.join()
    assert transcribe_short(state, short) == SHORT_TEXT


def test_full_releases_the_gil(state: WhisperState, audio: np.ndarray) -> None:
    with heartbeat() as heart:
        state.full(audio)
    assert heart.beats > 20


def test_states_in_many_threads(tiny_en: WhisperContext, short: np.ndarray) -> None:
    def work(_: int) -> list[str]:
        with WhisperState(tiny_en) as state:
            return [transcribe_short(state, short) for _ in range(2)]

    with ThreadPoolExecutor(4) as workers:
        assert list(workers.map(work, range(4))) == [[SHORT_TEXT] * 2] * 4


def test_running_state_rejects_other_calls(state: WhisperState, short: np.ndarray) -> None:
    inside, leave = threading.Event(), threading.Event()

    def wait(*_: int) -> None:
        inside.set()
        leave.wait(30)

    thread = threading.Thread(target=lambda: transcribe_short(state, short, new_segment_callback=wait))
    thread.start()
    assert inside.wait(60)
    uses: list[Callable[[], object]] = [
        lambda: state.full(short), state.close, lambda: state.n_segments, lambda: state.encode(), state.reset_timings,
    ]  # fmt: skip
    for use in uses:
        with pytest.raises((InUseError, DecodeError)):
            use()
    leave.set()
    thread.join()
    state.close()
    with pytest.raises(ClosedError):
        state.full(short)


def test_memory_does_not_grow_with_calls(tiny_en: WhisperContext, short: np.ndarray) -> None:
    def run(times: int) -> int:
        for _ in range(times):
            with WhisperState(tiny_en) as state:
                transcribe_short(state, short)
        gc.collect()
        return resident_bytes()

    sizes = [run(4) for _ in range(5)]  # what leaks, leaks in every round; other memory of the process may grow once
    assert min(later - earlier for earlier, later in itertools.pairwise(sizes)) < 1.6e6


def test_rejects_use_after_fork() -> None:
    code = (
        "import os, sys, numpy as np\n"
        "from cyllama import models\n"
        "from cyllama.whisper import WhisperContext, WhisperState\n"
        "state = WhisperState(WhisperContext(models.get('tiny.en')))\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try:\n        state.full(np.zeros(16000, np.float32))\n"
        "    except Exception as e:\n        os._exit(7 if 'fork' in str(e) else 1)\n"
        "    os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
