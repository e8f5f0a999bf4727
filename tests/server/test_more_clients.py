"""Other clients of the text routes: litellm, instructor and pydantic-ai."""

from __future__ import annotations

import warnings
from typing import Annotated, Any, Literal

import pytest
from openai import OpenAI
from pydantic import BaseModel, Field
from server.conftest import KEY
from server.running import Server

QUESTION: Any = [{"role": "user", "content": "How is the weather in Rome?"}]


class City(BaseModel):
    """A city."""

    name: Literal["Paris", "Rome"]
    population: Annotated[int, Field(ge=0, le=999)]


@pytest.fixture(scope="module")
def server(random_server: Server) -> Server:
    return random_server


# ------------------------------------------------------------------------------------------ litellm


@pytest.fixture(scope="module")
def litellm() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import litellm
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    return litellm


@pytest.mark.filterwarnings("ignore")
def test_litellm_completes_and_streams(litellm: Any, server: Server) -> None:
    fields: dict[str, Any] = {"api_base": f"{server.url}/v1", "api_key": KEY, "max_tokens": 8, "temperature": 0}
    found = litellm.completion(model="openai/plain", messages=QUESTION, **fields)
    assert found.usage.completion_tokens == 8 and found.choices[0].finish_reason == "length"
    chunks = list(litellm.completion(model="openai/plain", messages=QUESTION, stream=True, **fields))
    whole = litellm.stream_chunk_builder(chunks)
    assert whole.choices[0].message.content == found.choices[0].message.content


@pytest.mark.filterwarnings("ignore")
def test_litellm_uses_the_messages_route(litellm: Any, server: Server) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": City.model_json_schema()}}]
    found = litellm.completion(
        model="anthropic/tools", messages=QUESTION, api_base=server.url, api_key=KEY, max_tokens=100, tools=tools,
        tool_choice={"type": "function", "function": {"name": "weather"}}, parallel_tool_calls=False,
    )  # fmt: skip
    (call,) = found.choices[0].message.tool_calls
    assert City.model_validate_json(call.function.arguments)


@pytest.mark.filterwarnings("ignore")
def test_litellm_embeds(litellm: Any, server: Server) -> None:
    found = litellm.embedding(
        model="openai/minilm", input=["a cat"], api_base=f"{server.url}/v1", api_key=KEY, encoding_format=None
    )
    assert len(found.data[0]["embedding"]) == 384


# --------------------------------------------------------------------------------------- instructor


MODES = ("TOOLS", "TOOLS_STRICT", "JSON", "MD_JSON", "JSON_SCHEMA", "PARALLEL_TOOLS", "RESPONSES_TOOLS")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODES)
def test_instructor_parses(server: Server, name: str) -> None:
    """Modes that only ask for JSON in the prompt need a model that obeys; here they must be valid requests."""
    import instructor

    if not hasattr(instructor.Mode, name):
        assert name not in [mode.name for mode in instructor.Mode]
        return
    mode = instructor.Mode[name]
    kind: Any = City
    with OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as plain:
        client = instructor.from_openai(plain, mode=mode)
        fields: dict[str, Any] = {"model": "tools", "messages": QUESTION, "max_retries": 1, "max_tokens": 200}
        if name in ("JSON", "MD_JSON", "PARALLEL_TOOLS"):
            kind = list[City] if name == "PARALLEL_TOOLS" else City
            try:
                client.chat.completions.create(response_model=kind, **fields)
            except Exception as error:
                assert "BadRequest" not in repr(error), error
            return
        if "TOOLS" in name:
            fields["parallel_tool_calls"] = False
        found = client.chat.completions.create(response_model=kind, **fields)
        assert isinstance(found, City)


# -------------------------------------------------------------------------------------- pydantic-ai


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", ["chat", "responses"])
def test_pydantic_ai_runs_agents(server: Server, protocol: str) -> None:
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{server.url}/v1", api_key=KEY)
    kind: Any = OpenAIChatModel if protocol == "chat" else OpenAIResponsesModel
    plain, tools = kind("plain", provider=provider), kind("tools", provider=provider)
    settings: Any = {"max_tokens": 16}
    found = Agent(plain, instructions="Be brief.").run_sync("Hello", model_settings=settings)
    assert found.output
    settings = {"max_tokens": 300, "parallel_tool_calls": False}
    for output in (City, NativeOutput(City)):
        agent: Any = Agent(tools, output_type=output)
        assert isinstance(agent.run_sync("Describe Rome.", model_settings=settings).output, City)
