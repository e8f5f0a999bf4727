"""Parts of messages: forms, permissions of paths and URLs, downloads, limits."""

from __future__ import annotations

import base64
import io
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cyllama.errors import CancelledError, MediaError, UnsupportedError
from cyllama.media.message_parts import Media, MediaRules, list_media, part_media

DATA = b"the content of a file"
BASE64 = base64.b64encode(DATA).decode()
URL = f"data:image/png;base64,{BASE64}"
CLOSED = MediaRules()


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "image_url", "image_url": {"url": URL, "detail": "low"}}, "image"),
        ({"type": "image_url", "image_url": URL}, "image"),
        ({"type": "image_url", "image_url": {"url": BASE64}}, "image"),
        ({"type": "image_url", "image_url": {"url": URL.replace("data:", "DATA:")}}, "image"),
        ({"type": "input_image", "image_url": URL}, "image"),
        ({"type": "image", "image": URL}, "image"),
        ({"type": "image", "image": DATA}, "image"),
        ({"type": "image", "url": URL}, "image"),
        ({"type": "image", "base64": BASE64}, "image"),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64}}, "image"),
        ({"type": "image", "source": {"type": "url", "url": URL}}, "image"),
        ({"type": "input_audio", "input_audio": {"data": BASE64, "format": "wav"}}, "audio"),
        ({"type": "input_audio", "input_audio": {"data": f"data:audio/wav;base64,{BASE64}"}}, "audio"),
        ({"type": "input_audio", "input_audio": {"data": DATA}}, "audio"),
        ({"type": "audio_url", "audio_url": {"url": f"data:audio/mp3;base64,{BASE64}"}}, "audio"),
        ({"type": "audio", "audio": DATA}, "audio"),
        ({"type": "image_url", "image_url": {"url": f"data:;base64,{BASE64[:8]}\n{BASE64[8:]}\r\n"}}, "image"),
    ],
)
def test_decodes_every_form(part: dict[str, Any], kind: str) -> None:
    found = part_media(part, "here", CLOSED)
    assert found == Media(kind, DATA, "here")


def test_keeps_objects() -> None:
    for value in (Image.new("RGB", (2, 2)), np.zeros((2, 2)), io.BytesIO(b"x")):
        found = part_media({"type": "image", "image": value}, "here", CLOSED)
        assert found is not None and found.value is value
    clip = (8000, np.zeros(9))
    found = part_media({"type": "audio", "audio": clip}, "here", CLOSED)
    assert found is not None and found.kind == "audio" and found.value is clip


