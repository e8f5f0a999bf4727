"""llama.cpp's server in this process: slots, continuous batching, templates, tools; without HTTP."""

import re
from collections.abc import Mapping, Sequence

cimport cython
from libc.stdint cimport uint8_t
from libcpp cimport bool as cbool
from libcpp.map cimport map as cmap
from libcpp.string cimport string
from libcpp.vector cimport vector

from cyllama._native._exit cimport RunningCall
from cyllama._native._core cimport engine_error, log_hook, start_call
from cyllama._native._handle cimport CallState, Handle, poll_call, progress_call
from cyllama.llama cimport libengine as lib
from cyllama.llama.libcommon cimport common_params

from cyllama._native import _core
from cyllama.errors import EngineError, ModelLoadError, OutOfMemoryError, RPCError
from cyllama.llama._enums import PoolingType

lib.set_projector_log(log_hook, <void *> <const char *> b"llava")


cdef cbool _poll(void * state) noexcept nogil:
    return poll_call(state)


cdef cbool _progress(float part, void * state) noexcept nogil:
    return progress_call(part, state)


cdef lib.engine_hooks hooks_of(CallState state):
    cdef lib.engine_hooks hooks
    hooks.poll = _poll
    hooks.progress = _progress
    hooks.state = <void *> state
    return hooks


cdef vector[string] _options(object options) except *:
    cdef vector[string] found
    if isinstance(options, str | bytes) or not isinstance(options, Sequence):
        raise TypeError(f"options is {options!r}, expected a sequence of strings")
    for option in options:
        if not isinstance(option, str):
            raise TypeError(f"options contains {option!r}, expected strings")
        if "\0" in option:
            raise ValueError(f"options contains {option!r}, a null character cannot be passed on")
        found.push_back(option.encode("utf-8", "surrogateescape"))
    return found


cdef common_params _parsed(object options) except *:
    """Parse options with upstream's parser.

    Raises
    ------
    ValueError, RPCError

    Notes
    -----
    Releases the GIL: it connects to RPC servers.
    """
    cdef vector[string] c_options = _options(options)
    cdef common_params found
    cdef RunningCall _running = RunningCall()  # the end of the interpreter waits for it
    start_call()
    try:
        with nogil:
            found = lib.parse_options(c_options)
        return found
    except (EngineError, ValueError) as error:
        if "the RPC server" in str(error):
            raise RPCError(str(error), engine="llama") from None
        if reason := _template_error():
            raise ValueError(f"chat_template is not valid{reason}") from None
        raise ValueError(_with_value(str(error), list(options))) from None


def _template_error() -> str:
    """Return the reason why a chat template was rejected, as the end of a message; empty if none was."""
    text = lib.take_template_error().decode("utf-8", "replace").strip()
    return f": {text[-500:]}" if text else ""


def _with_value(text: str, options: list[str]) -> str:
    """Return the message of a parser error with the option's value.

    Upstream names the option and, for a number, the function of the standard library that failed.
    """
    found = re.match(r'error while handling argument "(.+?)": (.*?)\s*\n\nusage:\n(.*?)\n\n', text, re.DOTALL)
    if found is None or found[1] not in options[:-1]:
        return text
    why = found[2].removeprefix("error: ")
    if why in ("stoi", "stoul", "stoull"):
        why = "expected an integer"
    elif why in ("stof", "stod"):
        why = "expected a number"
    value = [options[i + 1] for i, word in enumerate(options[:-1]) if word == found[1]][-1]  # the last one counts
    return f"{found[1]} is {value!r}: {why}\n{found[3].strip()}"


def engine_options() -> list[dict[str, object]]:
    """Return the options of :class:`Engine`, read from upstream's parser.

    Returns
    -------
    list of dict
        ``names`` (such as ``["-c", "--ctx-size"]``), ``help``, ``values`` (number of values after the name) and
        ``negated`` (whether the option switches off what another one switches on).

    Notes
    -----
    Source: ``common_params_parser_init``, common/arg.h.
    """
    return [
        {
            "names": [bytes(name).decode() for name in info.names],
            "help": bytes(info.help).decode(),
            "values": info.values,
            "negated": bool(info.negated),
        }
        for info in lib.known_options()
    ]


def engine_fields() -> list[dict[str, object]]:
    """Return the fields of a completion request, read from upstream's schema.

    Returns
    -------
    list of dict
        ``names`` (the field, then its aliases), ``help``, ``kind`` (``"integer"``, ``"number"``, ``"flag"``, or
        ``""`` for others), and ``limits`` (minimum and maximum, inclusive; None: no limits, or upstream rejects values
        itself).

    Notes
    -----
    Source: ``make_llama_cmpl_schema``, tools/server/server-schema.h.
    """
    return [
        {
            "names": [bytes(name).decode() for name in info.names],
            "help": bytes(info.help).decode(),
            "kind": bytes(info.kind).decode(),
            "limits": (info.least, info.most) if info.limited else None,
        }
        for info in lib.known_fields()
    ]


