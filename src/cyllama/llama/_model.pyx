"""The model: loading, properties and saving."""

import os
from dataclasses import replace

import numpy as np

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.string cimport memcpy

from cyllama._native cimport libggml as ggml
from cyllama._native._c_memory cimport CMemory
from cyllama._native.libfields cimport set_enum
from cyllama._native._core cimport engine_error, log_hook, start_call
from cyllama._native._files cimport CFile
from cyllama._native._exit cimport is_ending
from cyllama._native._handle cimport CallState, check_index, check_range, integer_of, path_bytes, progress_call
from cyllama.llama cimport libllama as lib
from cyllama.llama.libmodel cimport has_reordered_weights
from cyllama._native._gguf cimport GGUFContext

from cyllama._native import _core
from cyllama._native.files import atomic_path
from cyllama._native.gguf_files import missing_bytes
from cyllama.errors import EngineError, ModelLoadError, UnsupportedError
from cyllama._params import checked
from cyllama._native._tensors import TensorType
from cyllama.llama._enums import FileType, LoadMode, RopeType
from cyllama.llama.params import LlamaModelParams

_core.check_abi(__name__, (ggml.ggml_version().decode(), sizeof(ggml.ggml_tensor), ggml.GGML_MAX_NAME))
lib.llama_log_set(log_hook, <void *> <const char *> b"llama")


cdef ggml.ggml_backend_dev_t _device(str name) except NULL:
    cdef bytes raw = name.encode()
    cdef ggml.ggml_backend_dev_t dev = ggml.ggml_backend_dev_by_name(raw)
    if dev == NULL:
        names = [d["name"] for d in _core.devices()]
        raise ValueError(f"devices contains {name!r}, expected names of {names}")
    return dev


cdef ggml.ggml_backend_buffer_type_t _buffer_type(str name) except NULL:
    cdef size_t i
    cdef ggml.ggml_backend_buffer_type_t buft
    names = []
    for i in range(ggml.ggml_backend_dev_count()):
        buft = ggml.ggml_backend_dev_buffer_type(ggml.ggml_backend_dev_get(i))
        if buft != NULL:
            names.append(ggml.ggml_backend_buft_name(buft).decode())
            if names[-1] == name:
                return buft
    raise ValueError(f"tensor_buft_overrides names the buffer type {name!r}, expected one of {names}")


cdef int fill_kv_overrides(object overrides, lib.llama_model_kv_override * c_list) except -1:
    """Write `overrides` and the empty key that ends the list; `c_list` is zeroed and long enough."""
    cdef Py_ssize_t i = 0
    for key, value in overrides.items():
        raw_key = key.encode()
        if not 0 < len(raw_key) < 128:
            raise ValueError(f"the key of a kv_override is {key!r}, expected 1 to 127 bytes")
        memcpy(c_list[i].key, <const char *> raw_key, len(raw_key))
        if isinstance(value, bool):
            c_list[i].tag = lib.LLAMA_KV_OVERRIDE_TYPE_BOOL
            c_list[i].val_bool = value
        elif isinstance(value, int):
            check_range(value, f"kv_overrides[{key!r}]", -2**62, 2**62)
            c_list[i].tag = lib.LLAMA_KV_OVERRIDE_TYPE_INT
            c_list[i].val_i64 = value
        elif isinstance(value, float):
            c_list[i].tag = lib.LLAMA_KV_OVERRIDE_TYPE_FLOAT
            c_list[i].val_f64 = value
        elif isinstance(value, str):
            raw = value.encode()
            if len(raw) > 127:
                raise ValueError(f"kv_overrides[{key!r}] has {len(raw)} bytes, expected 127 at most")
            c_list[i].tag = lib.LLAMA_KV_OVERRIDE_TYPE_STR
            memcpy(c_list[i].val_str, <const char *> raw, len(raw))
        else:
            raise TypeError(f"kv_overrides[{key!r}] is {value!r}, expected int, float, bool or str")
        i += 1
    return 0


