"""Hostile and invalid requests, each with the statuses that are right for it."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from data.sounds import flac_without_length
from server.conftest import png

__all__ = ["FORMS", "JSONS", "RAW", "Form", "Post", "Raw", "huge_png", "multipart"]

CHAT = "/v1/chat/completions"
MANY = 100_000


@dataclass(frozen=True)
class Post:
    """A request with a JSON body, or with bytes."""

    path: str
    body: Any
    statuses: tuple[int, ...] = (400,)
    method: str = "POST"


@dataclass(frozen=True)
class Form:
    """A request with a multipart form."""

    path: str
    parts: list[tuple[str, str | None, bytes]]
    statuses: tuple[int, ...] = (400,)


@dataclass(frozen=True)
class Raw:
    """Bytes on a connection; with `may_close` the server may close it without a response."""

    data: bytes
    statuses: tuple[int, ...] = (400,)
    may_close: bool = False
    disconnect_after: float | None = None
    headers: dict[str, str] = field(default_factory=dict)


def user(content: Any) -> dict[str, Any]:
    return {"model": "smol", "max_tokens": 2, "messages": [{"role": "user", "content": content}]}


def image_message(url: str) -> dict[str, Any]:
    return user([{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": url}}])


def nested(depth: int) -> bytes:
    return b'{"messages":' + b"[" * depth + b"]" * depth + b"}"


def huge_png(width: int = 60_000, height: int = 60_000) -> bytes:
    """Return a PNG file of a few kilobytes whose header has billions of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1_000_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def long_wav(seconds: int) -> bytes:
    """Return silence of many hours in a few megabytes."""
    file = io.BytesIO()
    frames = seconds * 100
    file.write(
        b"RIFF" + struct.pack("<I", 36 + frames) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 100, 100, 1, 8)
    )
    file.write(b"data" + struct.pack("<I", frames) + b"\x80" * frames)
    return file.getvalue()


BOMB = base64.b64encode(huge_png()).decode()
DATA_BOMB = f"data:image/png;base64,{BOMB}"

ENGINE_FIELDS: dict[str, Any] = {
    "grammar_triggers": [{"type": 2, "value": r"^((.|\s)+)+QQQQ$"}],
    "grammar_lazy": True,
    "chat_parser": '{"parsers":' + "[" * 100_000 + "]" * 100_000 + ',"rules":{},"root":0}',
    "chat_format": 9999,
}


def chain(length: int) -> dict[str, Any]:
    """Return a schema in which each definition refers to the next."""
    links: dict[str, Any] = {f"a{i}": {"type": "array", "items": {"$ref": f"#/$defs/a{i + 1}"}} for i in range(length)}
    return {"$ref": "#/$defs/a0", "$defs": {**links, f"a{length}": {"type": "null"}}}


def wide(properties: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(properties)}}


def response_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}


WIDE = "json_schema with 2,000 properties"
ABOVE_LIMITS: dict[str, dict[str, Any]] = {
    "penalties of 2**31": {"repeat_last_n": 2**31 - 1, "repeat_penalty": 1.1},
    "DRY of 2**31": {"dry_penalty_last_n": 2**31 - 1, "dry_multiplier": 0.8},
    "20,000 breakers": {"dry_multiplier": 0.8, "dry_sequence_breakers": [f"a{i}" for i in range(20_000)]},
    "a million samplers": {"samplers": "t" * 1_000_000},
    "half a million biases": {"logit_bias": [[5, 0.0]] * 500_000},
    "n_probs of the whole vocabulary": {"n_probs": 2**31 - 1},
    "100 breakers": {"dry_multiplier": 0.8, "dry_sequence_breakers": [f"a{i}" for i in range(100)]},
    "a breaker of 1,000 characters": {"dry_multiplier": 0.8, "dry_sequence_breakers": ["a" * 1000]},
    "20,000 biases": {"logit_bias": [[5, 0.0]] * 20_000},
    "a bias of a long text": {"logit_bias": [["a" * 2000, 0.0]]},
    "a grammar of a megabyte": {"grammar": 'root ::= "a"' + ' | "a"' * 200_000},
    "a million adapters": {"lora": [{"id": 0, "scale": 1}] * 100_000},
    "100,000 stops": {"stop": [f"xyzzy{i}" for i in range(100_000)]},
    "a chain of 5,000 references": response_format(chain(5_000)),
    "2,000 properties": response_format(wide(2_000)),
    WIDE: {"json_schema": wide(2_000)},
    "a pattern of 100,000 brackets": response_format(
        {"type": "string", "pattern": "^" + "(" * 50_000 + "a" + ")" * 50_000 + "$"}
    ),
}