@pytest.mark.parametrize(
    "part", [{"type": "text", "text": "hi"}, {"type": "refusal"}, {}, {"type": None}, {"type": {}}]
)
def test_ignores_other_parts(part: dict[str, Any]) -> None:
    assert part_media(part, "here", CLOSED) is None


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "image_url"}, "here is .*expected a part of type image_url with 'image_url'"),
        ({"type": "image_url", "image_url": {}}, "expected a part of type image_url"),
        ({"type": "image_url", "image_url": {"url": "data:image/png,"}}, "image_url.url is empty"),
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64"}},
            "expected base64 or data:TYPE;base64,DATA",
        ),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}, "image_url.url is empty"),
        ({"type": "image_url", "image_url": {"url": "not base64"}}, "image_url.url is 'not base64', expected base64"),
        ({"type": "image_url", "image_url": {"url": "ftp://host/a.png"}}, "expected one of http or https"),
        ({"type": "image_url", "image_url": {"url": "http:///a.png"}}, "expected one of http or https"),
        ({"type": "input_audio", "input_audio": {"data": "/etc/passwd"}}, "expected base64"),
        ({"type": "input_audio", "input_audio": {"data": "http://host/a.wav"}}, "expected base64"),
    ],
)
def test_rejects_invalid_parts(part: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        part_media(part, "here", MediaRules(allow_paths=True, allow_urls=True))


@pytest.mark.parametrize("type_", ["video_url", "input_video", "video"])
def test_rejects_videos(type_: str) -> None:
    with pytest.raises(UnsupportedError, match="here is a video"):
        part_media({"type": type_, type_: {"url": URL}}, "here", CLOSED)


# ---------------------------------------------------------------------------------------------- paths


def path_parts(path: Path) -> list[dict[str, Any]]:
    return [
        {"type": "image", "image": str(path)},
        {"type": "image", "image": path},
        {"type": "image", "path": str(path)},
        {"type": "image_url", "image_url": {"url": path.as_uri()}},
        {"type": "image_url", "image_url": {"url": f"file://localhost{path}"}},
        {"type": "audio", "audio": str(path)},
        {"type": "audio_url", "audio_url": {"url": path.as_uri()}},
    ]


def test_opens_paths_only_with_permission(tmp_path: Path) -> None:
    path = tmp_path / "a file.png"
    path.write_bytes(DATA)
    for part in path_parts(path):
        with pytest.raises(ValueError, match="which is opened only with allow_paths"):
            part_media(part, "here", CLOSED)
        with pytest.raises(ValueError, match="not in allow_paths"):
            part_media(part, "here", MediaRules(allow_paths=tmp_path / "other"))
        for allowed in (True, tmp_path, str(tmp_path.parent), [tmp_path / "other", tmp_path]):
            found = part_media(part, "here", MediaRules(allow_paths=allowed))
            assert found is not None and Path(found.value).read_bytes() == DATA
    with pytest.raises(ValueError, match="a file of another machine"):
        part_media({"type": "image", "url": "file://host/a.png"}, "here", MediaRules(allow_paths=True))


def test_folder_cannot_be_left(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(DATA)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "inside too").mkdir()
    (tmp_path / "inside too" / "a.png").write_bytes(DATA)
    rules = MediaRules(allow_paths=inside)
    for path in (inside / "link.png", inside / ".." / "secret.png", tmp_path / "inside too" / "a.png"):
        with pytest.raises(ValueError, match="not in allow_paths"):
            part_media({"type": "image", "path": str(path)}, "here", rules)
    url = f"{inside.as_uri()}/%2e%2e/secret.png"
    with pytest.raises(ValueError, match="not in allow_paths"):
        part_media({"type": "image", "url": url}, "here", rules)


# ---------------------------------------------------------------------------------------------- URLs


class Handler(BaseHTTPRequestHandler):
    """Responds by path."""

    def do_GET(self) -> None:
        if self.path.startswith(("/to/", "/circle")):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        self.send_response(404 if self.path == "/none" else 200)
        if self.path == "/says-much":
            self.send_header("Content-Length", str(1 << 40))
        self.end_headers()
        if self.path == "/endless":
            try:
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                return
        if self.path == "/slow":
            self.server.waiting.wait(30)  # type: ignore[attr-defined]
            return
        self.wfile.write(DATA)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server on this machine."""
    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.waiting = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.waiting.set()  # type: ignore[attr-defined]
    found.shutdown()
    found.server_close()
    thread.join()


def fetch(url: str, rules: MediaRules, cancel: Any = None) -> Any:
    found = part_media({"type": "image_url", "image_url": {"url": url}}, "here", rules, cancel)
    assert found is not None
    return found.value


def test_fetches_urls_only_with_permission(server: str) -> None:
    with pytest.raises(ValueError, match="which is opened only with allow_urls"):
        fetch(server, CLOSED)
    for hosts in ("example.org", ["example.org", "*.0.0.2"], ["127.0.0.1.example.org"]):
        with pytest.raises(ValueError, match="allow_urls"):
            fetch(server, MediaRules(allow_urls=hosts))
    for hosts in ("127.0.0.1", ["example.org", "127.0.0.1"]):
        assert fetch(server, MediaRules(allow_urls=hosts)) == DATA


# forms of addresses of this machine and of its network
PRIVATE = ("127.0.0.1", "127.1", "0.0.0.0", "2130706433", "localhost", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1",
           "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "[fe80::1]", "[fc00::1]", "[64:ff9b::7f00:1]",
           "[2002:7f00:1::]")  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
@pytest.mark.parametrize("hosts", [True, "*", ["*.*", "*:*", "localhos?", "[12]*"]])
def test_opens_private_addresses_only_by_full_name(host: str, hosts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(socket, "create_connection", lambda address, timeout: opened.append(address))
    with pytest.raises(ValueError, match="allow_urls"):
        fetch(f"http://{host}:1/a.png", MediaRules(allow_urls=hosts))
    assert not opened


@pytest.fixture
def resolved(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Resolve all names to these addresses, in turn; connections to a public address reach the local server."""
    addresses: list[str] = []
    port, connect = int(server.rsplit(":", 1)[1]), socket.create_connection

    def getaddrinfo(host: str, port: int, **options: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (addresses.pop(0), port))]

    def create_connection(address: tuple[str, int], timeout: float) -> socket.socket:
        assert address[0] == "8.8.8.8"  # the checked address, not the name
        with monkeypatch.context() as unpatched:
            unpatched.setattr(socket, "getaddrinfo", original)
            return connect(("127.0.0.1", port), timeout)

    original = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "create_connection", create_connection)
    yield addresses


