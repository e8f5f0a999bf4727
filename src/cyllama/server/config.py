"""Server configuration: models, address, API keys and limits; from Python or from a TOML file."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import socket
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, TypeVar, Unpack, get_args

from cyllama._admission import is_loopback
from cyllama.server.limits import SIZES, Limits

__all__ = [
    "ANY_ADDRESS",
    "LOOPBACK_NAMES",
    "EngineKind",
    "ModelEntry",
    "ModelTask",
    "ServerConfig",
    "ServerOptions",
    "check_idle_seconds",
    "environment_keys",
    "parse_bytes",
    "read_key_file",
]

EngineKind = Literal["llm", "whisper", "sd"]
ModelTask = Literal["chat", "embeddings", "rerank", "speech", "images"]

KINDS: tuple[EngineKind, ...] = get_args(EngineKind)
KEY_VARIABLE = "CYLLAMA_API_KEY"
MAX_IDLE_SECONDS = 10**9
UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
ANY_ADDRESS = "any IP address"
"""Among the accepted hosts: a name can be rebound to another address by DNS, an address cannot."""
ENTRY_KEYS = ("kind", "aliases", "preload", "pin", "idle_seconds")
"""Keys of a model's table that are not settings of its class; so is ``model``."""
OWN_UPSCALERS = ("None", "Lanczos", "Nearest")
STYLE_KEYS = ("prompt", "negative_prompt")

_T = TypeVar("_T")


@dataclass(kw_only=True, frozen=True)
class ModelEntry:
    """A model of the server.

    Attributes
    ----------
    name : str
        Name of the model in requests.
    kind : str
        Engine: ``"llm"``, ``"whisper"`` or ``"sd"``.
    model : str or path
        A file, or a name of `cyllama.models`; None for a diffusion model whose components are in `settings`.
    settings : mapping
        Keyword arguments of `cyllama.LLM`, `cyllama.whisper.Whisper` or `cyllama.sd.StableDiffusion`.
    aliases : sequence of str
        Other names of the model.
    preload : bool
        Load the model when the server starts; by default the first request loads it.
    pin : bool
        Load the model when the server starts and keep it in memory: it is neither unloaded when it is idle nor when
        another model needs memory.
    idle_seconds : float or None
        Seconds without requests after which the model is unloaded; None: it stays until another model needs memory.

    Raises
    ------
    TypeError, ValueError
    """

    name: str
    kind: EngineKind
    model: str | os.PathLike[str] | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    aliases: Sequence[str] = ()
    preload: bool = False
    pin: bool = False
    idle_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"model {self.name!r}: kind is {self.kind!r}, expected one of {', '.join(KINDS)}")
        for name in (self.name, *self.aliases):
            if not isinstance(name, str) or not name:
                raise ValueError(f"model {self.name!r}: name is {name!r}, expected a string that is not empty")
        if self.model is None and self.kind != "sd":
            raise ValueError(f"model {self.name!r}: model is missing, expected a file or a name of cyllama.models")
        for option in ("preload", "pin"):
            if not isinstance(getattr(self, option), bool):
                raise TypeError(f"model {self.name!r}: {option} is {getattr(self, option)!r}, expected true or false")
        if self.idle_seconds is not None:
            check_idle_seconds(self.idle_seconds, f"model {self.name!r}: idle_seconds")
            if self.pin:
                raise ValueError(f"model {self.name!r}: pin and idle_seconds exclude each other")

    @property
    def task(self) -> ModelTask:
        """The task of the model: ``"chat"``, ``"embeddings"``, ``"rerank"``, ``"speech"`` or ``"images"``."""
        if self.kind == "whisper":
            return "speech"
        if self.kind == "sd":
            return "images"
        if self.settings.get("reranking"):
            return "rerank"
        return "embeddings" if self.settings.get("embedding") else "chat"


