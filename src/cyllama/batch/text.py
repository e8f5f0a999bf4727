"""Callables with a language model: chats, completions, embeddings, scores of documents."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Unpack

import numpy as np

from cyllama._cancel import Cancel
from cyllama._params import check_names
from cyllama.batch._columns import ColumnKind, plain
from cyllama.batch.call import BatchCall
from cyllama.pipelines._types import ModelName

if TYPE_CHECKING:
    from cyllama.llama import LLM, ChatOptions, CompletionOptions

__all__ = ["Chat", "Complete", "Embed", "LLMCall", "Rerank", "ResultForm", "check_form"]

ResultForm = Literal["text", "json"]
FORMS: tuple[ResultForm, ...] = ("text", "json")
DEFAULT_SLOTS = 4  # of an LLM without n_parallel
TOKENS: Mapping[str, ColumnKind] = {"prompt_tokens": "integer", "completion_tokens": "integer"}


def check_form(result: str, choices: object) -> None:
    """Check the form of results; only JSON has room for several choices.

    Raises
    ------
    ValueError
    """
    if result not in FORMS:
        raise ValueError(f"result is {result!r}, expected one of {', '.join(FORMS)}")
    if result == "text" and choices not in (None, 1):
        raise ValueError(f"n is {choices!r}, expected result='json' for several choices")


class LLMCall(BatchCall):
    """A callable with an `LLM`; its rows use the model's slots (``settings={"n_parallel": 8}``)."""

    engine = "llm"

    def _slots(self, model: LLM) -> int:
        return 2 * len(model.metrics)

    @property
    def _expected_slots(self) -> int:
        return self._parallel or self.settings.get("n_parallel") or DEFAULT_SLOTS


class Chat(LLMCall):
    """The next message of the chat in each row.

    Parameters
    ----------
    model : str or path
        A GGUF file, or a name of `cyllama.models`.
    column : str
        The column of chats: a text of the user, or a list of messages in OpenAI's form.
    settings : mapping, optional
        Keyword arguments of `cyllama.LLM`.
    result : str
        ``"text"``: the text of the message; ``"json"``: the whole response as JSON, with tool calls and log
        probabilities.
    output, prefix : str
        Names of the new columns: `output`, and ``error``, ``finish_reason``, ``prompt_tokens``, ``completion_tokens``
        after `prefix`.
    parallel : int, optional
        Rows that are sent to the engine at the same time; by default twice the slots.
    **options
        Options of `LLM.chat`: ``max_tokens``, ``temperature``, ``response_format``, ``tools``, ...

    Raises
    ------
    TypeError
        An option does not exist.
    ValueError
    """

    usage: ClassVar[Mapping[str, ColumnKind]] = {"finish_reason": "text", **TOKENS}

    def __init__(
        self,
        model: ModelName,
        /,
        *,
        column: str = "messages",
        settings: Mapping[str, Any] | None = None,
        result: ResultForm = "text",
        output: str = "response",
        prefix: str = "",
        parallel: int | None = None,
        **options: Unpack[ChatOptions],
    ) -> None:
        from cyllama.llama import ChatOptions as Known

        check_names(options, Known.__optional_keys__, "Chat")
        check_form(result, options.get("n") or options.get("n_cmpl"))
        super().__init__(model, columns=(column,), settings=settings, output=output, prefix=prefix, parallel=parallel)
        self._form, self._options = result, options

    def _row(self, model: LLM, cells: tuple[object, ...], cancel: Cancel) -> tuple[object, Mapping[str, object]]:
        messages: Any = plain(cells[0])
        response = model.chat(messages, cancel=cancel, **self._options)
        found = response.text if self._form == "text" else response.to_json()
        return found, {"finish_reason": response.choices[0].finish_reason, **_tokens(response.usage)}

    def _own_arguments(self) -> dict[str, Any]:
        return {"column": self._columns[0], "result": self._form, **self._options}


class Complete(LLMCall):
    """The continuation of the text in each row.

    Parameters
    ----------
    model : str or path
    column : str
        The column of texts; a cell may also be a list of tokens.
    settings, result, output, prefix, parallel
        As of `Chat`.
    **options
        Options of `LLM.complete`: ``max_tokens``, ``temperature``, ``stop``, ``grammar``, ...

    Raises
    ------
    TypeError, ValueError
    """

    usage: ClassVar[Mapping[str, ColumnKind]] = {"finish_reason": "text", **TOKENS}

    def __init__(
        self,
        model: ModelName,
        /,
        *,
        column: str = "prompt",
        settings: Mapping[str, Any] | None = None,
        result: ResultForm = "text",
        output: str = "text",
        prefix: str = "",
        parallel: int | None = None,
        **options: Unpack[CompletionOptions],
    ) -> None:
        from cyllama.llama import CompletionOptions as Known

        check_names(options, Known.__optional_keys__, "Complete")
        check_form(result, options.get("n") or options.get("n_cmpl"))
        super().__init__(model, columns=(column,), settings=settings, output=output, prefix=prefix, parallel=parallel)
        self._form, self._options = result, options

    def _row(self, model: LLM, cells: tuple[object, ...], cancel: Cancel) -> tuple[object, Mapping[str, object]]:
        prompt: Any = plain(cells[0])
        if self._form == "text" and isinstance(prompt, list) and not all(isinstance(item, int) for item in prompt):
            raise TypeError(f"{self._columns[0]} is {prompt!r:.200}, expected a text or a list of tokens")
        response = model.complete(prompt, cancel=cancel, **self._options)
        found = response.text if self._form == "text" else response.to_json()
        return found, {"finish_reason": response.choices[0].finish_reason, **_tokens(response.usage)}

    def _own_arguments(self) -> dict[str, Any]:
        return {"column": self._columns[0], "result": self._form, **self._options}