cdef int _fill_lists(object params, lib.llama_model_params * c_params, CMemory memory) except -1:
    cdef ggml.ggml_backend_dev_t * c_devices
    cdef lib.llama_model_tensor_buft_override * c_bufts
    cdef lib.llama_model_kv_override * c_overrides
    cdef float * c_split
    cdef size_t i
    if params.devices is not None:
        names = list(params.devices)
        c_devices = <ggml.ggml_backend_dev_t *> memory.alloc(len(names) + 1, sizeof(ggml.ggml_backend_dev_t))
        for i, name in enumerate(names):
            c_devices[i] = _device(name)
        c_params.devices = c_devices
    if params.tensor_buft_overrides is not None:
        pairs = list(params.tensor_buft_overrides)
        c_bufts = <lib.llama_model_tensor_buft_override *> memory.alloc(
            len(pairs) + 1, sizeof(lib.llama_model_tensor_buft_override))
        for i, (pattern, name) in enumerate(pairs):
            c_bufts[i].pattern = memory.text(pattern)
            c_bufts[i].buft = _buffer_type(name)
        c_params.tensor_buft_overrides = c_bufts
    if params.tensor_split is not None:
        split = [float(x) for x in params.tensor_split]
        if len(split) > lib.llama_max_devices():
            raise ValueError(f"tensor_split has {len(split)} values, expected {lib.llama_max_devices()} at most")
        c_split = <float *> memory.alloc(lib.llama_max_devices(), sizeof(float))
        for i, share in enumerate(split):
            c_split[i] = share
        c_params.tensor_split = c_split
    if params.kv_overrides is not None:
        overrides = dict(params.kv_overrides)
        c_overrides = <lib.llama_model_kv_override *> memory.alloc(
            len(overrides) + 1, sizeof(lib.llama_model_kv_override))
        fill_kv_overrides(overrides, c_overrides)
        c_params.kv_overrides = c_overrides
    return 0


include "LlamaModelParams.pxi"


cdef CMemory _fill(object params, lib.llama_model_params * c_params):
    """Write `params` over the engine's defaults; the result must live as long as `c_params` is used."""
    cdef CMemory memory = CMemory()
    values = checked(params, LlamaModelParams)
    c_params[0] = lib.llama_model_default_params()
    fill_LlamaModelParams(values, c_params, memory)
    _fill_lists(params, c_params, memory)
    return memory


def _check_magic(raw: bytes) -> None:
    with open(raw, "rb") as f:
        magic = f.read(4)
    name = os.fsdecode(raw)
    if not magic:
        raise ModelLoadError(f"{name} is empty, expected a GGUF model", engine="llama")
    if magic != b"GGUF":
        raise ModelLoadError(f"{name} is not a GGUF file: it begins with {magic!r}", engine="llama")


cdef class _TensorSource:
    """The callable that returns the weights, called from C."""

    cdef object give
    cdef object error
    cdef CallState state


cdef void _set_tensor(ggml.ggml_tensor * tensor, void * data) noexcept with gil:
    cdef _TensorSource self = <_TensorSource> data
    cdef const unsigned char[::1] view
    if self.error is not None or self.state._poll_gil():
        return
    try:
        name = ggml.ggml_get_name(tensor).decode()
        kind = TensorType(<int> tensor.type)
        n_dims = max([i + 1 for i in range(ggml.GGML_MAX_DIMS) if i == 0 or tensor.ne[i] > 1])
        shape = tuple([tensor.ne[i] for i in range(n_dims)])[::-1]
        dtype = {"F32": np.float32, "F16": np.float16, "I32": np.int32}.get(kind.name)
        values = np.asarray(self.give(name, kind, shape))
        wanted = (np.dtype(np.uint8), ggml.ggml_nbytes(tensor)) if dtype is None else (np.dtype(dtype), shape)
        if (values.dtype, values.size if dtype is None else values.shape) != wanted:
            raise ValueError(f"set_tensor_data gave {values.dtype} of the shape {values.shape} for {name!r} "
                             f"({kind.name}), expected {wanted[0]} of {wanted[1]}")
        view = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        ggml.ggml_backend_tensor_set(tensor, &view[0], 0, len(view))
    except BaseException as e:
        self.error = e


cdef void _set_tensor_nogil(ggml.ggml_tensor * tensor, void * data) noexcept nogil:
    if not is_ending():
        _set_tensor(tensor, data)


