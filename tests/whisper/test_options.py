"""Options of a transcription: aliases, invalid values, and the parameters of the engine."""

from __future__ import annotations

from typing import Any

import pytest

from cyllama._params import aliases_of
from cyllama.errors import UnsupportedError
from cyllama.whisper._word_timestamps import APPENDED, PREPENDED
from cyllama.whisper.options import LOAD_UNSUPPORTED, UNSUPPORTED, TranscribeOptions, VadOptions, options_from


@pytest.mark.parametrize(("alias", "name"), aliases_of(TranscribeOptions).items())
def test_accepts_aliases(alias: str, name: str) -> None:
    values: dict[str, Any] = {"n_threads": 2, "max_segment_chars": 9, "max_new_tokens": 9, "initial_prompt": "x"}
    default = getattr(TranscribeOptions(), name)
    values |= {"language": "en", "max_context": 7}
    value = values.get(name, not default if isinstance(default, bool) else 0.5)
    if name == "vad_parameters":
        assert options_from({alias: {"threshold": 0.1}, "vad_filter": True}).vad() == VadOptions(threshold=0.1)
    else:
        assert getattr(options_from({alias: value}), name) == value


def test_translate_and_no_context() -> None:
    assert options_from({"translate": True}).task == "translate"
    assert options_from({"translate": False}).task == "transcribe"
    assert options_from({"no_context": True}).condition_on_previous_text is False


@pytest.mark.parametrize("name", sorted((UNSUPPORTED | LOAD_UNSUPPORTED).keys() - {"cpu_threads"}))
def test_rejects_unsupported_option(name: str) -> None:
    with pytest.raises(UnsupportedError, match=name):
        options_from({name: 5})
    for neutral in (None, *(UNSUPPORTED | LOAD_UNSUPPORTED)[name][0]):
        assert options_from({name: neutral}) == TranscribeOptions()


def test_accepts_the_defaults_of_faster_whisper() -> None:
    given = {
        "language": None, "task": "transcribe", "log_progress": False, "beam_size": 5, "best_of": 5, "patience": 1,
        "length_penalty": 1, "repetition_penalty": 1, "no_repeat_ngram_size": 0,
        "temperature": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0], "compression_ratio_threshold": 2.4, "log_prob_threshold": -1.0,
        "no_speech_threshold": 0.6, "condition_on_previous_text": True, "prompt_reset_on_temperature": 0.5,
        "initial_prompt": None, "prefix": None, "suppress_blank": True, "suppress_tokens": [-1],
        "without_timestamps": False, "max_initial_timestamp": 1.0, "word_timestamps": False,
        "prepend_punctuations": PREPENDED, "append_punctuations": APPENDED, "multilingual": False,
        "vad_filter": False, "vad_parameters": None, "max_new_tokens": None, "chunk_length": None,
        "clip_timestamps": "0", "hallucination_silence_threshold": None, "hotwords": None,
        "language_detection_threshold": 0.5, "language_detection_segments": 1,
    }  # fmt: skip
    assert options_from(given).suppress_tokens == [-1]


@pytest.mark.parametrize("name", ["word_timestamps", "vad_filter", "condition_on_previous_text", "translate"])
@pytest.mark.parametrize("value", ["false", 1, []])
def test_rejects_other_types_than_bool(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        options_from({name: value})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("en-US", "en"), ("zh_CN", "zh"), ("PT-br", "pt"), ("auto", None), ("", None), ("German", "german"), ("nb-NO", "no")],
)  # fmt: skip
def test_accepts_languages_with_a_region(given: str, wanted: str | None) -> None:
    assert options_from({"language": given}).language == wanted


def test_suppress_tokens_as_text() -> None:
    fields = options_from({"suppress_tokens": "-1,7"}).engine_fields()
    assert fields["suppress_nst"] is True and fields["suppress_tokens"] == [7]
    assert options_from({"suppress_tokens": ""}).engine_fields()["suppress_tokens"] == []
    with pytest.raises(ValueError, match="suppress_tokens"):
        options_from({"suppress_tokens": "all"})
    with pytest.raises(TypeError, match="suppress_tokens"):
        options_from({"suppress_tokens": [0.5]})


@pytest.mark.parametrize(
    ("given", "near"),
    [({"langage": "en"}, "language"), ({"beamsize": 5}, "beam_size"), ({"initial_promt": ""}, "initial_prompt")],
)
def test_rejects_unknown_option(given: dict[str, Any], near: str) -> None:
    with pytest.raises(TypeError, match=f"did you mean '{near}'"):
        options_from(given)


def test_rejects_unknown_vad_option() -> None:
    with pytest.raises(TypeError, match="did you mean 'threshold'"):
        options_from({"vad_filter": True, "vad_parameters": {"treshold": 0.5}})


@pytest.mark.parametrize(
    "given",
    [
        {"task": "summarize"},
        {"batch_size": 0},
        {"batch_size": True},
        {"batch_size": 1.5},
        {"beam_size": 9},
        {"beam_size": 0},
        {"temperature": ()},
        {"temperature": (0.0, 0.1, 0.9)},
        {"temperature": (0.0, 0.2)},
        {"vad_parameters": {"threshold": 0.5}},
    ],
)
def test_rejects_invalid_value(given: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(given))):
        options_from(given)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (None, (None, None)),
        (0.3, (0.3, 0.0)),
        ((0.0,), (0.0, 0.0)),
        ((0.0, 0.2, 0.4, 0.6, 0.8, 1.0), (0.0, 0.2)),
        ([0.2, 0.7], (0.2, 0.5)),
    ],
)
def test_converts_temperatures_to_first_and_step(temperature: Any, expected: tuple[float | None, float | None]) -> None:
    first, step = options_from({"temperature": temperature}).temperatures()
    assert (first, step) == (expected[0], pytest.approx(expected[1]))


def test_engine_fields() -> None:
    plain = TranscribeOptions().engine_fields()
    assert plain["strategy"] == "greedy" and plain["translate"] is False and plain["n_max_text_ctx"] is None
    fields = options_from({"beam_size": 5, "task": "translate", "condition_on_previous_text": False}).engine_fields()
    assert (fields["strategy"], fields["beam_size"], fields["translate"], fields["n_max_text_ctx"]) == (
        "beam_search", 5, True, 0,
    )  # fmt: skip
    assert options_from({"suppress_tokens": [-1]}).engine_fields()["suppress_nst"] is True
    assert options_from({"suppress_tokens": [5]}).engine_fields()["suppress_nst"] is False
    assert options_from({"max_segment_chars": 20}).engine_fields()["token_timestamps"] is True
