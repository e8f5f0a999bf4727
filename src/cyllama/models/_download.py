"""Download an archive (sdist or wheel) of a package from the index that pip is configured with.

Nothing is installed or built. A cached archive with the right hash needs neither a network nor a library; otherwise
``unearth`` finds the archive, and ``filelock`` prevents concurrent writes of a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cyllama.errors import DownloadError
from cyllama.models._archive import extract_member, full_disk, safe_extract, top_folder
from cyllama.models._cache import cache_folder
from cyllama.models._pip_settings import DEFAULT_INDEX, PipSettings, pip_settings

if TYPE_CHECKING:
    from unearth import Link
    from unearth.fetchers.sync import PyPIClient

__all__ = [
    "Archive",
    "PipSettings",
    "Progress",
    "extract_member",
    "fetch",
    "locked",
    "pip_settings",
    "read_url",
    "safe_extract",
    "sha256_of",
    "top_folder",
]

Progress = Callable[[int, int], None]
"""A callback with the number of bytes done and the total, which is 0 if unknown."""

CHUNK = 1 << 18
ATTEMPTS = 3
PART = ".part"
STALE_SECONDS = 7 * 24 * 3600.0  # a download that was not continued for so long was given up


@dataclass(frozen=True)
class Archive:
    """A file of a package on the index.

    Attributes
    ----------
    package, version : str
        Name and exact version of the package.
    filename : str
        The file name of the archive; empty for the sdist of that version.
    sha256 : str
        The pinned hash; empty only while a version is pinned.
    size : int
        Bytes; 0 if unknown.
    """

    package: str
    version: str
    filename: str = ""
    sha256: str = ""
    size: int = 0

    def __str__(self) -> str:
        return f"{self.filename or 'the sdist'} of package {self.package} version {self.version}"


@dataclass(frozen=True)
class _Source:
    """A location of an archive: `path` for a local file, else `url`; `shown` is the URL without a password."""

    filename: str
    url: str
    shown: str
    sha256: str
    path: Path | None


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path` between processes and threads; the lock file is in a folder ``.locks`` beside it."""
    try:
        from filelock import FileLock
    except ImportError as error:
        raise DownloadError("downloading needs the library filelock: pip install filelock") from error
    folder = path.parent / ".locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{path.name}.lock")
        lock.acquire()
    except OSError as error:
        raise full_disk(error, f"a lock for {path.name}", folder) from error
    try:
        yield
    finally:
        lock.release()


def fetch(
    archive: Archive,
    folder: str | os.PathLike[str] | None = None,
    *,
    url: str = "",
    progress: Progress | None = None,
    settings: PipSettings | None = None,
) -> Path:
    """Return the path of an archive in the cache; download it first if it is not there.

    An interrupted download leaves a ``.part`` file, which the next call continues. The file is renamed after a hash
    check. A ``.part`` file that was not written for a week is removed by the next download of any archive. May be
    called from several threads and processes at once.

    Parameters
    ----------
    archive : Archive
        The archive to download.
    folder : path, optional
        The cache; by default, ``cache_folder("archives")``.
    url : str, optional
        The URL of the archive; by default, it is looked up on the package index.
    progress : callable, optional
        Called with (bytes done, bytes in total).
    settings : PipSettings, optional
        Indexes and connection settings; by default, those of pip.

    Returns
    -------
    pathlib.Path
        The archive.

    Raises
    ------
    DownloadError
        There is no network or no such version, the hash is wrong, the file is truncated, or the disk is full.
    """
    folder = cache_folder("archives") if folder is None else Path(folder)
    if _is_cached(archive, folder):
        return folder / archive.filename
    with locked(folder / (archive.filename or f"{archive.package}-{archive.version}")):
        if _is_cached(archive, folder):
            return folder / archive.filename
        _remove_stale(folder)
        return _fetch(archive, folder, url, settings or pip_settings(), progress)


def read_url(url: str, *, headers: Mapping[str, str] | None = None, settings: PipSettings | None = None) -> bytes:
    """Return the content of a URL.

    Parameters
    ----------
    url : str
        The URL.
    headers : mapping, optional
        Request headers.
    settings : PipSettings, optional
        Certificates, proxy and timeout; by default, those of pip.

    Raises
    ------
    DownloadError
        The server cannot be reached, or its status is not 200; the message has the status.
    """
    with _session(settings or pip_settings()) as session:
        shown = _source(url).shown
        try:
            response = session.get(url, headers=dict(headers or {}))
        except Exception as error:  # of the HTTP library of unearth
            raise DownloadError(f"cannot download {shown}: {error or type(error).__name__}") from error
        if response.status_code != 200:
            raise DownloadError(f"cannot download {shown}: the server returned {response.status_code}")
        return bytes(response.content)


