"""The transcription of one turn of a live session."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.exceptions import HTTPException

from cyllama.errors import CancelledError
from cyllama.media.audio import SAMPLE_RATE
from cyllama.server.config import ModelEntry
from cyllama.server.http.errors import to_http_error
from cyllama.server.protocols.realtime import EventWriter, Settings, error_detail, new_id
from cyllama.server.state import ServerState
from cyllama.whisper import StreamedSegment, StreamingTranscriber

__all__ = ["LiveTurn"]

PREFIX = "conversation.item.input_audio_transcription."
MAX_STEP = 28.0  # seconds, of StreamingTranscriber
UPDATE_SHARE = 1.5  # of the time of an update: the least time of new audio for the next one


class LiveTurn:
    """Audio that becomes an item, and its text.

    It uses its model until `close`.

    Parameters
    ----------
    state : ServerState
    entry : ModelEntry
    settings : Settings
    events : EventWriter
    cancel : threading.Event
    update_seconds : float
        How long the last update of the session took: the text of a slow model is updated less often.

    Attributes
    ----------
    item_id : str
    n_samples : int
        Samples of 16 kHz.
    update_seconds : float
    """

    def __init__(
        self,
        state: ServerState,
        entry: ModelEntry,
        settings: Settings,
        events: EventWriter,
        cancel: threading.Event,
        update_seconds: float,
    ) -> None:
        self.item_id = new_id("item")
        self.n_samples = 0
        self.update_seconds = update_seconds
        self._state, self._entry, self._settings = state, entry, settings
        self._events, self._cancel = events, cancel
        self._stack = contextlib.ExitStack()
        self._transcriber: StreamingTranscriber | None = None
        self._text = self._provisional = ""
        self._waiting: list[npt.NDArray[np.float32]] = []
        self._n_waiting = 0
        self._error: HTTPException | None = None

    def feed(self, samples: npt.NDArray[np.float32], *, is_late: bool) -> None:
        """Add audio, and send new text. An error is kept for `finish`.

        Parameters
        ----------
        samples : ndarray of float32
        is_late : bool
            More audio has arrived already: up to 28 s wait for it, so that the text is updated once for all of them.

        Raises
        ------
        CancelledError
        """
        self.n_samples += len(samples)
        if self._error is not None:
            return
        self._waiting.append(samples)
        self._n_waiting += len(samples)
        if not is_late or self._n_waiting >= MAX_STEP * SAMPLE_RATE:
            self._run(is_end=False)

    def finish(self) -> None:
        """Send the rest of the text, or the error of the turn.

        Raises
        ------
        CancelledError
        """
        if self._error is None:
            self._run(is_end=True)
        if self._error is not None:
            error = error_detail(self._error)
            self._events.send(f"{PREFIX}failed", item_id=self.item_id, content_index=0, error=error)
            return
        usage = {"type": "duration", "seconds": self.n_samples / SAMPLE_RATE}
        self._events.send(
            f"{PREFIX}completed", item_id=self.item_id, content_index=0, transcript=self._text.strip(), usage=usage
        )

    def close(self) -> None:
        """Give the model back."""
        self._stack.close()

    def _run(self, *, is_end: bool) -> None:
        samples = np.concatenate([*self._waiting, np.zeros(0, np.float32)])
        self._waiting, self._n_waiting = [], 0
        try:
            if self._transcriber is None:
                # the time that the audio is late is the least step: the turns of a slow server have fewer updates
                self._transcriber = self._open(MAX_STEP if is_end else len(samples) / SAMPLE_RATE)
            with self._state.live_queue.slot(self._cancel):
                found = self._transcriber.feed(samples, cancel=self._cancel) if len(samples) else []
                if is_end:
                    began = time.monotonic()
                    found += self._transcriber.flush(cancel=self._cancel)
                    self.update_seconds = time.monotonic() - began
        except CancelledError:
            raise
        except Exception as error:
            self._error = to_http_error(error)
            self.close()
        else:
            self._send(found, is_update=is_end or bool(found))

    def _open(self, least_step: float) -> StreamingTranscriber:
        settings = self._settings
        options: dict[str, Any] = {
            "language": settings.language,
            "initial_prompt": settings.prompt,
            "hotwords": ", ".join(settings.keywords) or None,
        }
        step = min(MAX_STEP, max(settings.step, UPDATE_SHARE * self.update_seconds, least_step))
        whisper = self._stack.enter_context(self._state.use_whisper(self._entry, self._cancel))
        given = {name: value for name, value in options.items() if value is not None}
        return StreamingTranscriber(whisper, step=step, **given)

    def _send(self, found: list[StreamedSegment], is_update: bool) -> None:
        """Send the final text, and with the setting the provisional text if it has changed."""
        delta = "".join(part.text for part in found if part.final)
        delta = delta if self._text else delta.lstrip()
        self._text += delta
        provisional = "".join(part.text for part in found if not part.final) if is_update else self._provisional
        more = {}
        if self._settings.provisional and provisional != self._provisional:
            more["provisional"] = provisional
        self._provisional = provisional
        if delta or more:
            self._events.send(f"{PREFIX}delta", item_id=self.item_id, content_index=0, delta=delta, **more)
