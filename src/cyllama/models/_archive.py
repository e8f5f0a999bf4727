"""Extract files of an sdist (tar.gz) or a wheel (zip), with protection against unsafe members."""

from __future__ import annotations

import contextlib
import errno
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from cyllama.errors import DownloadError

__all__ = ["extract_member", "full_disk", "replace_tree", "safe_extract", "top_folder"]

_DAMAGED = (EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, NotImplementedError)


@dataclass(frozen=True)
class _Member:
    """One entry of an archive; `target` is set for a symbolic link, `open` for a file."""

    name: PurePosixPath
    executable: bool = False
    target: str = ""
    open: Callable[[], IO[bytes] | None] | None = None


def full_disk(error: OSError, what: str, folder: Path) -> DownloadError:
    """Return a DownloadError for an error of writing; the message names a full disk. Raise it ``from error``."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        text = f"the disk is full: no space for {what} in {folder} (CYLLAMA_CACHE sets another cache folder)"
    else:
        reason = error.strerror or error
        text = f"{what} cannot be written in {folder}: {reason}; set CYLLAMA_CACHE to a writable folder"
    result = DownloadError(text)
    result.errno = error.errno
    return result


def safe_extract(
    archive: str | os.PathLike[str],
    member_prefix: str,
    destination: str | os.PathLike[str],
    *,
    skip: tuple[str, ...] = (),
    finish: Callable[[Path], None] | None = None,
) -> Path:
    """Extract a folder of an archive; `destination` is created or replaced only when it is complete.

    Parameters
    ----------
    archive : path
        A ``.tar.gz`` (any tar that :mod:`tarfile` reads) or a zip file such as a wheel.
    member_prefix : str
        The folder inside the archive, or empty for the whole archive. It is removed from the extracted names.
    destination : path
        The folder to create.
    skip : tuple of str
        Folders and files below `member_prefix` to leave out.
    finish : callable, optional
        Called with the temporary folder before it is renamed; after an exception it is removed.

    Returns
    -------
    pathlib.Path
        `destination`.

    Raises
    ------
    DownloadError
        The archive is damaged, lacks the folder, or has an unsafe member (absolute names, ``..``, links to the outside,
        devices); or the disk is full.
    """
    archive, destination = Path(archive), Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    try:
        temporary.chmod(0o755)
        with _reading(archive, destination.parent):
            _unpack(archive, PurePosixPath(member_prefix), temporary, tuple(PurePosixPath(name) for name in skip))
        if finish is not None:
            finish(temporary)
        replace_tree(temporary, destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return destination


def extract_member(archive: str | os.PathLike[str], member: str, destination: str | os.PathLike[str]) -> Path:
    """Extract one file of an archive; `destination` is created or replaced only when it is complete.

    Parameters
    ----------
    archive : path
        A ``.tar.gz`` or a zip file such as a wheel.
    member : str
        The name of the file inside the archive.
    destination : path
        The file to write.

    Returns
    -------
    pathlib.Path
        `destination`.

    Raises
    ------
    DownloadError
        The archive is damaged or has no such file, or the disk is full.
    """
    archive, destination = Path(archive), Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{destination.name}-", dir=destination.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with _reading(archive, destination.parent), _members(archive) as members:
            wanted = PurePosixPath(member)
            found = next((entry for entry in members if entry.name == wanted and entry.open is not None), None)
            if found is None:
                raise DownloadError(f"{archive.name} has no file {member}")
            _copy(found, temporary)
        temporary.chmod(0o644)
        os.replace(temporary, destination)
    finally:
        temporary.unlink(missing_ok=True)
    return destination


def top_folder(archive: str | os.PathLike[str]) -> str:
    """Return the top folder of all members of an archive; empty if there is none.

    Raises
    ------
    DownloadError
        The archive is damaged, or has a member outside its folder.
    """
    archive = Path(archive)
    with _reading(archive, archive.parent), _members(archive) as members:
        folders, others = set[str](), set[str]()
        for member in members:
            is_folder = len(member.name.parts) > 1 or (member.open is None and not member.target)
            (folders if is_folder else others).update(member.name.parts[:1])
    return folders.pop() if len(folders) == 1 and not others else ""


def replace_tree(new: Path, destination: Path) -> None:
    """Rename the folder `new` to `destination`; an existing folder is removed afterwards."""
    if not destination.exists():
        new.rename(destination)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{destination.name}-old-", dir=destination.parent))
    try:
        destination.rename(old / "tree")
        try:
            new.rename(destination)
        except BaseException:
            (old / "tree").rename(destination)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _reading(archive: Path, folder: Path) -> Iterator[None]:
    """Convert exceptions of the archive libraries and the disk to DownloadError."""
    try:
        yield
    except DownloadError:
        raise
    except _DAMAGED as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
        raise DownloadError(f"{archive.name} is damaged or truncated: {reason}") from error
    except OSError as error:
        raise full_disk(error, f"the files of {archive.name}", folder) from error


def _unpack(archive: Path, prefix: PurePosixPath, root: Path, skip: tuple[PurePosixPath, ...]) -> None:
    """Write all members below `prefix` to `root`; links come last, so that nothing is written through a link."""
    links: list[tuple[Path, str]] = []
    found = False
    with _members(archive) as members:
        for member in members:
            if not member.name.is_relative_to(prefix):
                continue
            name = member.name.relative_to(prefix)
            if any(name.is_relative_to(left_out) for left_out in skip):
                continue
            found = True
            path = root / name
            if member.target:
                links.append((path, member.target))
            elif member.open is None:
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                _copy(member, path)
    if not found:
        raise DownloadError(f"{archive.name} has no folder {prefix}")
    _make_links(archive.name, root, links)


def _make_links(archive: str, root: Path, links: list[tuple[Path, str]]) -> None:
    real_root = os.path.realpath(root)

    def check(path: Path, target: str) -> None:
        if os.path.isabs(target) or os.path.commonpath([os.path.realpath(path), real_root]) != real_root:
            raise DownloadError(f"refused: {archive} has a link to the outside of its folder: {path.name} -> {target}")

    for path, target in links:
        check(path.parent, target)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
        check(path, target)
    for path, target in links:  # a later link may change the target of an earlier one
        check(path, target)


def _copy(member: _Member, path: Path) -> None:
    source = member.open() if member.open is not None else None
    if source is None:
        raise DownloadError(f"the archive has no content for {member.name}")
    with source, open(path, "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
    path.chmod(0o755 if member.executable else 0o644)


@contextlib.contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield _zip_members(zipped)
    else:
        with tarfile.open(archive) as tarred:
            yield _tar_members(tarred)


def _zip_members(zipped: zipfile.ZipFile) -> Iterator[_Member]:
    for info in zipped.infolist():
        name, mode = _checked(info.filename), info.external_attr >> 16
        if info.is_dir():
            yield _Member(name)
        elif stat.S_ISLNK(mode):
            yield _Member(name, target=zipped.read(info).decode())
        else:
            yield _Member(name, bool(mode & 0o100), open=lambda info=info: zipped.open(info))  # type: ignore[misc]


def _tar_members(tarred: tarfile.TarFile) -> Iterator[_Member]:
    for info in tarred:
        name = _checked(info.name)
        if info.isdir():
            yield _Member(name)
        elif info.issym():
            yield _Member(name, target=info.linkname)
        elif info.isreg() or info.islnk():  # a hard link is extracted as a copy of its target
            yield _Member(name, bool(info.mode & 0o100), open=lambda info=info: _tar_file(tarred, info))  # type: ignore[misc]
        else:
            raise DownloadError(f"refused: the archive has a member that is not a file, folder or link: {info.name}")


def _tar_file(tarred: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes] | None:
    try:
        return tarred.extractfile(info)
    except KeyError as error:
        raise DownloadError(f"refused: {info.name} links to {info.linkname}, which is not in the archive") from error


def _checked(name: str) -> PurePosixPath:
    """Return the name of a member as a path; raise if it is outside the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or re.match("[A-Za-z]:", name):
        raise DownloadError(f"refused: the archive has a member outside its folder: {name!r}")
    return path
