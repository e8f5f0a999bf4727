"""Images and audio in the engine's form."""

import numpy as np

cimport cython
from libc.string cimport memcpy, strdup

from cyllama._native._c_memory cimport CMemory
from cyllama._native._core cimport engine_error, start_call
from cyllama._native._exit cimport is_ending
from cyllama._native._handle cimport Handle, check_range, path_bytes
from cyllama.llava cimport libmtmd as lib

from cyllama.errors import MediaError, UnsupportedError
from cyllama._params import checked
from cyllama.llava._checks import check_encoded, check_ffmpeg, folder_bytes
from cyllama.llava.params import VideoParams

include "VideoParams.pxi"

# Limits of pixels along a side, of pixels, and of samples: the engine counts in int.
MAX_SIDE = 1 << 20
MAX_PIXELS = 1 << 28
MAX_SAMPLES = 1 << 29


cdef int _lazy(size_t i, void * data, lib.mtmd_bitmap ** out_bitmap, char ** out_text) noexcept with gil:
    """Return the next image, audio or text of a lazy bitmap; -1 at the end, -2 for an error."""
    cdef Bitmap self = <Bitmap> data
    cdef Bitmap item
    if self._lazy_error is not None:
        return -2
    try:
        given = self._give(i)
        if given is None:
            return -1
        if isinstance(given, str):
            if "\0" in given:
                raise ValueError(f"the text {given!r} of a lazy bitmap has a null character")
            out_text[0] = strdup(given.encode())
            return 0
        if not isinstance(given, Bitmap):
            given = Bitmap.from_pixels(given)
        item = given
        item._check()
        if item.is_lazy:
            raise TypeError("a lazy bitmap gave another lazy bitmap, expected one with data, a text or None")
        check_kind(item, self._accepts_images, self._accepts_audio)
        out_bitmap[0] = item._copy()
        return 0
    except BaseException as e:
        self._lazy_error = e
        return -2


cdef int _lazy_nogil(size_t i, void * data, lib.mtmd_bitmap ** out_bitmap, char ** out_text) noexcept nogil:
    return -2 if is_ending() else _lazy(i, data, out_bitmap, out_text)


def check_kind(Bitmap bitmap not None, accepts_images: bool, accepts_audio: bool) -> None:
    """Check that the projector accepts the bitmap.

    Raises
    ------
    UnsupportedError
    """
    if bitmap.is_audio and not accepts_audio:
        raise UnsupportedError("the bitmap is audio, but the projector accepts only images")
    if not bitmap.is_audio and not accepts_images:
        raise UnsupportedError("the bitmap is an image, but the projector accepts only audio")


cdef lib.mtmd_helper_video_init_params video_options(object params, list keep) except *:
    """Return `params` over the engine's defaults; `keep` must live as long as they are used."""
    cdef lib.mtmd_helper_video_init_params options = lib.mtmd_helper_video_init_params_default()
    fill_VideoParams(checked(params, VideoParams, "video"), &options, None)
    if params is not None and params.ffmpeg_bin_dir is not None:
        keep.append(folder_bytes(params.ffmpeg_bin_dir))
        options.ffmpeg_bin_dir = <bytes> keep[-1]
    return options


cdef Bitmap new_bitmap(lib.mtmd_bitmap * c_bitmap, Handle parent):
    cdef Bitmap self = Bitmap.__new__(Bitmap)
    self._take(c_bitmap, parent)
    return self


