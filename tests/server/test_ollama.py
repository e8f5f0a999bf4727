"""Ollama's protocol, with its official client."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ollama
import pytest
import requests
from PIL import Image, ImageDraw
from server.conftest import KEY, png
from server.running import Server, running_server

from cyllama.server import ModelEntry, ServerConfig
from cyllama.server.routes._ollama_requests import (
    CHAT_FIELDS,
    EMBED_FIELDS,
    EMBEDDINGS_FIELDS,
    GENERATE_FIELDS,
    LOAD_OPTIONS,
    SAMPLING_OPTIONS,
    UNSUPPORTED_OPTIONS,
    parse_chat,
    parse_generate,
    parse_keep_alive,
)
from cyllama.server.routes.ollama import _chat_part

FRANCE = [{"role": "user", "content": "Please tell me the capital of France."}]
GREEDY = {"temperature": 0, "num_predict": 12}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ENTRY = ModelEntry(name="smol", kind="llm", model="smollm2-135m-instruct")
CONFIG = ServerConfig(models=[ENTRY])


@pytest.fixture(scope="module")
def api(server: Server) -> Iterator[ollama.Client]:
    with ollama.Client(host=server.url, headers={"Authorization": f"Bearer {KEY}"}) as found:
        yield found


def rejected(api: ollama.Client, name: str, **fields: Any) -> str:
    """Send a request that is rejected with status 400, and return the message."""
    with pytest.raises(ollama.ResponseError) as caught:
        getattr(api, name)(**fields)
    assert caught.value.status_code == 400
    return str(caught.value.error)


# ---------------------------------------------------------------------------------------------- chat


def test_chat_responds_with_counts_and_durations(api: ollama.Client) -> None:
    response = api.chat("smol", FRANCE, options=GREEDY)
    assert response.message.role == "assistant" and "Paris" in str(response.message.content)
    assert response.done and response.done_reason in ("stop", "length") and response.model == "smol"
    assert response.prompt_eval_count > 10 and 0 < response.eval_count <= 12
    for name in ("total_duration", "prompt_eval_duration", "eval_duration"):
        assert isinstance(response[name], int) and response[name] > 0
    assert response.total_duration >= response.eval_duration
    assert response.created_at.endswith("Z")


def test_chat_streams_lines_with_the_same_text(server: Server, api: ollama.Client) -> None:
    whole = api.chat("smol", FRANCE, options=GREEDY)
    parts = list(api.chat("smol", FRANCE, options=GREEDY, stream=True))
    assert "".join(part.message.content for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts) > 3 and parts[-1].eval_count == whole.eval_count and parts[0].eval_count is None
    body = {"model": "smol", "messages": FRANCE, "options": GREEDY}  # a stream is the default
    response = server.post("/api/chat", body, headers={"Authorization": f"Bearer {KEY}"})
    assert response.headers["content-type"] == "application/x-ndjson"
    assert len([json.loads(line) for line in response.text.splitlines()]) == len(parts)


def test_name_may_end_with_latest(api: ollama.Client) -> None:
    assert "Paris" in str(api.chat("smol:latest", FRANCE, options=GREEDY).message.content)


def test_chat_remembers_messages_and_system(api: ollama.Client) -> None:
    messages = [{"role": "system", "content": "You are a pirate."}, *FRANCE]
    assert (
        api.chat("smol", messages, options=GREEDY).prompt_eval_count
        != api.chat("smol", FRANCE, options=GREEDY).prompt_eval_count
    )


def test_chat_with_a_schema_responds_with_json(api: ollama.Client) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    options = {"temperature": 0, "num_predict": 64}
    whole = api.chat("smol", FRANCE, format=schema, options=options)
    assert json.loads(whole.message.content)["city"] in ("Paris", "Rome")
    streamed = "".join(
        part.message.content for part in api.chat("smol", FRANCE, format=schema, options=options, stream=True)
    )
    assert json.loads(streamed) == json.loads(whole.message.content)
    generated = api.generate("smol", "The capital of France as JSON", format=schema, options=options)
    assert set(json.loads(generated.response)) == {"city"}


def test_chat_warns_of_a_broken_rule(server: Server, key: dict[str, str]) -> None:
    """A grammar cannot enforce this minimum."""
    schema = {"type": "object", "properties": {"a": {"type": "number", "minimum": 1e300}}, "required": ["a"]}
    body = {"model": "smol", "messages": FRANCE, "format": schema, "options": {"temperature": 0, "num_predict": 64}}
    for stream in (False, True):
        lines = server.post("/api/chat", {**body, "stream": stream}, headers=key).text.splitlines()
        assert json.loads(lines[-1])["warning"].startswith("a ")


def test_chat_with_the_format_json_begins_with_an_object(api: ollama.Client) -> None:
    content = api.chat("smol", FRANCE, format="json", options={"temperature": 0, "num_predict": 24}).message.content
    assert content.lstrip().startswith("{")


def test_chat_with_tools_adds_them_to_the_prompt(api: ollama.Client) -> None:
    plain = api.chat("tools", FRANCE, options=GREEDY).prompt_eval_count
    with_tools = api.chat("tools", FRANCE, tools=[WEATHER], options=GREEDY).prompt_eval_count
    assert with_tools > plain + 50
    calls = [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}]
    history = [
        *FRANCE,
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_name": "get_weather", "content": "21 degrees"},
    ]
    assert api.chat("tools", history, tools=[WEATHER], options=GREEDY).prompt_eval_count > with_tools + 10
    assert "does not support tool calling" in rejected(api, "chat", model="smol", messages=FRANCE, tools=[WEATHER])


def test_chat_returns_tool_calls_with_arguments_as_objects(api: ollama.Client) -> None:
    """The model repeats the pattern of the messages before."""
    messages: list[dict[str, Any]] = []
    for city in ("Rome", "Oslo", "Madrid", "Berlin"):
        call = {"function": {"name": "get_weather", "arguments": {"city": city}}}
        messages += [
            {"role": "user", "content": f"What is the weather in {city}?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_name": "get_weather", "content": "sunny"},
            {"role": "assistant", "content": "It is sunny."},
        ]
    messages.append({"role": "user", "content": "What is the weather in Paris?"})
    options = {"temperature": 0, "num_predict": 64}
    response = api.chat("tools", messages, tools=[WEATHER], options=options)
    (found,) = response.message.tool_calls
    assert (found.function.name, found.function.arguments) == ("get_weather", {"city": "Paris"})
    assert response.done_reason == "stop"
    parts = list(api.chat("tools", messages, tools=[WEATHER], options=options, stream=True))
    (streamed,) = [call for part in parts for call in part.message.tool_calls or ()]
    assert streamed == found and parts[-1].done


def test_parts_have_text_thinking_and_log_probabilities() -> None:
    calls: dict[int, dict[str, str]] = {}
    logprobs = [{"token": "a", "logprob": -1.0}]
    choice = {"delta": {"content": "a", "reasoning_content": "hm"}, "logprobs": {"content": logprobs}}
    assert _chat_part(choice, calls) == {"content": "a", "thinking": "hm", "logprobs": logprobs}
    assert _chat_part({"delta": {"content": None}}, calls) == {} and not calls


def test_chat_accepts_functions_as_tools(api: ollama.Client) -> None:
    def add(a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: The first number.
            b: The second number.
        """
        return a + b

    assert api.chat("tools", FRANCE, tools=[add], options=GREEDY).done


