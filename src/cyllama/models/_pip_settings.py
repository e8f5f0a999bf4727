"""Read pip's settings from its environment variables and configuration files.

pip itself is not used: it may be missing (environments of uv have none), and starting it takes half a second.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cyllama.errors import DownloadError

__all__ = ["PipSettings", "pip_settings"]

DEFAULT_INDEX = ""  # the public index, the default of unearth
SECTIONS = ("global", "download")  # in increasing priority; the environment has the highest


@dataclass(frozen=True)
class PipSettings:
    """Indexes and connection settings; an empty index URL is the public index."""

    index_urls: tuple[str, ...] = (DEFAULT_INDEX,)
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    cert: str = ""
    client_cert: str = ""
    proxy: str = ""
    timeout: float = 15.0


def pip_settings(environ: Mapping[str, str] | None = None, files: Sequence[Path] | None = None) -> PipSettings:
    """Read pip's settings.

    Parameters
    ----------
    environ : mapping, optional
        The environment; by default, that of the process.
    files : sequence of path, optional
        Configuration files in increasing priority; by default, those that pip reads.

    Returns
    -------
    PipSettings
        The settings for downloads.

    Raises
    ------
    DownloadError
        A configuration file cannot be parsed.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, str] = {}
    for path in _files(environ) if files is None else files:
        values.update(_read(path))
    for key, value in environ.items():
        if key.startswith("PIP_") and value:
            values[_normal(key[4:])] = value
    no_index = values.get("no-index", "").lower() in ("1", "true", "yes", "on", "y", "t")
    indexes = [values.get("index-url", DEFAULT_INDEX), *values.get("extra-index-url", "").split()]
    try:
        timeout = float(values.get("timeout", values.get("default-timeout", "15")))
    except ValueError:
        timeout = 15.0
    return PipSettings(
        index_urls=() if no_index else tuple(dict.fromkeys(url.strip().rstrip("/") for url in indexes)),
        find_links=tuple(os.path.expanduser(link) for link in values.get("find-links", "").split()),
        trusted_hosts=tuple(values.get("trusted-host", "").split()),
        cert=values.get("cert", "") or environ.get("REQUESTS_CA_BUNDLE", "") or environ.get("CURL_CA_BUNDLE", ""),
        client_cert=values.get("client-cert", ""),
        proxy=values.get("proxy", ""),
        timeout=timeout,
    )


def _normal(key: str) -> str:
    return key.lower().replace("_", "-").removeprefix("--")


def _read(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        text = str(error).splitlines()[0]
        raise DownloadError(f"pip's configuration file {path} cannot be read: {text}") from error
    values: dict[str, str] = {}
    for section in SECTIONS:
        if parser.has_section(section):
            values.update({_normal(key): value for key, value in parser.items(section)})
    return values


def _files(environ: Mapping[str, str]) -> list[Path]:
    """Return the files that pip reads, in increasing priority: machine, user, environment."""
    chosen = environ.get("PIP_CONFIG_FILE", "")
    if chosen == os.devnull:
        return []
    name = "pip.ini" if sys.platform == "win32" else "pip.conf"
    home = Path.home()
    if sys.platform == "win32":
        machine = [Path(environ.get("PROGRAMDATA", "C:/ProgramData")) / "pip"]
        user = [home / "pip", Path(environ.get("APPDATA", home / "AppData" / "Roaming")) / "pip"]
    elif sys.platform == "darwin":
        machine = [Path("/Library/Application Support/pip")]
        user = [home / ".pip", home / ".config" / "pip", home / "Library" / "Application Support" / "pip"]
    else:
        folders = environ.get("XDG_CONFIG_DIRS", "") or "/etc/xdg"
        machine = [*(Path(folder) / "pip" for folder in folders.split(os.pathsep)), Path("/etc")]
        user = [home / ".pip", Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip"]
    return [folder / name for folder in (*machine, *user, Path(sys.prefix))] + ([Path(chosen)] if chosen else [])