JSONS: dict[str, Post] = {
    # ------------------------------------------------------------------ invalid JSON
    "empty": Post(CHAT, b""),
    "invalid JSON": Post(CHAT, b"{"),
    "text": Post(CHAT, b"hello"),
    "a list": Post(CHAT, b"[]"),
    "a number": Post(CHAT, b"1"),
    "null": Post(CHAT, b"null"),
    "NaN": Post(CHAT, b'{"model":"smol","temperature":NaN,"messages":[]}'),
    "Infinity": Post(CHAT, b'{"model":"smol","temperature":Infinity,"messages":[]}'),
    "invalid UTF-8": Post(CHAT, b'{"model":"\xff\xfe"}'),
    "UTF-16": Post(CHAT, '{"model":"smol"}'.encode("utf-16")),
    "null bytes": Post(CHAT, b"\0" * 1000),
    "lone surrogate": Post(CHAT, b'{"model":"smol","max_tokens":1,"messages":[{"role":"user","content":"\\ud800"}]}'),
    "a number of a million digits": Post(CHAT, b'{"seed":' + b"9" * 1_000_000 + b"}"),
    "depth 1,000": Post(CHAT, nested(1_000)),
    "depth 1,000,000": Post(CHAT, nested(1_000_000)),
    "deep schema": Post(
        CHAT,
        b'{"model":"smol","messages":[{"role":"user","content":"x"}],"json_schema":'
        + b'{"items":' * 500
        + b"{}"
        + b"}" * 501,
    ),
    # -------------------------------------------------------------- fields that could block the scheduler
    **{
        f"internal field {name}": Post(CHAT, {"model": "smol", **user("x"), name: value})
        for name, value in ENGINE_FIELDS.items()
    },
    **{
        f"internal field on {path}": Post(path, {"model": "smol", "prompt": "x", **user("x"), "chat_format": 9999})
        for path in ("/v1/completions", "/completion", "/v1/responses", "/v1/messages")
    },
    **{name: Post(CHAT, {"model": "smol", **user("x"), **fields}) for name, fields in ABOVE_LIMITS.items()},
    **{
        f"2,000 properties on {path}": Post(path, {"model": "smol", "prompt": "x", **user("x"), **ABOVE_LIMITS[WIDE]})
        for path in ("/v1/completions", "/completion", "/v1/messages")
    },
    "100 MB": Post(CHAT, b'{"messages":"' + b"a" * 100_000_000 + b'"}', (413,)),
    # ---------------------------------------------------------------------------------- wrong types
    "model is a number": Post(CHAT, {"model": 1, "messages": []}),
    "model is a list": Post(CHAT, {"model": ["smol"], "messages": []}),
    "model is a path": Post(CHAT, {**user("x"), "model": "../../etc/passwd"}, (404,)),
    "model is an address": Post(CHAT, {**user("x"), "model": "http://127.0.0.1:1/x.gguf"}, (404,)),
    "model is on a hub": Post(CHAT, {**user("x"), "model": "hf:a/b/c.gguf"}, (404,)),
    "model is very long": Post(CHAT, {**user("x"), "model": "x" * MANY}, (404,)),
    "model of another engine": Post(CHAT, {**user("x"), "model": "shapes"}, (404,)),
    "no messages": Post(CHAT, {"model": "smol"}),
    "messages is a text": Post(CHAT, {"model": "smol", "messages": "hi"}),
    "messages is an object": Post(CHAT, {"model": "smol", "messages": {"role": "user"}}),
    "no message at all": Post(CHAT, {"model": "smol", "messages": [], "max_tokens": 1}, (200, 400)),
    "a message is a number": Post(CHAT, {"model": "smol", "messages": [1]}),
    "no role": Post(CHAT, {"model": "smol", "messages": [{"content": "x"}]}),
    "role is a list": Post(CHAT, {"model": "smol", "messages": [{"role": [], "content": "x"}]}),
    "content is a number": Post(CHAT, user(1)),
    "content is an object": Post(CHAT, user({"a": 1})),
    "an unknown part": Post(CHAT, user([{"type": "virus", "virus": "x"}])),
    "max_tokens is a text": Post(CHAT, {**user("x"), "max_tokens": "many"}),
    "temperature is an object": Post(CHAT, {**user("x"), "temperature": {}}),
    "stop is a number": Post(CHAT, {**user("x"), "stop": 1}, (200, 400)),
    "n is negative": Post(CHAT, {**user("x"), "n": -1}),
    "n is enormous": Post(CHAT, {**user("x"), "n": 2**31}),
    "top_k is enormous": Post(CHAT, {**user("x"), "top_k": 2**62}, (200, 400)),
    "n_probs is negative": Post(CHAT, {**user("x"), "n_probs": -5}, (200, 400)),
    "logit_bias out of the vocabulary": Post(CHAT, {**user("x"), "logit_bias": {"999999999": 5}}, (200, 400)),
    "unknown slot": Post(CHAT, {**user("x"), "id_slot": 99}, (200, 400)),
    "tools are numbers": Post(CHAT, {**user("x"), "model": "tools", "tools": [1, 2]}),
    "tools without names": Post(CHAT, {**user("x"), "model": "tools", "tools": [{"type": "function"}]}),
    "unknown tool": Post(
        CHAT,
        {**user("x"), "model": "tools", "tools": [], "tool_choice": {"type": "function", "function": {"name": "x"}}},
    ),
    "invalid grammar": Post(CHAT, {**user("x"), "grammar": "root ::= ((("}),
    "a grammar without end": Post(CHAT, {**user("x"), "grammar": "root ::= root"}, (200, 400)),
    "invalid schema": Post(CHAT, {**user("x"), "json_schema": {"type": "nonsense"}}),
    "a schema that refers to itself": Post(
        CHAT, {**user("x"), "json_schema": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}}, (200, 400)
    ),
    "schema at an address": Post(CHAT, {**user("x"), "json_schema": {"$ref": "http://127.0.0.1:1/schema.json"}}),
    "a prompt that is too long": Post(CHAT, {**user("word " * 20_000), "model": "tools"}),
    "unknown tokens": Post("/detokenize", {"model": "smol", "tokens": [-1, 2**40]}, (200, 400)),
    "tokens as texts": Post("/detokenize", {"model": "smol", "tokens": ["a", {}]}),
    "prompt of unknown tokens": Post("/v1/completions", {"model": "smol", "prompt": [999_999_999], "max_tokens": 1}),
    "a prompt that is an object": Post("/v1/completions", {"model": "smol", "prompt": {"a": 1}, "max_tokens": 1}),
    "no prompt": Post("/v1/completions", {"model": "smol"}),
    "empty input for embeddings": Post("/v1/embeddings", {"model": "minilm", "input": []}),
    "object as input for embeddings": Post("/v1/embeddings", {"model": "minilm", "input": {"a": 1}}),
    "long input for embeddings": Post("/v1/embeddings", {"model": "minilm", "input": "word " * 9000}),
    "rerank without documents": Post("/v1/rerank", {"model": "reranker", "query": "x"}),
    "rerank of numbers": Post("/v1/rerank", {"model": "reranker", "query": "x", "documents": [1]}),
    # ------------------------------------------------------------------------------ paths and addresses
    "image URL of a file": Post(CHAT, image_message("file:///etc/passwd")),
    "image URL is a path": Post(CHAT, image_message("/etc/passwd")),
    "image URL of a parent folder": Post(CHAT, image_message("file://../../../etc/passwd")),
    "image URL of this machine": Post(CHAT, image_message("http://127.0.0.1:22/")),
    "image URL of cloud metadata": Post(CHAT, image_message("http://169.254.169.254/latest/meta-data/")),
    "image URL over FTP": Post(CHAT, image_message("ftp://127.0.0.1/x")),
    "image is not base64": Post(CHAT, image_message("data:image/png;base64,%%%%")),
    "invalid image": Post(CHAT, image_message("data:image/png;base64,aGVsbG8=")),
    "image for a text model": Post(CHAT, image_message("data:image/png;base64," + base64.b64encode(png()).decode())),
    "decompression bomb as image": Post(CHAT, image_message(DATA_BOMB), (413,)),
    "audio at an address": Post(
        CHAT, user([{"type": "input_audio", "input_audio": {"data": "http://127.0.0.1:1/a.wav", "format": "wav"}}])
    ),
    "video URL of a file": Post(CHAT, user([{"type": "video_url", "video_url": {"url": "file:///etc/passwd"}}])),
    "Anthropic image at an address": Post(
        "/v1/messages",
        {**user([{"type": "image", "source": {"type": "url", "url": "http://127.0.0.1:1/a.png"}}])},
    ),
    "response image of a file": Post(
        "/v1/responses",
        {
            "model": "smol",
            "input": [{"role": "user", "content": [{"type": "input_image", "image_url": "file:///etc/passwd"}]}],
        },
    ),
    "a video": Post(CHAT, user([{"type": "input_video", "input_video": {"data": "AAAA"}}]), (400,)),
    "invalid audio": Post(
        CHAT, user([{"type": "input_audio", "input_audio": {"data": "AAAAIGZ0eXBpc29tAAAA", "format": "wav"}}]), (400,)
    ),
    "video in multimodal_data": Post(
        "/completion", {"model": "smol", "prompt": {"prompt_string": "x", "multimodal_data": ["AAAAIGZ0eXBpc29tAAAA"]}}
    ),
    "file in multimodal_data": Post(
        "/completion", {"model": "smol", "prompt": {"prompt_string": "x", "multimodal_data": ["file:///etc/passwd"]}}
    ),
    "save a slot to a file": Post("/slots/0?action=save", {"filename": "../../x"}, (404, 405)),
    "set adapters": Post("/lora-adapters", [{"id": 0, "scale": 1}], (400,)),
    "set properties": Post("/props", {}, (404, 405)),
    "path traversal": Post("/../config.py", b"", (404, 405), "GET"),
    "encoded path traversal": Post("/%2e%2e/config.py", b"", (404,), "GET"),
    "null in the path": Post("/%00", b"", (404,), "GET"),
    # ---------------------------------------------------------------------------------------- images
    "image without prompt": Post("/v1/images/generations", {"model": "shapes"}),
    "image size above the limit": Post("/v1/images/generations", {"prompt": "x", "size": "99999x99999"}),
    "image size of zero": Post("/v1/images/generations", {"prompt": "x", "size": "0x0"}),
    "image size in words": Post("/v1/images/generations", {"prompt": "x", "size": "large"}),
    "1,000 images": Post("/v1/images/generations", {"prompt": "x", "n": 1000}),
    "steps above the limit": Post("/v1/images/generations", {"prompt": "x", "steps": 10**9}),
    "unknown sampler": Post("/v1/images/generations", {"prompt": "x", "sampler": "nonsense"}),
    "LoRA from a path": Post("/v1/images/generations", {"prompt": "x <lora:../../../../etc/passwd:1>"}, (400,)),
    "internal image option": Post("/v1/images/generations", {"prompt": "x", "control_image": "/etc/passwd"}),
    "seed is a text": Post("/v1/images/generations", {"prompt": "x", "seed": "7"}),
    **{
        f"{name} of {kind}, {path[1:6]}": Post(path, b'{"prompt": "x", "steps": 1, "%s": %s}' % (name.encode(), number))
        for path in ("/v1/images/generations", "/sdapi/v1/txt2img")
        for name in ("cfg_scale", "eta")
        for kind, number in (("400 digits", b"1" + b"0" * 400), ("1e400", b"1e400"), ("NaN", b"NaN"))
    },
    **{
        f"output format is {value}": Post("/v1/images/generations", {"prompt": "x", "steps": 1, "output_format": value})
        for value in ([1], {"a": 1}, 5)
    },
    "init image at an address": Post("/sdapi/v1/img2img", {"prompt": "x", "init_images": ["http://127.0.0.1:1/a.png"]}),
    "init image of a file": Post("/sdapi/v1/img2img", {"prompt": "x", "init_images": ["/etc/passwd"]}),
    "decompression bomb as init image": Post("/sdapi/v1/img2img", {"prompt": "x", "init_images": [BOMB]}, (413,)),
    "decompression bomb to enlarge": Post(
        "/sdapi/v1/extra-single-image", {"image": BOMB, "upscaler_1": "Lanczos"}, (413,)
    ),
    "decompression bomb with parameters": Post("/sdapi/v1/png-info", {"image": BOMB}, (413,)),
    "parameters of a file": Post("/sdapi/v1/png-info", {"image": "/etc/passwd"}),
    "enlarged beyond the limit": Post(
        "/sdapi/v1/extra-single-image",
        {
            "image": base64.b64encode(png()).decode(),
            "upscaler_1": "Lanczos",
            "resize_mode": 1,
            "upscaling_resize_w": 9999,
        },
    ),
    "options as a list": Post("/sdapi/v1/options", []),
    "option of a folder": Post("/sdapi/v1/options", {"outdir_samples": "/tmp"}),
    "model at a path": Post("/sdapi/v1/options", {"sd_model_checkpoint": "../../etc/passwd"}, (404,)),
    "job id of a number": Post("/internal/progress", {"id_task": 5}),
    "no init image": Post("/sdapi/v1/img2img", {"prompt": "x"}),
    "scripts": Post(
        "/sdapi/v1/txt2img", {"prompt": "x", "script_name": "x/y", "alwayson_scripts": {"a": {"args": []}}}
    ),
    "settings": Post("/sdapi/v1/txt2img", {"prompt": "x", "override_settings": {"outdir_samples": "/tmp"}}),
    "batch size above the limit": Post("/sdapi/v1/txt2img", {"prompt": "x", "batch_size": 100, "n_iter": 10**9}),
    # ----------------------------------------------------------------------------------- wrong methods
    "chat by GET": Post(CHAT, b"", (405,), "GET"),
    "models by POST": Post("/v1/models", {}, (405,)),
    "health by DELETE": Post("/health", b"", (405,), "DELETE"),
    "chat by PUT": Post(CHAT, {}, (405,), "PUT"),
    "unknown method": Post(CHAT, b"", (405,), "BREW"),
    "unknown path": Post("/v1/nothing", {}, (404, 405)),
    "transcription as JSON": Post("/v1/audio/transcriptions", {"file": "x"}, (415,)),
}