def test_chat_returns_log_probabilities(api: ollama.Client) -> None:
    options = {"temperature": 0, "num_predict": 3}
    response = api.chat("smol", FRANCE, logprobs=True, top_logprobs=2, options=options)
    assert len(response.logprobs) == 3
    assert all(item.logprob <= 0 and len(item.top_logprobs) == 2 for item in response.logprobs)
    assert "logprobs" in rejected(api, "chat", model="smol", messages=FRANCE, top_logprobs=2)


def test_tool_calls_get_ids_that_their_results_name() -> None:
    calls = [{"function": {"name": name, "arguments": {"x": 1}}} for name in ("one", "two")]
    results = [{"role": "tool", "tool_name": name, "content": name} for name in ("two", "one")]
    request = parse_chat({"messages": [{"role": "assistant", "tool_calls": calls}, *results]}, ENTRY, CONFIG)
    assistant, two, one = request.messages or []
    assert [call["function"]["arguments"] for call in assistant["tool_calls"]] == ['{"x": 1}'] * 2
    assert [two["tool_call_id"], one["tool_call_id"]] == [assistant["tool_calls"][n]["id"] for n in (1, 0)]


def test_thinking_is_refused_by_a_model_without_it(api: ollama.Client) -> None:
    assert "think" in rejected(api, "chat", model="smol", messages=FRANCE, think=True)
    assert "think" in rejected(api, "chat", model="smol", messages=FRANCE, think="high")
    assert "Paris" in str(api.chat("smol", FRANCE, think=False, options=GREEDY).message.content)


