"""The multimodal context: a projector for a language model, which encodes images and audio and evaluates them."""

import os

import numpy as np

cimport cython
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from cyllama._native cimport libggml as ggml
from cyllama._native._c_memory cimport CMemory
from cyllama._native.libfields cimport set_enum
from cyllama._native._core cimport engine_error, start_call
from cyllama._native._exit cimport is_ending
from cyllama._native._handle cimport CallState, Handle, check_range, path_bytes, progress_call
from cyllama._native._tensors cimport ask_about_tensor
from cyllama.llama cimport libllama as llama
from cyllama.llama._context cimport LlamaContext
from cyllama.llama._model cimport LlamaModel
from cyllama.llava cimport libmtmd as lib
from cyllama.llava._bitmap cimport Bitmap
from cyllama.llava._chunks cimport InputChunk, InputChunks

from cyllama._native import _core as native
from cyllama.errors import EngineError, MediaError, ModelLoadError
from cyllama._params import checked
from cyllama.llama._media import check_projector
from cyllama.llava._bitmap import check_kind
from cyllama.llava._enums import GenAudioType
from cyllama.llava._checks import frame_width
from cyllama.llava.params import MtmdContextParams

include "MtmdContextParams.pxi"

# Multiplications of the encoder between two looks at `cancel`: about 5 ms of a slow core.
cdef int64_t WORK = 200_000_000
FAILED_ASSERTION = "assertion of the engine failed"


cdef int64_t _work_of(ggml.ggml_tensor * tensor) noexcept nogil:
    """Return the approximate number of multiplications for a tensor."""
    cdef int64_t n = tensor.ne[0] * tensor.ne[1] * tensor.ne[2] * tensor.ne[3]
    if tensor.src[0] == NULL:
        return 0
    if tensor.op == ggml.GGML_OP_MUL_MAT or tensor.op == ggml.GGML_OP_MUL_MAT_ID:
        return n * tensor.src[0].ne[0]
    if tensor.op == ggml.GGML_OP_CONV_2D:
        return n * tensor.src[0].ne[0] * tensor.src[0].ne[1] * tensor.src[0].ne[2]
    if tensor.op == ggml.GGML_OP_FLASH_ATTN_EXT and tensor.src[1] != NULL:
        return 2 * n * tensor.src[1].ne[1]
    return n


cdef bint _eval(ggml.ggml_tensor * tensor, bint ask, void * data) noexcept nogil:
    """Check `cancel` of the running call between tensors (evaluation callback of every encoder)."""
    return (<MtmdContext> data)._ask(tensor) if ask else (<MtmdContext> data)._go_on(tensor)


cdef bint _eval_gil(MtmdContext ctx, ggml.ggml_tensor * tensor, bint ask) noexcept with gil:
    if ctx._eval_error is not None:
        return ask
    try:
        return ask_about_tensor(ctx._eval_callback, tensor, ask)
    except BaseException as e:
        ctx._eval_error = e
        if ctx._call != NULL:
            (<CallState> ctx._call)._stop = True
        return False


cdef class _AfterDecode:
    """`on_batch` of :meth:`MtmdContext.decode_chunk`."""

    cdef object function
    cdef object error


cdef int _after_decode(const lib.mtmd_helper_embd_batch * batch, void * data) noexcept with gil:
    cdef _AfterDecode self = <_AfterDecode> data
    try:
        rows = np.empty((batch.n_tokens, batch.n_embd), np.float32)
        positions = np.empty((batch.n_pos, batch.n_tokens), np.int32)
        copy_floats(rows, batch.embd)
        copy_ints(positions, <const int *> batch.pos)
        return 1 if self.function(rows, positions, batch.seq_id) is False else 0
    except BaseException as e:
        self.error = e
        return 1


cdef int copy_floats(object target, const float * source) except -1:
    cdef float[::1] view = target.reshape(-1)
    if view.shape[0]:
        memcpy(&view[0], source, view.shape[0] * sizeof(float))
    return 0


cdef int copy_ints(object target, const int * source) except -1:
    cdef int[::1] view = target.reshape(-1)
    if view.shape[0]:
        memcpy(&view[0], source, view.shape[0] * sizeof(int))
    return 0


cdef int _after_decode_nogil(const lib.mtmd_helper_embd_batch * batch, void * data) noexcept nogil:
    return 1 if is_ending() else _after_decode(batch, data)


