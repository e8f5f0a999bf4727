"""Python file objects for C functions that need a stream."""

import os
import shutil
import tempfile

from libc.stdio cimport FILE, fclose

cdef extern from "stdio.h" nogil:
    FILE * fdopen(int fd, const char * mode)


def _reopen(fd: int, position: int) -> int:
    """Return the same file, opened again if possible, so that the caller's position does not change."""
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY) if os.path.isdir("/proc/self/fd") else os.dup(fd)
    os.lseek(again, position, os.SEEK_SET)
    return again


cdef class CFile:
    """A C stream that reads an open binary file from its present position, closed with this object.

    A file without a descriptor (``io.BytesIO``) is copied to a temporary file first.
    """

    def __cinit__(self, fileobj):
        try:
            fd = _reopen(fileobj.fileno(), fileobj.tell())
        except (AttributeError, OSError):
            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(fileobj, copy)
                copy.flush()
                fd = _reopen(copy.fileno(), 0)
        self.ptr = fdopen(fd, b"rb")
        if self.ptr == NULL:
            os.close(fd)
            raise OSError(f"cannot read from {fileobj!r}")

    def __dealloc__(self):
        if self.ptr != NULL:
            fclose(self.ptr)