def engine_memory(options: Sequence[str]) -> dict[str, object]:
    """Estimate the memory of a model with these options of :class:`Engine`, without loading it.

    Returns
    -------
    dict
        ``n_ctx``, ``n_ctx_train`` (tokens) and ``devices``: for each device that is used, the host last, ``name``,
        ``host`` and bytes of ``model``, ``context``, ``compute``, ``projector``, ``free``, ``total``.

    Raises
    ------
    ValueError
        An option is unknown, or its value is invalid; the message is upstream's.
    ModelLoadError
        The file is not a model, or the context cannot be created.

    Notes
    -----
    Releases the GIL. Source: ``llama_get_memory_breakdown``, src/llama-ext.h, of a model with ``no_alloc``.
    """
    _core.load_backends()
    cdef common_params params = _parsed(options)
    cdef lib.memory_need need
    cdef RunningCall _running = RunningCall()  # the end of the interpreter waits for it
    start_call()
    try:
        with nogil:
            need = lib.estimate_memory(params)
    except OutOfMemoryError:
        raise
    except EngineError as error:
        raise engine_error(ModelLoadError, error.message, "llama", "no_alloc", None) from None
    return {
        "n_ctx": need.n_ctx,
        "n_ctx_train": need.n_ctx_train,
        "devices": [
            {
                "name": bytes(device.name).decode(),
                "host": bool(device.host),
                "model": device.model,
                "context": device.context,
                "compute": device.compute,
                "projector": device.projector,
                "free": device.free,
                "total": device.total,
            }
            for device in need.devices
        ],
    }


@cython.no_gc_clear
cdef class Engine(Handle):
    """A model with its scheduler, which runs in a native thread.

    Parameters
    ----------
    options : sequence of str
        As on the command line of ``llama-server``: ``["--model", "model.gguf", "--ctx-size", "4096"]``. Environment
        variables and configuration files are ignored.
    progress : callable, optional
        Called with the fraction loaded, 0 to 1; False cancels.
    cancel : object with ``is_set()``, optional
        Stops loading.

    Raises
    ------
    ValueError
        An option is unknown, or its value is invalid; the message is upstream's.
    ModelLoadError, OutOfMemoryError, CancelledError

    Notes
    -----
    Releases the GIL while loading. Thread safety: many threads may make requests.
    Source: ``server_context``, tools/server/server-context.h.
    """

    cdef lib.engine * _ptr

    def __cinit__(self, options, *, progress=None, cancel=None):
        self._ptr = NULL
        _core.load_backends()
        cdef CallState state = CallState(cancel, progress)
        cdef lib.engine_hooks hooks = hooks_of(state)
        cdef common_params params = _parsed(options)
        cdef cbool loaded = False
        start_call()
        state.finish()
        self._ptr = new lib.engine(params)
        try:
            with nogil:
                loaded = self._ptr.load(hooks)
            state.finish()
            if not loaded:
                reason = _template_error()
                raise engine_error(ModelLoadError, f"the model cannot be loaded{reason}", "llama", "load_model", None)
        except BaseException:
            self._free()
            raise
        self._opened("Engine", None)

    def __init__(self, options: Sequence[str], *, progress: object | None = None,
                 cancel: object | None = None) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _free(self) noexcept:
        cdef lib.engine * ptr = self._ptr
        self._ptr = NULL
        with nogil:
            del ptr
        return 0

    cdef int _release(self) noexcept:
        self._free()
        return 0

    @property
    def failure(self) -> str | None:
        """Error that ended the scheduler (a failed assertion, or no memory), or None."""
        self._check()
        return bytes(self._ptr.failure()).decode("utf-8", "replace") or None

    @property
    def pooling_type(self) -> PoolingType:
        """Pooling of token embeddings: the model's, or the one set by an option."""
        self._check()
        return PoolingType(self._ptr.pooling())

    def control_texts(self) -> list[str]:
        """Return the texts of the vocabulary's control tokens: ``<|im_end|>``, ``</s>``, ...

        Notes
        -----
        Source: ``llama_vocab_get_attr``, llama.h.
        """
        self._check()
        cdef list texts = self._ptr.control_texts()
        return [(<bytes> text).decode("utf-8", "replace") for text in texts]

    def request(self, route: str, body: bytes = b"", params: Mapping[str, str] | None = None, *,
                files: Sequence[Sequence[bytes | memoryview]] = (), cancel: object | None = None) -> EngineResponse:
        """Make a request and wait for the response, or for the first part of a stream.

        Parameters
        ----------
        route : str
            ``"chat_completions"``, ``"completion"``, ``"tokenize"``, ...: the handlers of ``server_routes``.
        body : bytes
            JSON.
        params : mapping, optional
            Parameters of the path and the query, such as ``{"id_slot": "0", "action": "save"}``.
        files : sequence of sequence of contiguous bytes-like object, optional
            Encoded images (PNM, PNG, JPEG) and audio (WAV, FLAC, MP3), each as the buffers that it consists of.
            ``attachment:N`` in `body`, in place of a media URL or of base64, takes the N-th one; each may be taken
            once. They are copied once.
        cancel : object with ``is_set()``, optional
            Stops the request within 50 ms.

        Returns
        -------
        EngineResponse

        Raises
        ------
        ValueError
            Upstream rejects an argument.
        EngineError, CancelledError, ClosedError

        Notes
        -----
        Releases the GIL. Thread safety: any thread. Source: ``server_routes``, tools/server/server-context.h.
        """
        return EngineResponse(self, route, body, params, files=files, cancel=cancel)


