"""llama.cpp's server in this process: slots, continuous batching, templates, tools; without HTTP."""

import re
from collections.abc import Mapping, Sequence

cimport cython
from libcpp cimport bool as cbool
from libcpp.map cimport map as cmap
from libcpp.string cimport string
from libcpp.vector cimport vector

from cyllama._native._core cimport engine_error, log_hook, start_call
from cyllama._native._handle cimport CallState, Handle, poll_call, progress_call
from cyllama.llama cimport libengine as lib
from cyllama.llama.libcommon cimport common_params

from cyllama._native import _core
from cyllama.errors import EngineError, ModelLoadError, OutOfMemoryError
from cyllama.llama._enums import PoolingType

lib.hear_projector(log_hook, <void *> <const char *> b"llava")


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
    """Upstream's parser throws for whatever is wrong."""
    cdef vector[string] c_options = _options(options)
    start_call()
    try:
        return lib.parse_options(c_options)
    except (EngineError, ValueError) as error:
        raise ValueError(_with_value(str(error), list(options))) from None


def _with_value(text: str, options: list[str]) -> str:
    """Upstream names the option and, of a number, the function of the standard library that could not read it."""
    found = re.match(r'error while handling argument "(.+?)": (.*?)\s*\n\nusage:\n(.*?)\n\n', text, re.DOTALL)
    if found is None or found[1] not in options[:-1]:
        return text
    why = found[2].removeprefix("error: ")
    if why in ("stoi", "stoul", "stoull"):
        why = "expected an integer"
    elif why in ("stof", "stod"):
        why = "expected a number"
    value = [options[i + 1] for i, word in enumerate(options[:-1]) if word == found[1]][-1]  # after those by default
    return f"{found[1]} is {value!r}: {why}\n{found[3].strip()}"


def engine_options() -> list[dict[str, object]]:
    """The options of :class:`Engine`, from upstream's own parser.

    Returns
    -------
    list of dict
        ``names`` (such as ``["-c", "--ctx-size"]``), ``help``, ``values`` (how many follow the name) and ``negated``
        (whether it switches off what another one switches on).

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
    """The fields of a completion request, from upstream's own schema.

    Returns
    -------
    list of dict
        ``names`` (the field, then its other names), ``help``, ``kind`` (``"integer"``, ``"number"``, ``"flag"``, or
        ``""`` for others), and ``limits`` (least and most, both possible; None: none, or upstream refuses it itself).

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
    """What a model with these options of :class:`Engine` would take, without loading it.

    Returns
    -------
    dict
        ``n_ctx``, ``n_ctx_train`` (tokens) and ``devices``: for each that is used, the host last, ``name``, ``host``
        and bytes of ``model``, ``context``, ``compute``, ``projector``, ``free``, ``total``.

    Raises
    ------
    ValueError
        An option that there is not, or a value that does not fit, in upstream's words.
    ModelLoadError
        The file is no model, or cannot have such a context.

    Notes
    -----
    Releases the GIL. Source: ``llama_get_memory_breakdown``, src/llama-ext.h, of a model with ``no_alloc``.
    """
    _core.load_backends()
    cdef common_params params = _parsed(options)
    cdef lib.memory_need need
    start_call()
    try:
        with nogil:
            need = lib.need_of(params)
    except OutOfMemoryError:
        raise
    except EngineError as error:
        raise engine_error(ModelLoadError, str(error), "llama", "no_alloc", None) from None
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
        As on the command line of ``llama-server``: ``["--model", "model.gguf", "--ctx-size", "4096"]``. Neither
        environment variables nor configuration files count.
    progress : callable, optional
        Called with the part that is loaded, 0 to 1; False cancels.
    cancel : object with ``is_set()``, optional
        Stops the loading.

    Raises
    ------
    ValueError
        An option that there is not, or a value that does not fit, in upstream's words.
    ModelLoadError, OutOfMemoryError, CancelledError

    Notes
    -----
    Releases the GIL while loading. Thread safety: requests may be made from many threads.
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
                raise engine_error(ModelLoadError, "the model cannot be loaded", "llama", "load_model", None)
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
        """Why the scheduler has ended, if it has: a failed assertion, or no memory."""
        self._check()
        return bytes(self._ptr.failure()).decode("utf-8", "replace") or None

    @property
    def pooling_type(self) -> PoolingType:
        """How the vectors of tokens become one: that of the model, or what was asked for."""
        self._check()
        return PoolingType(self._ptr.pooling())

    def control_texts(self) -> list[str]:
        """What the control tokens of the vocabulary are written like: ``<|im_end|>``, ``</s>``, ...

        Notes
        -----
        Source: ``llama_vocab_get_attr``, llama.h.
        """
        self._check()
        cdef list texts = self._ptr.control_texts()
        return [(<bytes> text).decode("utf-8", "replace") for text in texts]

    def request(self, route: str, body: bytes = b"", params: Mapping[str, str] | None = None, *,
                cancel: object | None = None) -> EngineResponse:
        """Make a request and wait for the answer, or for the first part of it if it is streamed.

        Parameters
        ----------
        route : str
            ``"chat_completions"``, ``"completion"``, ``"tokenize"``, ...: the handlers of ``server_routes``.
        body : bytes
            JSON.
        params : mapping, optional
            What stands in a path or in a query, such as ``{"id_slot": "0", "action": "save"}``.
        cancel : object with ``is_set()``, optional
            Stops the request within 50 ms.

        Returns
        -------
        EngineResponse

        Raises
        ------
        ValueError
            What upstream calls an invalid argument.
        EngineError, CancelledError, ClosedError

        Notes
        -----
        Releases the GIL. Thread safety: any thread. Source: ``server_routes``, tools/server/server-context.h.
        """
        return EngineResponse(self, route, body, params, cancel=cancel)


@cython.no_gc_clear
cdef class EngineResponse(Handle):
    """The answer to a request: whole, or in parts (``for part in response``).

    Closing it, or dropping it, cancels what is not finished.
    """

    cdef lib.exchange * _ptr
    cdef bint _ended

    def __cinit__(self, Engine engine, str route, body, params=None, *, cancel=None):
        self._ptr = NULL
        engine._check()
        cdef string c_route = route.encode()
        if not lib.has_route(c_route):
            raise ValueError(f"route is {route!r}, there is none of that name")
        if not isinstance(body, bytes):
            raise TypeError(f"body is {body!r}, expected bytes")
        cdef string c_body = body
        cdef cmap[string, string] c_params
        for key, value in (params or {}).items():
            c_params[<bytes> str(key).encode()] = <bytes> str(value).encode()
        cdef CallState state = CallState(cancel)
        cdef lib.engine_hooks hooks = hooks_of(state)
        state.finish()
        start_call()
        self._ptr = new lib.exchange(engine._ptr[0], c_route, c_body, c_params)
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
                 cancel: object | None = None) -> None:
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
        """As of HTTP: 200, or what kind of error it is."""
        self._check()
        return self._ptr.status()

    @property
    def is_stream(self) -> bool:
        """Whether it comes in parts."""
        self._check()
        return self._ptr.is_stream()

    @property
    def data(self) -> bytes:
        """The whole answer, JSON; of a stream, an error that came before its first part."""
        self._check()
        return self._ptr.data()

    def next(self, *, cancel: object | None = None) -> bytes | None:
        """Return the next part of a stream (server-sent events; may be empty), None after the last one.

        Raises
        ------
        EngineError, CancelledError, ClosedError
        InUseError
            Another thread waits for a part.

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