def reason(log: tuple) -> str:
    """Return the last line of the engine's log."""
    lines = [line.split("error: ")[-1].split("hint:")[0].strip() for line in log if line.strip()]
    return f": {lines[-1]}" if lines else ""


@cython.no_gc_clear  # freeing needs the fields, the parent above all
cdef class MtmdContext(Handle):
    """A projector file (mmproj), which converts images and audio to embeddings for one language model.

    Parameters
    ----------
    path_mmproj : str, bytes or os.PathLike
        A GGUF file of the kind ``clip``.
    model : LlamaModel
        The language model it belongs to; kept open by the context.
    params : MtmdContextParams, optional
        Its ``cb_eval(name, op, shape, values)`` is called for each tensor of the encoder's graph, first with None for
        `values`: whether it wants them.
    cancel : object with ``is_set()``, optional
        Such as ``threading.Event``; looked at while loading, as is Ctrl-C.

    Attributes
    ----------
    model : LlamaModel
    n_embd : int
        Width of the embeddings.
    frame_width : int
        Number of codes or features of a frame of speech; 0 without speech synthesis.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
    ModelLoadError
        Not a projector, truncated, or of another language model; the engine's reason is in ``log``.
    TypeError, ValueError
        A parameter is wrong.
    CancelledError

    Notes
    -----
    Releases the GIL while loading. Thread safety: one thread at a time (InUseError), but tokenize() by many.
    Source: ``mtmd_init_from_file``, mtmd.h.
    """

    def __cinit__(self, path_mmproj, LlamaModel model not None, params=None, *, cancel=None):
        cdef bytes raw = path_bytes(path_mmproj, "path_mmproj")
        cdef const char * c_path = raw
        cdef lib.mtmd_context_params c_params
        cdef CMemory memory = CMemory()
        model._check()
        self.model = model
        self.path_mmproj = os.fsdecode(raw)
        self.params = MtmdContextParams() if params is None else params
        self.n_embd = llama.llama_model_n_embd_inp(model._ptr)
        native.load_backends()
        self._fill(&c_params, memory)
        check_projector(self.path_mmproj)
        cdef CallState state = CallState(cancel, self.params.progress_callback)
        c_params.progress_callback = <lib.mtmd_progress_callback> progress_call
        c_params.progress_callback_user_data = <void *> state
        state.finish()
        start_call()
        model._hold()
        try:
            with nogil:
                self._ptr = lib.mtmd_init_from_file(c_path, model._ptr, c_params)
        finally:
            model._unhold()
        if self._ptr != NULL:
            self._opened("MtmdContext", model)
        state.finish()
        if self._ptr == NULL:
            raise engine_error(ModelLoadError, f"cannot load {self.path_mmproj}{reason(native.last_log())}", "llava",
                               "mtmd_init_from_file", None)
        if lib.mtmd_gen_audio_get_info(self._ptr).type != lib.MTMD_GEN_AUDIO_TYPE_NONE:
            self.frame_width = frame_width(self.path_mmproj)

    def __init__(self, path_mmproj: str | bytes | os.PathLike, model: LlamaModel,
                 params: MtmdContextParams | None = None, *, cancel: object | None = None) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        cdef lib.mtmd_context * c_ctx = self._ptr
        self._ptr = NULL
        with nogil:
            lib.mtmd_free(c_ctx)
        return 0

    cdef void * _address(self) noexcept:
        return self._ptr

    cdef int _fill(self, lib.mtmd_context_params * c_params, CMemory memory) except -1:
        """Write the parameters over the engine's defaults; `memory` must live as long as they are used."""
        params = self.params
        values = checked(params, MtmdContextParams)
        c_params[0] = lib.mtmd_context_params_default()
        c_params.print_timings = False
        c_params.n_threads = native.get_threads()
        fill_MtmdContextParams(values, c_params, memory)
        if params.device is not None:
            c_params.device = ggml.ggml_backend_dev_by_name(memory.text(values["device"]))
            if c_params.device == NULL:
                raise ValueError(f"device is {params.device!r}, expected one of "
                                 f"{[d['name'] for d in native.devices()]}")
        self._eval_callback = params.cb_eval
        self._has_callback = params.cb_eval is not None
        c_params.cb_eval = <ggml.ggml_backend_sched_eval_callback> _eval
        c_params.cb_eval_user_data = <void *> self
        return 0

    cdef bint _ask(self, ggml.ggml_tensor * tensor) noexcept nogil:
        """Return whether the computation pauses after this tensor."""
        self._work += _work_of(tensor)
        self._wanted = self._has_callback and not is_ending() and _eval_gil(self, tensor, True)
        return self._wanted or self._work >= WORK or (self._call != NULL and (<CallState> self._call)._stop)

    cdef bint _go_on(self, ggml.ggml_tensor * tensor) noexcept nogil:
        """Return whether the computation continues after this tensor."""
        self._work = 0
        if self._wanted and (is_ending() or not _eval_gil(self, tensor, False)):
            return False
        return self._call == NULL or not (<CallState> self._call).poll()

    # ---------------------------------------------------------------------------------- capabilities

    @property
    def support_vision(self) -> bool:
        """Whether it accepts images. Source: ``mtmd_support_vision``, mtmd.h."""
        self._check()
        return lib.mtmd_support_vision(self._ptr)

    @property
    def support_audio(self) -> bool:
        """Whether it accepts audio. Source: ``mtmd_support_audio``, mtmd.h."""
        self._check()
        return lib.mtmd_support_audio(self._ptr)

    @property
    def support_video(self) -> bool:
        """Whether it accepts videos, with ffmpeg. Source: ``mtmd_helper_support_video``, mtmd-helper.h."""
        self._check()
        return lib.mtmd_helper_support_video(self._ptr)

    @property
    def audio_sample_rate(self) -> int | None:
        """Sample rate of audio in Hz; None without audio encoder. Source: ``mtmd_get_audio_sample_rate``, mtmd.h."""
        self._check()
        rate = lib.mtmd_get_audio_sample_rate(self._ptr)
        return rate if rate > 0 else None

    @property
    def marker(self) -> str:
        """The placeholder of an image or audio in a prompt. Source: ``mtmd_get_marker``, mtmd.h."""
        self._check()
        return lib.mtmd_get_marker(self._ptr).decode("utf-8", "replace")

    @property
    def decode_use_mrope(self) -> bool:
        """Whether the language model has M-RoPE positions. Source: ``mtmd_decode_use_mrope``, mtmd.h."""
        self._check()
        return lib.mtmd_decode_use_mrope(self._ptr)

    def decode_use_non_causal(self, chunk: InputChunk | None = None) -> bool:
        """Return whether the tokens of a chunk (default: of an image) attend to each other in both directions.

        Source: ``mtmd_decode_use_non_causal``, mtmd.h.
        """
        cdef InputChunk c = <InputChunk?> chunk if chunk is not None else None
        self._check()
        if c is not None:
            c._check()
        return lib.mtmd_decode_use_non_causal(self._ptr, c._ptr if c is not None else NULL)

    def model_can_chat(self, ctx: LlamaContext) -> bool:
        """Return whether the pair generates text; a pair for speech synthesis only does not.

        Source: ``mtmd_helper_model_can_chat``, mtmd-helper.h.
        """
        cdef LlamaContext c = <LlamaContext?> ctx
        self._check()
        c._check()
        return lib.mtmd_helper_model_can_chat(c._ptr, self._ptr)

    @property
    def gen_audio_info(self) -> dict:
        """Return the speech synthesis: ``type`` (GenAudioType), ``sample_rate`` in Hz, ``model_variant``.

        Source: ``mtmd_gen_audio_get_info``, mtmd.h.
        """
        self._check()
        cdef lib.mtmd_gen_audio_info info = lib.mtmd_gen_audio_get_info(self._ptr)
        variant = info.model_variant.decode("utf-8", "replace") if info.model_variant != NULL else ""
        return {"type": GenAudioType(<int> info.type), "sample_rate": info.sample_rate, "model_variant": variant}

    # ---------------------------------------------------------------------------------- tokenize

    def tokenize(self, text: str, bitmaps: list = (), *, add_special: bool = True,
                 parse_special: bool = True) -> InputChunks:
        """Split a prompt into chunks and preprocess its images and audio for the encoder.

        Parameters
        ----------
        text : str
            With one :attr:`marker` for each of `bitmaps`.
        bitmaps : sequence of Bitmap
            In the order of their markers.
        add_special : bool
            Add the tokens that the model wants at the beginning and the end.
        parse_special : bool
            Take names of special tokens in the text for these tokens.

        Raises
        ------
        ValueError
            The numbers of markers and of bitmaps differ.
        UnsupportedError
            The projector does not accept audio, or images.
        MediaError
            The engine cannot prepare one of them.

        Notes
        -----
        Releases the GIL. Thread safety: any number of threads. Source: ``mtmd_tokenize``, mtmd.h.
        """
        if not isinstance(text, str):
            raise TypeError(f"text is {text!r}, expected a str")
        given = list(bitmaps)
        self._check()
        n_markers = text.count(self.marker)
        if n_markers != len(given):
            raise ValueError(f"text has {n_markers} media marker(s) ({self.marker!r}), but there are {len(given)} "
                             "bitmap(s)")
        return self._tokenize([text], given, add_special, parse_special)

    def tokenize_from_parts(self, parts: list, *, add_special: bool = True) -> InputChunks:
        """Tokenize parts like :meth:`tokenize`; markers in their texts are plain text.

        Parameters
        ----------
        parts : sequence of str, (str, bool) or Bitmap
            A text may set whether special tokens in it are parsed; default: they are.
        add_special : bool

        Raises
        ------
        TypeError, UnsupportedError, MediaError

        Notes
        -----
        Source: ``mtmd_tokenize_from_parts``, mtmd.h.
        """
        items = list(parts)
        for i, part in enumerate(items):
            if isinstance(part, str):
                items[i] = (part, True)
            elif not isinstance(part, Bitmap) and not (isinstance(part, tuple) and len(part) == 2
                                                       and isinstance(part[0], str) and isinstance(part[1], bool)):
                raise TypeError(f"parts[{i}] is {part!r}, expected a str, (str, bool) or a Bitmap")
        return self._tokenize(items, None, add_special, True)

    def _tokenize(self, items: list, bitmaps: list | None, bint add_special, bint parse_special) -> InputChunks:
        """`items` are parts, or with `bitmaps` one text with markers."""
        cdef InputChunks chunks = InputChunks(self)
        cdef Bitmap bitmap
        cdef int code
        media = [item for item in items if isinstance(item, Bitmap)] if bitmaps is None else bitmaps
        for i, item in enumerate(media):
            if not isinstance(item, Bitmap):
                raise TypeError(f"bitmaps[{i}] is {item!r}, expected a Bitmap")
            bitmap = item
            bitmap._check()
            if not bitmap.is_lazy:
                check_kind(bitmap, self.support_vision, self.support_audio)
        self._check()
        lent = []
        self._hold()
        start_call()
        try:
            for bitmap in media:
                bitmap._lend()
                lent.append(bitmap)
            if bitmaps is None:
                code = _run_parts(self, chunks, items, add_special)
            else:
                code = _run_text(self, chunks, items[0], bitmaps, add_special, parse_special)
        finally:
            self._unhold()
            for bitmap in lent:
                bitmap._return()
        if code == 1:
            raise ValueError(f"the numbers of markers and of bitmaps differ{reason(native.last_log())}")
        if code != 0:
            raise engine_error(MediaError, f"the images or audio cannot be preprocessed{reason(native.last_log())}",
                               "llava", "mtmd_tokenize", code)
        return chunks

    # ---------------------------------------------------------------------------------- encode

    cdef int _check_media(self, InputChunk chunk, bint to_encode) except -1:
        """Check that the chunk is an image or audio of this context."""
        if chunk is None:
            raise TypeError("chunk is None, expected an InputChunk")
        chunk._check()
        if lib.mtmd_input_chunk_get_type(chunk._ptr) == lib.MTMD_INPUT_CHUNK_TYPE_TEXT:
            raise ValueError("the chunk is text, expected an image or audio")
        if to_encode and chunk.is_placeholder:
            raise ValueError("the chunk is a placeholder without its content and cannot be encoded")
        if chunk.context is not None and chunk.context is not self:
            raise ValueError("the chunk was made by another MtmdContext")
        return 0

    cdef int _call_begin(self, CallState state) except -1:
        self._begin()
        self._eval_error = None
        self._call = <void *> state
        self._work = 0
        start_call()
        return 0

    cdef int _call_end(self) noexcept:
        self._call = NULL
        self._end()
        return 0

    cdef int _finish_encode(self, int code, str function, CallState state) except -1:
        """Raise the exception for the return code of an encoder."""
        error, self._eval_error = self._eval_error, None
        if error is not None or code != 0 or state._stop:
            self._n_encoded = 0
        if error is not None:
            raise error
        state.finish()
        if code == 0:
            return 0
        log = native.last_log()
        failure = engine_error(MediaError, f"the encoder failed{reason(log)}", "llava", function, code)
        failure.aborted = any(FAILED_ASSERTION in line for line in log)
        self._failed(failure)
        raise failure

    def encode_chunk(self, chunk: InputChunk, *, cancel: object | None = None) -> None:
        """Encode an image or audio; :meth:`get_output_embd` gives the result.

        Parameters
        ----------
        chunk : InputChunk
            Of this context.
        cancel : object with ``is_set()``, optional
            Looked at every 50 ms between the encoder's tensors, as is Ctrl-C.

        Raises
        ------
        ValueError
            A chunk of text, of another context, or a placeholder.
        MediaError
            The encoder failed.
        CancelledError

        Notes
        -----
        Releases the GIL. Thread safety: one thread at a time. Source: ``mtmd_encode_chunk``, mtmd.h.
        """
        self._encode_chunk(chunk, cancel)

    def _encode_chunk(self, InputChunk chunk, cancel) -> None:
        cdef CallState state = CallState(cancel)
        cdef int code = 0
        self._check()
        self._check_media(chunk, True)
        state.finish()
        self._call_begin(state)
        chunk._hold()
        self._n_encoded = lib.mtmd_input_chunk_get_n_tokens(chunk._ptr)
        try:
            with nogil:
                code = lib.mtmd_encode_chunk(self._ptr, chunk._ptr)
        except EngineError as e:
            self._failed(e)
            raise
        finally:
            chunk._unhold()
            self._call_end()
        self._finish_encode(code, "mtmd_encode_chunk", state)

    def get_output_embd(self) -> np.ndarray:
        """Return the embeddings of the last encoded chunk: float32, shape (n_tokens, n_embd), a copy.

        Raises
        ------
        MediaError
            Nothing was encoded, or the last call failed.

        Notes
        -----
        Source: ``mtmd_get_output_embd``, mtmd.h.
        """
        self._check()
        if self._n_encoded == 0:
            raise MediaError("no embeddings yet: call encode_chunk() first", engine="llava")
        return self._output(lib.mtmd_get_output_embd(self._ptr), self._n_encoded)

    def encode(self, chunk: InputChunk, *, cancel: object | None = None) -> np.ndarray:
        """:meth:`encode_chunk` and :meth:`get_output_embd` in one."""
        self.encode_chunk(chunk, cancel=cancel)
        return self.get_output_embd()

    cdef object _output(self, const float * c_rows, size_t n_rows):
        rows = np.empty((n_rows, self.n_embd), np.float32)
        copy_floats(rows, c_rows)
        return rows

    # ---------------------------------------------------------------------------------- evaluate

    cdef int _check_place(self, LlamaContext ctx, object n_past, object seq_id, object n_batch) except -1:
        """Check position, sequence and batch size of a chunk."""
        if ctx is None:
            raise TypeError("ctx is None, expected a LlamaContext")
        self._check()
        ctx._check_memory()
        if ctx.model is not self.model:
            raise ValueError("ctx is a context of another model than that of the projector")
        check_range(n_past, "n_past", 0, 2**31 - 1)
        ctx._check_seq(seq_id, False)
        most = llama.llama_n_batch(ctx._ptr)
        if n_batch is None:
            return most
        check_range(n_batch, "n_batch", 1, most)
        return n_batch

    cdef int _check_non_causal(self, LlamaContext ctx, InputChunk chunk, int n_batch) except -1:
        """Check that a chunk with non-causal attention fits into one batch."""
        if lib.mtmd_input_chunk_get_type(chunk._ptr) == lib.MTMD_INPUT_CHUNK_TYPE_TEXT:
            return 0
        if not lib.mtmd_decode_use_non_causal(self._ptr, chunk._ptr):
            return 0
        n = chunk.n_tokens
        most = min(n_batch, llama.llama_n_ubatch(ctx._ptr))
        if n > most:
            raise ValueError(f"an image has {n} tokens, which this model computes in one batch, but n_batch and "
                             f"n_ubatch allow {most}: make the LlamaContext with n_batch and n_ubatch of {n} or more")
        return 0

    cdef int _eval_begin(self, LlamaContext ctx, CallState state) except -1:
        self._call_begin(state)
        try:
            ctx._call_begin(None)
        except BaseException:
            self._call_end()
            raise
        ctx._call = <void *> state
        ctx._n_outputs = -1
        return 0

    cdef int _eval_end(self, LlamaContext ctx) noexcept:
        ctx._call = NULL
        ctx._end()
        self._call_end()
        return 0

    cdef int _eval_finish(self, LlamaContext ctx, int code, str function, CallState state) except -1:
        log = native.last_log()
        if self._eval_error is not None or any("failed to encode" in line for line in log):
            self._finish_encode(code, function, state)
        if code != 0 or state._stop:
            self._n_encoded = 0
        ctx._finish(code, function, state)
        return 0

    cdef int _note_outputs(self, LlamaContext ctx, InputChunk last, int n_batch, bint logits_last) except -1:
        """Set which tokens of the last batch have outputs in the context."""
        n = last.n_tokens
        n_last = (n % n_batch or n_batch) if n else 0
        if ctx._all_outputs():
            flags = bytearray(b"\1" * n_last)
        else:
            flags = bytearray(n_last)
            if logits_last and n_last and lib.mtmd_input_chunk_get_type(last._ptr) == lib.MTMD_INPUT_CHUNK_TYPE_TEXT:
                flags[n_last - 1] = 1
        ctx._note_outputs(flags)
        return 0

    def eval_chunks(self, ctx: LlamaContext, chunks: InputChunks, n_past: int = 0, seq_id: int = 0,
                    n_batch: int | None = None, logits_last: bool = True, *, cancel: object | None = None) -> int:
        """Evaluate a prompt: decode its text, encode its images and audio and decode their embeddings.

        Parameters
        ----------
        ctx : LlamaContext
            Of the same model.
        chunks : InputChunks
            Of this context.
        n_past : int
            Position of the first token.
        seq_id : int
        n_batch : int, optional
            Most tokens at once; default: the context's ``n_batch``.
        logits_last : bool
            Whether the last token, of text, has an output.
        cancel : object with ``is_set()``, optional
            Looked at every 50 ms, in the encoder too, as are Ctrl-C and the abort callback of `ctx`.

        Returns
        -------
        int
            The position after the last token.

        Raises
        ------
        ValueError
            The chunks are of another context, or an image that needs one batch is larger than a batch.
        MediaError, ContextFullError, DecodeError
        CancelledError
            What was processed until then stays in the memory of `ctx`.

        Notes
        -----
        Releases the GIL. Thread safety: one thread at a time. Source: ``mtmd_helper_eval_chunks``, mtmd-helper.h.
        """
        return self._eval_chunks(ctx, chunks, n_past, seq_id, n_batch, logits_last, cancel)

    def _eval_chunks(self, LlamaContext ctx, InputChunks chunks not None, n_past, seq_id, n_batch, bint logits_last,
                     cancel) -> int:
        cdef int c_batch = self._check_place(ctx, n_past, seq_id, n_batch)
        cdef llama.llama_pos c_past = n_past
        cdef llama.llama_pos c_new = n_past
        cdef llama.llama_seq_id c_seq = seq_id
        cdef CallState state = CallState(ctx._stop_signal(cancel))
        cdef InputChunk chunk = None
        cdef int code = 0
        if not len(chunks):
            raise ValueError("chunks is empty, expected a prompt")
        for chunk in chunks:
            if lib.mtmd_input_chunk_get_type(chunk._ptr) != lib.MTMD_INPUT_CHUNK_TYPE_TEXT:
                self._check_media(chunk, True)
                self._check_non_causal(ctx, chunk, c_batch)
                self._n_encoded = chunk.n_tokens
        state.finish()
        self._eval_begin(ctx, state)
        chunks._hold()
        try:
            with nogil:
                code = lib.mtmd_helper_eval_chunks(self._ptr, ctx._ptr, chunks._ptr, c_past, c_seq, c_batch,
                                                   logits_last, &c_new)
        except EngineError as e:
            self._failed(e)
            ctx._failed(e)
            raise
        finally:
            chunks._unhold()
            self._eval_end(ctx)
        self._eval_finish(ctx, code, "mtmd_helper_eval_chunks", state)
        self._note_outputs(ctx, chunk, c_batch, logits_last)
        return c_new

    def eval_chunk_single(self, ctx: LlamaContext, chunk: InputChunk, n_past: int = 0, seq_id: int = 0,
                          n_batch: int | None = None, logits_last: bool = True, *,
                          cancel: object | None = None) -> int:
        """Evaluate one chunk; as :meth:`eval_chunks`. Source: ``mtmd_helper_eval_chunk_single``, mtmd-helper.h."""
        return self._eval_chunk(ctx, chunk, n_past, seq_id, n_batch, logits_last, cancel)

    def _eval_chunk(self, LlamaContext ctx, InputChunk chunk not None, n_past, seq_id, n_batch, bint logits_last,
                    cancel) -> int:
        cdef int c_batch = self._check_place(ctx, n_past, seq_id, n_batch)
        cdef llama.llama_pos c_past = n_past
        cdef llama.llama_pos c_new = n_past
        cdef llama.llama_seq_id c_seq = seq_id
        cdef CallState state = CallState(ctx._stop_signal(cancel))
        cdef int code = 0
        chunk._check()
        if lib.mtmd_input_chunk_get_type(chunk._ptr) != lib.MTMD_INPUT_CHUNK_TYPE_TEXT:
            self._check_media(chunk, True)
            self._check_non_causal(ctx, chunk, c_batch)
            self._n_encoded = chunk.n_tokens
        state.finish()
        self._eval_begin(ctx, state)
        chunk._hold()
        try:
            with nogil:
                code = lib.mtmd_helper_eval_chunk_single(self._ptr, ctx._ptr, chunk._ptr, c_past, c_seq, c_batch,
                                                         logits_last, &c_new)
        except EngineError as e:
            self._failed(e)
            ctx._failed(e)
            raise
        finally:
            chunk._unhold()
            self._eval_end(ctx)
        self._eval_finish(ctx, code, "mtmd_helper_eval_chunk_single", state)
        self._note_outputs(ctx, chunk, c_batch, logits_last)
        return c_new

    def decode_image_chunk(self, ctx: LlamaContext, chunk: InputChunk, embd: np.ndarray, n_past: int = 0,
                           seq_id: int = 0, n_batch: int | None = None, *, on_batch: object | None = None,
                           cancel: object | None = None) -> int:
        """Decode the embeddings of an image or audio.

        Parameters
        ----------
        ctx, n_past, seq_id, n_batch, cancel
            As of :meth:`eval_chunks`.
        chunk : InputChunk
            Of this context, or a loaded one.
        embd : float32 array, shape (n_tokens, n_embd)
            As :meth:`encode` gave it.
        on_batch : callable, optional
            Called after each batch with its embeddings, its positions (int32, shape (n_pos, n), 4 rows with M-RoPE)
            and `seq_id`; False stops.

        Returns
        -------
        int
            The position after the last token.

        Raises
        ------
        ValueError, ContextFullError, DecodeError, CancelledError

        Notes
        -----
        Releases the GIL. Source: ``mtmd_helper_decode_image_chunk``, mtmd-helper.h.
        """
        return self._decode_chunk(ctx, chunk, embd, n_past, seq_id, n_batch, on_batch, cancel)

    def _decode_chunk(self, LlamaContext ctx, InputChunk chunk not None, embd, n_past, seq_id, n_batch, on_batch,
                      cancel) -> int:
        cdef int c_batch = self._check_place(ctx, n_past, seq_id, n_batch)
        cdef llama.llama_pos c_past = n_past
        cdef llama.llama_pos c_new = n_past
        cdef llama.llama_seq_id c_seq = seq_id
        cdef CallState state = CallState(ctx._stop_signal(cancel))
        cdef _AfterDecode after = _AfterDecode()
        cdef lib.mtmd_helper_post_decode_callback c_after = NULL
        cdef float[:, ::1] rows
        cdef float * c_rows
        cdef int code = 0
        self._check_media(chunk, False)
        self._check_non_causal(ctx, chunk, c_batch)
        given = np.asarray(embd)
        if given.dtype != np.float32 or given.shape != (chunk.n_tokens, self.n_embd) or not given.size:
            raise ValueError(f"embd is {given.dtype} of shape {given.shape}, expected float32 "
                             f"({chunk.n_tokens}, {self.n_embd})")
        rows = np.require(given, requirements=("C", "W"))
        if on_batch is not None:
            if not callable(on_batch):
                raise TypeError(f"on_batch is {on_batch!r}, expected a callable")
            after.function = on_batch
            c_after = <lib.mtmd_helper_post_decode_callback> _after_decode_nogil
        state.finish()
        self._eval_begin(ctx, state)
        chunk._hold()
        try:
            c_rows = &rows[0, 0]
            with nogil:
                code = lib.mtmd_helper_decode_image_chunk(self._ptr, ctx._ptr, chunk._ptr, c_rows, c_past, c_seq,
                                                          c_batch, &c_new, c_after, <void *> after)
        except EngineError as e:
            self._failed(e)
            ctx._failed(e)
            raise
        finally:
            chunk._unhold()
            self._eval_end(ctx)
        if after.error is not None:
            raise after.error
        if c_after != NULL and any("post-decode callback" in line for line in native.last_log()):
            return c_past
        self._eval_finish(ctx, code, "mtmd_helper_decode_image_chunk", state)
        self._note_outputs(ctx, chunk, c_batch, False)
        return c_new

    def __repr__(self) -> str:
        if not self._open:
            return "<MtmdContext (closed)>"
        able = [name for name, can in (("vision", self.support_vision), ("audio", self.support_audio)) if can]
        return f"<MtmdContext {os.path.basename(self.path_mmproj)} ({', '.join(able)})>"