def check_idle_seconds(value: object, name: str) -> None:
    """Check a number of seconds after which an idle model is unloaded.

    Raises
    ------
    TypeError, ValueError
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}, expected a number of seconds")
    if not 0 <= value <= MAX_IDLE_SECONDS:
        raise ValueError(f"{name} is {value!r}, expected 0 to {MAX_IDLE_SECONDS:,} seconds")


class ServerOptions(TypedDict, total=False):
    """Fields of `ServerConfig` that replace those of a file; None changes nothing."""

    host: str | None
    port: int | None
    api_keys: Sequence[str] | None
    memory: int | None
    any_name: bool | None
    cors_origins: Sequence[str] | None
    allowed_hosts: Sequence[str] | None
    allow_no_key: bool | None
    allow_pull: bool | None
    metrics: bool | None
    slots: bool | None
    image_link_seconds: float | None
    upscalers: Mapping[str, str | os.PathLike[str]] | None
    image_styles: Mapping[str, Mapping[str, str]] | None
    batch_folder: str | os.PathLike[str] | None
    limits: Limits | None


@dataclass(kw_only=True, frozen=True)
class ServerConfig:
    """Configuration of the server.

    Attributes
    ----------
    models : sequence of ModelEntry
        A request without a model uses the first one for its task.
    host : str
        Address to listen on, or several that are separated by commas, such as ``"127.0.0.1,::1"``.
    port : int
        Port to listen on; 0: a free one.
    api_keys : sequence of str
        If there are any, requests need one of them: ``Authorization: Bearer KEY``, ``x-api-key: KEY``, or as the
        password of Basic authentication.
    memory : int or None
        Maximum memory of all loaded models, in bytes; None: the free memory.
    any_name : bool
        Accept unknown model names and use the first model for the task, as ``llama-server`` does.
    cors_origins : sequence of str
        Origins that may send requests from a browser; ``"*"``: any.
    allowed_hosts : sequence of str
        Values of the ``Host`` header that are accepted, beside the loopback names and `host`. A server on a public
        address also accepts the name of this machine and all IP addresses. ``"*"``: any.
    allow_no_key : bool
        Listen on a public address without API keys: everyone who can reach the server can use it.
    allow_pull : bool
        Let clients of Ollama's protocol download models that are not in `models`, and delete them from the cache.
    metrics : bool
        Answer ``/metrics``.
    slots : bool
        Answer ``/slots``, which shows settings and prompts of the requests that run.
    image_link_seconds : float
        Time for which the server keeps generated images for requests with ``"response_format": "url"``; 0: such
        requests are rejected.
    upscalers : mapping
        ESRGAN networks, each a file or a name of `cyllama.models`, by the names that requests use.
    image_styles : mapping
        Styles for images: ``{"prompt": ..., "negative_prompt": ...}`` by their names.
    batch_folder : path or None
        Folder of the files and jobs of ``/v1/files`` and ``/v1/batches``; None: there are no such routes.
    limits : Limits

    Raises
    ------
    TypeError, ValueError
    """

    models: Sequence[ModelEntry]
    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: Sequence[str] = field(default=(), repr=False)
    memory: int | None = None
    any_name: bool = False
    cors_origins: Sequence[str] = ()
    allowed_hosts: Sequence[str] = ()
    allow_no_key: bool = False
    allow_pull: bool = False
    metrics: bool = True
    slots: bool = True
    image_link_seconds: float = 0.0
    upscalers: Mapping[str, str | os.PathLike[str]] = field(default_factory=dict)
    image_styles: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    batch_folder: str | os.PathLike[str] | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("models is empty, expected at least one model")
        names = [name for entry in self.models for name in (entry.name, *entry.aliases)]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ValueError(f"two models have the name {duplicates[0]!r}")
        if any(not isinstance(key, str) or not key.strip() for key in self.api_keys):
            raise ValueError("api_keys has an empty key")
        if self.batch_folder is not None and not isinstance(self.batch_folder, str | os.PathLike):
            raise TypeError(f"batch_folder is {self.batch_folder!r}, expected the path of a folder")
        for name in ("any_name", "allow_no_key", "allow_pull", "metrics", "slots"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} is {getattr(self, name)!r}, expected true or false")
        check_idle_seconds(self.image_link_seconds, "image_link_seconds")
        for name, value in self.upscalers.items():
            if name in OWN_UPSCALERS:
                raise ValueError(f"upscalers has the name {name!r}, expected none of {', '.join(OWN_UPSCALERS)}")
            if not isinstance(value, str | os.PathLike):
                raise TypeError(f"upscalers.{name} is {value!r}, expected a file or a name of cyllama.models")
        for name, style in self.image_styles.items():
            if not isinstance(style, Mapping):
                raise TypeError(f"image_styles.{name} is {style!r}, expected a table")
            _check_names(style, set(STYLE_KEYS), f"image_styles.{name}: ")
            if not all(isinstance(text, str) for text in style.values()):
                raise TypeError(f"image_styles.{name} is {dict(style)!r}, expected texts")
        if not isinstance(self.host, str) or not all(self.addresses):
            raise ValueError(f"host is {self.host!r}, expected an address, or several separated by commas")
        if isinstance(self.port, bool) or not isinstance(self.port, int) or not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port!r}, expected 0 to 65535")

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of `host`, without brackets."""
        return tuple(address.strip().strip("[]") for address in self.host.split(","))

    @property
    def is_local(self) -> bool:
        """Whether the server listens on loopback addresses only."""
        return all(map(is_loopback, self.addresses))

    @property
    def hosts(self) -> tuple[str, ...]:
        """The values of the ``Host`` header that are accepted; ``"*"``: any; `ANY_ADDRESS`: all IP addresses."""
        if "*" in self.allowed_hosts:
            return ("*",)
        public = () if self.is_local else (ANY_ADDRESS, socket.gethostname())
        return (*LOOPBACK_NAMES, *self.addresses, *public, *self.allowed_hosts)

    def check_access(self) -> None:
        """Check that a server on a public address has API keys, or that `allow_no_key` is set.

        Raises
        ------
        ValueError
        """
        if not (self.is_local or self.api_keys or self.allow_no_key):
            raise ValueError(
                f"host is {self.host!r}, a public address, and there is no API key: everyone who can reach the server "
                "could use it. Set api_keys or api_key_file, listen on 127.0.0.1, or set allow_no_key (--allow-no-key)"
            )

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **changes: Unpack[ServerOptions]) -> Self:
        """Read a TOML file; see docs/howto/serve.md.

        Parameters
        ----------
        path : str or path
        **changes
            Fields that replace those of the file.

        Raises
        ------
        FileNotFoundError
        ValueError, TypeError
            The file is not valid TOML, or has an unknown or wrong setting.
        """
        file = Path(path)
        try:
            data = tomllib.loads(file.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} is not valid TOML: {error}") from None
        return cls.from_dict(data, folder=file.parent, **changes)

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], *, folder: Path | None = None, **changes: Unpack[ServerOptions]
    ) -> Self:
        """Convert the contents of a configuration file.

        Parameters
        ----------
        data : mapping
        folder : Path, optional
            Base of relative file names; by default the working directory.
        **changes
            Fields that replace those of `data`.

        Raises
        ------
        ValueError, TypeError
        """
        given = dict(data)
        key_file = given.pop("api_key_file", None)
        entries = given.pop("models", {})
        if not isinstance(entries, Mapping):
            raise TypeError(f"models is {entries!r}, expected a table [models.NAME] for each model")
        _check_names(given, {item.name for item in dataclasses.fields(cls)} - {"models"} | {"api_key_file"}, "")
        if "limits" in given:
            limits = given["limits"]
            if not isinstance(limits, Mapping):
                raise TypeError(f"limits is {limits!r}, expected a table")
            _check_names(limits, {item.name for item in dataclasses.fields(Limits)}, "limits: ")
            sizes = {name: parse_bytes(limits[name], f"limits: {name}") for name in SIZES if name in limits}
            given["limits"] = Limits(**{**limits, **sizes})
        if "memory" in given:
            given["memory"] = parse_bytes(given["memory"], "memory")
        base = folder or Path()
        for name in ("upscalers", "image_styles"):
            if name in given and not isinstance(given[name], Mapping):
                raise TypeError(f"{name} is {given[name]!r}, expected a table")
        given["upscalers"] = {name: _resolve_path(value, base) for name, value in given.get("upscalers", {}).items()}
        given["models"] = [_parse_entry(name, value, base) for name, value in entries.items()]
        given["api_keys"] = [
            *_strings(given, "api_keys"),
            *([] if key_file is None else read_key_file(base / key_file)),
        ]
        for name in ("cors_origins", "allowed_hosts"):
            given[name] = _strings(given, name)
        if isinstance(given.get("batch_folder"), str):
            given["batch_folder"] = base / given["batch_folder"]
        return cls(**{**given, **{name: value for name, value in changes.items() if value is not None}})