def test_images_are_refused_by_a_model_without_a_projector(api: ollama.Client) -> None:
    message = {"role": "user", "content": "What is this?", "images": [png()]}
    assert "image" in rejected(api, "chat", model="smol", messages=[message])
    damaged = {**message, "images": [base64.b64encode(b"nonsense").decode()]}
    assert "images[0]" in rejected(api, "chat", model="smol", messages=[damaged])


def test_chat_describes_an_image(tmp_path: Path) -> None:
    image = Image.new("RGB", (224, 224), "white")
    ImageDraw.Draw(image).ellipse((60, 60, 164, 164), "red")
    image.save(tmp_path / "circle.png")
    config = tmp_path / "models.toml"
    config.write_text('[models.eyes]\nmodel = "smollm2-135m-instruct"\nmmproj = "vision-dinov2s"\nn_ctx = 2048\n')
    question, options = "What is in this picture?", {"temperature": 0, "num_predict": 24}
    with running_server("--config", config) as server, ollama.Client(host=server.url) as client:
        assert "vision" in client.show("eyes").capabilities
        message = {"role": "user", "content": question, "images": [tmp_path / "circle.png"]}
        text = client.chat("eyes", [message], options=options).message.content
        assert "circle" in text and "red" in text
        generated = client.generate("eyes", question, images=[(tmp_path / "circle.png").read_bytes()], options=options)
        assert generated.response == text


# ------------------------------------------------------------------------------------------ generate


def test_generate_uses_the_chat_template(api: ollama.Client) -> None:
    response = api.generate("smol", FRANCE[0]["content"], options=GREEDY)
    assert "Paris" in response.response and response.prompt_eval_count > 10
    parts = list(api.generate("smol", FRANCE[0]["content"], options=GREEDY, stream=True))
    assert "".join(part.response for part in parts) == response.response and parts[-1].done


def test_generate_with_raw_continues_the_text(api: ollama.Client) -> None:
    response = api.generate("smol", "The capital of France is", raw=True, options={"temperature": 0, "num_predict": 4})
    assert response.response.strip().startswith("Paris") and response.prompt_eval_count <= 6
    assert "raw" in rejected(api, "generate", model="smol", prompt="x", raw=True, system="y")


def test_generate_uses_the_system_message(api: ollama.Client) -> None:
    plain = api.generate("smol", "Hi", options=GREEDY)
    assert api.generate("smol", "Hi", system="You are a pirate.", options=GREEDY).prompt_eval_count != (
        plain.prompt_eval_count
    )


def test_generate_with_a_suffix_needs_a_model_for_infilling(api: ollama.Client) -> None:
    assert rejected(api, "generate", model="smol", prompt="def f():", suffix="return 1")


@pytest.mark.parametrize(("field", "value"), [("template", "{{ .Prompt }}"), ("context", [1, 2])])
def test_generate_refuses_what_it_does_not_support(api: ollama.Client, field: str, value: Any) -> None:
    assert field in rejected(api, "generate", model="smol", prompt="x", **{field: value})


def test_empty_requests_load_and_unload(api: ollama.Client) -> None:
    assert api.generate("tiny", "").done_reason == "load"
    assert "tiny" in [model.name for model in api.ps().models]
    assert api.chat("tiny", []).done_reason == "load"
    assert api.generate("tiny", "", keep_alive=0).done_reason == "unload"
    assert "tiny" not in [model.name for model in api.ps().models]


# ------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({"temperature": 1.5, "seed": 1}, False),
        ({"top_k": 1}, True),
        ({"top_p": 1e-6}, True),
        ({"min_p": 1.0}, True),
        ({"temperature": 0, "repeat_penalty": 3.0, "repeat_last_n": 64}, False),
        ({"temperature": 0, "presence_penalty": 30.0}, False),
        ({"temperature": 0, "frequency_penalty": 30.0}, False),
        ({"temperature": 0, "stop": [" the"]}, False),
        ({"temperature": 1.0, "seed": 1, "mirostat": 2, "mirostat_tau": 9.0, "mirostat_eta": 0.5}, False),
    ],
)
def test_options_have_an_effect(api: ollama.Client, options: dict[str, Any], same: bool) -> None:
    messages = [{"role": "user", "content": "Write a story about the sea and the king."}]
    more = {"num_predict": 24}
    greedy = api.chat("smol", messages, options={"temperature": 0, **more}).message.content
    found = api.chat("smol", messages, options={**more, "seed": 3, **options}).message.content
    assert (found == greedy) == same


