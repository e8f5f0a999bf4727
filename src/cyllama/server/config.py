"""What the server is told: models by name, keys, limits; from Python or from a TOML file."""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

__all__ = ["KINDS", "Limits", "ModelEntry", "ServerConfig", "parse_bytes"]

KINDS = ("llm", "whisper", "sd")
KEY_VARIABLE = "CYLLAMA_API_KEY"
MIB = 1 << 20
UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def _limit(default: float, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(kw_only=True, frozen=True)
class Limits:
    """What one request may ask for, how many may wait, and for how long."""

    body: int = _limit(32 * MIB, "bytes of a request's body")
    bodies: int = _limit(256 * MIB, "bytes of all bodies that are held at the same time")
    depth: int = _limit(64, "levels of lists and objects in JSON")
    pixels: int = _limit(2048 * 2048, "pixels of a picture that is given or asked for")
    pictures: int = _limit(4, "pictures of one request")
    steps: int = _limit(150, "steps of the sampler")
    audio_seconds: float = _limit(4 * 3600.0, "seconds of sound")
    text_queue: int = _limit(256, "requests to language models at the same time, those that wait included")
    audio_queue: int = _limit(32, "the same for speech")
    image_queue: int = _limit(32, "the same for pictures, which are made one after the other")
    audio_parallel: int = _limit(2, "recordings that are transcribed at the same time")
    connections: int = _limit(1000, "open connections")
    header_seconds: float = _limit(10.0, "for the head of a request to arrive")
    body_seconds: float = _limit(60.0, "for its body to arrive")
    send_seconds: float = _limit(60.0, "that a client may leave a part of the answer unread")
    request_seconds: float = _limit(1800.0, "for the answer")
    grace_seconds: float = _limit(30.0, "for running requests to end when the server stops")

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            wanted = (int, float) if isinstance(item.default, float) else (int,)
            if isinstance(value, bool) or not isinstance(value, wanted):
                raise TypeError(f"limits: {item.name} is {value!r}, expected a number ({item.metadata['help']})")
            if value < 0 or (value == 0 and item.name != "grace_seconds"):
                raise ValueError(f"limits: {item.name} is {value!r}, expected more than 0 ({item.metadata['help']})")


@dataclass(kw_only=True, frozen=True)
class ModelEntry:
    """A model that the server offers.

    Attributes
    ----------
    name : str
        As requests call it.
    kind : str
        ``"llm"``, ``"whisper"`` or ``"sd"``.
    model : str or path
        A file, or a name of `cyllama.models`; None for diffusion models whose parts are all among the settings.
    settings : mapping
        Keyword arguments of `cyllama.LLM`, `cyllama.whisper.Whisper` or `cyllama.sd.StableDiffusion`.
    aliases : sequence of str
        Other names.
    preload : bool
        Load it when the server starts, not when it is first asked for.
    """

    name: str
    kind: str
    model: str | os.PathLike[str] | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    aliases: Sequence[str] = ()
    preload: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"model {self.name!r}: kind is {self.kind!r}, expected one of {', '.join(KINDS)}")
        for name in (self.name, *self.aliases):
            if not isinstance(name, str) or not name:
                raise ValueError(f"model {self.name!r}: {name!r} is no name")
        if self.model is None and self.kind != "sd":
            raise ValueError(f"model {self.name!r}: model is missing, expected a file or a name of cyllama.models")

    @property
    def task(self) -> str:
        """What it is for: ``"chat"``, ``"embeddings"``, ``"rerank"``, ``"speech"`` or ``"images"``."""
        if self.kind == "llm":
            return (
                "rerank"
                if self.settings.get("reranking")
                else ("embeddings" if self.settings.get("embedding") else "chat")
            )
        return {"whisper": "speech", "sd": "images"}[self.kind]