def _is_cached(archive: Archive, folder: Path) -> bool:
    if not (archive.filename and archive.sha256):
        return False
    path = folder / archive.filename
    return path.is_file() and sha256_of(path) == archive.sha256


def _fetch(archive: Archive, folder: Path, url: str, settings: PipSettings, progress: Progress | None) -> Path:
    problems: list[str] = []
    failure: DownloadError | None = None
    with _session(settings) as session:
        sources = iter([_source(url)]) if url else _sources(archive, settings, session, problems)
        for source in sources:
            path = folder / (archive.filename or source.filename)
            try:
                _download(source, path, archive, session, progress)
                return path
            except DownloadError as error:
                if error.errno is not None:  # a disk error, which another source does not avoid
                    raise
                failure = failure or error
    if failure is not None:
        raise failure
    if problems:
        raise DownloadError(
            f"cannot get {archive}: the package index cannot be reached or returned an error "
            f"({problems[0]}); check the network and pip's configuration"
        )
    raise DownloadError(
        f"cannot get {archive}: it is no longer on the package index (pip's configuration names "
        f"{len(settings.index_urls)} indexes and {len(settings.find_links)} folders of links)"
    )


class _Problems(logging.Handler):
    """Collects the problems that unearth logs instead of raising, except "not found"."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.problems = problems

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "Client Error(404)" not in text:
            self.problems.append(text)


@contextlib.contextmanager
def _session(settings: PipSettings) -> Iterator[PyPIClient]:
    """Open the client of unearth, which supports file:// and reads passwords from URLs, netrc or keyring."""
    try:
        from unearth.auth import MultiDomainBasicAuth
        from unearth.fetchers.sync import PyPIClient
    except ImportError as error:
        raise DownloadError("downloading needs the library unearth: pip install unearth") from error
    import ssl

    verify: Any = True
    try:
        if settings.cert and os.path.isdir(settings.cert):
            verify = ssl.create_default_context(capath=settings.cert)
        elif settings.cert:
            verify = ssl.create_default_context(cafile=settings.cert)
    except OSError as error:
        raise DownloadError(f"pip's setting cert names {settings.cert}, which cannot be read: {error}") from error
    options: dict[str, Any] = {"proxy": settings.proxy} if settings.proxy else {}
    with PyPIClient(
        trusted_hosts=settings.trusted_hosts,
        verify=verify,
        cert=settings.client_cert or None,
        timeout=settings.timeout,
        follow_redirects=True,
        **options,
    ) as session:
        session.auth = MultiDomainBasicAuth(prompting=False, index_urls=list(filter(None, settings.index_urls)))
        yield session


def _search(requirement: str, settings: PipSettings, session: PyPIClient, problems: list[str]) -> Iterator[Any]:
    """Yield the matches of each location, local ones first; add the problem of a location that fails."""
    from unearth import PackageFinder

    locations = [("find_links", link) for link in settings.find_links] + [
        ("index_urls", url) for url in settings.index_urls
    ]
    locations.sort(key=lambda place: place[1] == DEFAULT_INDEX or urlsplit(place[1]).scheme in ("http", "https"))
    handler, logger = _Problems(problems), logging.getLogger("unearth")
    for kind, location in locations:
        options: dict[str, Any] = {"session": session} | ({kind: [location]} if location else {})
        logger.addHandler(handler)
        try:
            finder = PackageFinder(ignore_compatibility=True, trusted_hosts=settings.trusted_hosts, **options)
            yield from list(finder.find_matches(requirement, allow_yanked=True, allow_prereleases=True))
        except Exception as error:  # of the HTTP library of unearth
            problems.append(str(error) or type(error).__name__)
        finally:
            logger.removeHandler(handler)


def _sources(archive: Archive, settings: PipSettings, session: PyPIClient, problems: list[str]) -> Iterator[_Source]:
    for found in _search(f"{archive.package}=={archive.version}", settings, session, problems):
        link = found.link
        if link.filename == archive.filename or (not archive.filename and not link.is_wheel):
            yield _from_link(link)


def _source(url: str) -> _Source:
    from unearth import Link

    return _from_link(Link(url))


