"""Chats with the engine: forced calls and schemas with every template."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from cyllama._cancel import Cancel
from cyllama.errors import GrammarError, UnsupportedError
from cyllama.llama._common import json_schema_to_grammar
from cyllama.llama._errors import is_prefill_error
from cyllama.llama._forced_calls import CallForm, Form, TextForm, force_calls
from cyllama.llama._slots import hides_details, name_slot
from cyllama.llama._vector_calls import VectorCalls
from cyllama.llama.responses import ChatChunk, ChatCompletion
from cyllama.llama.streaming import ChatChunks, NextRequest, Stream, add_warning, drop_alternatives

__all__ = ["ChatEngine"]

T = TypeVar("T")
# A template with calls as JSON in <tool_call>, and none of these marks of other forms: upstream enforces such calls.
JSON_CALLS = "<tool_call>"
OTHER_CALLS = (
    "<function=",
    "<arg_key>",
    "<parameter",
    "<param ",
    "<invoke ",
    "DSML",
    "tool_list",
    "minimax",
    "tool_sep",
)
BOTH = "response_format together with tools is not supported by the model's chat template; set tool_choice"
FREE_TEXT = ("chat_format=llm-jp-harmony",)  # templates whose grammar allows any text before the schema


class ChatEngine(VectorCalls):
    """The requests of chats."""

    _caps: dict[str, bool]
    _head: dict[str, Any]
    _template: str  # the source of the chat template

    @functools.cached_property
    def _own_grammar(self) -> bool:
        """Whether schemas are enforced here; set when upstream's grammar does not accept the template's prompt."""
        return any(mark in self._template for mark in FREE_TEXT)

    @functools.cached_property
    def _enforces_calls(self) -> bool:
        return JSON_CALLS in self._template and not any(mark in self._template for mark in OTHER_CALLS)

    def _prepared_chat(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the request for upstream.

        Raises
        ------
        UnsupportedError
            The template does not support what is required.
        """
        if not body.get("tools"):
            return body
        if not self.supports("tools"):
            raise UnsupportedError(
                "the model's chat template does not support tool calling; load the model with a chat_template that does"
            )
        choice = body.get("tool_choice", "auto")
        if choice == "auto" and "json_schema" in body and not self._enforces_calls:
            raise UnsupportedError(BOTH)
        return force_calls(body) if choice == "required" and not self._enforces_calls else body

    def _check_rounds(self, body: Mapping[str, Any]) -> None:
        """Reject a schema that the template does not support in the rounds after the first one.

        Raises
        ------
        UnsupportedError
        """
        if body.get("tools") and "json_schema" in body and not self._enforces_calls:
            raise UnsupportedError(BOTH)

    def _chat_data(self, body: dict[str, Any], cancel: Cancel | None) -> dict[str, Any]:
        """Return the response to a chat request."""
        if int(body.get("n") or body.get("n_cmpl") or 1) > 1:  # only a stream has the usage of every choice
            return self._chat_stream(body, cancel, ChatCompletion).result().to_dict()

        def send(request: dict[str, Any], form: Form | None) -> dict[str, Any]:
            data: dict[str, Any] = self._json("chat_completions", request, cancel)
            name_slot(data, hide=hides_details(request))
            if body.get("top_logprobs") == 0:
                drop_alternatives(data["choices"])
            choices = data["choices"] if form is None else [form.read(choice) for choice in data["choices"]]
            for choice in choices:
                add_warning(choice, choice["message"].get("content") or "", body.get("json_schema"))
            return {**data, "choices": choices}

        return self._with_form(send, body)

    def _chat_stream(
        self,
        body: dict[str, Any],
        cancel: Cancel | None,
        make_result: Callable[[dict[str, Any]], ChatCompletion],
        next_request: NextRequest | None = None,
    ) -> Stream[ChatChunk, ChatCompletion]:
        """Return the stream of a chat request."""
        many = int(body.get("n") or body.get("n_cmpl") or 1) > 1
        options = {"stream_options": {"include_usage": True}} if many else {}

        def send(request: dict[str, Any], form: Form | None) -> Stream[ChatChunk, ChatCompletion]:
            forms = iter([form])  # of the first response; those after tool calls are free

            def make_chunks() -> ChatChunks:
                return ChatChunks(body, next(forms, None))

            sent = {**request, **options}
            return self._stream("chat_completions", sent, ChatChunk, cancel, make_result, make_chunks, next_request)

        return self._with_form(send, body)

    def _with_form(self, send: Callable[[dict[str, Any], Form | None], T], body: dict[str, Any]) -> T:
        """Send a request; enforce calls and schemas from the first token on where the template's parser does not."""
        if body.get("logprobs") and body.get("top_logprobs") == 0:
            body = {**body, "top_logprobs": 1}  # upstream returns none without alternatives
        if body.get("tools") and body.get("tool_choice") == "required":  # no text for a schema
            body = {name: value for name, value in body.items() if name != "json_schema"}
        sent = self._prepared_chat(body)
        if sent is not body:
            return send(sent, CallForm())
        is_forced = bool(body.get("tools")) and body.get("tool_choice") == "required"
        if not is_forced and "json_schema" not in body:
            return send(body, None)
        if not self._own_grammar:
            try:
                return send(body, None)
            except GrammarError as error:
                if not is_prefill_error(error):
                    raise
                self._own_grammar = True
        if is_forced:
            return send(force_calls(body), CallForm())
        if body.get("tools") and body.get("tool_choice", "auto") == "auto":
            raise UnsupportedError(BOTH)
        plain = {name: value for name, value in body.items() if name != "json_schema"}
        return send({**plain, "grammar": json_schema_to_grammar(body["json_schema"])}, TextForm())

    def supports(self, what: str) -> bool:
        """Return whether the model and its chat template support a feature.

        Parameters
        ----------
        what : str
            ``"vision"``, ``"audio"``, ``"tools"``, ``"tool_calls"``, ``"parallel_tool_calls"``, ``"system_role"``,
            ``"typed_content"``, ...

        Raises
        ------
        ValueError
            Upstream does not report the feature; the message names those that it reports.
        """
        name = f"supports_{what}"
        if name not in self._caps:
            known = sorted(name.removeprefix("supports_") for name in self._caps)
            raise ValueError(f"what is {what!r}, expected one of {', '.join(known)}")
        return bool(self._caps[name])