def test_seed_repeats_the_text(api: ollama.Client) -> None:
    options = {"temperature": 1.5, "num_predict": 16}
    texts = [api.chat("smol", FRANCE, options={**options, "seed": seed}).message.content for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_num_predict_limits_the_text(api: ollama.Client) -> None:
    response = api.chat("smol", FRANCE, options={"num_predict": 3})
    assert response.eval_count == 3 and response.done_reason == "length"
    assert "num_predict" in rejected(api, "chat", model="smol", messages=FRANCE, options={"num_predict": -2})


def test_num_ctx_limits_prompt_and_text(api: ollama.Client) -> None:
    count = api.chat("tiny", FRANCE, options={"num_predict": 1}).prompt_eval_count
    response = api.chat("tiny", FRANCE, options={"num_ctx": count + 5, "temperature": 0})
    assert response.eval_count <= 5
    assert "num_ctx" in rejected(api, "chat", model="tiny", messages=FRANCE, options={"num_ctx": count})
    assert "num_ctx" in rejected(api, "chat", model="tiny", messages=FRANCE, options={"num_ctx": 1_000_000})
    assert "num_ctx" in rejected(api, "generate", model="tiny", prompt="x " * 99, raw=True, options={"num_ctx": 20})


@pytest.mark.parametrize("name", [*LOAD_OPTIONS, *UNSUPPORTED_OPTIONS, "temprature"])
def test_options_without_effect_are_refused_by_name(api: ollama.Client, name: str) -> None:
    assert name in rejected(api, "chat", model="smol", messages=FRANCE, options={name: 1})


def test_every_option_of_the_client_is_known() -> None:
    known = {*SAMPLING_OPTIONS, *LOAD_OPTIONS, *UNSUPPORTED_OPTIONS, "num_ctx"}
    assert set(ollama.Options.model_fields) <= known


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/api/chat", CHAT_FIELDS),
        ("/api/generate", GENERATE_FIELDS),
        ("/api/embed", EMBED_FIELDS),
        ("/api/embeddings", EMBEDDINGS_FIELDS),
        ("/api/show", ("model", "name", "verbose")),
        ("/api/pull", ("model", "name", "stream", "insecure")),
    ],
)
def test_unknown_fields_and_wrong_types_are_refused(
    server: Server, key: dict[str, str], path: str, known: tuple[str, ...]
) -> None:
    base = {"model": "minilm", "input": "x"} if path == "/api/embed" else {"model": "smol"}
    response = server.post(path, {**base, "modell": "x"}, headers=key)
    assert response.status_code == 400 and "modell" in response.json()["error"]
    values = {"format": 1, "think": 1.5, "keep_alive": "soon", "name": {}, "input": {"x": 1}}
    for name in known:
        if name in ("model", "name"):
            continue
        response = server.post(path, {**base, name: values.get(name, {"a": 1})}, headers=key)
        assert response.status_code == 400 and name in response.json()["error"], (name, response.text)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (0, 0),
        ("0", 0),
        (90, 90),
        (1.5, 1.5),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("300ms", 0.3),
        ("24h", 86400),
        (-1, float("inf")),
        ("-1", float("inf")),
        ("-1m", float("inf")),
    ],
)
def test_keep_alive_is_a_duration(value: Any, seconds: float | None) -> None:
    found = parse_keep_alive({"keep_alive": value})
    assert found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("value", ["soon", "", "5x", True, [], "nan", float("nan"), 10**30, 10**400, "1e30"])
def test_keep_alive_refuses_other_values(value: Any) -> None:
    with pytest.raises(Exception) as caught:
        parse_keep_alive({"keep_alive": value})
    assert getattr(caught.value, "status_code", None) == 400