def test_checks_addresses_after_resolution(resolved: list[str]) -> None:
    resolved[:] = ["8.8.8.8", "127.0.0.1"]  # a second resolution has another result
    assert fetch("http://public.example/a.png", MediaRules(allow_urls=True)) == DATA
    with pytest.raises(ValueError, match=r"public.example.*127.0.0.1"):
        fetch("http://public.example/a.png", MediaRules(allow_urls=True))


def test_checks_addresses_of_redirects(resolved: list[str]) -> None:
    resolved[:] = ["8.8.8.8", "8.8.8.8", "8.8.8.8", "192.168.0.1"]
    assert fetch("http://public.example/to/http://other.example/a.png", MediaRules(allow_urls=True)) == DATA
    with pytest.raises(ValueError, match=r"other.example.*192.168.0.1"):
        fetch("http://public.example/to/http://other.example/a.png", MediaRules(allow_urls=True))


def test_uses_no_proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server)
    with pytest.raises(ValueError, match="allow_urls"):
        fetch("http://10.0.0.1:1/a.png", MediaRules(allow_urls=True))


def test_follows_redirects_only_with_permission(server: str, tmp_path: Path) -> None:
    rules = MediaRules(allow_urls="127.0.0.1", allow_paths=True)
    assert fetch(f"{server}/to/{server}/a.png", rules) == DATA
    with pytest.raises(ValueError, match=r"http://localhost.*allow_urls"):
        fetch(f"{server}/to/http://localhost:1/a.png", rules)
    with pytest.raises(MediaError, match="cannot be fetched from 127.0.0.1: .*not allowed"):
        fetch(f"{server}/to/{tmp_path.as_uri()}/a.png", MediaRules(allow_urls="127.0.0.1"))
    with pytest.raises(MediaError, match="cannot be fetched from 127.0.0.1: .*infinite loop"):
        fetch(f"{server}/circle", rules)


def test_downloads_have_limits(server: str) -> None:
    rules = MediaRules(allow_urls="127.0.0.1", max_bytes=1_000_000, fetch_seconds=0.3)
    for path in ("/endless", "/says-much"):
        with pytest.raises(ValueError, match="1,000,000 bytes"):
            fetch(server + path, rules)
    with pytest.raises(MediaError, match="cannot be fetched from 127.0.0.1: timed out"):
        fetch(f"{server}/slow", rules)
    with pytest.raises(MediaError, match="cannot be fetched from 127.0.0.1: .*Not Found"):
        fetch(f"{server}/none", rules)
    with pytest.raises(MediaError, match="cannot be fetched from 127.0.0.1"):
        fetch("http://127.0.0.1:1/a.png", rules)


def test_cancel_stops_download(server: str) -> None:
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    with pytest.raises(CancelledError):
        fetch(f"{server}/endless", MediaRules(allow_urls="127.0.0.1", max_bytes=1 << 50, fetch_seconds=60), cancel)


# --------------------------------------------------------------------------------- limits, arguments


def test_limits_must_be_positive() -> None:
    with pytest.raises(ValueError, match="more than 5 bytes"):
        part_media({"type": "image", "url": URL}, "here", MediaRules(max_bytes=5))
    assert part_media({"type": "image", "url": URL}, "here", MediaRules(max_bytes=len(DATA)))
    for name in ("max_bytes", "max_pixels", "max_total_pixels", "max_seconds", "fetch_seconds"):
        for wrong in (0, -1, "1", None, True, float("nan")):
            with pytest.raises(ValueError, match=f"{name} is .*, expected a number above 0"):
                MediaRules(**{name: wrong})


def test_lists_media_of_arguments() -> None:
    image, samples = np.zeros((4, 4, 3)), np.zeros(100)
    assert list_media(None, "image", "images") == []
    for one in (image, "a.png", b"data", Path("a.png"), Image.new("L", (2, 2)), io.BytesIO(b"x")):
        assert [media.value is one for media in list_media(one, "image", "images")] == [True]
        assert [media.name for media in list_media([one, one], "image", "images")] == ["images[0]", "images[1]"]
    assert [media.value for media in list_media(iter(["a", "b"]), "image", "images")] == ["a", "b"]
    pair = (8000, samples)
    assert list_media(pair, "audio", "audio")[0].value is pair
    assert [media.value is pair for media in list_media([pair, pair], "audio", "audio")] == [True, True]
    assert len(list_media(("a.wav", "b.wav"), "audio", "audio")) == 2