@cython.no_gc_clear  # __dealloc__ uses the fields, the parent first of all
cdef class LlamaModel(Handle):
    """A model: weights and vocabulary.

    Parameters
    ----------
    path_model : str, bytes or os.PathLike
        A GGUF file; for a split model, its first part.
    params : LlamaModelParams, optional
    cancel : object with ``is_set()``, optional
        Such as ``threading.Event``; polled while loading, like Ctrl-C.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
    ModelLoadError
        The file is not a model, is truncated, or the engine rejects it; ``log`` has the engine's message.
    CancelledError
        `cancel` was set, or the progress callback returned False.

    Notes
    -----
    Releases the GIL while loading. Thread safety: may be shared by contexts in several threads.
    Source: ``llama_model_load_from_file``, llama.h.
    """

    def __cinit__(self, path_model=None, params=None, *, cancel=None):
        if path_model is None:
            return  # the class methods fill it
        cdef bytes raw = path_bytes(path_model, "path_model")
        cdef const char * c_path = raw
        cdef lib.llama_model_params c_params
        cdef CallState state
        _check_magic(raw)
        state = self._prepare(params, cancel, &c_params)
        self.path_model = os.fsdecode(raw)
        start_call()
        with nogil:
            self._ptr = lib.llama_model_load_from_file(c_path, c_params)
        self._loaded(state)

    def __init__(self, path_model: str | bytes | os.PathLike | None = None, params: LlamaModelParams | None = None,
                 *, cancel: object | None = None) -> None:
        if self._ptr == NULL and not self._open and path_model is None:
            raise TypeError("LlamaModel() needs path_model")

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        cdef lib.llama_model * c_model = self._ptr
        self._ptr = NULL
        self._vocab_ptr = NULL
        with nogil:
            lib.llama_model_free(c_model)
        return 0

    cdef CallState _prepare(self, object params, object cancel, lib.llama_model_params * c_params):
        """The C parameters, and the state of the call that loads with them."""
        self.params = LlamaModelParams() if params is None else params
        _core.load_backends()
        self._buffers = _fill(self.params, c_params)
        state = CallState(cancel, self.params.progress_callback)
        c_params.progress_callback = <lib.llama_progress_callback> progress_call
        c_params.progress_callback_user_data = <void *> state
        return state

    cdef int _loaded(self, object state) except -1:
        """Raise what went wrong, or take the loaded model over."""
        if self._ptr == NULL:
            (<CallState> state).finish()
            raise engine_error(ModelLoadError, f"cannot load {self.path_model or 'the model'}", "llama",
                               "llama_model_load_from_file", None)
        self._vocab_ptr = lib.llama_model_get_vocab(self._ptr)
        self.n_vocab = lib.llama_vocab_n_tokens(self._vocab_ptr)
        self._n_positions = lib.llama_model_n_ctx_train(self._ptr) if _has_position_table(self._ptr) else 0
        self._opened("LlamaModel", None)
        (<CallState> state).finish()
        return 0

    cdef int _check_token(self, object token) except -1:
        """Check that `token` is an id of the vocabulary and return it; IndexError otherwise."""
        cdef long long found = integer_of(token, "token")
        check_index(found, "token", self.n_vocab)
        return <int> found

    @classmethod
    def from_splits(cls, paths: list, params: LlamaModelParams | None = None, *,
                    cancel: object | None = None) -> LlamaModel:
        """Load a split model from a list of its parts, in order, whatever their names.

        Notes
        -----
        Raises and releases the GIL as the constructor does. Source: ``llama_model_load_from_splits``, llama.h.
        """
        raws = [path_bytes(path, f"paths[{i}]") for i, path in enumerate(paths)]
        if not raws:
            raise ValueError("paths is empty, expected the parts of a model")
        for raw in raws:
            _check_magic(raw)
        cdef LlamaModel self = LlamaModel.__new__(LlamaModel)
        cdef CMemory memory
        cdef lib.llama_model_params c_params
        cdef size_t c_n = len(raws)
        cdef const char ** c_paths
        cdef CallState state = self._prepare(params, cancel, &c_params)
        memory = self._buffers
        c_paths = <const char **> memory.alloc(c_n, sizeof(char *))
        for i, raw in enumerate(raws):
            c_paths[i] = raw
        self.path_model = os.fsdecode(raws[0])
        start_call()
        with nogil:
            self._ptr = lib.llama_model_load_from_splits(c_paths, c_n, c_params)
        self._loaded(state)
        return self

    @classmethod
    def from_user(cls, metadata: GGUFContext, set_tensor_data: object, params: LlamaModelParams | None = None, *,
                  cancel: object | None = None) -> LlamaModel:
        """Create a model from metadata and a function that returns the weights.

        Parameters
        ----------
        metadata : GGUFContext
            The keys of a model, its vocabulary among them. A tensor in it only says of which type the weights of
            that name are; all others are F32.
        set_tensor_data : callable
            ``set_tensor_data(name, type, shape)`` returns an array of `shape` (rows first); for types other than
            F32, F16 and I32 its bytes as a uint8 array. It is asked for the optional weights of the architecture too
            (``output.weight`` of tied embeddings, biases, scales). ``load_mode`` and ``use_extra_bufts`` of
            `params` are not used.

        Raises
        ------
        ValueError
            An array does not have the type or the size that was asked for.
        ModelLoadError

        Notes
        -----
        Releases the GIL as the constructor does. Source: ``llama_model_init_from_user``, llama.h.
        """
        cdef LlamaModel self = LlamaModel.__new__(LlamaModel)
        cdef GGUFContext source = <GGUFContext?> metadata
        cdef _TensorSource tensors = _TensorSource()
        cdef lib.llama_model_params c_params
        source._check()
        if not callable(set_tensor_data):
            raise TypeError(f"set_tensor_data is {set_tensor_data!r}, expected a callable")
        tensors.give = set_tensor_data
        tensors.state = self._prepare(params, cancel, &c_params)
        self.params = replace(self.params, load_mode=LoadMode.NONE)
        start_call()
        source._begin()
        try:
            with nogil:
                self._ptr = lib.llama_model_init_from_user(
                    source._ptr, _set_tensor_nogil, <void *> tensors, c_params)
        finally:
            source._end()
        self._loaded(tensors.state)
        if tensors.error is not None:
            self.close()
            raise tensors.error
        return self

    @classmethod
    def from_fileobj(cls, fileobj, params: LlamaModelParams | None = None, *,
                     cancel: object | None = None) -> LlamaModel:
        """Load a model from the current position of an open binary file, which may be a larger file.

        Parameters
        ----------
        fileobj : binary file object
            One without a file descriptor (``io.BytesIO``) is copied to a temporary file first.

        Notes
        -----
        Raises and releases the GIL as the constructor does. Source: ``llama_model_load_from_file_ptr``, llama.h.
        """
        cdef LlamaModel self = LlamaModel.__new__(LlamaModel)
        cdef lib.llama_model_params c_params
        cdef CFile stream = CFile(fileobj)
        cdef CallState state = self._prepare(params, cancel, &c_params)
        start_call()
        with nogil:
            self._ptr = lib.llama_model_load_from_file_ptr(stream.ptr, c_params)
        self._loaded(state)
        return self

    # ------------------------------------------------------------------------------ what it is

    @property
    def vocab(self):
        """The vocabulary (:class:`LlamaVocab`)."""
        from cyllama.llama._vocab import LlamaVocab
        self._check()
        return LlamaVocab(self)

    def get_vocab(self):
        """The vocabulary; the same as :attr:`vocab`. Source: ``llama_model_get_vocab``, llama.h."""
        return self.vocab

    @property
    def n_ctx_train(self) -> int:
        """Context size in tokens that the model was trained with."""
        self._check()
        return lib.llama_model_n_ctx_train(self._ptr)

    @property
    def n_embd(self) -> int:
        """Width of the embeddings."""
        self._check()
        return lib.llama_model_n_embd(self._ptr)

    @property
    def n_embd_inp(self) -> int:
        """Width of an embedding that is given as input."""
        self._check()
        return lib.llama_model_n_embd_inp(self._ptr)

    @property
    def n_embd_out(self) -> int:
        """Width of an embedding that comes out."""
        self._check()
        return lib.llama_model_n_embd_out(self._ptr)

    @property
    def n_layer(self) -> int:
        """Number of layers."""
        self._check()
        return lib.llama_model_n_layer(self._ptr)

    @property
    def n_layer_nextn(self) -> int:
        """Number of layers for multi-token prediction."""
        self._check()
        return lib.llama_model_n_layer_nextn(self._ptr)

    @property
    def n_head(self) -> int:
        """Number of attention heads."""
        self._check()
        return lib.llama_model_n_head(self._ptr)

    @property
    def n_head_kv(self) -> int:
        """Number of key/value heads."""
        self._check()
        return lib.llama_model_n_head_kv(self._ptr)

    @property
    def n_swa(self) -> int:
        """Size of the sliding attention window in tokens, 0 without one."""
        self._check()
        return lib.llama_model_n_swa(self._ptr)

    @property
    def rope_freq_scale_train(self) -> float:
        """RoPE frequency scaling factor of the training."""
        self._check()
        return lib.llama_model_rope_freq_scale_train(self._ptr)

    @property
    def rope_type(self) -> RopeType:
        """Kind of rotary position embedding."""
        self._check()
        return RopeType(<int> lib.llama_model_rope_type(self._ptr))

    @property
    def cls_labels(self) -> list:
        """Labels of a classifier's outputs (str, or None without a label); empty for other models."""
        self._check()
        cdef const char * c_label
        cdef unsigned int i
        labels = []
        if self.metadata().get("general.architecture") is None:
            return labels
        for i in range(lib.llama_model_n_cls_out(self._ptr)):
            c_label = lib.llama_model_cls_label(self._ptr, i)
            labels.append(None if c_label == NULL else c_label.decode("utf-8", "replace"))
        return labels

    @property
    def n_cls_out(self) -> int:
        """Number of classifier outputs; meaningful for classifier models only."""
        self._check()
        return lib.llama_model_n_cls_out(self._ptr)

    @property
    def desc(self) -> str:
        """A short description, such as ``"llama 135M Q4_1"``."""
        self._check()
        cdef char c_text[256]
        lib.llama_model_desc(self._ptr, c_text, sizeof(c_text))
        return c_text.decode("utf-8", "replace")

    @property
    def ftype(self) -> FileType:
        """Quantization of the file."""
        self._check()
        return FileType(<int> lib.llama_model_ftype(self._ptr))

    @property
    def ftype_name(self) -> str:
        """Quantization of the file, as upstream prints it, such as ``"Q4_K - Medium"``."""
        self._check()
        return lib.llama_ftype_name(lib.llama_model_ftype(self._ptr)).decode()

    @property
    def size(self) -> int:
        """Size of all tensors in bytes."""
        self._check()
        return lib.llama_model_size(self._ptr)

    @property
    def n_params(self) -> int:
        """Number of parameters."""
        self._check()
        return lib.llama_model_n_params(self._ptr)

    @property
    def has_encoder(self) -> bool:
        """Whether the model has an encoder, so that ``encode()`` comes first."""
        self._check()
        return lib.llama_model_has_encoder(self._ptr)

    @property
    def has_decoder(self) -> bool:
        """Whether the model has a decoder."""
        self._check()
        return lib.llama_model_has_decoder(self._ptr)

    @property
    def decoder_start_token(self) -> int | None:
        """Token that the decoder of an encoder-decoder model starts with."""
        self._check()
        token = lib.llama_model_decoder_start_token(self._ptr)
        return None if token == lib.LLAMA_TOKEN_NULL else token

    @property
    def is_recurrent(self) -> bool:
        """Whether the model is recurrent (Mamba, RWKV)."""
        self._check()
        return lib.llama_model_is_recurrent(self._ptr)

    @property
    def is_hybrid(self) -> bool:
        """Whether the model is hybrid (Jamba, Granite)."""
        self._check()
        return lib.llama_model_is_hybrid(self._ptr)

    @property
    def is_diffusion(self) -> bool:
        """Whether the model is a diffusion language model (LLaDA, Dream)."""
        self._check()
        return lib.llama_model_is_diffusion(self._ptr)

    def token_is_eog(self, token: int) -> bool:
        """Return whether `token` ends the generation (end of text, end of turn). IndexError for an id out of range."""
        self._check()
        self._check_token(token)
        return lib.llama_vocab_is_eog(self._vocab_ptr, token)

    # -------------------------------------------------------------------------------- metadata

    def metadata(self) -> dict:
        """Return the scalar metadata as strings, by key, without arrays (see :class:`GGUFContext`).

        Source: ``llama_model_meta_key_by_index``, ``llama_model_meta_val_str_by_index``, llama.h.
        """
        self._check()
        cdef int i
        values = {}
        for i in range(lib.llama_model_meta_count(self._ptr)):
            key = _meta(self._ptr, NULL, i, True)
            values[key] = _meta(self._ptr, NULL, i, False)
        return values

    def meta_val_str(self, key: str) -> str | None:
        """Return one scalar of the metadata as a string, or None. Source: ``llama_model_meta_val_str``, llama.h."""
        self._check()
        return _meta(self._ptr, key.encode(), -1, False)

    def chat_template(self, name: str | None = None) -> str | None:
        """Return the chat template (Jinja), or None; `name` selects one such as ``tool_use``.

        Source: ``llama_model_chat_template``, llama.h.
        """
        self._check()
        cdef bytes raw = b"" if name is None else name.encode()
        cdef const char * c_name = NULL
        if name is not None:
            c_name = raw
        cdef const char * c_text = lib.llama_model_chat_template(self._ptr, c_name)
        return None if c_text == NULL else c_text.decode("utf-8", "replace")

    def save_to_file(self, path: str | bytes | os.PathLike) -> None:
        """Write the model as a GGUF file, atomically.

        Raises
        ------
        OSError
            The file cannot be written.
        EngineError
            The engine does not support saving this architecture.
        UnsupportedError
            The weights were reordered for this CPU, and the model has no file from which they can be read again; load
            it with ``use_extra_bufts=False``.

        Notes
        -----
        Releases the GIL. Source: ``llama_model_save_to_file``, llama.h.
        """
        self._check()
        if has_reordered_weights(self._ptr):
            if not self.path_model or not os.path.exists(self.path_model):
                raise UnsupportedError("the weights were reordered for this CPU and cannot be saved; load the model "
                                       "with use_extra_bufts=False")
            params = replace(self.params, use_extra_bufts=False, vocab_only=False)
            with LlamaModel(self.path_model, params) as readable:
                readable.save_to_file(path)
            return
        cdef bytes raw
        cdef const char * c_path
        start_call()
        with atomic_path(path) as temporary:
            raw = os.fsencode(temporary)
            c_path = raw
            self._hold()
            try:
                with nogil:
                    lib.llama_model_save_to_file(self._ptr, c_path)
            finally:
                self._unhold()
            with GGUFContext.from_file(temporary) as written:  # the engine does not notice a full disk
                missing = missing_bytes(written, temporary)
            if missing:
                raise engine_error(EngineError, f"{missing:,} bytes of the model could not be written", "llama",
                                   "llama_model_save_to_file", None)

    def __repr__(self) -> str:
        if not self._open:
            return "<LlamaModel (closed)>"
        return f"<LlamaModel {self.desc}, {self.n_vocab} tokens, {self.path_model}>"


