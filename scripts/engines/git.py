"""Fetch commits of git repositories with the program git."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

from .errors import FetchError

__all__ = ["export", "resolve"]

# Variables that would point git to the repository that it was called from.
LOCAL = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE",
         "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_PREFIX")  # fmt: skip
# Disable the conversions of .gitattributes: the archive holds the bytes of the commit.
ATTRIBUTES = "* -text !eol !filter !ident !working-tree-encoding -export-ignore -export-subst\n"
COMMIT = re.compile("[0-9a-fA-F]{40}")
ALL = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")


class _GitError(FetchError):
    """The program git failed; the text is its last line."""


def _git(*arguments: str | Path, base: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in LOCAL}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *map(str, arguments)],
            cwd=base,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise FetchError("the program git is missing; install it (Debian, Ubuntu: apt-get install git)") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith(("fatal:", "error:"))]
        raise _GitError(re.sub("^(fatal|error): ", "", lines[0]) if lines else f"git failed ({done.returncode})")
    return done.stdout


def resolve(url: str, ref: str, base: Path) -> tuple[str, str]:
    """Return the full commit of a reference, and the name of the tag if it is one.

    Parameters
    ----------
    url : str
        The repository.
    ref : str
        A branch, a tag, or a full or short commit. A tag has precedence over a branch of the same name.
    base : pathlib.Path
        The folder that a relative path starts at.

    Raises
    ------
    FetchError
        git is missing, the repository cannot be read, or it has no such reference.
    """
    if COMMIT.fullmatch(ref):
        return ref.lower(), ""
    try:
        lines = _git("ls-remote", "--", url, base=base).splitlines()
    except _GitError as error:
        raise FetchError(f"the repository {url} cannot be read: {error}") from error
    found = {name: commit for commit, _, name in (line.partition("\t") for line in lines)}
    for name in (f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}", ref):
        if name in found:
            return found[name], ref.removeprefix("refs/tags/") if name.startswith("refs/tags/") else ""
    if re.fullmatch("[0-9a-fA-F]{7,39}", ref):
        with _repository() as folder:
            _fetch(folder, url, ALL, base)
            try:
                return _git("--git-dir", folder, "rev-parse", "--verify", f"{ref}^{{commit}}").strip(), ""
            except _GitError:
                pass
    raise FetchError(f"REF is {ref!r}, which is not a branch, tag or commit of {url}")


def export(url: str, commit: str, submodules: tuple[str, ...], path: Path, base: Path) -> None:
    """Write a tar file with the files of a commit; it appears only when it is complete.

    Parameters
    ----------
    url : str
        The repository.
    commit : str
        The commit in full.
    submodules : tuple of str
        The submodules whose files are added.
    path : pathlib.Path
        The file to write.
    base : pathlib.Path
        The folder that a relative path starts at.

    Raises
    ------
    FetchError
        git is missing, or the commit or a submodule cannot be fetched.
    """
    with _repository(path.parent) as folder:
        _fetch_commit(folder, url, commit, base)
        archives = [_archive(folder, commit, "")]
        for name in submodules:
            address, pinned = _submodule(folder, url, commit, name)
            _fetch_commit(folder, address, pinned, base)
            archives.append(_archive(folder, pinned, f"{name}/"))
        if len(archives) > 1:
            archives[0] = _merge(archives)
        os.replace(archives[0], path)


def _repository(parent: Path | None = None) -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder with a new bare repository."""
    folder = tempfile.TemporaryDirectory(prefix=".git-", dir=parent and parent.absolute())
    try:
        _git("init", "--quiet", "--bare", folder.name)
        attributes = Path(folder.name, "info", "attributes")
        attributes.parent.mkdir(exist_ok=True)
        attributes.write_text(ATTRIBUTES)
    except BaseException:
        folder.cleanup()
        raise
    return folder


def _fetch(folder: str, url: str, refs: tuple[str, ...], base: Path, *options: str) -> None:
    try:
        _git("--git-dir", folder, "fetch", "--quiet", "--no-tags", *options, "--", url, *refs, base=base)
    except _GitError as error:
        raise FetchError(f"the repository {url} cannot be fetched: {error}") from error


def _fetch_commit(folder: str, url: str, commit: str, base: Path) -> None:
    """Fetch a single commit if the server allows that, otherwise all branches and tags."""
    try:
        _fetch(folder, url, (commit,), base, "--depth=1")
    except FetchError:
        _fetch(folder, url, ALL, base)
    try:
        _git("--git-dir", folder, "cat-file", "-e", f"{commit}^{{commit}}")
    except _GitError as error:
        raise FetchError(f"the repository {url} has no commit {commit}") from error


def _archive(folder: str, commit: str, prefix: str) -> Path:
    path = Path(folder, f"{commit}.tar")
    _git("--git-dir", folder, "archive", "--format=tar", f"--prefix={prefix}", f"--output={path}", commit)
    return path


def _submodule(folder: str, url: str, commit: str, name: str) -> tuple[str, str]:
    """Return the address and the commit of a submodule."""
    entry = _git("--git-dir", folder, "ls-tree", commit, "--", name).split()
    try:
        blob = ("config", "--blob", f"{commit}:.gitmodules")
        paths = _git("--git-dir", folder, *blob, "--get-regexp", r"^submodule\..*\.path$").splitlines()
        key = next(line.split()[0] for line in paths if line.partition(" ")[2] == name)
        address = _git("--git-dir", folder, *blob, "--get", f"{key.removesuffix('path')}url").strip()
    except (_GitError, StopIteration) as error:
        raise FetchError(f"{name!r} is not a submodule of {url} at {commit}") from error
    if entry[1:2] != ["commit"]:
        raise FetchError(f"{name!r} is not a submodule of {url} at {commit}")
    while match := re.match(r"\.\.?/", address):  # relative to the address of the repository
        url = url.rstrip("/").rpartition("/")[0] if match[0] == "../" else url
        address = address[match.end() :]
        if not re.match(r"\.\.?/", address):
            address = f"{url}/{address}"
    return address, entry[2]


def _merge(archives: list[Path]) -> Path:
    merged = archives[0].with_name("merged.tar")
    with tarfile.open(merged, "w") as out:
        for path in archives:
            with tarfile.open(path) as archive:
                for member in archive:
                    out.addfile(member, archive.extractfile(member) if member.isreg() else None)
    return merged