@pytest.mark.parametrize(
    "messages",
    ["hi", [1], [{"role": "robot", "content": "x"}], [{"content": "x"}], [{"role": "user", "content": [1]}],
     [{"role": "user", "content": "x", "imagess": []}], [{"role": "user", "images": [1]}],
     [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]],
)  # fmt: skip
def test_invalid_messages_are_refused(messages: Any) -> None:
    with pytest.raises(Exception) as caught:
        parse_chat({"messages": messages}, ENTRY, CONFIG)
    assert getattr(caught.value, "status_code", None) == 400


def test_shift_and_truncate_must_be_as_the_model_was_loaded() -> None:
    shifting = ModelEntry(name="x", kind="llm", model="x", settings={"ctx_shift": True})
    for entry, shift in ((ENTRY, False), (shifting, True)):
        parse_generate({"prompt": "x", "shift": shift, "truncate": False}, entry, CONFIG)
        for fields in ({"shift": not shift}, {"truncate": True}):
            with pytest.raises(Exception) as caught:
                parse_generate({"prompt": "x", **fields}, entry, CONFIG)
            assert getattr(caught.value, "status_code", None) == 400


# ---------------------------------------------------------------------------------------- embeddings


def test_embeds_texts(api: ollama.Client) -> None:
    response = api.embed("minilm", ["a cat", "a kitten", "a stock market"])
    vectors = np.array(response.embeddings)
    assert vectors.shape == (3, 384) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert response.prompt_eval_count == 13 and response.total_duration > 0
    assert np.allclose(api.embed("minilm", "a cat").embeddings, vectors[:1], atol=1e-3)
    assert [list(api.embed("minilm", empty).embeddings) for empty in ("", [])] == [[], []]


def test_embed_shortens_vectors(api: ollama.Client) -> None:
    whole = np.array(api.embed("minilm", "a cat").embeddings)
    short = np.array(api.embed("minilm", "a cat", dimensions=64).embeddings)
    assert short.shape == (1, 64) and np.isclose(np.linalg.norm(short), 1)
    assert np.allclose(short * np.linalg.norm(whole[:, :64]), whole[:, :64], atol=1e-4)
    assert "dimensions" in rejected(api, "embed", model="minilm", input="a", dimensions=1000)


def test_embed_truncates_a_long_text(api: ollama.Client) -> None:
    text = "the cat sat on the mat " * 400
    response = api.embed("minilm", text)
    assert 100 < response.prompt_eval_count <= 512
    assert "tokens" in rejected(api, "embed", model="minilm", input=text, truncate=False)
    assert api.embed("minilm", text, options={"num_ctx": 16}).prompt_eval_count == 16


def test_embeddings_returns_one_vector(api: ollama.Client) -> None:
    vector = np.array(api.embeddings("minilm", "a cat").embedding)
    assert vector.shape == (384,)
    unit = np.array(api.embed("minilm", "a cat").embeddings[0])
    assert np.allclose(vector / np.linalg.norm(vector), unit, atol=1e-3)


def test_chat_models_compute_no_embeddings(api: ollama.Client) -> None:
    assert "embedding" in rejected(api, "embed", model="smol", input="a cat")


# -------------------------------------------------------------------------------------------- errors


def test_error_in_a_stream_is_a_line(endless: Path) -> None:
    with running_server("--config", endless, "--max-request-seconds", 1) as slow:
        fields = {"model": "tiny", "prompt": "Once", "raw": True, "options": {"num_predict": 10_000_000}}
        lines = [json.loads(line) for line in slow.post("/api/generate", fields).text.splitlines()]
        assert lines[0]["done"] is False and "within 1 s" in lines[-1]["error"]
        with ollama.Client(host=slow.url) as client, pytest.raises(ollama.ResponseError, match="within 1 s"):
            for _ in client.generate(stream=True, **fields):
                pass


def test_errors_have_the_form_of_ollama(server: Server, key: dict[str, str]) -> None:
    missing = server.post("/api/chat", {"model": "nothing", "messages": FRANCE}, headers=key)
    assert missing.status_code == 404 and "nothing" in missing.json()["error"]
    assert "model" in server.post("/api/chat", {"messages": FRANCE}, headers=key).json()["error"]
    no_key = server.post("/api/chat", {"model": "smol", "messages": FRANCE})
    assert no_key.status_code == 401 and isinstance(no_key.json()["error"], str)
    no_json = requests.post(server.url + "/api/chat", data=b"{", headers=key, timeout=60)
    assert no_json.status_code == 400 and isinstance(no_json.json()["error"], str)
    assert isinstance(server.get("/v1/nothing", headers=key).json()["error"], dict)
