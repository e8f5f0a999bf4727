"""LangChain models whose responses are objects of a schema."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from operator import itemgetter
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import BaseOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

__all__ = ["bind_schema"]


def bind_schema(
    model: BaseChatModel,
    schema: dict[str, Any] | type,
    *,
    include_raw: bool,
    method: str,
    strict: bool | None,
    **kwargs: Any,
) -> Runnable[Any, Any]:
    """Return a model with a schema; parameters as of `ChatCyllama.with_structured_output`.

    Raises
    ------
    ValueError
        The method does not exist, or it has no `strict`.
    """
    classes: list[Any] = [schema] if inspect.isclass(schema) and is_basemodel_subclass(schema) else []
    traced = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
    parser: BaseOutputParser[Any] | Any
    bound: Runnable[Any, Any]
    if method == "function_calling":
        name = convert_to_openai_tool(schema)["function"]["name"]
        bound = model.bind_tools(
            [schema], tool_choice=name, strict=strict, parallel_tool_calls=False, ls_structured_output_format=traced,
            **kwargs,
        )  # fmt: skip
        if classes:
            parser = PydanticToolsParser(tools=classes, first_tool_only=True)
        else:
            parser = JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
    elif method in ("json_schema", "json_mode"):
        form: dict[str, Any] = {"type": "json_object"}
        if method == "json_schema":
            made = convert_to_json_schema(schema, strict=strict)
            form = {"type": "json_schema", "json_schema": {"name": made.get("title", "answer"), "schema": made}}
        elif strict is not None:
            raise ValueError(f"strict is {strict}, expected None: the method 'json_mode' has no schema")
        bound = model.bind(response_format=form, ls_structured_output_format=traced, **kwargs)
        parser = PydanticOutputParser(pydantic_object=classes[0]) if classes else JsonOutputParser()
    else:
        raise ValueError(f"method is {method!r}, expected 'json_schema', 'function_calling' or 'json_mode'")
    parser = RunnableGenerator(_check_end, _acheck_end) | parser
    if not include_raw:
        return bound | parser
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _whole(message: BaseMessage) -> BaseMessage:
    """Return a message that was not cut off: LangChain's parsers complete JSON without its end."""
    if message.response_metadata.get("finish_reason") == "length":
        raise OutputParserException("the response was cut off by max_tokens", llm_output=message.text)
    return message


def _check_end(messages: Iterator[BaseMessage]) -> Iterator[BaseMessage]:
    yield from map(_whole, messages)


async def _acheck_end(messages: AsyncIterator[BaseMessage]) -> AsyncIterator[BaseMessage]:
    async for message in messages:
        yield _whole(message)