cdef int _run_text(MtmdContext ctx, InputChunks chunks, str text, list bitmaps, bint add_special,
                   bint parse_special) except? -9:
    cdef lib.mtmd_input_text c_text
    cdef size_t n = len(bitmaps)
    cdef const lib.mtmd_bitmap ** c_bitmaps = <const lib.mtmd_bitmap **> malloc((n + 1) * sizeof(void *))
    cdef int code
    cdef size_t i
    raw = text.encode()
    c_text.text = raw
    c_text.text_len = len(raw)
    c_text.add_special = add_special
    c_text.parse_special = parse_special
    if c_bitmaps == NULL:
        raise MemoryError()
    try:
        for i in range(n):
            c_bitmaps[i] = (<Bitmap> bitmaps[i])._ptr
        with nogil:
            code = lib.mtmd_tokenize(ctx._ptr, chunks._ptr, &c_text, c_bitmaps, n)
    finally:
        free(c_bitmaps)
    return code


cdef int _run_parts(MtmdContext ctx, InputChunks chunks, list parts, bint add_special) except? -9:
    cdef size_t n = len(parts)
    cdef lib.mtmd_input_text * c_texts = <lib.mtmd_input_text *> malloc((n + 1) * sizeof(lib.mtmd_input_text))
    cdef lib.mtmd_input_part * c_parts = <lib.mtmd_input_part *> malloc((n + 1) * sizeof(lib.mtmd_input_part))
    cdef const lib.mtmd_input_part ** c_list = <const lib.mtmd_input_part **> malloc((n + 1) * sizeof(void *))
    cdef int code
    cdef size_t i
    keep = []
    try:
        if c_texts == NULL or c_parts == NULL or c_list == NULL:
            raise MemoryError()
        for i in range(n):
            c_list[i] = &c_parts[i]
            c_parts[i].text = NULL
            c_parts[i].bitmap = NULL
            if isinstance(parts[i], Bitmap):
                c_parts[i].bitmap = (<Bitmap> parts[i])._ptr
                continue
            keep.append(parts[i][0].encode())
            c_texts[i].text = <bytes> keep[-1]
            c_texts[i].text_len = len(keep[-1])
            c_texts[i].add_special = False
            c_texts[i].parse_special = parts[i][1]
            c_parts[i].text = &c_texts[i]
        with nogil:
            code = lib.mtmd_tokenize_from_parts(ctx._ptr, chunks._ptr, c_list, n, add_special)
    finally:
        free(c_texts)
        free(c_parts)
        free(c_list)
    return code
