"""The helpers of official clients with the text routes: streams, parsing, tools, accumulators."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import anthropic
import openai
import pytest
import requests
from anthropic import Anthropic
from openai import OpenAI
from pydantic import BaseModel, Field
from server.conftest import KEY
from server.running import Server

TOOL = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
QUESTION = "How is the weather in Rome?"


class City(BaseModel):
    name: Literal["Paris", "Rome"]
    population: Annotated[int, Field(ge=0, le=999)]


@pytest.fixture(scope="module")
def server(random_server: Server) -> Server:
    return random_server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def claude(server: Server) -> Iterator[Anthropic]:
    with Anthropic(base_url=server.url, api_key=KEY, max_retries=0) as found:
        yield found


# ---------------------------------------------------------------------------------------- responses


def test_response_has_the_fields_of_its_type(client: OpenAI) -> None:
    found = client.responses.create(model="plain", input="Say hello.", max_output_tokens=8, metadata={"a": "b"})
    assert found.model == "plain" and found.object == "response" and found.metadata == {"a": "b"}
    assert found.status == "incomplete" and found.incomplete_details is not None
    assert found.incomplete_details.reason == "max_output_tokens"
    assert found.usage is not None and found.usage.output_tokens == 8
    assert found.usage.total_tokens == found.usage.input_tokens + 8
    assert found.output_text


def test_response_stream_accumulates(client: OpenAI) -> None:
    fields: Any = {"model": "plain", "input": "Say hello.", "temperature": 0, "max_output_tokens": 32}
    plain = client.responses.create(**fields)
    cut = list(client.responses.create(**fields, stream=True))
    kinds = [event.type for event in cut]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds[-1] == "response.incomplete" and cut[-1].response.output_text == plain.output_text
    assert [event.sequence_number for event in cut] == list(range(len(cut)))
    stop = plain.output_text.split()[3]
    with client.responses.stream(**fields, extra_body={"stop": stop}) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert final.status == "completed" and final.output_text == "".join(deltas)
    assert plain.output_text.startswith(final.output_text) and final.output_text


def test_response_is_parsed(client: OpenAI) -> None:
    found = client.responses.parse(model="plain", input="Describe Rome.", text_format=City, max_output_tokens=100)
    assert isinstance(found.output_parsed, City)
    with client.responses.stream(
        model="plain", input="Describe Rome.", text_format=City, max_output_tokens=100
    ) as stream:
        assert isinstance(stream.get_final_response().output_parsed, City)


def test_response_calls_functions(client: OpenAI) -> None:
    tools: Any = [{"type": "function", "name": "weather", "parameters": TOOL, "strict": True, "description": None}]
    first = client.responses.create(
        model="tools", input=QUESTION, tools=tools, tool_choice="required", temperature=0, parallel_tool_calls=False
    )
    call = first.output[-1]
    assert call.type == "function_call" and json.loads(call.arguments)["city"] in ("Paris", "Rome")
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    after: Any = {"model": "tools", "tools": tools, "tool_choice": "none", "temperature": 0, "max_output_tokens": 24}
    question: Any = [{"role": "user", "content": QUESTION}]
    continued = client.responses.create(input=result, previous_response_id=first.id, **after)
    whole = client.responses.create(input=[*question, *first.output, *result], **after)
    assert continued.output_text == whole.output_text
    assert continued.previous_response_id == first.id
    with client.responses.stream(
        model="tools", input=QUESTION, tools=tools, tool_choice="required", parallel_tool_calls=False
    ) as stream:
        done = [event for event in stream if event.type == "response.function_call_arguments.done"]
        assert stream.get_final_response().output[-1].type == "function_call"
    assert done and json.loads(done[0].arguments)


def test_response_accepts_items_of_other_responses(client: OpenAI) -> None:
    items: Any = [
        {"role": "user", "content": "Hello"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": None},
        {"type": "reasoning", "id": "rs_2", "summary": [{"type": "summary_text", "text": "I greet."}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Hi", "annotations": []}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Again"}]},
    ]
    count = client.responses.input_tokens.count(model="plain", input=items).input_tokens
    found = client.responses.create(model="plain", input=items, max_output_tokens=1)
    assert found.usage is not None and found.usage.input_tokens == count
    assert count > client.responses.input_tokens.count(model="plain", input=items[:1]).input_tokens


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_0"}, "previous_response_id"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"reasoning": {"effort": 3}}, "reasoning.effort"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
    ],
)
def test_response_refuses_by_name(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.post("/responses", body={"model": "plain", "input": "x", **fields}, cast_to=dict)
    assert caught.value.status_code in (400, 404)
    assert caught.value.param == param


def test_response_not_stored_cannot_be_continued(client: OpenAI) -> None:
    first = client.responses.create(model="plain", input="Hello", max_output_tokens=2, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="plain", input="And?", previous_response_id=first.id)


def test_response_has_logprobs(client: OpenAI) -> None:
    found = client.responses.create(
        model="plain", input="Hello", max_output_tokens=3, temperature=0, top_logprobs=2,
        include=["message.output_text.logprobs"],
    )  # fmt: skip
    (part,) = found.output[0].content  # type: ignore[union-attr]
    assert len(part.logprobs) == 3 and all(len(row.top_logprobs) == 2 for row in part.logprobs)
    assert "".join(row.token for row in part.logprobs) == found.output_text


# ----------------------------------------------------------------------------------------- messages


def message(claude: Anthropic, **fields: Any) -> Any:
    given: dict[str, Any] = {"model": "tools", "max_tokens": 64, "extra_body": {"temperature": 0}}
    return claude.messages.create(messages=[{"role": "user", "content": QUESTION}], **{**given, **fields})


CLAUDE_TOOLS: Any = [
    {"name": "weather", "description": "The weather", "input_schema": TOOL},
    {"name": "time", "input_schema": {"type": "object", "properties": {}, "additionalProperties": False}},
]


def test_message_has_the_fields_of_its_type(claude: Anthropic) -> None:
    found = message(claude, model="plain", max_tokens=4, system=[{"type": "text", "text": "Be brief."}])
    assert (found.model, found.type, found.role, found.stop_reason) == ("plain", "message", "assistant", "max_tokens")
    assert found.usage.output_tokens == 4 and found.content[0].type == "text"


def test_message_reports_the_stop_sequence(claude: Anthropic) -> None:
    whole = message(claude, max_tokens=24).content[0].text
    word = whole.split()[3]
    found = message(claude, max_tokens=24, stop_sequences=["never-there", word])
    assert (found.stop_reason, found.stop_sequence) == ("stop_sequence", word)


@pytest.mark.parametrize("name", ["weather", "time"])
def test_message_calls_the_chosen_tool(claude: Anthropic, name: str) -> None:
    found = message(
        claude, tools=CLAUDE_TOOLS, tool_choice={"type": "tool", "name": name, "disable_parallel_tool_use": True}
    )
    calls = [block for block in found.content if block.type == "tool_use"]
    assert found.stop_reason == "tool_use" and {block.name for block in calls} == {name}


def test_message_stream_accumulates(claude: Anthropic) -> None:
    with claude.messages.stream(
        model="tools", max_tokens=64, messages=[{"role": "user", "content": QUESTION}], extra_body={"temperature": 0}
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    plain = message(claude)
    assert text == final.content[0].text == plain.content[0].text  # type: ignore[union-attr]
    assert final.usage.output_tokens == plain.usage.output_tokens
    assert final.usage.input_tokens + (final.usage.cache_read_input_tokens or 0) == (
        plain.usage.input_tokens + plain.usage.cache_read_input_tokens
    )
    with claude.messages.stream(
        model="tools", max_tokens=100, messages=[{"role": "user", "content": QUESTION}],
        tools=CLAUDE_TOOLS, tool_choice={"type": "any", "disable_parallel_tool_use": True},
    ) as stream:  # fmt: skip
        final = stream.get_final_message()
    (call,) = [block for block in final.content if block.type == "tool_use"]
    assert final.stop_reason == "tool_use" and isinstance(call.input, dict)


def test_message_continues_after_tools(claude: Anthropic) -> None:
    first = message(
        claude, tools=CLAUDE_TOOLS, tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
    )
    results: Any = [
        {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "sunny"}]}
        for block in first.content
        if block.type == "tool_use"
    ]
    history: Any = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": first.content}]
    history.append({"role": "user", "content": results})
    counted = claude.messages.count_tokens(model="tools", messages=history, tools=CLAUDE_TOOLS)
    found = claude.messages.create(model="tools", messages=history, tools=CLAUDE_TOOLS, max_tokens=8)
    assert found.usage.input_tokens + (found.usage.cache_read_input_tokens or 0) == counted.input_tokens


def test_message_thinking_is_an_option_of_the_template(claude: Anthropic) -> None:
    for thinking in ({"type": "disabled"}, {"type": "enabled", "budget_tokens": 1024}, {"type": "adaptive"}):
        assert message(claude, max_tokens=4, thinking=thinking).content


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"mcp_servers": []}, "mcp_servers"),
        ({"n": 2}, "n"),
        ({"tool_choice": {"type": "tool"}, "tools": CLAUDE_TOOLS}, "tool_choice.name"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages[0].content[0]"),
        ({"max_tokens": "5"}, "max_tokens"),
    ],
)
def test_message_refuses_by_name(claude: Anthropic, fields: dict[str, Any], param: str) -> None:
    body = {"model": "tools", "max_tokens": 4, "messages": [{"role": "user", "content": "x"}], **fields}
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.post("/v1/messages", body=body, cast_to=dict)
    assert caught.value.body["error"]["param"] == param  # type: ignore[index]


def test_message_refuses_images_without_a_projector(claude: Anthropic) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(b"\x89PNG").decode()}
    content: Any = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.create(model="tools", max_tokens=4, messages=[{"role": "user", "content": content}])


class Place(BaseModel):
    name: Literal["Paris", "Rome"]
    population: int


def test_message_has_a_schema(claude: Anthropic) -> None:
    """Of a type without bounds, which this client does not send."""
    found = claude.messages.parse(
        model="plain", max_tokens=100, messages=[{"role": "user", "content": "Describe Rome."}], output_format=Place
    )
    assert isinstance(found.parsed_output, Place)


def test_every_protocol_warns_of_a_broken_rule(client: OpenAI, claude: Anthropic) -> None:
    schema: Any = {"type": "object", "properties": {"a": {"type": "number", "minimum": 1e9}}, "required": ["a"]}
    messages: Any = [{"role": "user", "content": "Hello"}]
    fields: Any = {"model": "plain", "temperature": 0}
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    chat = client.chat.completions.create(messages=messages, response_format=form, max_tokens=80, **fields)
    text: Any = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    response = client.responses.create(input="Hello", text=text, max_output_tokens=80, **fields)
    with client.responses.stream(input="Hello", text=text, max_output_tokens=80, **fields) as events:
        streamed = events.get_final_response()
    how: Any = {"output_config": {"format": {"type": "json_schema", "schema": schema}}, "max_tokens": 80}
    message = claude.messages.create(messages=messages, model="plain", extra_body={"temperature": 0}, **how)
    for found in (chat.choices[0], response, streamed, message):
        assert found.warning[:2] == "a "  # type: ignore[union-attr]


# -------------------------------------------------------------------------------------- completions


def test_completion_has_its_own_logprobs(client: OpenAI) -> None:
    found = client.completions.create(
        model="plain", prompt="The capital of France is", max_tokens=4, temperature=0, logprobs=2
    )
    choice = found.choices[0]
    logprobs = choice.logprobs
    assert logprobs is not None and logprobs.tokens is not None and logprobs.token_logprobs is not None
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == 4
    assert "".join(logprobs.tokens) == choice.text
    assert logprobs.text_offset == [len("".join(logprobs.tokens[:i])) for i in range(4)]
    assert logprobs.top_logprobs is not None
    for token, value, tops in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        assert len(tops) == 2 and tops[token] == pytest.approx(value) and value <= 0
    streamed = list(client.completions.create(
        model="plain", prompt="The capital of France is", max_tokens=4, temperature=0, logprobs=2, stream=True
    ))  # fmt: skip
    rows = [chunk.choices[0].logprobs for chunk in streamed if chunk.choices and chunk.choices[0].logprobs]
    assert [token for row in rows for token in row.tokens or ()] == logprobs.tokens
    assert [offset for row in rows for offset in row.text_offset or ()] == logprobs.text_offset


def test_completion_continues_several_prompts(client: OpenAI) -> None:
    prompts = ["The capital of France is", "The capital of Italy is"]
    each = [client.completions.create(model="tools", prompt=p, max_tokens=4, temperature=0) for p in prompts]
    both = client.completions.create(model="tools", prompt=prompts, max_tokens=4, temperature=0, n=1)
    assert [choice.text for choice in both.choices] == [found.choices[0].text for found in each]
    assert [choice.index for choice in both.choices] == [0, 1]
    assert both.usage is not None
    assert both.usage.completion_tokens == sum(found.usage.completion_tokens for found in each if found.usage)
    assert both.usage.prompt_tokens == sum(found.usage.prompt_tokens for found in each if found.usage)


def test_completion_counts_every_choice(client: OpenAI) -> None:
    fields: Any = {"model": "plain", "prompt": ["Once", "Twice"], "n": 2, "max_tokens": 3, "temperature": 1, "seed": 1}
    found = client.completions.create(**fields)
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    assert found.usage is not None and found.usage.completion_tokens == 12
    one = client.completions.create(model="plain", prompt=["Once", "Twice"], max_tokens=3)
    assert one.usage is not None and found.usage.prompt_tokens == one.usage.prompt_tokens
    chunks = list(client.completions.create(**fields, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage == found.usage or chunks[-1].usage.completion_tokens == 12  # type: ignore[union-attr]


def test_completion_echoes_the_prompt(client: OpenAI, server: Server, key: dict[str, str]) -> None:
    plain = client.completions.create(model="plain", prompt="One two", max_tokens=3, temperature=0).choices[0].text
    found = client.completions.create(model="plain", prompt="One two", max_tokens=3, temperature=0, echo=True)
    assert found.choices[0].text == "One two" + plain
    tokens = server.post("/tokenize", {"model": "plain", "content": "One two"}, headers=key).json()["tokens"]
    again = client.completions.create(model="plain", prompt=tokens, max_tokens=3, temperature=0, echo=True)
    assert again.choices[0].text.lstrip().startswith("One two")
    chunks = client.completions.create(
        model="plain", prompt="One two", max_tokens=3, temperature=0, echo=True, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == "One two" + plain


def test_completion_scores_the_prompt(client: OpenAI) -> None:
    fields: Any = {"model": "plain", "prompt": "One two 日本", "max_tokens": 0, "echo": True, "logprobs": 1}
    choice = client.completions.create(**fields).choices[0]
    logprobs: Any = choice.logprobs
    assert choice.text == "One two 日本" and logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:]) and logprobs.text_offset[0] == 0
    chunks = list(client.completions.create(**fields, stream=True))
    assert [chunk.choices[0].logprobs for chunk in chunks if chunk.choices] == [logprobs]
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{**fields, "logprobs": 21})
    assert caught.value.param == "logprobs"


def test_completion_returns_the_best(client: OpenAI) -> None:
    fields: Any = {
        "model": "plain",
        "prompt": "Once upon",
        "max_tokens": 6,
        "temperature": 1.5,
        "seed": 3,
        "logprobs": 1,
    }
    every = client.completions.create(**fields, n=4)

    def mean(choice: Any) -> float:
        values = choice.logprobs.token_logprobs
        return sum(values) / len(values)

    best = client.completions.create(**fields, n=1, best_of=4)
    assert best.choices[0].text == max(every.choices, key=mean).text
    assert best.usage is not None and every.usage is not None
    assert best.usage.completion_tokens == every.usage.completion_tokens
    for wrong in ({"n": 3, "best_of": 2}, {"best_of": 2, "stream": True}):
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(**fields, **wrong)
        assert caught.value.param == "best_of"


def test_completion_refuses_a_suffix_without_support(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"[Ii]nfill"):
        client.completions.create(model="plain", prompt="def f(", suffix="return 1", max_tokens=3)


# -------------------------------------------------------------------------------------------- chats


def test_chat_is_parsed(client: OpenAI) -> None:
    found = client.chat.completions.parse(
        model="plain", messages=[{"role": "user", "content": "Describe Rome."}], response_format=City, max_tokens=100
    )
    assert isinstance(found.choices[0].message.parsed, City)
    with client.chat.completions.stream(
        model="plain", messages=[{"role": "user", "content": "Describe Rome."}], response_format=City, max_tokens=100
    ) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, City)


def test_chat_counts_every_choice(client: OpenAI) -> None:
    fields: Any = {"model": "plain", "messages": [{"role": "user", "content": "Hi"}], "n": 3, "max_tokens": 4}
    found = client.chat.completions.create(**fields, seed=1)
    assert [choice.index for choice in found.choices] == [0, 1, 2] and found.usage is not None
    assert found.usage.completion_tokens == 12
    chunks = list(client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}))
    (usage,) = [chunk.usage for chunk in chunks if chunk.usage]
    assert usage.completion_tokens == 12 and usage.prompt_tokens == found.usage.prompt_tokens
    silent = list(client.chat.completions.create(**fields, stream=True))
    assert not [chunk for chunk in silent if chunk.usage or not chunk.choices]


def test_chat_accepts_nulls_and_allowed_tools(client: OpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": name, "description": None, "parameters": TOOL, "strict": None}}
                  for name in ("weather", "other")]  # fmt: skip
    call = {"id": None, "type": "function", "function": {"name": "weather", "arguments": ""}}
    messages: Any = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "audio": None},
        {"role": "tool", "tool_call_id": "x", "content": "sunny"},
        {"role": "user", "content": QUESTION},
    ]
    allowed: Any = {"mode": "required", "tools": [{"type": "function", "function": {"name": "other"}}]}
    found = client.chat.completions.create(
        model="tools", messages=messages, tools=tools, max_tokens=100, temperature=None, stop=None,
        tool_choice={"type": "allowed_tools", "allowed_tools": allowed},
    )  # fmt: skip
    assert {c.function.name for c in found.choices[0].message.tool_calls or ()} == {"other"}  # type: ignore[union-attr]


def post(client: OpenAI, path: str, body: dict[str, Any]) -> Any:
    """Send a body that the client's methods would change."""
    headers = {"Authorization": f"Bearer {client.api_key}"}
    response = requests.post(f"{client.base_url}{path}", json=body, headers=headers, timeout=120)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("form", ["json_object", {"type": "json_object"}, {"type": "json_schema", "schema": TOOL},
                                  {"type": "json_object", "schema": TOOL}])  # fmt: skip