class Embed(LLMCall):
    """The vector of the text in each row, as a list of numbers.

    Parameters
    ----------
    model : str or path
        An embedding model.
    column : str
        The column of texts.
    normalize : bool
        Scale each vector to length 1.
    settings : mapping, optional
        Keyword arguments of `cyllama.LLM`; ``embedding=True`` is the default.
    output, prefix, parallel
        As of `Chat`; the usage is ``prompt_tokens``.

    Raises
    ------
    ValueError
    """

    result_kind = "vector"
    usage: ClassVar[Mapping[str, ColumnKind]] = {"prompt_tokens": "integer"}
    rows_per_slot = 32

    def __init__(
        self,
        model: ModelName,
        /,
        *,
        column: str = "text",
        normalize: bool = True,
        settings: Mapping[str, Any] | None = None,
        output: str = "embedding",
        prefix: str = "",
        parallel: int | None = None,
    ) -> None:
        settings = {"embedding": True, **(settings or {})}
        super().__init__(model, columns=(column,), settings=settings, output=output, prefix=prefix, parallel=parallel)
        self._normalize = normalize

    def _row(self, model: LLM, cells: tuple[object, ...], cancel: Cancel) -> tuple[object, Mapping[str, object]]:
        text = _text(cells[0], self._columns[0])
        body = {"input": [text], "embd_normalize": 2 if self._normalize else -1, "encoding_format": "base64"}
        found = model.request_json("embeddings", body, cancel=cancel)
        vector = np.frombuffer(base64.b64decode(found["data"][0]["embedding"]), np.float32)
        return vector.tolist(), {"prompt_tokens": found["usage"]["prompt_tokens"]}

    def _own_arguments(self) -> dict[str, Any]:
        return {"column": self._columns[0], "normalize": self._normalize}


class Rerank(LLMCall):
    """The relevance of the documents in each row for the query in the same row.

    Parameters
    ----------
    model : str or path
        A reranking model.
    query_column, documents_column : str
        The columns of queries, and of lists of documents.
    settings : mapping, optional
        Keyword arguments of `cyllama.LLM`; ``reranking=True`` is the default.
    output, prefix, parallel
        As of `Chat`. A result is the list of the scores in the order of the documents; the usage is ``prompt_tokens``.

    Raises
    ------
    ValueError
    """

    result_kind = "numbers"
    usage: ClassVar[Mapping[str, ColumnKind]] = {"prompt_tokens": "integer"}

    def __init__(
        self,
        model: ModelName,
        /,
        *,
        query_column: str = "query",
        documents_column: str = "documents",
        settings: Mapping[str, Any] | None = None,
        output: str = "scores",
        prefix: str = "",
        parallel: int | None = None,
    ) -> None:
        settings = {"reranking": True, **(settings or {})}
        columns = (query_column, documents_column)
        super().__init__(model, columns=columns, settings=settings, output=output, prefix=prefix, parallel=parallel)

    def _row(self, model: LLM, cells: tuple[object, ...], cancel: Cancel) -> tuple[object, Mapping[str, object]]:
        query, documents = _text(cells[0], self._columns[0]), plain(cells[1])
        if not isinstance(documents, list) or not documents:
            raise TypeError(f"{self._columns[1]} is {documents!r:.200}, expected a list of texts")
        texts = [_text(document, f"{self._columns[1]}[{i}]") for i, document in enumerate(documents)]
        found = model.request_json("rerank", {"query": query, "documents": texts}, cancel=cancel)
        scores = {row["index"]: float(row["relevance_score"]) for row in found["results"]}
        return [scores[i] for i in range(len(texts))], {"prompt_tokens": found["usage"]["prompt_tokens"]}

    def _own_arguments(self) -> dict[str, Any]:
        query, documents = self._columns
        return {"query_column": query, "documents_column": documents}


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r:.200}, expected a text")
    return value


def _tokens(usage: Mapping[str, int]) -> dict[str, int]:
    return {name: usage[name] for name in TOKENS}