cdef bint _has_position_table(const lib.llama_model * model) except -1:
    """Return whether each position has a row of weights; a position beyond them aborts on a thread of ggml."""
    architecture = _meta(model, b"general.architecture", -1, False)
    if architecture == "mpt":
        return float(_meta(model, b"mpt.attention.max_alibi_bias", -1, False) or 0) == 0
    return architecture in ("bert", "gpt2", "starcoder")


cdef object _meta(const lib.llama_model * model, const char * key, int i, bint of_key):
    """Return a key or a value of the metadata, by key or by index; grows the buffer as needed."""
    cdef bytearray buffer
    cdef char * c_buffer
    cdef int needed = 0
    size = 256
    while True:
        buffer = bytearray(size)
        c_buffer = buffer
        if of_key:
            needed = lib.llama_model_meta_key_by_index(model, i, c_buffer, size)
        elif key != NULL:
            needed = lib.llama_model_meta_val_str(model, key, c_buffer, size)
        else:
            needed = lib.llama_model_meta_val_str_by_index(model, i, c_buffer, size)
        if needed < 0:
            return None
        if needed < size:
            return bytes(buffer[:needed]).decode("utf-8", "replace")
        size = needed + 1


_META_KEYS = {
    "sequence": <int> lib.LLAMA_MODEL_META_KEY_SAMPLING_SEQUENCE,
    "top_k": <int> lib.LLAMA_MODEL_META_KEY_SAMPLING_TOP_K,
    "top_p": <int> lib.LLAMA_MODEL_META_KEY_SAMPLING_TOP_P,
    "min_p": <int> lib.LLAMA_MODEL_META_KEY_SAMPLING_MIN_P,
    "xtc_probability": <int> lib.LLAMA_MODEL_META_KEY_SAMPLING_XTC_PROBABILITY,
    "xtc_threshold": <int> lib.LLAMA_MODEL_META_KEY_SAMPLING_XTC_THRESHOLD,
    "temp": <int> lib.LLAMA_MODEL_META_KEY_SAMPLING_TEMP,
    "penalty_last_n": <int> lib.LLAMA_MODEL_META_KEY_SAMPLING_PENALTY_LAST_N,
    "penalty_repeat": <int> lib.LLAMA_MODEL_META_KEY_SAMPLING_PENALTY_REPEAT,
    "mirostat": <int> lib.LLAMA_MODEL_META_KEY_SAMPLING_MIROSTAT,
    "mirostat_tau": <int> lib.LLAMA_MODEL_META_KEY_SAMPLING_MIROSTAT_TAU,
    "mirostat_eta": <int> lib.LLAMA_MODEL_META_KEY_SAMPLING_MIROSTAT_ETA,
}