AUDIO = ("file", "a.wav", long_wav(1))
IMAGE = ("image", "a.png", png())
FORMS: dict[str, Form] = {
    "no audio": Form("/v1/audio/transcriptions", [("model", None, b"speech")]),
    "empty audio": Form("/v1/audio/transcriptions", [("file", "a.wav", b"")]),
    "invalid audio": Form("/v1/audio/transcriptions", [("file", "a.wav", b"hello" * 1000)]),
    "image as audio": Form("/v1/audio/transcriptions", [("file", "a.wav", png())]),
    "playlist as audio": Form(
        "/v1/audio/transcriptions", [("file", "a.m3u8", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")]
    ),
    "path as audio": Form("/v1/audio/transcriptions", [("file", None, b"/etc/passwd")]),
    "two audio files": Form("/v1/audio/transcriptions", [AUDIO, AUDIO]),
    "audio of many hours": Form("/v1/audio/transcriptions", [("file", "a.wav", long_wav(20_000))], (413,)),
    "audio of many hours without a length": Form(
        "/v1/audio/transcriptions",
        [("file", "a.flac", flac_without_length(np.zeros(700 * 16_000, np.float32)))],
        (413,),
    ),
    "audio of 100 MB": Form("/v1/audio/transcriptions", [("file", "a.wav", b"\0" * 100_000_000)], (413,)),
    "unknown language": Form("/v1/audio/transcriptions", [AUDIO, ("language", None, b"klingon")]),
    "unknown format": Form("/v1/audio/transcriptions", [AUDIO, ("response_format", None, b"exe")]),
    "a temperature in words": Form("/v1/audio/transcriptions", [AUDIO, ("temperature", None, b"hot")]),
    "a temperature of NaN": Form("/v1/audio/transcriptions", [AUDIO, ("temperature", None, b"nan")]),
    "beam size above the limit": Form("/v1/audio/transcriptions", [AUDIO, ("beam_size", None, b"1000000")]),
    "option with a file name": Form(
        "/v1/audio/transcriptions", [AUDIO, ("vad_parameters", None, b'{"model":"/etc/passwd"}')]
    ),
    "a hundred fields": Form("/v1/audio/transcriptions", [AUDIO, *[("prompt", None, b"x")] * 100]),
    "a hundred files": Form("/v1/images/edits", [IMAGE] * 100),
    "no image": Form("/v1/images/edits", [("prompt", None, b"x")]),
    "image is a text": Form("/v1/images/edits", [("prompt", None, b"x"), ("image", None, b"/etc/passwd")]),
    "invalid image file": Form("/v1/images/edits", [("prompt", None, b"x"), ("image", "a.png", b"hello")]),
    "decompression bomb as image file": Form(
        "/v1/images/edits", [("prompt", None, b"x"), ("image", "a.png", huge_png())], (413,)
    ),
    "decompression bomb as mask": Form(
        "/v1/images/edits", [("prompt", None, b"x"), IMAGE, ("mask", "m.png", huge_png())], (413,)
    ),
    "truncated image": Form("/v1/images/edits", [("prompt", None, b"x"), ("image", "a.png", png()[:-30])]),
}


def multipart(parts: list[tuple[str, str | None, bytes]], boundary: str) -> bytes:
    """Return the body of a multipart form."""
    found = []
    for name, filename, data in parts:
        extra = "" if filename is None else f'; filename="{filename}"'
        found.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + data + b"\r\n"
        )
    return b"".join(found) + f"--{boundary}--\r\n".encode()


def request(head: str, body: bytes = b"") -> bytes:
    return head.replace("\n", "\r\n").encode() + body


def with_length(head: str, body: bytes) -> bytes:
    return request(f"{head}Content-Length: {len(body)}\n\n", body)


HOST = "Host: localhost\nAuthorization: Bearer KEY\n"
TRANSCRIBE = f"POST /v1/audio/transcriptions HTTP/1.1\n{HOST}"
CHAT_HEAD = f"POST {CHAT} HTTP/1.1\n{HOST}"
FORM_HEAD = TRANSCRIBE + "Connection: close\nContent-Type: multipart/form-data; boundary=x"
HEX_FORM = FORM_HEAD + "; charset=hex\n"
BODY = json.dumps(user("hello") | {"stream": True, "max_tokens": 400}).encode()

RAW: dict[str, Raw] = {
    "TLS handshake": Raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20),
    "long request line": Raw(b"GET /" + b"a" * 200_000, (400, 414, 431), may_close=True),
    "ten thousand headers": Raw(
        request("GET /health HTTP/1.1\nHost: localhost\nConnection: close\n" + "X-A: b\n" * 10_000 + "\n"),
        (400, 431),
        may_close=True,
    ),
    "a header of a megabyte": Raw(
        request("GET /health HTTP/1.1\nHost: localhost\nX-A: " + "b" * 1_000_000 + "\n\n"), (400, 431), may_close=True
    ),
    "no host": Raw(request("GET /health HTTP/1.1\n\n")),
    "two lengths": Raw(request(CHAT_HEAD + "Content-Length: 5\nContent-Length: 6\n\n", b"aaaaaa")),
    "a length below zero": Raw(request(CHAT_HEAD + "Content-Length: -5\n\n")),
    "a length in words": Raw(request(CHAT_HEAD + "Content-Length: many\n\n")),
    "length and chunks": Raw(
        request(CHAT_HEAD + "Connection: close\nContent-Length: 5\nTransfer-Encoding: chunked\n\n", b"0\r\n\r\n")
    ),
    "invalid chunks": Raw(request(CHAT_HEAD + "Transfer-Encoding: chunked\n\n", b"zz\r\nhello\r\n")),
    "a promised 100 GB": Raw(request(CHAT_HEAD + "Connection: close\nContent-Length: 107374182400\n\n"), (413,)),
    "an upgrade": Raw(
        request(f"GET / HTTP/1.1\n{HOST}Connection: upgrade, close\nUpgrade: websocket\n\n"), (200, 400, 404, 426)
    ),
    "HTTP 0.9": Raw(b"GET /health\r\n\r\n"),
    "a null in a header": Raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: a\0b\r\n\r\n"),
    "no boundary": Raw(
        request(TRANSCRIBE + "Connection: close\nContent-Type: multipart/form-data\nContent-Length: 5\n\n", b"hello")
    ),
    "invalid form": Raw(
        request(
            TRANSCRIBE + "Connection: close\nContent-Type: multipart/form-data; boundary=x\nContent-Length: 5\n\n",
            b"hello",
        )
    ),
    "form without end": Raw(
        with_length(FORM_HEAD + "\n", b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc')
    ),
    **{  # codecs that take quadratic time, or make surrogates
        f"form with the charset {name}": Raw(
            with_length(
                f"{FORM_HEAD}; charset={name}\n",
                b'--x\r\nContent-Disposition: form-data; name="language"\r\n\r\naaa-'
                + b"a" * 60_000
                + b"\r\n--x--\r\n",
            )
        )
        for name in ("punycode", "idna", "unicode_escape", "utf-7", "utf-16", "uu")
    },
    "form with an unknown charset": Raw(
        with_length(HEX_FORM, b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n')
    ),
    "disconnect in the head": Raw(b"POST /v1/chat", disconnect_after=0.05),
    "disconnect before the body": Raw(request(CHAT_HEAD + "Content-Length: 1000\n\n"), disconnect_after=0.05),
    "disconnect in the body": Raw(
        request(CHAT_HEAD + "Content-Length: 1000\n\n", b'{"messages"'), disconnect_after=0.05
    ),
    "disconnect before the response": Raw(
        request(CHAT_HEAD + f"Content-Length: {len(BODY)}\n\n", BODY), disconnect_after=0.0
    ),
    "disconnect in the response": Raw(
        request(CHAT_HEAD + f"Content-Length: {len(BODY)}\n\n", BODY), disconnect_after=0.3
    ),
    "disconnect in a form": Raw(
        request(
            TRANSCRIBE + "Content-Type: multipart/form-data; boundary=x\nContent-Length: 5000\n\n",
            b"--x\r\nContent-Disp",
        ),
        disconnect_after=0.05,
    ),
}
