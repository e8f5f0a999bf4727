"""Options of a transcription: aliases, invalid values, and the parameters of the engine."""

from __future__ import annotations

from typing import Any

import pytest

from cyllama._params import aliases_of
from cyllama.errors import UnsupportedError
from cyllama.whisper.options import UNSUPPORTED, TranscribeOptions, VadOptions, options_from


@pytest.mark.parametrize(("alias", "name"), aliases_of(TranscribeOptions).items())
def test_accepts_aliases(alias: str, name: str) -> None:
    values: dict[str, Any] = {"n_threads": 2, "max_segment_chars": 9, "max_new_tokens": 9, "initial_prompt": "x"}
    default = getattr(TranscribeOptions(), name)
    value = values.get(name, not default if isinstance(default, bool) else 0.5)
    if name == "vad_parameters":
        assert options_from({alias: {"threshold": 0.1}, "vad_filter": True}).vad() == VadOptions(threshold=0.1)
    else:
        assert getattr(options_from({alias: value}), name) == value


def test_translate_and_no_context() -> None:
    assert options_from({"translate": True}).task == "translate"
    assert options_from({"translate": False}).task == "transcribe"
    assert options_from({"no_context": True}).condition_on_previous_text is False


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_rejects_unsupported_option(name: str) -> None:
    with pytest.raises(UnsupportedError, match=name):
        options_from({name: 5})
    assert options_from({name: None}) == TranscribeOptions()


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
    with pytest.raises(ValueError, match=next(iter(given))):
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