def _from_link(link: Link) -> _Source:
    advertised = (link.hash_option or {}).get("sha256", [""])[0]
    path = link.file_path if link.is_file else None
    return _Source(link.filename, link.url_without_fragment, link.redacted, advertised, path)


def _download(source: _Source, path: Path, archive: Archive, session: PyPIClient, progress: Progress | None) -> None:
    """Download to ``path.part``, check the hash and rename, unless the file is in the cache."""
    part = path.with_name(path.name + PART)
    expected = archive.sha256 or source.sha256
    if expected and path.is_file() and sha256_of(path) == expected:
        return
    for last in (False, True):
        resumed = _transfer(source, part, archive.size, session, progress)
        actual = sha256_of(part)
        if not expected or actual == expected:
            os.replace(part, path)
            return
        part.unlink()
        if last or not resumed:  # the resumed file may have been another one: retry from the start
            raise DownloadError(
                f"wrong hash: {archive} from {source.shown} has SHA-256 {actual}, expected {expected}; "
                "the file was removed"
            )


def _transfer(source: _Source, part: Path, size: int, session: PyPIClient, progress: Progress | None) -> bool:
    """Complete the file `part`; return whether a previous download was continued."""
    kept = False
    problem: Exception | None = None
    done = total = 0
    for _ in range(ATTEMPTS):
        offset = _size_of_part(part)
        if size and offset == size:
            return True
        with contextlib.ExitStack() as stack:
            try:
                start, total, chunks = stack.enter_context(
                    _open(source, 0 if size and offset > size else offset, session)
                )
            except DownloadError:
                raise
            except Exception as error:  # of the HTTP library of unearth
                problem, done = error, offset
                continue
            kept = kept or start > 0
            done, problem = _write(part, start, total or size, chunks, progress)
        if problem is None and done >= (size or total):
            return kept
    if problem is not None and not done:
        raise DownloadError(f"cannot download {source.shown}: {problem or type(problem).__name__}") from problem
    raise DownloadError(
        f"truncated: {source.shown} ended after {done:,} of {size or total:,} bytes; try again to continue"
    ) from problem


def _size_of_part(part: Path) -> int:
    """Return the size of an interrupted download; remove a link, which would be followed to another file."""
    try:
        found = part.lstat()
    except FileNotFoundError:
        return 0
    if stat.S_ISREG(found.st_mode):
        return found.st_size
    with _disk_errors(part):
        part.unlink()
    return 0


def _remove_stale(folder: Path) -> None:
    """Remove interrupted downloads that nothing continued for `STALE_SECONDS`."""
    for part in folder.glob(f"*{PART}"):
        with contextlib.suppress(OSError):
            if part.lstat().st_mtime < time.time() - STALE_SECONDS:
                part.unlink()


@contextlib.contextmanager
def _open(source: _Source, offset: int, session: PyPIClient) -> Iterator[tuple[int, int, Iterator[bytes]]]:
    """Open a source at `offset` if it supports that; yield (start, total length, chunks)."""
    if source.path is not None:
        length = source.path.stat().st_size
        with open(source.path, "rb") as file:
            start = file.seek(offset if offset <= length else 0)
            yield start, length, iter(lambda: file.read(CHUNK), b"")
        return
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    with session.get_stream(source.url, headers=headers) as response:
        partial = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {offset}-"
        )
        if response.status_code == 416 and offset:
            with _open(source, 0, session) as opened:
                yield opened
            return
        if response.status_code != 200 and not partial:
            raise DownloadError(f"cannot download {source.shown}: the server returned {response.status_code}")
        start = offset if partial else 0
        length = int(response.headers.get("Content-Length", 0))
        yield start, start + length if length else 0, response.iter_raw(CHUNK)


def _write(
    part: Path, start: int, total: int, chunks: Iterator[bytes], progress: Progress | None
) -> tuple[int, Exception | None]:
    """Write the chunks to `part` from `start`; return its length and the exception of the connection."""
    done = start
    with _disk_errors(part), open(part, "r+b" if start else "wb", opener=_open_part) as file:
        file.seek(start)
        file.truncate()
        while True:
            try:
                chunk = next(chunks, b"")
            except Exception as error:  # of the HTTP library of unearth
                return done, error
            if not chunk:
                return done, None
            file.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, max(total, done) if total else 0)


def _open_part(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


@contextlib.contextmanager
def _disk_errors(part: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise full_disk(error, part.name, part.parent) from error
