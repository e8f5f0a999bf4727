"""A session of live transcription: a thread that handles the client's events one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from starlette.exceptions import HTTPException

from cyllama.errors import CancelledError
from cyllama.media.audio import SAMPLE_RATE
from cyllama.media.encoded import decode_base64
from cyllama.server.fields.realtime import TRANSCRIPTION_PATHS
from cyllama.server.http.errors import error_body, http_error, to_http_error
from cyllama.server.http.response_stream import ResponseStream
from cyllama.server.http.task import CancelReason
from cyllama.server.protocols.realtime import EventWriter, Settings, new_id, parse_event
from cyllama.server.routes._live_turn import LiveTurn
from cyllama.server.routes._turn_detector import TurnDetector
from cyllama.server.state import ServerState
from cyllama.whisper import languages

__all__ = ["LiveSession"]

MIN_MS = 100  # of audio in an item, as OpenAI's server has it
PCM_BYTES = 2
EMPTY = np.zeros(0, np.float32)


class LiveSession:
    """A session, whose `run` is the work of a thread.

    Parameters
    ----------
    state : ServerState
    settings : Settings
    is_beta : bool
        The client speaks the beta form.

    Attributes
    ----------
    cancelled : threading.Event
    reason : str
        Why it was cancelled.
    """

    def __init__(self, state: ServerState, settings: Settings, is_beta: bool) -> None:
        self.cancelled = threading.Event()
        self.reason: CancelReason = "disconnect"
        self._state, self._settings, self._is_beta = state, settings, is_beta
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._room = asyncio.Event()
        self._messages: deque[str | bytes] = deque()
        self._size = 0  # bytes of the messages
        self._ended = False

    # ----------------------------------------------------------------------------- event loop

    async def put(self, message: str | bytes) -> None:
        """Add a message; wait while too many bytes wait for the thread."""
        while self._size and self._size + len(message) > self._state.config.limits.live_bytes:
            self._room.clear()
            await self._room.wait()
        with self._changed:
            self._messages.append(message)
            self._size += len(message) + 1
            self._changed.notify()

    def end(self) -> None:
        """Let the thread handle what has arrived, and end."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def cancel(self, reason: CancelReason) -> None:
        """Stop the thread now."""
        if not self.cancelled.is_set():
            self.reason = reason
            self.cancelled.set()
            self.end()

    # ------------------------------------------------------------------------- working thread

    def run(self, stream: ResponseStream) -> None:
        """Handle the events until the session ends."""
        events = EventWriter(stream, self._is_beta)
        try:
            with contextlib.closing(_Handler(self._state, self._settings, events, self.cancelled)) as handler:
                while (message := self._next()) is not None:
                    handler.handle(message, is_late=bool(self._messages))
                handler.commit_rest()
        except BaseException as error:
            rejection = to_http_error(error)
            rejection.__traceback__ = rejection.__context__ = rejection.__cause__ = None
            stream.finish(rejection)
        else:
            stream.finish()

    def _next(self) -> str | bytes | None:
        with self._changed:
            while not self._messages and not self._ended:
                self._changed.wait()
            if self.cancelled.is_set():
                raise CancelledError("the session was cancelled")
            if not self._messages:
                return None
            message = self._messages.popleft()
            self._size -= len(message) + 1
        self._loop.call_soon_threadsafe(self._room.set)
        return message


