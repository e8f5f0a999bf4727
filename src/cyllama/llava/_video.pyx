"""Videos, frame by frame, read with ffmpeg."""

import os

cimport cython
from libc.stdlib cimport free

from cyllama._native._core cimport engine_error, start_call
from cyllama._native._handle cimport Handle, path_bytes
from cyllama.llava cimport libmtmd as lib
from cyllama.llava._bitmap cimport Bitmap, new_bitmap, video_options
from cyllama.llava._context cimport MtmdContext

from cyllama.errors import MediaError, UnsupportedError
from cyllama.llava._checks import check_ffmpeg


@cython.no_gc_clear  # freeing needs the parent
cdef class Video(Handle):
    """A video that is read frame by frame; an iterator of images and texts.

    Parameters
    ----------
    ctx : MtmdContext
        Kept open by the video.
    source : path or bytes
        A file, or its content.
    params : VideoParams, optional

    Raises
    ------
    UnsupportedError
        ffmpeg or ffprobe is missing, or the projector does not see.
    MediaError
        It is no video.
    FileNotFoundError

    Notes
    -----
    ``Bitmap.lazy(ctx, lambda i: video.read_next())`` adds it to a prompt without keeping all frames in memory.
    Releases the GIL. Thread safety: one thread at a time (InUseError).
    Source: ``mtmd_helper_video_init``, ``mtmd_helper_video_init_from_buf``, mtmd-helper.h.
    """

    cdef lib.mtmd_helper_video * _ptr

    def __cinit__(self, MtmdContext ctx not None, source, params=None):
        cdef list keep = []
        cdef lib.mtmd_helper_video_init_params options = video_options(params, keep)
        cdef const unsigned char[::1] view
        cdef const unsigned char * c_view
        cdef bytes raw
        cdef const char * c_path
        ctx._check()
        if not ctx.support_video:
            raise UnsupportedError("the projector does not accept images, expected one that does for videos")
        check_ffmpeg(params)
        start_call()
        if isinstance(source, (bytes, bytearray, memoryview)):
            view = memoryview(source).cast("B")
            if not view.shape[0]:
                raise ValueError("source is empty, expected a video")
            c_view = &view[0]
            ctx._hold()
            try:
                with nogil:
                    self._ptr = lib.mtmd_helper_video_init_from_buf(ctx._ptr, c_view, view.shape[0], options)
            finally:
                ctx._unhold()
        else:
            raw = os.path.abspath(path_bytes(source, "source"))  # never an option or a protocol of ffmpeg's
            c_path = raw
            ctx._hold()
            try:
                with nogil:
                    self._ptr = lib.mtmd_helper_video_init(ctx._ptr, c_path, options)
            finally:
                ctx._unhold()
        if self._ptr == NULL:
            name = "the data" if isinstance(source, (bytes, bytearray, memoryview)) else os.fspath(source)
            raise engine_error(MediaError, f"cannot read {name} as a video", "llava", "mtmd_helper_video_init", None)
        self._opened("Video", ctx)

    def __init__(self, ctx: MtmdContext, source: str | bytes | os.PathLike, params: object | None = None) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        cdef lib.mtmd_helper_video * c_video = self._ptr
        self._ptr = NULL
        with nogil:
            lib.mtmd_helper_video_free(c_video)
        return 0

    @property
    def info(self) -> dict:
        """``width`` and ``height`` in pixels, ``fps`` as it is read, ``n_frames`` (None where it is not known).

        Source: ``mtmd_helper_video_get_info``, mtmd-helper.h.
        """
        self._check()
        cdef lib.mtmd_helper_video_info info = lib.mtmd_helper_video_get_info(self._ptr)
        return {"width": info.width, "height": info.height, "fps": info.fps,
                "n_frames": info.n_frames if info.n_frames >= 0 else None}

    def read_next(self) -> Bitmap | str | None:
        """Return the next frame, or a text such as the time in the video; None at the end.

        Raises
        ------
        MediaError
            ffmpeg failed.

        Notes
        -----
        Waits for ffmpeg without the GIL. Source: ``mtmd_helper_video_read_next``, mtmd-helper.h.
        """
        cdef lib.mtmd_bitmap * c_bitmap = NULL
        cdef char * c_text = NULL
        cdef Bitmap frame
        cdef int code
        self._begin()
        start_call()
        try:
            with nogil:
                code = lib.mtmd_helper_video_read_next(self._ptr, &c_bitmap, &c_text)
        finally:
            self._end()
        if c_text != NULL:
            try:
                return c_text.decode("utf-8", "replace")
            finally:
                free(c_text)
        if c_bitmap != NULL:
            frame = new_bitmap(c_bitmap, None)
            frame.mergeable = True
            return frame
        if code == -1:
            return None
        raise engine_error(MediaError, "the video cannot be read", "llava", "mtmd_helper_video_read_next", code)

    def __iter__(self):
        return self

    def __next__(self) -> Bitmap | str:
        item = self.read_next()
        if item is None:
            raise StopIteration
        return item