def parse_bytes(value: int | str, name: str) -> int:
    """Return a number of bytes given as an integer or with a unit, such as ``"8 GiB"`` or ``"500M"``.

    Parameters
    ----------
    value : int or str
    name : str
        Name of the setting, for the error message.

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
    """Return the API keys of the variable ``CYLLAMA_API_KEY``, which are separated by commas."""
    return [key.strip() for key in os.environ.get(KEY_VARIABLE, "").split(",") if key.strip()]


def read_key_file(path: str | os.PathLike[str]) -> list[str]:
    """Return the API keys of a file with one key per line; ignore empty lines and lines that begin with ``#``."""
    lines = (line.strip() for line in Path(path).read_text("utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _strings(given: Mapping[str, Any], name: str) -> list[str]:
    value = given.get(name, [])
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(v, str) for v in value):
        raise TypeError(f"{name} is {value!r}, expected a list of strings")
    return list(value)


def _parse_entry(name: str, value: object, folder: Path) -> ModelEntry:
    if not isinstance(value, Mapping):
        raise TypeError(f"models.{name} is {value!r}, expected a table")
    settings = dict(value)
    own = {key: settings.pop(key) for key in ENTRY_KEYS if key in settings}
    model = settings.pop("model", None if own.get("kind") == "sd" and settings else name)
    if isinstance(settings.get("prompt_cache"), str):
        settings["prompt_cache"] = str(folder / settings["prompt_cache"])
    if "prompt_cache_bytes" in settings:
        settings["prompt_cache_bytes"] = parse_bytes(
            settings["prompt_cache_bytes"], f"models.{name}.prompt_cache_bytes"
        )
    return ModelEntry(
        name=name,
        kind=own.get("kind", "llm"),
        model=_resolve_path(model, folder),
        settings={key: _resolve_path(item, folder, is_folder=key == "lora_dir") for key, item in settings.items()},
        aliases=_strings(own, "aliases"),
        preload=own.get("preload", False),
        pin=own.get("pin", False),
        idle_seconds=own.get("idle_seconds"),
    )


def _resolve_path(value: _T, folder: Path, is_folder: bool = False) -> _T | str:
    """Return the full path if the value names a file, or a folder, in `folder`, else the value."""
    if isinstance(value, str) and value and "\n" not in value and len(value) < 1024:
        path = folder / value
        if "\0" not in value and (path.is_dir() if is_folder else path.is_file()):
            return str(path.resolve())
    return value


def _check_names(given: Iterable[str], known: set[str], where: str) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(sorted(known))}"
            raise TypeError(f"{where}unknown setting {name!r}; {hint}")
