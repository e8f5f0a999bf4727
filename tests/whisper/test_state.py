"""States: step by step and as a whole, callbacks, cancelling, many at once, what is refused."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from data.process import heartbeat, resident_bytes
from data.sounds import JFK, jfk_float32, jfk_int16
from data.speech import Speech

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
def sound() -> np.ndarray:
    return jfk_float32()


@pytest.fixture
def state(tiny_en: WhisperContext) -> WhisperState:
    return WhisperState(tiny_en)


def text(state: WhisperState) -> str:
    return "".join(state.get_segment_text(i) for i in range(state.n_segments))


# ---------------------------------------------------------------------------------------- as a whole


def test_full(state: WhisperState, sound: np.ndarray) -> None:
    state.full(sound)
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


def test_any_array(state: WhisperState, sound: np.ndarray) -> None:
    strided = np.zeros((len(sound), 3), np.float32)
    strided[:, 1] = sound
    for samples in (jfk_int16(), jfk_int16().astype(">i2"), strided[:, 1], sound.astype(np.float64), memoryview(sound)):
        state.full(samples)
        assert text(state) == TEXT


def test_segments_while_it_runs(state: WhisperState, sound: np.ndarray) -> None:
    seen: list[str] = []
    progress: list[float] = []

    def new_segment(first: int, last: int) -> None:
        assert state.n_segments == last
        seen.extend(state.get_segment_text(i) for i in range(first, last))
        assert state.get_tokens(first)

    state.full(sound, WhisperFullParams(new_segment_callback=new_segment, progress_callback=progress.append))
    assert "".join(seen) == TEXT
    assert progress[-1] == 1.0 and progress == sorted(progress)


def test_parameters_that_change_the_result(state: WhisperState, sound: np.ndarray) -> None:
    def run(**values: Any) -> str:
        state.full(sound, WhisperFullParams(**values))
        return text(state)

    assert run(strategy="beam_search", beam_size=5).lower().startswith(" and so my fellow americans")
    assert run(offset_ms=8000) != TEXT and "country" in run(offset_ms=8000)
    assert run(duration_ms=3000).startswith(" And so my fellow Americans") and run(duration_ms=3000) != TEXT
    assert "Americans" not in run(suppress_regex=" Americans?")
    assert "country" not in run(suppress_tokens=[1499])
    assert "[_BEG_]" in run(print_special=True)
    run(max_len=20, split_on_word=True)
    assert state.n_segments > 4 and max(len(state.get_segment_text(i)) for i in range(state.n_segments)) <= 25
    run(token_timestamps=True)
    times = [token.t0 for i in range(state.n_segments) for token in state.get_tokens(i) if token.id < 50256]
    assert times == sorted(times) and times[-1] > 900
    assert len(run(max_tokens=3)) < len(TEXT)
    assert run(audio_ctx=768)[:20] == TEXT[:20]


def test_a_smaller_audio_context_leaves_no_trace(
    state: WhisperState, tiny_en: WhisperContext, sound: np.ndarray, speeches: dict[str, Speech]
) -> None:
    other = load_audio(speeches["busy-en"].path)
    with WhisperState(tiny_en) as fresh:
        fresh.full(other)
        wanted = [(fresh.get_segment_t1(i), fresh.get_tokens(i)) for i in range(fresh.n_segments)]
    state.full(sound, WhisperFullParams(audio_ctx=768))
    state.full(other)
    assert [(state.get_segment_t1(i), state.get_tokens(i)) for i in range(state.n_segments)] == wanted


def test_dtw(tiny_en_path: Any, sound: np.ndarray) -> None:
    params = WhisperContextParams(dtw_token_timestamps=True, dtw_aheads_preset="tiny.en")
    with WhisperContext(tiny_en_path, params) as context, WhisperState(context) as state:
        state.full(sound, WhisperFullParams(token_timestamps=True))
        times = [token.t_dtw for i in range(state.n_segments) for token in state.get_tokens(i) if token.id < 50256]
    assert all(0 <= time <= 1100 for time in times) and times == sorted(times) and times[-1] > 900


def test_grammar(state: WhisperState, sound: np.ndarray) -> None:
    grammar = WhisperGrammar('root ::= " And so my fellow " ("citizens" | "Americans") rest\nrest ::= [a-zA-Z ,.]*')
    state.full(sound, WhisperFullParams(grammar_rules=grammar, grammar_penalty=100.0, strategy="beam_search"))
    assert text(state).startswith(" And so my fellow Americans")
    state.full(sound, WhisperFullParams(grammar_rules='start ::= " " [a-z ]+', i_start_rule="start"))
    assert text(state)


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
def test_bad_grammars(bad: str) -> None:
    with pytest.raises(GrammarError):
        WhisperGrammar(bad)


def test_logits_filter(state: WhisperState, sound: np.ndarray, tiny_en: WhisperContext) -> None:
    sizes: list[int] = []

    def only_silence(tokens: list[int], logits: np.ndarray) -> None:
        sizes.append(len(tokens))
        logits[: tiny_en.token_eot] = -np.inf

    params = WhisperFullParams(logits_filter_callback=only_silence, temperature_inc=0.0)
    state.full(sound, params)
    assert sizes and not text(state).strip()


# --------------------------------------------------------------------------------------- step by step


def test_by_hand(state: WhisperState, sound: np.ndarray, tiny_en: WhisperContext) -> None:
    """Greedy decoding written in Python gives the text of `full`."""
    state.pcm_to_mel(sound)
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


def test_mel_from_outside(state: WhisperState) -> None:
    state.set_mel(np.zeros((80, 3000), np.float32))
    assert state.n_len == 3000
    state.encode(0)
    for bad in (np.zeros((3, 3000)), np.zeros(80), np.zeros((80, 0)), np.full((80, 9), np.nan)):
        with pytest.raises(ValueError, match="mel"):
            state.set_mel(bad)


def test_order_of_steps(state: WhisperState, sound: np.ndarray) -> None:
    for step in (state.encode, state.get_logits, lambda: state.decode([1]), state.lang_auto_detect):
        with pytest.raises(DecodeError):
            step()
    state.pcm_to_mel(sound)
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


def test_language(base: Whisper, speeches: dict[str, Speech]) -> None:
    context = WhisperContext(models.get("base"))
    with context, WhisperState(context) as state:
        for name in ("busy-fr", "jfk", "espeak-park"):
            state.pcm_to_mel(load_audio(speeches[name].path))
            code, found = state.lang_auto_detect()
            assert code == speeches[name].language and len(found) == 99 and abs(sum(found.values()) - 1) < 1e-6
            assert found[code] == max(found.values())
        with pytest.raises(ValueError, match="99 languages without it"):
            context.language_code("cantonese")


# ----------------------------------------------------------------------------------------- refused


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
def test_samples_that_are_no_sound(state: WhisperState, sound: np.ndarray, samples: Any, error: type) -> None:
    for use in (state.full, state.pcm_to_mel):
        with pytest.raises(error):
            use(samples)
    state.full(sound[:16_000])


@pytest.mark.parametrize("n", [1, 2, 160, 399, 1599, 3200])
def test_very_short_sounds(state: WhisperState, n: int) -> None:
    state.full(np.full(n, 0.01, np.float32))
    assert state.n_segments >= 0


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
def test_parameters_that_are_refused(
    state: WhisperState, sound: np.ndarray, values: dict[str, Any], error: type
) -> None:
    with pytest.raises(error):
        state.full(sound, WhisperFullParams(**values))
    assert state.n_segments == 0


def test_an_unknown_parameter() -> None:
    with pytest.raises(TypeError, match="did you mean 'beam_size'"):
        WhisperFullParams(beamsize=5)


def test_results_out_of_range(state: WhisperState) -> None:
    for use in (state.get_segment_text, state.get_tokens, state.get_segment_t0, state.n_tokens):
        for bad, error in ((0, IndexError), (-1, IndexError), ("a", TypeError), (True, TypeError)):
            with pytest.raises(error):
                use(bad)


# ---------------------------------------------------------------------------- threads and stopping


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, CancelledError])
@pytest.mark.parametrize("name", ["new_segment", "progress", "encoder_begin", "logits_filter"])
def test_callbacks_that_raise(state: WhisperState, sound: np.ndarray, name: str, error: type[BaseException]) -> None:
    def fail(*_: object) -> None:
        raise error("mine")

    with pytest.raises(error, match="mine"):
        state.full(sound, WhisperFullParams(**{f"{name}_callback": fail}))
    state.full(sound)
    assert text(state) == TEXT


def test_callbacks_that_stop(state: WhisperState, sound: np.ndarray) -> None:
    with pytest.raises(CancelledError):
        state.full(sound, WhisperFullParams(progress_callback=lambda part: False))
    state.full(sound, WhisperFullParams(encoder_begin_callback=lambda: False))
    assert state.n_segments == 0  # what there was until then


class After:
    """Set after a time."""

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds

    def is_set(self) -> bool:
        return time.monotonic() >= self.until


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.1, 0.3, 0.6, 1.0])
def test_cancel_at_any_time(state: WhisperState, sound: np.ndarray, seconds: float) -> None:
    long = np.tile(sound, 12)
    cancel = After(seconds)
    with pytest.raises(CancelledError):
        state.full(long, WhisperFullParams(strategy="beam_search", beam_size=5), cancel=cancel)
    state.full(sound)
    assert text(state) == TEXT


def test_cancel_of_the_mel_spectrogram_and_of_vad(state: WhisperState) -> None:
    hour = np.zeros(16_000 * 3600, np.float32)
    with pytest.raises(CancelledError):
        state.pcm_to_mel(hour, cancel=After(0.2))
    with pytest.raises(CancelledError), WhisperVad(models.get("silero-vad")) as vad:
        vad.segments(hour, cancel=After(0.2))


def test_ctrl_c(state: WhisperState, sound: np.ndarray) -> None:
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        state.full(np.tile(sound, 20))
    timer.join()
    state.full(sound)
    assert text(state) == TEXT


def test_the_interpreter_is_free(state: WhisperState, sound: np.ndarray) -> None:
    with heartbeat() as heart:
        state.full(sound)
    assert heart.beats > 50


def test_states_in_many_threads(tiny_en: WhisperContext, sound: np.ndarray) -> None:
    found: list[str] = []

    def work() -> None:
        with WhisperState(tiny_en) as state:
            for _ in range(2):
                state.full(sound)
                found.append(text(state))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [TEXT] * 8


def test_one_state_serves_one_thread(state: WhisperState, sound: np.ndarray) -> None:
    inside, leave = threading.Event(), threading.Event()

    def wait(*_: int) -> None:
        inside.set()
        leave.wait(30)

    thread = threading.Thread(target=lambda: state.full(sound, WhisperFullParams(new_segment_callback=wait)))
    thread.start()
    assert inside.wait(60)
    uses: list[Callable[[], object]] = [
        lambda: state.full(sound), state.close, lambda: state.n_segments, lambda: state.encode(), state.reset_timings,
    ]  # fmt: skip
    for use in uses:
        with pytest.raises((InUseError, DecodeError)):
            use()
    leave.set()
    thread.join()
    state.close()
    with pytest.raises(ClosedError):
        state.full(sound)


def test_memory_stays(tiny_en: WhisperContext, sound: np.ndarray) -> None:
    def run(times: int) -> int:
        for _ in range(times):
            with WhisperState(tiny_en) as state:
                state.full(sound[:32_000], WhisperFullParams(audio_ctx=256))
        gc.collect()
        return resident_bytes()

    before = run(5)
    assert run(15) - before < 4e6


def test_fork(tiny_en: WhisperContext) -> None:
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
    assert JFK.exists()