def llama_model_meta_key_str(name: str) -> str:
    """Return the metadata key of a recommended sampling setting (``"temp"``, ``"top_p"``, ...).

    Source: ``llama_model_meta_key_str``, llama.h.
    """
    if name not in _META_KEYS:
        raise ValueError(f"name is {name!r}, expected one of {sorted(_META_KEYS)}")
    return lib.llama_model_meta_key_str(<lib.llama_model_meta_key> <int> _META_KEYS[name]).decode()


def llama_chat_builtin_templates() -> list:
    """Return the names of the chat templates that the engine renders without Jinja. Source: same name, llama.h."""
    cdef int n = lib.llama_chat_builtin_templates(NULL, 0)
    cdef const char ** c_names = <const char **> PyMem_Calloc(n, sizeof(char *))
    if c_names == NULL:
        raise MemoryError()
    try:
        lib.llama_chat_builtin_templates(c_names, n)
        return [c_names[i].decode() for i in range(n)]
    finally:
        PyMem_Free(c_names)


def llama_chat_apply_template(tmpl: str | None, messages: list, add_assistant: bool = True) -> str:
    """Render `messages` with a built-in template, without Jinja.

    Parameters
    ----------
    tmpl : str or None
        Name of a built-in template, or a Jinja text that is recognised as one of them; None is chatml.
    messages : list of dict or of (role, content)
    add_assistant : bool
        End with the tokens that begin the assistant's message.

    Raises
    ------
    UnsupportedError
        The template is not a built-in one.

    Notes
    -----
    Source: ``llama_chat_apply_template``, llama.h.
    """
    pairs = [(m["role"], m["content"]) if isinstance(m, dict) else m for m in messages]
    raws = [(str(role).encode(), str(content).encode()) for role, content in pairs]
    cdef size_t n = len(raws)
    cdef bytes raw_tmpl = b"" if tmpl is None else tmpl.encode()
    cdef const char * c_tmpl = NULL
    if tmpl is not None:
        c_tmpl = raw_tmpl
    cdef lib.llama_chat_message * c_messages
    cdef bytearray buffer
    cdef int needed
    c_messages = <lib.llama_chat_message *> PyMem_Calloc(max(n, 1), sizeof(lib.llama_chat_message))
    if c_messages == NULL:
        raise MemoryError()
    try:
        for i in range(n):
            c_messages[i].role = raws[i][0]
            c_messages[i].content = raws[i][1]
        size = 256 + 2 * sum(len(role) + len(content) for role, content in raws)
        while True:
            buffer = bytearray(size + 1)
            needed = lib.llama_chat_apply_template(c_tmpl, c_messages, n, add_assistant, buffer, <int> size)
            if needed < 0:
                raise UnsupportedError(f"the chat template {tmpl!r} is none of {llama_chat_builtin_templates()}")
            if needed <= size:
                return bytes(buffer[:needed]).decode("utf-8", "replace")
            size = needed
    finally:
        PyMem_Free(c_messages)
