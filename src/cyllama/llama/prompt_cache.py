"""A prompt cache on disk: states of the engine's slots, found by the tokens that a prompt begins with.

A state is a file that the engine has written, followed by a trailer: the tokens of the prompt, the fingerprint of the
model and its options, and a message authentication code over all of it with a key of the folder. The engine reads only
files whose code is valid, so a damaged file, or one that another program has changed, is removed and never loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import os
import secrets
import stat
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from cyllama._native.files import atomic_path
from cyllama._paths import expanded
from cyllama.models import cache_folder

__all__ = ["DEFAULT_BYTES", "CachedPrompt", "PromptCache", "cache_path", "fingerprint"]

log = logging.getLogger("cyllama.llama")

DEFAULT_BYTES = 8 << 30
MAGIC, VERSION = b"CYPROMPT", 1
FOOTER = struct.Struct("<8sII32s32s")  # magic, version, number of tokens, fingerprint, code
CODE_SIZE = 32
KEY_NAME, KEY_SIZE = "key", 32
SUFFIX, WORK_PREFIX = ".state", "working-"
STALE_SECONDS = 24 * 3600.0  # of a folder that a killed process has left
MIN_TOKENS = 32  # that are worth a file
BLOCK = 1 << 20
SAMPLED = 1 << 20  # bytes at the start and the end of a model file that its fingerprint depends on
# The start of a state of llama-server: magic, version, number of packed values; marker, version, number of tokens.
STATE_HEAD = struct.Struct("<IIIiII")
STATE_MAGIC, TOKENS_VERSION, TOKENS_MARKER = 0x67677371, 1, -1

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True)
class CachedPrompt:
    """A state on disk.

    Attributes
    ----------
    path : Path
    tokens : ndarray of int32
        The tokens of the state.
    size : int
        Bytes of the file.
    used : float
        The time of the last use.
    """

    path: Path
    tokens: Tokens
    size: int
    used: float


class PromptCache:
    """A folder of states.

    Parameters
    ----------
    folder : str or path
        It is created if it is missing. Several processes may share it.
    fingerprint : bytes
        32 bytes that identify the model and its options, see `fingerprint`. States with another one are not used.
    max_bytes : int
        The most bytes of all states in the folder; the least recently used are removed.

    Raises
    ------
    OSError
        The folder cannot be created, or other users may write to it.
    """

    def __init__(self, folder: str | os.PathLike[str], fingerprint: bytes, max_bytes: int = DEFAULT_BYTES) -> None:
        self.folder = Path(folder).absolute()
        self.fingerprint, self.max_bytes = fingerprint, max_bytes
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(self.folder)
        self._key = _read_key(self.folder / KEY_NAME)
        self._remove_stale_work()
        self._listing: tuple[int, list[CachedPrompt]] = (-1, [])

    def entries(self) -> list[CachedPrompt]:
        """Return the states for this model and its options; remove files that are not states."""
        changed = self.folder.stat().st_mtime_ns
        if changed != self._listing[0]:
            self._listing = (changed, self._read_all())
        return self._listing[1]

    def _read_all(self) -> list[CachedPrompt]:
        found = []
        for path in self._files():
            try:
                entry = self._read_trailer(path)
            except FileNotFoundError:  # another process has removed it
                continue
            except (OSError, ValueError) as error:
                self._discard(path, str(error))
                continue
            if entry is not None:
                found.append(entry)
        return found

    def find(self, tokens: Sequence[int] | Tokens, known: Iterable[Path] = ()) -> tuple[CachedPrompt, int] | None:
        """Return the state that shares the longest prefix with a prompt, and the length of that prefix.

        Parameters
        ----------
        tokens : sequence of int
        known : iterable of Path
            States that are left out.
        """
        wanted, skipped = np.asarray(tokens, np.int32), set(known)
        best: tuple[CachedPrompt, int] | None = None
        for entry in self.entries():
            if entry.path in skipped:
                continue
            length = common_prefix(entry.tokens, wanted)
            if length and (best is None or (length, entry.used) > (best[1], best[0].used)):
                best = entry, length
        return best

    def verify(self, entry: CachedPrompt) -> bool:
        """Return whether a state is undamaged, and mark it as used; remove a damaged one."""
        try:
            with entry.path.open("rb") as file:
                code, expected = self._code(file, entry.size), _footer(file, entry.size)[-1]
            if hmac.compare_digest(code, expected):
                os.utime(entry.path)
                return True
        except (OSError, ValueError) as error:
            self._discard(entry.path, str(error))
            return False
        self._discard(entry.path, "its checksum is wrong")
        return False

    def store(self, state: Path) -> bool:
        """Move a state that the engine has written into the cache.

        Returns
        -------
        bool
            False if it is larger than the cache, contains images or audio, has few tokens, or has few tokens more than
            another state. A state that has few tokens more than the new one is removed.

        Raises
        ------
        OSError
            The disk is full.
        """
        with state.open("r+b") as file:
            tokens = _state_tokens(file)
            if tokens is None or len(tokens) < MIN_TOKENS:
                return False
            size = file.seek(0, os.SEEK_END) + tokens.nbytes + FOOTER.size
            if size > self.max_bytes:
                log.warning("a state of %d bytes is not cached: the prompt cache has %d bytes", size, self.max_bytes)
                return False
            obsolete = []
            for entry in self.entries():
                length = common_prefix(entry.tokens, tokens)
                if len(tokens) - length < MIN_TOKENS:
                    os.utime(entry.path)
                    return False
                if len(entry.tokens) - length < MIN_TOKENS:
                    obsolete.append(entry.path)
            file.write(tokens.tobytes())
            file.write(FOOTER.pack(MAGIC, VERSION, len(tokens), self.fingerprint, bytes(CODE_SIZE))[:-CODE_SIZE])
            file.flush()
            file.write(self._code(file, size))
            file.flush()
            os.fsync(file.fileno())
        self._limit(self.max_bytes - size)
        name = f"{self.fingerprint.hex()[:16]}-{secrets.token_hex(8)}{SUFFIX}"
        with atomic_path(self.folder / name) as temporary:
            os.replace(state, temporary)
            os.chmod(temporary, 0o600)
        for path in obsolete:
            path.unlink(missing_ok=True)
        return True

    def make_work_folder(self) -> str:
        """Make a folder on the same disk, in which the engine writes states; the caller removes it."""
        path = self.folder / f"{WORK_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
        return str(path)

    def _files(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.suffix == SUFFIX and not path.name.startswith(".")]

    def _read_trailer(self, path: Path) -> CachedPrompt | None:
        """Return a state; None if it is of another model.

        Raises
        ------
        ValueError
            The file is not a state.
        """
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a file")
        with path.open("rb") as file:
            n_tokens, mark, _ = _footer(file, status.st_size)
            if mark != self.fingerprint:
                return None
            file.seek(status.st_size - FOOTER.size - 4 * n_tokens)
            tokens = np.frombuffer(file.read(4 * n_tokens), np.int32)
        return CachedPrompt(path, tokens, status.st_size, status.st_mtime)

    def _code(self, file: BinaryIO, size: int) -> bytes:
        """Return the code over the first `size` bytes without the code itself."""
        digest = hashlib.blake2b(key=self._key, digest_size=CODE_SIZE)
        file.seek(0)
        left = size - CODE_SIZE
        while left > 0:
            block = file.read(min(BLOCK, left))
            if not block:
                raise ValueError("it is truncated")
            digest.update(block)
            left -= len(block)
        return digest.digest()

    def _limit(self, most: int) -> None:
        """Remove the least recently used states, of any model, until all have at most `most` bytes."""
        files = []
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= most:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _discard(self, path: Path, reason: str) -> None:
        log.warning("removed %s from the prompt cache: %s", path.name, reason)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)

    def _remove_stale_work(self) -> None:
        for path in self.folder.glob(f"{WORK_PREFIX}*"):
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < time.time() - STALE_SECONDS:
                    for file in path.iterdir():
                        file.unlink()
                    path.rmdir()


def cache_path(value: bool | str | os.PathLike[str]) -> Path:
    """Return the folder for a value of ``prompt_cache``: True is a folder in the cache of the package.

    Raises
    ------
    TypeError
    """
    if value is True:
        return cache_folder("prompts")
    if isinstance(value, str | os.PathLike) and os.fspath(value):
        return expanded(value)
    raise TypeError(f"prompt_cache is {value!r}, expected True, False or a folder")


def fingerprint(files: Iterable[str | os.PathLike[str]], options: Sequence[str], versions: Mapping[str, str]) -> bytes:
    """Return 32 bytes that identify a model and everything that changes its states.

    Parameters
    ----------
    files : iterable of path
        The model and its adapters; their size, their time, and the bytes at their start and end count.
    options : sequence of str
    versions : mapping
        Versions of the engine.
    """
    digest = hashlib.sha256()
    for path in files:
        status = os.stat(path)
        digest.update(struct.pack("<QQ", status.st_size, status.st_mtime_ns))
        with open(path, "rb") as file:
            digest.update(file.read(SAMPLED))
            file.seek(max(0, status.st_size - SAMPLED))
            digest.update(file.read(SAMPLED))
    digest.update(json.dumps([VERSION, list(options), dict(versions)], sort_keys=True).encode())
    return digest.digest()


def common_prefix(first: Tokens, second: Tokens) -> int:
    """Return the number of equal tokens at the start."""
    length = min(len(first), len(second))
    differ = np.flatnonzero(first[:length] != second[:length])
    return int(differ[0]) if len(differ) else length


def _footer(file: BinaryIO, size: int) -> tuple[int, bytes, bytes]:
    """Return the number of tokens, the fingerprint and the code of a state.

    Raises
    ------
    ValueError
    """
    if size < FOOTER.size:
        raise ValueError("it is truncated")
    file.seek(size - FOOTER.size)
    raw = file.read(FOOTER.size)
    if len(raw) != FOOTER.size:
        raise ValueError("it is truncated")
    magic, version, n_tokens, mark, code = FOOTER.unpack(raw)
    if magic != MAGIC:
        raise ValueError("it is not a state, or truncated")
    if version != VERSION:
        raise ValueError(f"its version is {version}, expected {VERSION}")
    if not 0 < n_tokens <= (size - FOOTER.size) // 4:
        raise ValueError(f"its number of tokens is {n_tokens}, which is more than the file has")
    return n_tokens, mark, code


def _state_tokens(file: BinaryIO) -> Tokens | None:
    """Return the tokens of a state that the engine has written; None if it has images or audio, or no tokens."""
    file.seek(0)
    raw = file.read(STATE_HEAD.size)
    if len(raw) < STATE_HEAD.size:
        return None
    magic, _, _, marker, version, n_tokens = STATE_HEAD.unpack(raw)
    if (magic, marker, version) != (STATE_MAGIC, TOKENS_MARKER, TOKENS_VERSION) or not n_tokens:
        return None
    tokens = np.frombuffer(file.read(4 * n_tokens), np.int32)
    media = file.read(4)
    if len(tokens) != n_tokens or media != bytes(4):
        return None
    return tokens


def _check_owner(folder: Path) -> None:
    status = folder.stat()
    if os.name == "posix" and status.st_mode & stat.S_IWOTH:
        raise PermissionError(f"prompt_cache: all users may write to {folder}, expected a folder of this user")


def _read_key(path: Path) -> bytes:
    """Return the key of a folder; write one if there is none, or if it is not valid."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            key = file.read(KEY_SIZE + 1)
            if len(key) == KEY_SIZE and not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                return key
    key = secrets.token_bytes(KEY_SIZE)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with contextlib.suppress(FileExistsError):  # another process was faster
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(key)
        return key
    return path.read_bytes()