@dataclass(kw_only=True, frozen=True)
class ServerConfig:
    """Everything that the server is told.

    Attributes
    ----------
    models : sequence of ModelEntry
        The first of a task answers requests that name none.
    host, port
        Where it listens; port 0 takes a free one.
    api_keys : sequence of str
        With any, requests need one of them: ``Authorization: Bearer KEY`` or ``x-api-key: KEY``.
    memory : int or None
        Bytes that loaded models may take together; None: as much as is free.
    any_name : bool
        Answer requests for models that there are not with the first of the task, as ``llama-server`` does.
    cors_origins : sequence of str
        Pages of other origins that may use it from a browser; ``"*"``: any.
    allowed_hosts : sequence of str
        Names that requests may call the server by; by default those of this machine if it listens there alone.
        ``"*"``: any.
    limits : Limits
    """

    models: Sequence[ModelEntry]
    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: Sequence[str] = field(default=(), repr=False)
    memory: int | None = None
    any_name: bool = False
    cors_origins: Sequence[str] = ()
    allowed_hosts: Sequence[str] = ()
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("there is no model: give at least one")
        names = [name for entry in self.models for name in (entry.name, *entry.aliases)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two models are called {twice[0]!r}")
        if any(not isinstance(key, str) or not key.strip() for key in self.api_keys):
            raise ValueError("an API key is empty")
        if isinstance(self.port, bool) or not isinstance(self.port, int) or not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port!r}, expected 0 to 65535")

    @property
    def is_local(self) -> bool:
        """Whether it listens on this machine alone."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names that requests may call it by; empty: any."""
        if "*" in self.allowed_hosts or (not self.allowed_hosts and not self.is_local):
            return ()
        return (*LOOPBACK_NAMES, self.host, *self.allowed_hosts)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **changes: Any) -> Self:
        """Read a TOML file; see docs/howto/serve.md. `changes` win over what it says.

        Raises
        ------
        FileNotFoundError
        ValueError, TypeError
            It is no TOML, or says what there is not; the nearest name is given.
        """
        file = Path(path)
        try:
            data = tomllib.loads(file.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} is no TOML: {error}") from None
        return cls.from_dict(data, folder=file.parent, **changes)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, folder: Path | None = None, **changes: Any) -> Self:
        """The same out of what such a file holds; names of files are relative to `folder`."""
        given = dict(data)
        key_file = given.pop("api_key_file", None)
        entries = given.pop("models", {})
        if not isinstance(entries, Mapping):
            raise TypeError("models is no table, expected [models.NAME] for each")
        _known(given, {item.name for item in dataclasses.fields(cls)} - {"models"} | {"api_key_file"}, "")
        if "limits" in given:
            _known(given["limits"], {item.name for item in dataclasses.fields(Limits)}, "limits: ")
            given["limits"] = Limits(**{k: _amount(k, v) for k, v in given["limits"].items()})
        if "memory" in given:
            given["memory"] = parse_bytes(given["memory"], "memory")
        given["models"] = [_entry(name, value, folder or Path()) for name, value in entries.items()]
        given["api_keys"] = [*_texts(given, "api_keys"), *_keys_of(key_file, folder or Path())]
        for name in ("cors_origins", "allowed_hosts"):
            given[name] = _texts(given, name)
        return cls(**{**given, **{name: value for name, value in changes.items() if value is not None}})


def parse_bytes(value: int | str, name: str) -> int:
    """A number of bytes, as it is or as ``"8 GiB"``, ``"500M"``.

    Raises
    ------
    ValueError
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgtb]?)(?:i?b)?\s*", str(value).casefold())
    if match is None or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, expected bytes, such as 8589934592 or '8 GiB'")
    return int(float(match[1]) * UNITS[match[2]])


def environment_keys() -> list[str]:
    """The keys of ``CYLLAMA_API_KEY``, separated by commas."""
    return [key.strip() for key in os.environ.get(KEY_VARIABLE, "").split(",") if key.strip()]


def key_file(path: str | os.PathLike[str]) -> list[str]:
    """The keys in a file: one a line; empty lines and those with ``#`` are left out."""
    lines = (line.strip() for line in Path(path).read_text("utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _keys_of(path: str | None, folder: Path) -> list[str]:
    return [] if path is None else key_file(folder / path)


def _texts(given: Mapping[str, Any], name: str) -> list[str]:
    value = given.get(name, [])
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(v, str) for v in value):
        raise TypeError(f"{name} is {value!r}, expected a list of texts")
    return list(value)


def _amount(name: str, value: Any) -> Any:
    return parse_bytes(value, f"limits: {name}") if name in ("body", "bodies") else value


def _entry(name: str, value: Any, folder: Path) -> ModelEntry:
    if not isinstance(value, Mapping):
        raise TypeError(f"models.{name} is {value!r}, expected a table")
    rest = dict(value)
    own = {key: rest.pop(key) for key in ("kind", "aliases", "preload") if key in rest}
    model = rest.pop("model", None if own.get("kind") == "sd" and rest else name)
    settings = {key: _located(item, folder) for key, item in rest.items()}
    return ModelEntry(
        name=name,
        kind=own.get("kind", "llm"),
        model=_located(model, folder),
        settings=settings,
        aliases=_texts(own, "aliases"),
        preload=bool(own.get("preload", False)),
    )


def _located(value: Any, folder: Path) -> Any:
    """A file beside the configuration by its full path; anything else as it is."""
    if isinstance(value, str) and value and "\n" not in value and len(value) < 1024:
        path = folder / value
        if "\0" not in value and path.is_file():
            return str(path.resolve())
    return value


def _known(given: Iterable[str], names: set[str], where: str) -> None:
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(names))}"
            raise TypeError(f"{where}there is no setting {name!r}{hint}")
