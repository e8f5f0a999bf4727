"""Other clients of the text routes: litellm, instructor and pydantic-ai."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import pytest
from anthropic import Anthropic
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
def litellm(server: Server) -> dict[str, Any]:
    script = Path(__file__).with_name("litellm_requests.py")
    command = [sys.executable, "-W", "ignore", script, server.url, KEY]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    responses: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return responses


def test_litellm_completes_and_streams(litellm: dict[str, Any]) -> None:
    (choice,) = litellm["chat"]["choices"]
    assert litellm["chat"]["usage"]["completion_tokens"] == 8 and choice["finish_reason"] == "length"
    (streamed,) = litellm["stream"]["choices"]
    assert streamed["message"]["content"] == choice["message"]["content"]


def test_litellm_uses_the_messages_route(litellm: dict[str, Any]) -> None:
    (call,) = litellm["messages"]["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"])["city"] in ("Paris", "Rome")


def test_litellm_embeds(litellm: dict[str, Any]) -> None:
    assert len(litellm["embedding"]["data"][0]["embedding"]) == 384


# --------------------------------------------------------------------------------------- instructor


# All modes of instructor's clients for OpenAI and for Anthropic, and whether the server enforces the result: the others
# only ask for it in the prompt, so they need a model that obeys. Here they must be valid requests.
MODES = {
    "TOOLS": True,
    "TOOLS_STRICT": True,
    "JSON_SCHEMA": True,
    "RESPONSES_TOOLS": True,
    "RESPONSES_TOOLS_WITH_INBUILT_TOOLS": True,
    "JSON": False,
    "JSON_O1": False,
    "MD_JSON": False,
    "FUNCTIONS": False,
    "PARALLEL_TOOLS": False,
    "ANTHROPIC_TOOLS": True,
    "ANTHROPIC_REASONING_TOOLS": False,
    "ANTHROPIC_JSON": False,
    "ANTHROPIC_PARALLEL_TOOLS": False,
}


def instructor_client(name: str, url: str) -> Any:
    import instructor

    mode = instructor.Mode[name]
    if name.startswith("ANTHROPIC"):
        return instructor.from_anthropic(Anthropic(base_url=url, api_key=KEY, max_retries=0), mode=mode)
    return instructor.from_openai(OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0), mode=mode)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODES)
def test_instructor_parses(server: Server, name: str) -> None:
    kind: Any = Iterable[City] if name == "ANTHROPIC_PARALLEL_TOOLS" else City
    kind = list[City] if name == "PARALLEL_TOOLS" else kind
    fields: dict[str, Any] = {"model": "tools", "messages": QUESTION, "max_retries": 1, "max_tokens": 200}
    if not name.startswith("ANTHROPIC"):
        fields["temperature"] = 0  # random weights: the same text each time
        if MODES[name] and "TOOLS" in name:
            fields["parallel_tool_calls"] = False
    client = instructor_client(name, server.url)
    try:
        found = client.chat.completions.create(response_model=kind, **fields)
    except Exception as error:
        assert not MODES[name] and "BadRequest" not in repr(error), error
    else:
        assert isinstance(found, City) or not MODES[name]
    finally:
        client.client.close()


# -------------------------------------------------------------------------------------- pydantic-ai


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", ["chat", "responses"])
def test_pydantic_ai_runs_agents(server: Server, protocol: str) -> None:
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    kind: Any = OpenAIChatModel if protocol == "chat" else OpenAIResponsesModel

    async def run() -> None:
        async with httpx.AsyncClient(timeout=120) as http:  # its own would stay open
            provider = OpenAIProvider(base_url=f"{server.url}/v1", api_key=KEY, http_client=http)
            plain, tools = kind("plain", provider=provider), kind("tools", provider=provider)
            settings: Any = {"max_tokens": 16, "temperature": 0.0}
            found = await Agent(plain, instructions="Be brief.").run("Hello", model_settings=settings)
            assert found.output
            settings = {"max_tokens": 300, "temperature": 0.0, "parallel_tool_calls": False}
            for output in (City, NativeOutput(City)):
                agent: Any = Agent(tools, output_type=output)
                assert isinstance((await agent.run("Describe Rome.", model_settings=settings)).output, City)

    asyncio.run(run())