@cython.no_gc_clear  # freeing needs the parent
cdef class Bitmap(Handle):
    """An image, audio, or a placeholder for either; created by the class methods.

    Attributes
    ----------
    mergeable : bool
        Whether a video model may merge it with the next one.
    is_lazy : bool
        Whether its content is produced while it is tokenized.

    Notes
    -----
    Thread safety: threads may share a bitmap that is not lazy. Source: ``mtmd_bitmap``, mtmd.h.
    """

    def __init__(self) -> None:
        raise TypeError("Bitmap() cannot be called; use Bitmap.from_pixels, from_audio, from_bytes, from_file, "
                        "placeholder or lazy")

    def __dealloc__(self):
        self._dispose()

    cdef int _take(self, lib.mtmd_bitmap * c_bitmap, Handle parent) except -1:
        self._ptr = c_bitmap
        self._opened("Bitmap", parent)
        return 0

    cdef int _release(self) noexcept:
        cdef lib.mtmd_bitmap * c_bitmap = self._ptr
        cdef lib.mtmd_helper_video * c_video = self._video
        self._ptr = NULL
        self._video = NULL
        with nogil:
            lib.mtmd_bitmap_free(c_bitmap)
            if c_video != NULL:
                lib.mtmd_helper_video_free(c_video)
        return 0

    cdef void * _address(self) noexcept:
        return self._ptr

    cdef int _lend(self) except -1:
        """Prevent closing while it is tokenized; a lazy bitmap is used by one thread only."""
        if self.is_lazy:
            self._begin()
            self._lazy_error = None
        else:
            self._check()
        self._n_children += 1
        return 0

    cdef int _return(self) except -1:
        """End `_lend`; raise the exception of the function of a lazy bitmap."""
        self._n_children -= 1
        if self.is_lazy:
            self._end()
            error, self._lazy_error = self._lazy_error, None
            if error is not None:
                raise error
        return 0

    cdef lib.mtmd_bitmap * _copy(self) except NULL:
        """Return a copy, which the engine frees."""
        cdef lib.mtmd_bitmap * c_copy
        cdef const unsigned char * c_data = lib.mtmd_bitmap_get_data(self._ptr)
        with nogil:
            if lib.mtmd_bitmap_is_audio(self._ptr):
                c_copy = lib.mtmd_bitmap_init_from_audio(lib.mtmd_bitmap_get_nx(self._ptr), <const float *> c_data)
            else:
                c_copy = lib.mtmd_bitmap_init(
                    lib.mtmd_bitmap_get_nx(self._ptr), lib.mtmd_bitmap_get_ny(self._ptr), c_data)
            lib.mtmd_bitmap_set_id(c_copy, lib.mtmd_bitmap_get_id(self._ptr))
            lib.mtmd_bitmap_set_mergeable(c_copy, self.mergeable)
        return c_copy

    # ---------------------------------------------------------------------------------- constructors

    @classmethod
    def from_pixels(cls, pixels: np.ndarray, id: str | None = None) -> Bitmap:
        """Create a bitmap of an image.

        Parameters
        ----------
        pixels : uint8 array, shape (height, width, 3)
            RGB, any strides; copied. ``cyllama.media.image.to_pixels`` converts images to it.
        id : str, optional
            The id of its chunks, such as the hash of its content.

        Raises
        ------
        TypeError, ValueError

        Notes
        -----
        Source: ``mtmd_bitmap_init``, mtmd.h.
        """
        cdef const unsigned char[:, :, ::1] view
        cdef const unsigned char * c_view
        cdef lib.mtmd_bitmap * c_bitmap
        if not isinstance(pixels, np.ndarray):
            raise TypeError(f"pixels is {type(pixels).__name__}, expected an array of uint8")
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"pixels is {pixels.dtype} of shape {pixels.shape}, expected uint8 (height, width, 3)")
        _check_size(pixels.shape[1], pixels.shape[0])
        view = np.ascontiguousarray(pixels)
        c_view = &view[0, 0, 0]
        with nogil:
            c_bitmap = lib.mtmd_bitmap_init(<unsigned int> view.shape[1], <unsigned int> view.shape[0], c_view)
        self = new_bitmap(c_bitmap, None)
        self.id = id
        return self

    @classmethod
    def from_audio(cls, samples: np.ndarray, id: str | None = None) -> Bitmap:
        """Create a bitmap of audio.

        Parameters
        ----------
        samples : float32 array, shape (n,)
            Mono, -1 to 1, at the projector's ``audio_sample_rate``; copied. ``load_audio``
            of ``cyllama.media.audio`` converts audio to it.
        id : str, optional

        Raises
        ------
        TypeError, ValueError
            Also fewer than two samples, or values that are not finite.

        Notes
        -----
        Source: ``mtmd_bitmap_init_from_audio``, mtmd.h.
        """
        cdef const float[::1] view
        cdef const float * c_view
        cdef lib.mtmd_bitmap * c_bitmap
        if not isinstance(samples, np.ndarray):
            raise TypeError(f"samples is {type(samples).__name__}, expected an array of float32")
        if samples.dtype != np.float32 or samples.ndim != 1:
            raise ValueError(f"samples is {samples.dtype} of shape {samples.shape}, expected float32 (n,)")
        check_range(samples.shape[0], "the number of samples", 2, MAX_SAMPLES)
        if not np.isfinite(samples).all():
            raise ValueError("samples has values that are not finite, expected -1 to 1")
        view = np.ascontiguousarray(samples)
        c_view = &view[0]
        with nogil:
            c_bitmap = lib.mtmd_bitmap_init_from_audio(view.shape[0], c_view)
        self = new_bitmap(c_bitmap, None)
        self.id = id
        return self

    @classmethod
    def placeholder(cls, width: int = 0, height: int = 0, n_samples: int = 0) -> Bitmap:
        """Create a placeholder of the size of an image or audio, which counts tokens and cannot be encoded.

        Source: ``mtmd_bitmap_init``, ``mtmd_bitmap_init_from_audio``, mtmd.h.
        """
        if n_samples:
            if width or height:
                raise ValueError("n_samples and width or height are given, expected n_samples for audio, "
                                 "or width and height for an image")
            check_range(n_samples, "n_samples", 2, MAX_SAMPLES)
            return new_bitmap(lib.mtmd_bitmap_init_from_audio(n_samples, NULL), None)
        check_range(width, "width", 1, MAX_SIDE)
        check_range(height, "height", 1, MAX_SIDE)
        _check_size(width, height)
        return new_bitmap(lib.mtmd_bitmap_init(width, height, NULL), None)

    @classmethod
    def from_bytes(cls, ctx: object, data: bytes, *, placeholder: bool = False, video: object | None = None) -> Bitmap:
        """Create a bitmap of an image, audio or a video from the content of a file, which the engine decodes.

        Parameters
        ----------
        ctx : MtmdContext
            Gives the sample rate of audio; the bitmap of a video keeps it open.
        data : bytes
            JPEG, PNG, BMP, GIF (the first frame), TGA, PSD, PNM; WAV, MP3, FLAC; with ffmpeg WebP and videos.
        placeholder : bool
            Create a placeholder of that size.
        video : VideoParams, optional

        Raises
        ------
        MediaError
            None of these, or damaged.
        UnsupportedError
            Audio for a projector without audio encoder; a video without ffmpeg.
        ValueError
            Too large.

        Notes
        -----
        The SHA-256 of the content is its ``id``. Releases the GIL.
        Source: ``mtmd_helper_bitmap_init_from_buf``, mtmd-helper.h.
        """
        return _decoded(ctx, data, None, placeholder, video)

    @classmethod
    def from_file(cls, ctx: object, path: object, *, placeholder: bool = False,
                  video: object | None = None) -> Bitmap:
        """Decode a file like :meth:`from_bytes`. Source: ``mtmd_helper_bitmap_init_from_file``, mtmd-helper.h."""
        return _decoded(ctx, None, path, placeholder, video)

    @classmethod
    def lazy(cls, ctx: object, give: object, id: str | None = None) -> Bitmap:
        """Create a bitmap whose content is produced while it is tokenized, such as the frames of a long video.

        Parameters
        ----------
        ctx : MtmdContext
            Kept open by the bitmap.
        give : callable
            ``give(i)`` returns the i-th part: a Bitmap, an array as of :meth:`from_pixels`, a text, or None at the
            end. What it raises arrives at the caller of ``tokenize``.
        id : str, optional

        Notes
        -----
        Source: ``mtmd_bitmap_init_lazy``, mtmd.h.
        """
        cdef Handle context = _context(ctx)
        cdef lib.mtmd_context * c_ctx = <lib.mtmd_context *> context._address()
        cdef Bitmap self
        if not callable(give):
            raise TypeError(f"give is {give!r}, expected a callable")
        self = Bitmap.__new__(Bitmap)
        self._take(lib.mtmd_bitmap_init_lazy(c_ctx, NULL, <void *> self, _lazy_nogil), context)
        self._give = give
        self.is_lazy = True
        self._accepts_images = ctx.support_vision
        self._accepts_audio = ctx.support_audio
        self.id = id
        return self

    # ---------------------------------------------------------------------------------- properties

    @property
    def nx(self) -> int:
        """Width in pixels, or the number of samples. Source: ``mtmd_bitmap_get_nx``, mtmd.h."""
        self._check()
        return lib.mtmd_bitmap_get_nx(self._ptr)

    @property
    def ny(self) -> int:
        """Height in pixels, 1 for audio. Source: ``mtmd_bitmap_get_ny``, mtmd.h."""
        self._check()
        return lib.mtmd_bitmap_get_ny(self._ptr)

    @property
    def n_bytes(self) -> int:
        """Bytes of its content, 0 without one. Source: ``mtmd_bitmap_get_n_bytes``, mtmd.h."""
        self._check()
        return lib.mtmd_bitmap_get_n_bytes(self._ptr)

    @property
    def is_audio(self) -> bool:
        """Whether it is audio. Source: ``mtmd_bitmap_is_audio``, mtmd.h."""
        self._check()
        return lib.mtmd_bitmap_is_audio(self._ptr)

    @property
    def data(self) -> np.ndarray | None:
        """A copy of its content: uint8 (height, width, 3) or float32 (n,); None without one.

        Source: ``mtmd_bitmap_get_data``, mtmd.h.
        """
        self._check()
        cdef const unsigned char * c_data = lib.mtmd_bitmap_get_data(self._ptr)
        cdef size_t n = lib.mtmd_bitmap_get_n_bytes(self._ptr)
        cdef unsigned char[::1] view
        if c_data == NULL or n == 0:
            return None
        raw = np.empty(n, np.uint8)
        view = raw
        cdef void * c_target = &view[0]
        with nogil:
            memcpy(c_target, c_data, n)
        return raw.view(np.float32) if self.is_audio else raw.reshape(self.ny, self.nx, 3)

    @property
    def id(self) -> str | None:
        """A name that its chunks carry. Source: ``mtmd_bitmap_get_id``, ``mtmd_bitmap_set_id``, mtmd.h."""
        self._check()
        return lib.mtmd_bitmap_get_id(self._ptr).decode("utf-8", "replace") or None

    @id.setter
    def id(self, value: str | None) -> None:
        self._check()
        if value is not None and not isinstance(value, str):
            raise TypeError(f"id is {value!r}, expected a str or None")
        if value is not None and "\0" in value:
            raise ValueError(f"id is {value!r}, expected one without null characters")
        raw = (value or "").encode()
        lib.mtmd_bitmap_set_id(self._ptr, raw)

    def set_mergeable(self, mergeable: bool) -> None:
        """Allow a video model to merge the bitmap with the next one. Source: ``mtmd_bitmap_set_mergeable``, mtmd.h."""
        self._check()
        lib.mtmd_bitmap_set_mergeable(self._ptr, mergeable)
        self.mergeable = mergeable

    def __repr__(self) -> str:
        if not self._open:
            return "<Bitmap (closed)>"
        if self.is_lazy:
            return "<Bitmap lazy>"
        size = f"{self.nx} samples" if self.is_audio else f"{self.nx}x{self.ny}"
        return f"<Bitmap {size}{'' if self.n_bytes else ' (placeholder)'}>"


