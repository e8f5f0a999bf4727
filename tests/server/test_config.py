"""The configuration of the server, from a file and from the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from cyllama.cli import main
from cyllama.cli.serve import add_arguments, build_config
from cyllama.server import Limits, ModelEntry, ServerConfig
from cyllama.server.config import ANY_ADDRESS, parse_bytes

FILE = """
port = 9000
memory = "1.5 GiB"
api_key_file = "keys.txt"
api_keys = ["inline"]
cors_origins = ["https://a.example"]

[limits]
body = "2M"
steps = 30

[models.chat]
model = "chat.gguf"
n_ctx = 2048
aliases = ["gpt-4o"]
preload = true

[models."tiny.en"]
kind = "whisper"

[models.images]
kind = "sd"
diffusion_model = "flux.gguf"
vae = "ae.safetensors"
"""


def read(tmp_path: Path, text: str) -> ServerConfig:
    (tmp_path / "models.toml").write_text(text)
    return ServerConfig.from_file(tmp_path / "models.toml")


def test_reads_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("# a comment\nsecret\n")
    (tmp_path / "chat.gguf").write_text("")
    config = read(tmp_path, FILE)
    chat, speech, images = config.models
    assert (config.host, config.port, config.memory) == ("127.0.0.1", 9000, 1610612736)
    assert list(config.api_keys) == ["inline", "secret"]
    assert (config.limits.body, config.limits.steps, config.limits.images) == (2 << 20, 30, Limits().images)
    assert chat == ModelEntry(
        name="chat",
        kind="llm",
        model=str(tmp_path / "chat.gguf"),  # files are found beside the configuration
        settings={"n_ctx": 2048},
        aliases=["gpt-4o"],
        preload=True,
    )
    assert (speech.kind, speech.model, speech.task) == ("whisper", "tiny.en", "speech")
    assert (images.model, dict(images.settings)) == (None, {"diffusion_model": "flux.gguf", "vae": "ae.safetensors"})


def test_reads_settings_of_images(tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").touch()
    config = read(
        tmp_path,
        '[models.a]\n[upscalers]\n"A 4x" = "net.safetensors"\nB = "realesrgan-x4plus"\n'
        '[image_styles.Film]\nprompt = "{prompt}, film"\n',
    )
    assert config.upscalers == {"A 4x": str(tmp_path / "net.safetensors"), "B": "realesrgan-x4plus"}
    assert config.image_styles == {"Film": {"prompt": "{prompt}, film"}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[models.a]\n[upscalers]\nLanczos = 'a'", "Lanczos"),
        ("upscalers = 1\n[models.a]", "upscalers is 1"),
        ("[models.a]\n[upscalers]\nA = 1", "upscalers.A is 1"),
        ("[models.a]\n[image_styles]\nA = 1", "image_styles.A is 1"),
        ("[models.a]\n[image_styles.A]\nprompts = 'x'", "did you mean 'prompt'"),
        ("[models.a]\n[image_styles.A]\nprompt = 1", "image_styles.A"),
        ("port = ", "is not valid TOML"),
        ("prot = 1\n[models.a]\n", "unknown setting 'prot'; did you mean 'port'?"),
        ("", "models is empty"),
        ("models = 1", "models is 1, expected a table"),
        ("[models.a]\nkind = 'video'", "kind is 'video', expected one of llm, whisper, sd"),
        ("[models.a]\naliases = 'b'", "aliases is 'b', expected a list of strings"),
        ("[models.a]\naliases = ['b']\n[models.b]\n", "two models have the name 'b'"),
        ("port = 99999\n[models.a]\n", "port is 99999"),
        ("host = ''\n[models.a]\n", "host is ''"),
        ("host = '127.0.0.1,'\n[models.a]\n", "host is '127.0.0.1,'"),
        ("host = 1\n[models.a]\n", "host is 1"),
        ("slots = 'no'\n[models.a]\n", "slots is 'no', expected true or false"),
        ("api_keys = ['']\n[models.a]\n", "api_keys has an empty key"),
        ("allow_no_key = 'yes'\n[models.a]\n", "allow_no_key is 'yes', expected true or false"),
        ("memory = 'much'\n[models.a]\n", "memory is 'much', expected bytes"),
        ("[limits]\nbdoy = 1\n[models.a]\n", "limits: unknown setting 'bdoy'; did you mean 'body'?"),
        ("limits = 1\n[models.a]\n", "limits is 1, expected a table"),
        ("[limits]\nsteps = 0\n[models.a]\n", "limits: steps is 0, expected more than 0"),
        ("[limits]\nsteps = 'a'\n[models.a]\n", "limits: steps is 'a', expected a number"),
    ],
)
def test_rejects_invalid_settings(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        read(tmp_path, text)
    assert words in str(caught.value)


def test_parses_bytes() -> None:
    for text, size in (("10", 10), ("2k", 2048), ("1.5 MiB", 1572864), ("8GB", 8 << 30), (7, 7)):
        assert parse_bytes(text, "x") == size
    with pytest.raises(ValueError, match="x is True"):
        parse_bytes(True, "x")


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *[(host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "127.0.0.1, ::1", "[::1],localhost")],
        *[(host, False) for host in ("0.0.0.0", "::", "127.0.0.1,::", "::1,10.0.0.1")],
    ],
)
def test_is_local_for_loopback_addresses(host: str, local: bool) -> None:
    config = ServerConfig(models=[ModelEntry(name="a", kind="llm", model="a")], host=host)
    assert config.is_local is local
    assert (ANY_ADDRESS in config.hosts) is not local


def test_repr_hides_api_keys() -> None:
    config = ServerConfig(models=[ModelEntry(name="a", kind="llm", model="a")], api_keys=["secret"])
    assert "secret" not in repr(config)


def arguments(*words: str) -> Any:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return build_config(parser.parse_args(words))


def test_reads_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYLLAMA_API_KEY", "one,two")
    file = tmp_path / "some model.gguf"
    file.write_text("")
    config = arguments(
        "-m", str(file), "--n-ctx", "512", "--whisper", "tiny.en", "--max-body", "1M", "--max-steps", "9"
    )
    assert [(m.name, m.kind, m.model) for m in config.models] == [
        ("some model", "llm", str(file)),
        ("tiny.en", "whisper", "tiny.en"),
    ]
    assert dict(config.models[0].settings) == {"n_ctx": 512}
    assert list(config.api_keys) == ["one", "two"]
    assert (config.limits.body, config.limits.steps) == (1 << 20, 9)


def test_command_line_overrides_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("port = 9000\nhost = 'localhost'\n[models.a]\n[limits]\nsteps = 5\nbody = 10\n")
    config = arguments("--config", str(tmp_path / "a.toml"), "--port", "1", "--max-body", "7", "--sd", "b", "--preload")
    assert (config.port, config.host, config.limits.steps, config.limits.body) == (1, "localhost", 5, 7)
    assert [(m.name, m.preload) for m in config.models] == [("a", True), ("b", True)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "models is empty"),
        (["--config", "/no/such/file"], "/no/such/file"),
        (["-m", "no-such-model", "--preload"], "no such file"),
        (["-m", "tiny-random-llama", "--host", "203.0.113.7", "--allow-no-key"], "assign requested address"),
        (["-m", "tiny-random-llama", "--host", "203.0.113.7"], "--allow-no-key"),
    ],
)
def test_errors_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", *words]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert message in errors[-1] and errors[-1].startswith("cyllama: ")
    assert not any("Traceback" in line for line in errors)