class _Handler:
    """Handles the events of a client, in one thread."""

    def __init__(self, state: ServerState, settings: Settings, events: EventWriter, cancel: threading.Event) -> None:
        self._state, self._events, self._cancel = state, events, cancel
        self._session_id = new_id("sess")
        self._previous_id: str | None = None
        self._turn: LiveTurn | None = None
        self._detector: TurnDetector | None = None
        self._n_samples = 0  # of the session, 16 kHz
        self._update_seconds = 0.0
        self._is_late = False
        self._use(settings)
        self._events.session("created", self._settings, self._session_id)

    def handle(self, message: str | bytes, *, is_late: bool) -> None:
        """Handle a message; errors become events. `is_late`: the next message has arrived already.

        Raises
        ------
        CancelledError
        """
        event_id = None
        self._is_late = is_late
        try:
            event = parse_event(message)
            event_id = event.pop("event_id", None)
            self._dispatch(event)
        except CancelledError:
            raise
        except Exception as error:
            self._events.error(to_http_error(error), event_id)

    def commit_rest(self) -> None:
        """Make an item of the audio in the buffer, if there is enough."""
        if self._turn is not None and self._turn.n_samples * 1000 >= MIN_MS * SAMPLE_RATE:
            self._commit()

    def close(self) -> None:
        """Give the models back."""
        self._drop_turn()
        if self._detector is not None:
            self._detector.close()

    def _dispatch(self, event: dict[str, Any]) -> None:
        handlers: dict[str, tuple[Callable[..., None], str | None]] = {
            "session.update": (self._update, "session"),
            "transcription_session.update": (self._update_beta, "session"),
            "input_audio_buffer.append": (self._append, "audio"),
            "input_audio_buffer.commit": (self._commit_now, None),
            "input_audio_buffer.clear": (self._clear, None),
        }
        kind = event.pop("type")
        if kind not in handlers:
            known = ", ".join(handlers)
            message = f"type is {kind!r:.100}, expected one of {known}: sessions of this server transcribe"
            raise http_error(400, message, param="type")
        handler, name = handlers[kind]
        unknown = [key for key in event if key != name]
        if unknown:
            raise http_error(400, f"{unknown[0]!r:.100} is not a field of {kind}", param=unknown[0][:100])
        if name is None:
            handler()
        elif name in event:
            handler(event[name])
        else:
            raise http_error(400, f"{name} is missing", param=name)

    def _update(self, session: object) -> None:
        self._change(self._settings.updated(session, False), TRANSCRIPTION_PATHS[False])

    def _update_beta(self, session: object) -> None:
        self._events.is_beta = True
        self._change(self._settings.updated(session, True), TRANSCRIPTION_PATHS[True])

    def _change(self, settings: Settings, path: str) -> None:
        try:
            self._use(replace(settings, language=_language_code(settings.language, f"{path}.language")))
        except HTTPException as error:
            body = error_body(error)
            param = f"{path}.model" if body["param"] == "model" else body["param"]
            raise http_error(error.status_code, body["message"], param=param, code=body["code"]) from None
        self._events.session("updated", self._settings, self._session_id)

    def _use(self, settings: Settings) -> None:
        """Apply settings. They hold for the next turn; one that runs ends as it began."""
        self._entry = self._state.find_model(settings.model, "speech")
        before = getattr(self, "_settings", None)
        if before is None or (before.format, before.rate) != (settings.format, settings.rate):
            if self._turn is not None:
                message = "the format cannot change while the buffer has audio; commit or clear it first"
                raise http_error(400, message, param="session.audio.input.format")
            self._resampler = _resampler(settings.rate)
        if before is not None and before.turn_detection != settings.turn_detection and self._detector is not None:
            self._detector.close()
            self._detector = None
        self._settings = settings

    def _append(self, audio: object) -> None:
        if not isinstance(audio, str):
            raise http_error(400, f"audio is {audio!r:.100}, expected base64", param="audio")
        self._check_length()
        samples = self._decode(audio)
        turns = self._settings.turn_detection
        if turns is None:
            self._n_samples += len(samples)
            self._feed(samples)
            return
        if self._detector is None:
            self._detector = TurnDetector(turns, self._n_samples)
        self._n_samples += len(samples)
        for kind, position, part in self._detector.feed(samples):
            if kind == "start":
                item_id = self._open_turn().item_id
                self._events.send("input_audio_buffer.speech_started", audio_start_ms=position, item_id=item_id)
            self._feed(part)
            if kind == "stop" and self._turn is not None:
                item_id = self._turn.item_id
                self._events.send("input_audio_buffer.speech_stopped", audio_end_ms=position, item_id=item_id)
                self._commit()

    def _check_length(self) -> None:
        most = self._state.config.limits.audio_seconds
        if self._turn is not None and self._turn.n_samples > most * SAMPLE_RATE:
            message = f"the buffer has more than {most:g} s of audio (limits.audio_seconds); commit or clear it"
            raise http_error(413, message, param="audio")

    def _decode(self, audio: str) -> npt.NDArray[np.float32]:
        """Return the samples of 16 kHz."""
        settings = self._settings
        try:
            data = decode_base64(audio, "audio")
        except ValueError as error:
            raise http_error(400, str(error), param="audio") from None
        if settings.subtype == "PCM_16" and len(data) % PCM_BYTES:
            raise http_error(400, f"audio has {len(data):,} bytes, expected samples of 16 bits", param="audio")
        samples, _ = soundfile.read(
            io.BytesIO(data), dtype="float32", samplerate=settings.rate, channels=1, format="RAW",
            subtype=settings.subtype, endian="LITTLE",
        )  # fmt: skip
        return np.asarray(samples if self._resampler is None else self._resampler.resample_chunk(samples), np.float32)

    def _open_turn(self) -> LiveTurn:
        if self._turn is None:
            self._turn = LiveTurn(
                self._state, self._entry, self._settings, self._events, self._cancel, self._update_seconds
            )
        return self._turn

    def _feed(self, samples: npt.NDArray[np.float32]) -> None:
        if len(samples):
            self._open_turn().feed(samples, is_late=self._is_late)

    def _commit_now(self) -> None:
        tail = self._end_audio()
        if self._turn is not None:
            self._feed(tail)
        if self._turn is None or self._turn.n_samples * 1000 < MIN_MS * SAMPLE_RATE:
            message = f"the buffer has less than {MIN_MS} ms of audio or, with turn detection, no speech"
            raise http_error(400, message, code="input_audio_buffer_commit_empty")
        self._commit()

    def _end_audio(self) -> npt.NDArray[np.float32]:
        """End the turn of the detector and the resampler, and return the samples that they hold."""
        tail = EMPTY
        if self._resampler is not None:
            tail = self._resampler.resample_chunk(EMPTY, last=True)
            self._resampler = _resampler(self._settings.rate)
        self._n_samples += len(tail)
        rest = EMPTY if self._detector is None else self._detector.end_turn(len(tail))
        return np.concatenate([rest, tail])

    def _commit(self) -> None:
        """Make an item of the turn, and send its text."""
        turn, self._turn = self._turn, None
        assert turn is not None
        with contextlib.closing(turn):
            self._events.item(turn.item_id, self._previous_id)
            self._previous_id = turn.item_id
            turn.finish()
            self._update_seconds = turn.update_seconds

    def _clear(self) -> None:
        self._end_audio()
        self._drop_turn()
        self._events.send("input_audio_buffer.cleared")

    def _drop_turn(self) -> None:
        if self._turn is not None:
            self._turn.close()
            self._turn = None


def _resampler(rate: int) -> soxr.ResampleStream | None:
    return None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")


def _language_code(language: str | None, param: str) -> str | None:
    """Return a language without its region; None if the model finds it.

    Raises
    ------
    HTTPException
        400 if there is no such language.
    """
    known = languages()
    base = (language or "auto").casefold().replace("_", "-").split("-")[0].strip()
    if base not in {"auto", *known, *known.values()}:
        raise http_error(400, f"language is {language!r:.100}, expected a code such as 'en'", param=param)
    return None if base == "auto" else base