def _check_size(width: int, height: int) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise ValueError(f"the image has {width}x{height} pixels, expected at least 1x1, at most {MAX_SIDE} along a "
                         f"side and {MAX_PIXELS} in all")


cdef Handle _context(object ctx):
    """Return an open MtmdContext as a handle."""
    from cyllama.llava._context import MtmdContext  # it imports this module

    if not isinstance(ctx, MtmdContext):
        raise TypeError(f"ctx is {ctx!r}, expected an MtmdContext")
    cdef Handle handle = ctx
    handle._check()
    return handle


def _decoded(ctx, data, path, bint placeholder, params) -> Bitmap:
    cdef Handle context = _context(ctx)
    cdef const lib.mtmd_context * c_ctx = <lib.mtmd_context *> context._address()
    cdef const unsigned char[::1] view
    cdef const unsigned char * c_view = NULL
    cdef bytes raw_path
    cdef const char * c_path = NULL
    cdef lib.mtmd_helper_bitmap_wrapper made
    cdef list keep = []
    cdef lib.mtmd_helper_init_opt options = lib.mtmd_helper_init_opt_default()
    cdef Bitmap self
    if path is not None:
        raw_path = path_bytes(path, "path")
        c_path = raw_path
    else:
        view = memoryview(data).cast("B")
    options.video_params = video_options(params, keep)
    kind = check_encoded(data if path is None else path, ctx.audio_sample_rate)
    if kind == "video":
        check_ffmpeg(params)
    start_call()
    context._hold()
    try:
        if path is None:
            c_view = &view[0]
        with nogil:
            if path is not None:
                made = lib.mtmd_helper_bitmap_init_from_file(c_ctx, c_path, placeholder, options)
            else:
                made = lib.mtmd_helper_bitmap_init_from_buf(c_ctx, c_view, view.shape[0], placeholder, options)
    finally:
        context._unhold()
    if made.bitmap == NULL:
        name = "the data" if path is None else path
        raise engine_error(MediaError, f"{name} is not an image, audio or a video that can "
                           "be read", "llava", "mtmd_helper_bitmap_init_from_buf", None)
    self = new_bitmap(made.bitmap, context if made.video_ctx != NULL else None)
    self._video = made.video_ctx
    self.is_lazy = made.video_ctx != NULL
    return self
