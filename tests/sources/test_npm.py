"""scripts/engines with an npm registry on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from engines.npm import DEFAULT_REGISTRY, registry
from sources.small_engine import MAIN_C, Files, Place, sha256, sources, tarball

Sentence = Callable[[], str]
PACKAGE = "@org/carrier"
ARCHIVE = "carrier-3.1.0.tgz"
MOVE = ("--origin", "npm", "--package", PACKAGE, "--version", "3.1.0", "--tree", "cpp/eng")


class Registry:
    """The registry, with one version of one package."""

    def __init__(self, server: Files, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.url = server.url + "npm/"
        self.path = f"/npm/{PACKAGE}/-/{ARCHIVE}"
        self.publish(sources("3.1"))

    def publish(self, files: dict[str, str], **dist: str) -> bytes:
        package = {f"package/cpp/eng/{name}": text for name, text in files.items()}
        content = tarball(self.folder / ARCHIVE, {"package/package.json": "{}", **package}).read_bytes()
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
        known = {"tarball": self.server.url.rstrip("/") + self.path, "integrity": integrity, **dist}
        metadata = json.dumps({"name": PACKAGE, "versions": {"3.1.0": {"dist": known}}})
        self.server.files = {self.path: content, "/npm/@org%2Fcarrier": metadata.encode()}
        return content


@pytest.fixture
def npm(server: Files, place: Place, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Configure the registry as the program npm would name it."""
    running = Registry(server, place.folder)
    programs = place.folder / "programs"
    programs.mkdir()
    (programs / "npm").write_text(f'#!/bin/sh\n[ "$*" = "config get registry" ] && echo {running.url}\n')
    (programs / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return running


def test_moves_to_npm_and_installs_again(npm: Registry, place: Place) -> None:
    place.patch()
    assert place.update(*MOVE) == 0
    engine = place.engine()
    assert (engine.origin, engine.package, engine.version, engine.filename) == ("npm", PACKAGE, "3.1.0", ARCHIVE)
    assert engine.sha256 == sha256(place.folder / ARCHIVE)
    assert (engine.upstream_version, engine.commit, engine.ggml) == ("3.1.0", "unknown", "0.7.3")
    assert place.read("src/main.c").startswith("one\nTWO\n")
    assert place.run("--check", "eng") == 0
    (place.cache / ARCHIVE).unlink()
    place.patch("", "01-two.patch")
    (place.patches / "01-two.patch").unlink()
    assert place.run("eng") == 0
    assert place.read("src/main.c") == MAIN_C


def test_cached_archive_needs_no_registry(npm: Registry, place: Place) -> None:
    assert place.update(*MOVE) == 0
    place.patch()
    npm.server.files = {}
    requests = len(npm.server.requests)
    assert place.run("eng") == 0
    assert len(npm.server.requests) == requests


def test_repeated_update_downloads_once(npm: Registry, place: Place, sentence: Sentence) -> None:
    place.patch("nothing\n")
    assert place.update(*MOVE) == 1
    sentence()
    place.patch()
    assert place.update(*MOVE) == 0
    assert [path for path, _ in npm.server.requests].count(npm.path) == 1


@pytest.mark.parametrize("is_update", [True, False])
def test_rejects_wrong_hash(is_update: bool, npm: Registry, place: Place, sentence: Sentence) -> None:
    if is_update:
        npm.publish(sources("3.1"), integrity="sha512-" + base64.b64encode(bytes(64)).decode())
    else:
        assert place.update(*MOVE) == 0
        (place.cache / ARCHIVE).unlink()
        place.patch()
        npm.server.files[npm.path] = npm.server.files[npm.path][:-1] + b"x"
    before = place.state()
    assert (place.update(*MOVE) if is_update else place.run("eng")) == 1
    assert ARCHIVE in (text := sentence()) and ("sha512" if is_update else place.engine().sha256) in text
    assert (place.state(), place.cached()) == (before, set())


def test_checks_sha1_if_there_is_no_other_hash(npm: Registry, place: Place, sentence: Sentence) -> None:
    content = npm.publish(sources("3.1"))
    npm.publish(sources("3.1"), integrity="", shasum=hashlib.sha1(content + b"x").hexdigest())
    assert place.update(*MOVE) == 1
    assert ARCHIVE in sentence()
    npm.publish(sources("3.1"), integrity="", shasum=sha1(npm))
    assert place.update(*MOVE) == 0


def sha1(npm: Registry) -> str:
    return hashlib.sha1(npm.server.files[npm.path]).hexdigest()


def test_rejects_truncated_body_and_continues_later(npm: Registry, place: Place, sentence: Sentence) -> None:
    size = len(npm.publish({**sources("3.1"), "large.bin": base64.b64encode(os.urandom(700_000)).decode()}))
    npm.server.cuts = [600_000, 0, 0]
    before = place.state()
    assert place.update(*MOVE) == 1
    assert ARCHIVE in (text := sentence()) and f"{size:,}" in text
    assert (place.state(), place.cached()) == (before, {f"{ARCHIVE}.part"})
    done = (place.cache / f"{ARCHIVE}.part").stat().st_size
    assert 0 < done <= 600_000
    assert place.update(*MOVE) == 0
    assert npm.server.requests[-1] == (npm.path, f"bytes={done}-")
    assert place.cached() == {ARCHIVE}


def test_rejects_damaged_archive(npm: Registry, place: Place, sentence: Sentence) -> None:
    content = npm.server.files[npm.path][:-100]
    npm.publish(sources("3.1"), integrity="sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode())
    npm.server.files[npm.path] = content
    before = place.state()
    assert place.update(*MOVE) == 1
    assert ARCHIVE in sentence()
    assert (place.state(), place.cached()) == (before, set())


def test_rejects_patch_that_does_not_apply(npm: Registry, place: Place, sentence: Sentence) -> None:
    place.patch()
    assert place.run("eng") == 0
    npm.publish(sources("3.1", MAIN_C.replace("two", "deux")))
    before = place.state()
    assert place.update(*MOVE) == 1
    assert "01-two.patch" in sentence()
    assert place.state() == before


@pytest.mark.parametrize(
    ("arguments", "metadata"),
    [(("--version", "9.9.9"), None), ((), b"{}"), ((), b"<html>"), ((), b'{"versions": {"3.1.0": 7}}')],
)
def test_error_names_missing_version(
    arguments: tuple[str, ...], metadata: bytes | None, npm: Registry, place: Place, sentence: Sentence
) -> None:
    if metadata is not None:
        npm.server.files["/npm/@org%2Fcarrier"] = metadata
    before = place.state()
    assert place.update(*MOVE, *arguments) == 1
    assert PACKAGE in (text := sentence()) and (arguments[-1:] or ("3.1.0",))[0] in text
    assert (place.state(), place.cached()) == (before, set())


def test_names_missing_package_and_server(
    npm: Registry, place: Place, sentence: Sentence, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm.server.files = {}
    assert place.update(*MOVE) == 1
    assert PACKAGE in (text := sentence()) and "404" in text
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:1")
    assert place.update(*MOVE) == 1
    assert PACKAGE in sentence()


def test_mirror_replaces_the_default_host(npm: Registry, place: Place) -> None:
    npm.publish(sources("3.1"), tarball=f"{DEFAULT_REGISTRY}{PACKAGE}/-/{ARCHIVE}")
    assert place.update(*MOVE) == 0


def test_registry_comes_from_npm_environment_file_or_default(
    npm: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://environment.invalid/npm")
    assert registry() == npm.url
    monkeypatch.setenv("PATH", "")
    assert registry() == "https://environment.invalid/npm/"
    monkeypatch.delenv("NPM_CONFIG_REGISTRY")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("npm_config_registry", "NPM_CONFIG_USERCONFIG", "npm_config_userconfig"):
        monkeypatch.delenv(name, raising=False)
    assert registry() == DEFAULT_REGISTRY
    monkeypatch.setenv("PLACE", "file")
    (tmp_path / ".npmrc").write_text(
        "; registry = no\n@a:registry=https://no.invalid\nregistry = https://${PLACE}.invalid/\n"
    )
    assert registry() == "https://file.invalid/"