cdef vector[vector[uint8_t]] _joined(object files) except *:
    """Copy files, each given as several buffers."""
    cdef vector[vector[uint8_t]] found
    cdef const uint8_t[::1] view
    cdef size_t size
    for buffers in files:
        size = 0
        for buffer in buffers:
            size += len(buffer)
        found.push_back(vector[uint8_t]())
        found.back().reserve(size)
        for buffer in buffers:
            view = buffer
            if view.shape[0]:
                found.back().insert(found.back().end(), &view[0], &view[0] + view.shape[0])
    return found


@cython.no_gc_clear
cdef class EngineResponse(Handle):
    """The response to a request: complete, or a stream of parts (``for part in response``).

    Closing or dropping it cancels an unfinished request.
    """

    cdef lib.exchange * _ptr
    cdef bint _ended

    def __cinit__(self, Engine engine, str route, body, params=None, *, files=(), cancel=None):
        self._ptr = NULL
        engine._check()
        cdef string c_route = route.encode()
        if not lib.has_route(c_route):
            raise ValueError(f"route is {route!r}, expected the name of a handler of llama.cpp's server")
        if not isinstance(body, bytes):
            raise TypeError(f"body is {body!r}, expected bytes")
        cdef string c_body = body
        cdef cmap[string, string] c_params
        for key, value in (params or {}).items():
            c_params[<bytes> str(key).encode()] = <bytes> str(value).encode()
        cdef vector[vector[uint8_t]] c_files = _joined(files)
        cdef CallState state = CallState(cancel)
        cdef lib.engine_hooks hooks = hooks_of(state)
        state.finish()
        start_call()
        self._ptr = new lib.exchange(engine._ptr[0], c_route, c_body, c_params, c_files)
        self._opened("EngineResponse", engine)
        try:
            with nogil:
                self._ptr.run(hooks)
            state.finish()
        except BaseException as error:
            self._dispose()
            if isinstance(error, EngineError):
                engine._failed(error)
            raise

    def __init__(self, engine: Engine, route: str, body: bytes, params: Mapping[str, str] | None = None, *,
                 files: Sequence[Sequence[bytes | memoryview]] = (), cancel: object | None = None) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        cdef lib.exchange * ptr = self._ptr
        self._ptr = NULL
        with nogil:
            del ptr
        return 0

    @property
    def status(self) -> int:
        """HTTP status code."""
        self._check()
        return self._ptr.status()

    @property
    def is_stream(self) -> bool:
        """Whether the response is a stream of parts."""
        self._check()
        return self._ptr.is_stream()

    @property
    def data(self) -> bytes:
        """The complete response, JSON; for a stream, an error that occurred before its first part."""
        self._check()
        return self._ptr.data()

    def next(self, *, cancel: object | None = None) -> bytes | None:
        """Return the next part of a stream (server-sent events; may be empty), None after the last one.

        Raises
        ------
        EngineError, CancelledError, ClosedError
        InUseError
            Another thread is waiting for a part.

        Notes
        -----
        Releases the GIL.
        """
        cdef string part
        cdef cbool more
        cdef CallState state
        cdef lib.engine_hooks hooks
        self._check()
        if self._ended or not self._ptr.is_stream():
            return None
        state = CallState(cancel)
        state.finish()
        hooks = hooks_of(state)
        self._begin()
        try:
            start_call()
            with nogil:
                more = self._ptr.next(part, hooks)
            state.finish()
        except BaseException as error:
            self._ended = True
            if isinstance(error, EngineError):
                (<Handle> self._parent)._failed(error)
            raise
        finally:
            self._end()
        self._ended = not more
        return part

    def __iter__(self) -> EngineResponse:
        return self

    def __next__(self) -> bytes:
        part = self.next()
        if part is None:
            raise StopIteration
        return part