def test_chat_accepts_every_form_of_schema(client: OpenAI, form: Any) -> None:
    body = {"model": "plain", "messages": [{"role": "user", "content": "A city?"}], "max_tokens": 200, "temperature": 0}
    found = post(client, "chat/completions", {**body, "response_format": form})
    choice = found["choices"][0]
    assert choice["message"]["content"].lstrip().startswith("{")
    if not isinstance(form, str) and "schema" in form:
        assert json.loads(choice["message"]["content"])["city"] in ("Paris", "Rome")


# --------------------------------------------------------------------------------------- embeddings


def test_embeddings_have_the_wanted_dimensions(client: OpenAI) -> None:
    whole = client.embeddings.create(model="minilm", input="a cat").data[0].embedding
    short = client.embeddings.create(model="minilm", input=["a cat", "a dog"], dimensions=16).data
    assert [len(row.embedding) for row in short] == [16, 16] and len(whole) == 384
    length = sum(value * value for value in whole[:16]) ** 0.5
    assert short[0].embedding == pytest.approx([value / length for value in whole[:16]], abs=1e-4)
    plain = post(client, "embeddings", {"model": "minilm", "input": "a cat", "encoding_format": None})
    assert plain["data"][0]["embedding"] == pytest.approx(whole, abs=1e-6) and plain["model"] == "minilm"


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"input": []}, "input"), ({"input": ""}, "input"), ({"input": ["a", ""]}, "input"), ({}, "input"),
     ({"input": "a", "dimensions": 385}, "dimensions"), ({"input": "a", "dimensions": 0}, "dimensions"),
     ({"input": "a", "encoding_format": "int8"}, "encoding_format")],
)  # fmt: skip
def test_embeddings_refuse_by_name(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/embeddings", body={"model": "minilm", **fields}, cast_to=dict)
    assert caught.value.param == param


def test_models_of_another_task_are_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="reranking"):
        client.embeddings.create(model="reranker", input="a cat")
    with pytest.raises(openai.BadRequestError, match="embedding"):
        client.embeddings.create(model="plain", input="a cat")
    with pytest.raises(openai.BadRequestError, match="reranking"):
        client.post("/rerank", body={"model": "plain", "query": "a", "documents": ["b"]}, cast_to=dict)


def test_reranks_in_two_forms(server: Server, key: dict[str, str]) -> None:
    body = {"model": "reranker", "query": "cat", "documents": ["a cat", {"text": "a dog"}], "return_documents": True}
    found = server.post("/v1/rerank", body, headers=key).json()
    assert {row["document"]["text"] for row in found["results"]} == {"a cat", "a dog"} and found["model"] == "reranker"
    body = {"model": "reranker", "query": "cat", "texts": ["a cat", "a dog"], "return_text": True}
    rows = server.post("/rerank", body, headers=key).json()
    assert {row["text"] for row in rows} == {"a cat", "a dog"} and all("score" in row for row in rows)
