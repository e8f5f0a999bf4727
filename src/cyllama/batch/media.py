"""Callables with audio and images: transcriptions, generated images, descriptions."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Unpack

import numpy as np

from cyllama._cancel import Cancel
from cyllama._params import check_names
from cyllama.batch._columns import ColumnKind
from cyllama.batch.call import BatchCall
from cyllama.batch.text import TOKENS, LLMCall, ResultForm, check_form
from cyllama.pipelines._types import ModelName

if TYPE_CHECKING:
    from cyllama.llama import LLM, ChatOptions
    from cyllama.sd import ImageOptionsDict, StableDiffusion
    from cyllama.whisper import TranscribeOptionsDict, Whisper

__all__ = ["Describe", "GenerateImages", "Transcribe"]

DEFAULT_PARALLEL = 2  # transcriptions that run at the same time
OTHER_OPTIONS = ("batch_size", "output_type")  # of images; a row has one image, which is a file


class Transcribe(BatchCall):
    """The text of the recording in each row.

    Parameters
    ----------
    model : str or path
        A speech model.
    column : str
        The column of recordings: paths, contents of files, arrays of samples, or mappings with ``bytes``, ``path``, or
        ``array`` and ``sampling_rate``.
    settings : mapping, optional
        Keyword arguments of `cyllama.whisper.Whisper`.
    sample_rate : int, optional
        Of arrays; by default 16,000 Hz.
    result : str
        ``"text"``, or ``"json"``: segments with their times, as of OpenAI's ``verbose_json``.
    output, prefix : str
        Names of the new columns: `output`, and ``error``, ``language``, ``seconds`` (of audio) after `prefix`.
    parallel : int, optional
        Recordings that are transcribed at the same time; by default 2.
    **options
        Options of `cyllama.whisper.transcribe`: ``language``, ``beam_size``, ``vad_filter``, ...

    Raises
    ------
    TypeError, UnsupportedError, ValueError
        An option does not exist, or its value is invalid.
    """

    engine = "whisper"
    usage: ClassVar[Mapping[str, ColumnKind]] = {"language": "text", "seconds": "number"}

    def __init__(
        self,
        model: ModelName,
        /,
        *,
        column: str = "audio",
        settings: Mapping[str, Any] | None = None,
        sample_rate: int | None = None,
        result: ResultForm = "text",
        output: str = "text",
        prefix: str = "",
        parallel: int | None = None,
        **options: Unpack[TranscribeOptionsDict],
    ) -> None:
        from cyllama.whisper.options import options_from

        options_from(options)
        check_form(result, None)
        super().__init__(model, columns=(column,), settings=settings, output=output, prefix=prefix, parallel=parallel)
        self._form, self._options, self._sample_rate = result, options, sample_rate

    def _row(self, model: Whisper, cells: tuple[object, ...], cancel: Cancel) -> tuple[object, Mapping[str, object]]:
        audio = _content(cells[0])
        rate = None if isinstance(audio, tuple) else self._sample_rate
        found = model(audio, sample_rate=rate, cancel=cancel, **self._options)
        text = found.text if self._form == "text" else found.to_text("json")
        return text, {"language": found.language, "seconds": found.duration}

    def _slots(self, model: Whisper) -> int:
        return self._expected_slots

    @property
    def _expected_slots(self) -> int:
        return self._parallel or DEFAULT_PARALLEL

    def _own_arguments(self) -> dict[str, Any]:
        own = {"column": self._columns[0], "sample_rate": self._sample_rate, "result": self._form}
        return {**own, **self._options}


class GenerateImages(BatchCall):
    """An image of the prompt in each row, as the content of a PNG file.

    Parameters
    ----------
    model : str, path or None
        A diffusion model; None: its components are in `settings`.
    column : str
        The column of prompts.
    settings : mapping, optional
        Keyword arguments of `cyllama.sd.StableDiffusion`.
    output, prefix : str
        Names of the new columns: `output`, and ``error``, ``seed`` after `prefix`.
    **options
        Options of `cyllama.sd.txt2img`: ``width``, ``height``, ``steps``, ``seed``, ``negative_prompt``, ... All rows
        have the same ``seed`` if it is given.

    Raises
    ------
    TypeError, ValueError
        An option does not exist, or has no effect here.

    Notes
    -----
    A diffusion model generates one image at a time.
    """

    engine = "sd"
    result_kind = "bytes"
    usage: ClassVar[Mapping[str, ColumnKind]] = {"seed": "integer"}
    rows_per_slot = 4

    def __init__(
        self,
        model: ModelName | None,
        /,
        *,
        column: str = "prompt",
        settings: Mapping[str, Any] | None = None,
        output: str = "image",
        prefix: str = "",
        parallel: int | None = None,
        **options: Unpack[ImageOptionsDict],
    ) -> None:
        from cyllama.sd import ImageOptionsDict as Known

        check_names(options, Known.__optional_keys__, "GenerateImages")
        for name in OTHER_OPTIONS:
            if name in options:
                raise ValueError(f"{name} has no effect: a row has one image, the content of a PNG file")
        if parallel not in (None, 1):
            raise ValueError(f"parallel is {parallel!r}, expected 1: a diffusion model generates one image at a time")
        super().__init__(model, columns=(column,), settings=settings, output=output, prefix=prefix, parallel=1)
        self._options = options

    def _row(
        self, model: StableDiffusion, cells: tuple[object, ...], cancel: Cancel
    ) -> tuple[object, Mapping[str, object]]:
        if not isinstance(cells[0], str):
            raise TypeError(f"{self._columns[0]} is {cells[0]!r:.200}, expected a text")
        options: dict[str, Any] = {"progress": False, **self._options, "cancel": cancel}
        found = model.txt2img(cells[0], **options)
        file = io.BytesIO()
        found[0].save(file, "PNG")
        return file.getvalue(), {"seed": found.seeds[0]}

    def _own_arguments(self) -> dict[str, Any]:
        return {"column": self._columns[0], **self._options}


class Describe(LLMCall):
    """The answer of a multimodal model to a prompt about the image or the recording in each row.

    Parameters
    ----------
    model : str or path
        A language model.
    mmproj : str or path, optional
        Its projector; also as ``settings={"mmproj": ...}``.
    column : str
        The column of media: paths, contents of files, arrays, or mappings with ``bytes`` or ``path``.
    media : str
        ``"image"`` or ``"audio"``.
    prompt : str
        The text of each message.
    prompt_column : str, optional
        The column of texts, in place of `prompt`.
    settings, result, output, prefix, parallel
        As of `Chat`.
    **options
        Options of `LLM.chat`.

    Raises
    ------
    TypeError, ValueError
        An option does not exist, or `media` is unknown.
    """

    usage: ClassVar[Mapping[str, ColumnKind]] = {"finish_reason": "text", **TOKENS}

    def __init__(
        self,
        model: ModelName,
        /,
        *,
        mmproj: ModelName | None = None,
        column: str = "image",
        media: Literal["image", "audio"] = "image",
        prompt: str = "Describe the image.",
        prompt_column: str | None = None,
        settings: Mapping[str, Any] | None = None,
        result: ResultForm = "text",
        output: str = "description",
        prefix: str = "",
        parallel: int | None = None,
        **options: Unpack[ChatOptions],
    ) -> None:
        from cyllama.llama import ChatOptions as Known

        check_names(options, Known.__optional_keys__, "Describe")
        check_form(result, options.get("n") or options.get("n_cmpl"))
        if media not in ("image", "audio"):
            raise ValueError(f"media is {media!r}, expected image or audio")
        settings = {**(settings or {}), **({} if mmproj is None else {"mmproj": mmproj})}
        columns = (column,) if prompt_column is None else (column, prompt_column)
        super().__init__(model, columns=columns, settings=settings, output=output, prefix=prefix, parallel=parallel)
        self._form, self._options, self._media, self._prompt = result, options, media, prompt

    def _row(self, model: LLM, cells: tuple[object, ...], cancel: Cancel) -> tuple[object, Mapping[str, object]]:
        prompt = self._prompt if len(cells) == 1 else cells[1]
        if not isinstance(prompt, str):
            raise TypeError(f"{self._columns[1]} is {prompt!r:.200}, expected a text")
        given: dict[str, Any] = {"images" if self._media == "image" else "audio": [_content(cells[0])]}
        response = model.chat(prompt, cancel=cancel, **given, **self._options)
        found = response.text if self._form == "text" else response.to_json()
        usage = {name: response.usage[name] for name in TOKENS}
        return found, {"finish_reason": response.choices[0].finish_reason, **usage}

    def _own_arguments(self) -> dict[str, Any]:
        own: dict[str, Any] = {
            "column": self._columns[0],
            "media": self._media,
            "prompt": self._prompt,
            "result": self._form,
        }
        own |= {"prompt_column": None if len(self._columns) == 1 else self._columns[1]}
        return {**own, **self._options}


def _content(cell: Any) -> Any:
    """Return the medium of a cell: of a mapping, as data sets have them, its bytes, its samples or its path."""
    if cell is None:
        raise TypeError("the cell is empty, expected a path, the content of a file, or an array")
    if not isinstance(cell, Mapping):
        return cell
    if cell.get("array") is not None:
        samples, rate = np.asarray(cell["array"], np.float32), cell.get("sampling_rate")
        return samples if rate is None else (rate, samples)
    found = cell.get("bytes") or cell.get("path")
    if found is None:
        raise TypeError(f"the cell has the fields {', '.join(map(str, cell))}, expected bytes, path or array")
    return found
