"""Limit what a pickle checkpoint may cost, before the engine reads it.

stable-diffusion.cpp reads pickles without executing them (``pickle_io.cpp``), but it copies values: nested tuples, and
a value that is put into itself again and again, take minutes, gigabytes or the whole stack, and reading cannot be
cancelled. `check_checkpoint` follows the opcodes as that reader does and counts the values that it would copy. It
reports only exceeded limits. A damaged pickle is left to the engine, which rejects it where the count ends.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from cyllama.errors import ModelLoadError

__all__ = ["check_checkpoint"]

MAX_OPCODES = 1 << 19  # a tensor has about 45
MAX_DEPTH = 128  # of nested values; the engine recurses once for each
MAX_VALUES = 1 << 20  # held at once; the engine needs about 0.5 KiB for each
MAX_COPIES = 1 << 23
MAX_PICKLE_BYTES = 64 << 20  # of data.pkl in a zip archive
MAX_ENTRIES = 1 << 16  # of a zip archive
MAX_SEARCHES = 1 << 26  # tensors times entries: the engine searches all entries for each tensor
MAX_HEADER = 1 << 28  # bytes of a safetensors header
TEXT_BYTES = 512  # of a text that count as one value
LEGACY_PICKLES = 5  # of a file without zip: magic number, version, system, tensors, storage keys
END, END64, LOCATOR64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"
END_SIZE, LOCATOR_SIZE, MAX_COMMENT = 22, 20, 0xFFFF

Value = tuple[int, int]
"""Number of values in a value, itself included, and their depth."""

ONE: Value = (1, 1)
PUSHES_ONE = frozenset(b"}])N\x88\x89\x8f")
FIXED = {0x80: 1, 0x95: 8, 0x82: 1, 0x83: 2, 0x84: 4}  # opcodes without effect on the stack, and their arguments' bytes
NUMBERS = {ord("K"): 1, ord("M"): 2, ord("J"): 4, ord("G"): 8}
LINES = frozenset(b"ILFSV")
# Bytes of the length of a text, and of an index of the memo.
TEXTS = {ord("U"): 1, 0x8C: 1, ord("C"): 1, 0x8A: 1, ord("T"): 4, ord("X"): 4, ord("B"): 4, 0x8B: 4, 0x8D: 8, 0x8E: 8,
         0x96: 8}  # fmt: skip
INDEXES = {ord("h"): 1, ord("q"): 1, ord("j"): 4, ord("r"): 4}
TUPLES = {0x85: 1, 0x86: 2, 0x87: 3}


def check_checkpoint(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> None:
    """Check the cost of reading a model file, if it is a pickle checkpoint.

    Parameters
    ----------
    path : path
        A file of any format; a folder has no pickles.

    Raises
    ------
    ModelLoadError
        The pickle exceeds a limit, which the message names.
    OSError
    """
    if os.path.isdir(path):
        return
    with open(path, "rb") as file:
        head = file.read(4)
        try:
            if head[:1] == b"\x80":
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    _check_legacy(data)
            end = None if head == b"GGUF" else _find_end(file)
            if end is not None and not _is_safetensors(file):
                _check_zip(file, *end)
        except ValueError as error:
            raise ModelLoadError(f"{os.fsdecode(path)} is not a checkpoint of tensors: {error}", engine="sd") from None


class _Machine:
    """The stack of the engine's reader, with the sizes of the values in place of the values."""

    def __init__(self) -> None:
        self.opcodes = self.copies = 0

    def run(self, data: bytes | mmap.mmap, start: int) -> tuple[int, int]:
        """Return the end of the pickle at `start`, and the number of values in its result.

        Raises
        ------
        EOFError
            The pickle is damaged.
        ValueError
            A limit is exceeded; names it.
        """
        self.stack: list[Value | None] = []  # None is a mark
        self.memo: dict[int, Value] = {}
        self.values = 0
        self.data, self.at = data, start
        while True:
            self.opcodes += 1
            if self.opcodes > MAX_OPCODES:
                raise ValueError(f"its pickle has more than {MAX_OPCODES:,} opcodes")
            if self.at >= len(data):
                raise EOFError
            opcode = data[self.at]
            self.at += 1
            if opcode == ord("."):
                return self.at, self._pop()[0]
            self._step(opcode)

    def _step(self, opcode: int) -> None:
        if opcode in PUSHES_ONE:
            self._push(ONE)
        elif opcode == ord("("):
            self._hold(1)
            self.stack.append(None)
        elif opcode in TEXTS:
            length = self._number(TEXTS[opcode])
            self.at += length
            self._push((1 + length // TEXT_BYTES, 1))
        elif opcode in INDEXES:
            self._use_memo(opcode, self._number(INDEXES[opcode]))
        elif opcode in NUMBERS:
            self.at += NUMBERS[opcode]
            self._push(ONE)
        elif opcode in LINES:
            self._push((1 + self._line() // TEXT_BYTES, 1))
        elif opcode in TUPLES:
            self._push(self._joined([self._pop() for _ in range(TUPLES[opcode])]))
        elif opcode in FIXED:
            self.at += FIXED[opcode]
        elif opcode in ACTIONS:
            ACTIONS[opcode](self)
        else:
            raise EOFError

    def _number(self, size: int) -> int:
        raw = self.data[self.at : self.at + size]
        if len(raw) < size:
            raise EOFError
        self.at += size
        return int.from_bytes(raw, "little")

    def _line(self) -> int:
        """Skip a line; return its length."""
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise EOFError
        length, self.at = end - self.at, end + 1
        return length

    def _hold(self, size: int) -> None:
        self.values += size
        if self.values > MAX_VALUES:
            raise ValueError(f"its pickle has more than {MAX_VALUES:,} values")

    def _push(self, value: Value) -> None:
        self._hold(value[0])
        self.stack.append(value)

    def _pop(self) -> Value:
        if not self.stack:
            raise EOFError
        value = self.stack.pop() or ONE  # a mark is a value of the engine
        self.values -= value[0]
        return value

    def _pop_to_mark(self) -> list[Value]:
        found = []
        while self.stack and self.stack[-1] is not None:
            found.append(self._pop())
        if not self.stack:
            raise EOFError
        self._pop()
        return found

    def _copy(self, value: Value) -> Value:
        self.copies += value[0]
        if self.copies > MAX_COPIES:
            raise ValueError(f"reading its pickle copies more than {MAX_COPIES:,} values")
        return value

    def _joined(self, items: list[Value], target: Value = ONE) -> Value:
        """Return a value with copies of further items."""
        size, depth = target
        for item in items:
            size += self._copy(item)[0]
            depth = max(depth, item[1] + 1)
        if depth > MAX_DEPTH:
            raise ValueError(f"its pickle has values nested deeper than {MAX_DEPTH}")
        return size, depth

    def _use_memo(self, opcode: int, index: int) -> None:
        if opcode in b"qr":
            self._put(index)
        elif index in self.memo:
            self._push(self._copy(self.memo[index]))
        else:
            raise EOFError

    def _put(self, index: int) -> None:
        if not self.stack:
            raise EOFError
        value = self._copy(self.stack[-1] or ONE)
        self._hold(value[0] - self.memo.get(index, (0, 0))[0])
        self.memo[index] = value

    def _memoize(self) -> None:
        self._put(len(self.memo))

    def _tuple(self) -> None:
        self._push(self._joined(self._pop_to_mark()))

    def _extend(self) -> None:
        items = self._pop_to_mark()
        self._push(self._joined(items, self._pop()))

    def _append(self, n: int = 1) -> None:
        items = [self._copy(self._pop()) for _ in range(n)]
        self._push(self._joined(items, self._pop()))

    def _set_item(self) -> None:
        self._append(2)

    def _duplicate(self) -> None:
        if not self.stack:
            raise EOFError
        self._push(self._copy(self.stack[-1] or ONE))

    def _reduce(self, n: int = 2) -> None:
        for _ in range(n):
            self._copy(self._pop())
        self._push(ONE)

    def _persistent(self) -> None:
        self._reduce(1)

    def _global(self) -> None:
        self._push((1 + (self._line() + self._line()) // TEXT_BYTES, 1))

    def _stack_global(self) -> None:
        self._push((self._pop()[0] + self._pop()[0], 1))


ACTIONS: dict[int, Callable[[_Machine], object]] = {
    ord("t"): _Machine._tuple,
    ord("l"): _Machine._tuple,
    0x91: _Machine._tuple,
    ord("u"): _Machine._extend,
    ord("e"): _Machine._extend,
    0x90: _Machine._extend,
    ord("a"): _Machine._append,
    ord("s"): _Machine._set_item,
    ord("2"): _Machine._duplicate,
    ord("0"): _Machine._pop,
    ord("b"): _Machine._pop,
    ord("1"): _Machine._pop_to_mark,
    ord("R"): _Machine._reduce,
    ord("Q"): _Machine._persistent,
    ord("c"): _Machine._global,
    0x93: _Machine._stack_global,
    0x94: _Machine._memoize,
}


def _check_legacy(data: mmap.mmap) -> None:
    machine, at = _Machine(), 0
    with contextlib.suppress(EOFError):  # damaged: the engine stops there as well
        for _ in range(LEGACY_PICKLES):
            at, _ = machine.run(data, at)


def _check_zip(file: BinaryIO, entries: int, start: int) -> None:
    """Check the pickles of an archive whose directory has `entries` entries from byte `start` on."""
    machine = _Machine()
    with contextlib.suppress(EOFError):
        for data in _pickles(file, entries, start):
            _, values = machine.run(data, 0)
            if values // 2 * entries > MAX_SEARCHES:
                raise ValueError(f"it has {values // 2:,} tensors in an archive of {entries:,} entries")


def _pickles(file: BinaryIO, entries: int, start: int) -> Iterator[bytes]:
    if entries > MAX_ENTRIES:
        raise ValueError(f"its archive has {entries:,} entries, expected at most {MAX_ENTRIES:,}")
    try:
        with zipfile.ZipFile(file) as archive:
            # zipfile also finds a directory that begins elsewhere, and the engine would read another one
            if archive.start_dir != start or len(archive.filelist) != entries:
                raise ValueError("the start of its directory is wrong")
            for entry in archive.filelist:
                if "data.pkl" in entry.filename:
                    if entry.file_size > MAX_PICKLE_BYTES:
                        raise ValueError(f"its pickle has {entry.file_size:,} bytes, at most {MAX_PICKLE_BYTES:,}")
                    yield archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"its archive is damaged: {error}") from error


def _find_end(file: BinaryIO) -> tuple[int, int] | None:
    """Return the number of entries and the start of the directory of a zip archive as the engine reads them."""
    size = file.seek(0, os.SEEK_END)
    first = max(0, size - END_SIZE - MAX_COMMENT)
    file.seek(first)
    tail = file.read()
    at = tail.rfind(END, 0, max(0, len(tail) - END_SIZE + len(END)))
    if at < 0:
        return None
    entries, start = struct.unpack_from("<H4xI", tail, at + 10)
    locator = tail[at - LOCATOR_SIZE : at] if at >= LOCATOR_SIZE else b""
    if locator[:4] == LOCATOR64:
        file.seek(min(size, struct.unpack_from("<Q", locator, 8)[0]))
        record = file.read(56)
        if record[:4] == END64 and len(record) == 56:
            entries, start = struct.unpack_from("<Q8xQ", record, 32)
    return int(entries), int(start)


def _is_safetensors(file: BinaryIO) -> bool:
    """Return whether the engine takes a file for safetensors, whatever follows the header."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if not 2 < length < size or length > MAX_HEADER:
        return False
    header = file.read(length)
    try:
        json.loads(header.decode("utf-8"), parse_constant=float.fromhex)
    except (ValueError, RecursionError):
        return False
    return b"\0" not in header
