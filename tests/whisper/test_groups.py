"""Groups of states that decode together: results, failures, cancelling and closing."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from data.sounds import jfk_float32
from whisper.short import SHORT_CTX

from cyllama import models
from cyllama.errors import CancelledError, InUseError
from cyllama.whisper import Whisper, WhisperContext, WhisperContextParams, WhisperFullParams, WhisperGroup, WhisperState

WAIT_SECONDS = 60.0  # for what happens at once
BLOCKED_SECONDS = 1.0  # for what must not happen

Result = list[tuple[int, int, list[int]]]


@pytest.fixture(scope="module")
def parts() -> list[np.ndarray]:
    """Recordings with different texts and lengths."""
    audio = jfk_float32()
    return [audio[round(start * 16_000) : round(end * 16_000)] for start, end in ((0, 4), (3, 8), (5, 9.5), (7.5, 11))]


def params(**values: Any) -> WhisperFullParams:
    return WhisperFullParams(**{"audio_ctx": SHORT_CTX, "temperature_inc": 0.0} | values)


def result(state: WhisperState) -> Result:
    """Return times and tokens of the segments."""
    return [
        (state.get_segment_t0(i), state.get_segment_t1(i), [token.id for token in state.get_tokens(i)])
        for i in range(state.n_segments)
    ]


def probabilities(state: WhisperState) -> list[float]:
    return [token.p for i in range(state.n_segments) for token in state.get_tokens(i)]


def start(workers: ThreadPoolExecutor, state: WhisperState, *args: Any, **options: Any) -> Future[None]:
    return workers.submit(state.full, *args, **options)


def alone(context: WhisperContext, samples: np.ndarray, given: WhisperFullParams) -> tuple[Result, list[float]]:
    with WhisperState(context) as state:
        state.full(samples, given)
        return result(state), probabilities(state)


def only_the_likeliest(tokens: list[int], logits: np.ndarray) -> None:
    """Leave one token: the beam search of whisper.cpp draws its candidates at random."""
    logits[logits < logits.max()] = -np.inf


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strategy": "beam_search", "beam_size": 3, "logits_filter_callback": only_the_likeliest},
        {"initial_prompt": "He spoke about America."},
        {"no_timestamps": True},
        {"token_timestamps": True},
    ],
    ids=lambda options: "-".join(options) or "greedy",
)
@pytest.mark.parametrize("flash_attn", [True, False], ids=["flash", "plain"])
def test_results_are_those_of_states_alone(parts: list[np.ndarray], options: dict[str, Any], flash_attn: bool) -> None:
    heads = {"dtw_token_timestamps": True, "dtw_aheads_preset": "tiny.en"} if flash_attn else {}
    given = params(**options)
    context = WhisperContext(models.get("tiny.en"), WhisperContextParams(flash_attn=flash_attn, **heads))  # type: ignore[arg-type]
    expected = [alone(context, samples, given) for samples in parts]
    group = WhisperGroup(context, len(parts))
    states = [WhisperState(context, group) for _ in parts]
    with ThreadPoolExecutor(len(parts)) as workers:
        for running in [start(workers, *pair, given) for pair in zip(states, parts, strict=True)]:
            running.result()
    assert [result(state) for state in states] == [segments for segments, _ in expected]
    for state, (_, p) in zip(states, expected, strict=True):
        np.testing.assert_allclose(probabilities(state), p, atol=0.02)
    assert len({str(segments) for segments, _ in expected}) == len(parts)


def test_more_calls_than_states(tiny_en: WhisperContext, parts: list[np.ndarray]) -> None:
    """States that finish leave the group, and others join it."""
    expected = [alone(tiny_en, samples, params())[0] for samples in parts]

    def transcribe(i: int) -> Result:
        with WhisperState(tiny_en, group) as state:
            state.full(parts[i % len(parts)], params())
            return result(state)

    with WhisperGroup(tiny_en, 3) as group, ThreadPoolExecutor(3) as workers:
        found = list(workers.map(transcribe, range(9)))
    assert found == [expected[i % len(parts)] for i in range(9)]


def test_results_do_not_depend_on_earlier_calls(tiny_en: WhisperContext, parts: list[np.ndarray]) -> None:
    """The states of a batch are used again."""
    drawn = params(temperature=0.9, best_of=1)
    expected, _ = alone(tiny_en, parts[1], drawn)
    with WhisperState(tiny_en) as state:
        for samples in (parts[0], parts[1]):
            state.full(samples, drawn)
        assert result(state) == expected


def test_fallback_of_one_state(tiny_en: WhisperContext, parts: list[np.ndarray]) -> None:
    """A state decodes several times, with several samplers, beside one that decodes once."""
    expected, _ = alone(tiny_en, parts[1], params())
    rejected = params(temperature_inc=0.5, logprob_thold=0.0, no_speech_thold=1.0, best_of=3)
    with WhisperGroup(tiny_en, 2) as group, ThreadPoolExecutor(2) as workers:
        with WhisperState(tiny_en, group) as first, WhisperState(tiny_en, group) as second:
            for running in (start(workers, first, parts[0], rejected), start(workers, second, parts[1], params())):
                running.result()
            assert first.n_segments and first.get_segment_temperature(0) == pytest.approx(1.0)
            assert result(second) == expected


class Blocked:
    """A callback before the encoder that waits in the first call."""

    def __init__(self) -> None:
        self.reached, self.released = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.released.wait(WAIT_SECONDS)


def test_decodes_states_together(tiny_en: WhisperContext, parts: list[np.ndarray]) -> None:
    """The decoder of a state waits for another state, until that needs it as well."""
    blocked, decoded = Blocked(), threading.Event()
    given = params(logits_filter_callback=lambda tokens, logits: decoded.set())
    with WhisperGroup(tiny_en, 2) as group, ThreadPoolExecutor(2) as workers:
        with WhisperState(tiny_en, group) as first, WhisperState(tiny_en, group) as second:
            running = [start(workers, first, parts[0], params(encoder_begin_callback=blocked))]
            assert blocked.reached.wait(WAIT_SECONDS)
            running.append(start(workers, second, parts[1], given))
            assert not decoded.wait(BLOCKED_SECONDS)
            blocked.released.set()
            for call in running:
                call.result()
            assert decoded.is_set() and first.n_segments and second.n_segments


def test_state_that_waits_can_be_cancelled(tiny_en: WhisperContext, parts: list[np.ndarray]) -> None:
    blocked, cancel = Blocked(), threading.Event()
    with WhisperGroup(tiny_en, 2) as group, ThreadPoolExecutor(2) as workers:
        with WhisperState(tiny_en, group) as first, WhisperState(tiny_en, group) as second:
            running = start(workers, first, parts[0], params(encoder_begin_callback=blocked))
            assert blocked.reached.wait(WAIT_SECONDS)
            waiting = start(workers, second, parts[1], params(encoder_begin_callback=cancel.set), cancel=cancel)
            with pytest.raises(CancelledError):
                waiting.result(WAIT_SECONDS)
            assert not running.done()
            blocked.released.set()
            running.result()
            assert first.n_segments
            second.full(parts[1], params())  # the state is usable, and no other is in a call
            assert second.n_segments


@pytest.mark.parametrize("cancels", [False, True], ids=["callback", "cancel"])
def test_state_that_fails_does_not_stop_the_others(
    tiny_en: WhisperContext, parts: list[np.ndarray], cancels: bool
) -> None:
    expected = [alone(tiny_en, samples, params())[0] for samples in parts[1:3]]
    cancel = threading.Event()

    def fail(tokens: list[int], logits: np.ndarray) -> None:
        if len(tokens) == 3:
            if cancels:
                cancel.set()
            else:
                raise RuntimeError("a failure")

    with WhisperGroup(tiny_en, 3) as group, ThreadPoolExecutor(3) as workers:
        states = [WhisperState(tiny_en, group) for _ in range(3)]
        failing = start(workers, states[0], parts[0], params(logits_filter_callback=fail), cancel=cancel)
        others = [start(workers, states[i], parts[i], params()) for i in (1, 2)]
        with pytest.raises(CancelledError if cancels else RuntimeError):
            failing.result()
        for running in others:
            running.result()
        assert [result(state) for state in states[1:]] == expected
        for state in states:
            state.close()


def test_cancels_all_states_at_once(tiny_en: WhisperContext) -> None:
    """Also within the graph of the decoder, which stops when all of its states are cancelled."""
    cancel = threading.Event()
    given = WhisperFullParams(logits_filter_callback=lambda tokens, logits: len(tokens) == 5 and cancel.set())
    with WhisperGroup(tiny_en, 2) as group, ThreadPoolExecutor(2) as workers:
        states = [WhisperState(tiny_en, group) for _ in range(2)]
        running = [start(workers, state, jfk_float32(), given, cancel=cancel) for state in states]
        for call in running:
            with pytest.raises(CancelledError):
                call.result()
        for state in states:
            state.close()


def test_checks_members(tiny_en: WhisperContext, whisper: Whisper) -> None:
    for n_states in (0, -1, 1000):
        with pytest.raises(ValueError, match="n_states"):
            WhisperGroup(tiny_en, n_states)
    group = WhisperGroup(tiny_en, 1)
    with WhisperContext(models.get("tiny.en")) as other, pytest.raises(ValueError, match="context"):
        WhisperState(other, group)
    state = WhisperState(tiny_en, group)
    with pytest.raises(ValueError, match="1 open"):
        WhisperState(tiny_en, group)
    with pytest.raises(InUseError):
        group.close()
    state.close()
    WhisperState(tiny_en, group).close()
    group.close()


def test_batches_of_any_size_have_the_same_segments(whisper: Whisper) -> None:
    audio = np.concatenate([jfk_float32(), np.zeros(16_000 * 5, np.float32)] * 3)
    results = [whisper(audio, batch_size=size, temperature=0.0, vad_parameters={"max_speech_duration_s": 5}).segments
               for size in (2, 5)]  # fmt: skip
    found = [[(segment.start, segment.end, segment.text) for segment in segments] for segments in results]
    assert found[0] == found[1] and len(found[0]) >= 3


def test_closing_a_batch_in_the_middle(whisper: Whisper) -> None:
    segments, _ = whisper.transcribe(np.tile(jfk_float32(), 8), batch_size=3, temperature=0.0)
    assert next(segments).text
    segments.close()
    assert whisper(jfk_float32()[:64_000], batch_size=3).text
