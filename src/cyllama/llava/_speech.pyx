"""Speech from a language model that has a projector for it."""

import numpy as np

cimport cython
from libc.stdint cimport int32_t, int64_t
from libcpp cimport bool as cbool

from cyllama._native._core cimport engine_error
from cyllama._native._handle cimport CallState, Handle, check_range
from cyllama.llama cimport libllama as llama
from cyllama.llama._context cimport LlamaContext
from cyllama.llava cimport libmtmd as lib
from cyllama.llava._bitmap cimport Bitmap
from cyllama.llava._context cimport MtmdContext, copy_floats, copy_ints

from cyllama._native import _core as native
from cyllama.errors import DecodeError, EngineError, UnsupportedError
from cyllama._params import enum_value
from cyllama.llava._context import reason
from cyllama.llava._enums import AudioFormat

RANDOM_SEED = 2**32 - 1
MAX_FRAMES = 72  # of one call; the engine's window


cdef int _check_speech(MtmdContext ctx) except -1:
    if ctx is None:
        raise TypeError("ctx is None, expected an MtmdContext")
    ctx._check()
    if lib.mtmd_gen_audio_get_info(ctx._ptr).type == lib.MTMD_GEN_AUDIO_TYPE_NONE:
        raise UnsupportedError("the projector does not support speech synthesis")
    return 0


cdef int _check_frames(MtmdContext ctx, str what, object values) except -1:
    """Check that the input is complete frames of the pipeline's kind."""
    wanted = "feats" if lib.mtmd_gen_audio_get_info(ctx._ptr).type == lib.MTMD_GEN_AUDIO_TYPE_POCKETTTS else "codes"
    if what != wanted:
        raise ValueError(f"{what} is given, expected {wanted} for this projector")
    n, rest = divmod(np.size(values), ctx.frame_width)
    if rest or not 1 <= n <= MAX_FRAMES:
        raise ValueError(f"{what} has {np.size(values)} numbers, expected 1 to {MAX_FRAMES} frames of "
                         f"{ctx.frame_width} each")
    return 0


cdef object _floats(object values, str what, object n):
    """Return `values` as contiguous float32; `n` is the expected size, None for any."""
    given = np.ascontiguousarray(values, np.float32).reshape(-1)
    if given.size != n if n is not None else not given.size:
        raise ValueError(f"{what} has {given.size} numbers, expected {n if n is not None else 'at least one'}")
    return given


cdef int _fill_sampling(lib.mtmd_gen_inp * c_inp, object top_k, object top_p, object seed, object temp) except -1:
    if top_k is not None:
        check_range(top_k, "top_k", 1, 1 << 20)
        c_inp.top_k = top_k
    if top_p is not None:
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p is {top_p!r}, expected more than 0, at most 1")
        c_inp.top_p = top_p
    if seed is not None:
        check_range(seed, "seed", 0, RANDOM_SEED)
        c_inp.seed = seed
    if temp is not None:
        if not 0 <= temp <= 100:
            raise ValueError(f"temp is {temp!r}, expected 0 to 100")
        c_inp.temp = temp
    return 0


cdef int _process(MtmdContext ctx, lib.mtmd_gen_inp * c_inp, lib.mtmd_gen_out * c_out, object cancel) except -1:
    cdef CallState state = CallState(cancel)
    cdef int code = 0
    state.finish()
    ctx._call_begin(state)
    try:
        with nogil:
            code = lib.mtmd_gen_audio_process(ctx._ptr, c_inp, c_out)
    except EngineError as e:
        ctx._failed(e)
        raise
    finally:
        ctx._call_end()
    ctx._finish_encode(code, "mtmd_gen_audio_process", state)
    return 0


def gen_inp_default(ctx: MtmdContext) -> dict:
    """Return the default sampling parameters of a projector: ``top_k``, ``top_p``, ``temp``, ``seed`` (None: random).

    Source: ``mtmd_gen_inp_default``, mtmd.h.
    """
    cdef MtmdContext c = <MtmdContext?> ctx
    _check_speech(c)
    cdef lib.mtmd_gen_inp inp = lib.mtmd_gen_inp_default(c._ptr)
    return {"top_k": inp.top_k, "top_p": inp.top_p, "temp": inp.temp,
            "seed": None if inp.seed == RANDOM_SEED else inp.seed}


def gen_code(ctx: MtmdContext, embd: np.ndarray, code0: int = 0, *, top_k: int | None = None,
             top_p: float | None = None, seed: int | None = None, temp: float | None = None,
             cancel: object | None = None) -> dict:
    """Generate one frame of speech from a hidden state of the language model.

    Parameters
    ----------
    ctx : MtmdContext
    embd : float32 array, shape (n_embd,)
    code0 : int
        The first code, sampled from the language model, of pipelines with codes.
    top_k, top_p, seed, temp
        Of :func:`gen_inp_default`. The engine starts its random numbers anew where the seed is another than that of
        the call before.
    cancel : object with ``is_set()``, optional

    Returns
    -------
    dict
        ``codes`` (int32 array) or ``feats`` (float32 array), the other one empty; ``embd``, float32 (n_embd,), to be
        given back to the language model; ``is_eos``.

    Raises
    ------
    UnsupportedError, ValueError, MediaError, CancelledError

    Notes
    -----
    Releases the GIL. Source: ``mtmd_gen_audio_process``, mtmd.h.
    """
    cdef MtmdContext c = <MtmdContext?> ctx
    cdef lib.mtmd_gen_inp inp
    cdef lib.mtmd_gen_out out
    cdef float[::1] view
    _check_speech(c)
    inp = lib.mtmd_gen_inp_default(c._ptr)
    view = np.require(_floats(embd, "embd", c.n_embd), requirements=("C", "W"))
    check_range(code0, "code0", 0, 2**31 - 1)
    inp.type = lib.MTMD_GEN_PROCESS_TYPE_GEN_CODE
    inp.code0 = code0
    inp.embd = &view[0]
    _fill_sampling(&inp, top_k, top_p, seed, temp)
    _process(c, &inp, &out, cancel)
    codes, feats = np.empty(out.n_codes, np.int32), np.empty(out.n_feats, np.float32)
    copy_ints(codes, <const int *> out.codes)
    copy_floats(feats, out.feats)
    return {"codes": codes, "feats": feats, "embd": c._output(out.embd, 1)[0], "is_eos": bool(out.is_eos)}


def gen_wav(ctx: MtmdContext, *, codes: np.ndarray | None = None, feats: np.ndarray | None = None,
            state: bytes | None = None, seed: int | None = None,
            cancel: object | None = None) -> tuple[np.ndarray, bytes]:
    """Generate audio from the codes or the features of frames.

    Parameters
    ----------
    ctx : MtmdContext
    codes : int32 array, or
    feats : float32 array
        Of one frame or several, one after the other, as :func:`gen_code` gave them.
    state : bytes, optional
        What the call for the frames before gave.
    seed : int, optional
        The same as of :func:`gen_code`, which otherwise would start anew.
    cancel : object with ``is_set()``, optional

    Returns
    -------
    samples : float32 array
        Mono, at the ``sample_rate`` of :attr:`MtmdContext.gen_audio_info`.
    state : bytes

    Raises
    ------
    UnsupportedError, ValueError, MediaError, CancelledError

    Notes
    -----
    Releases the GIL. Source: ``mtmd_gen_audio_process``, mtmd.h.
    """
    cdef MtmdContext c = <MtmdContext?> ctx
    cdef lib.mtmd_gen_inp inp
    cdef lib.mtmd_gen_out out
    cdef int32_t[::1] code_view
    cdef float[::1] feat_view
    cdef const char * c_state
    _check_speech(c)
    inp = lib.mtmd_gen_inp_default(c._ptr)
    if (codes is None) == (feats is None):
        raise ValueError("codes and feats are given both or not at all, expected one of them")
    inp.type = lib.MTMD_GEN_PROCESS_TYPE_GEN_WAV
    _check_frames(c, "codes" if codes is not None else "feats", codes if codes is not None else feats)
    if codes is not None:
        given = np.ascontiguousarray(codes, np.int32).reshape(-1)
        code_view = np.require(given, requirements=("C", "W"))
        inp.codes = &code_view[0]
        inp.n_codes = given.size
    else:
        feat_view = np.require(_floats(feats, "feats", None), requirements=("C", "W"))
        inp.feats = &feat_view[0]
        inp.n_feats = feat_view.shape[0]
    if state is not None:
        raw = bytes(state)
        c_state = raw
        inp.state_data = c_state
        inp.state_size = len(raw)
    _fill_sampling(&inp, None, None, seed, None)
    _process(c, &inp, &out, cancel)
    samples = np.empty(out.n_samples, np.float32)
    copy_floats(samples, out.audio)
    return samples, (out.state_data[:out.state_size] if out.state_size else b"")


@cython.no_gc_clear  # freeing needs the fields
cdef class AudioGenerator(Handle):
    """Speaks a text, step by step.

    Parameters
    ----------
    ctx : LlamaContext
        Of the model of `mtmd`, made with ``embeddings=True`` and ``pooling_type="none"``; kept open.
    mtmd : MtmdContext
        A projector with speech synthesis; kept open.

    Raises
    ------
    UnsupportedError
        The projector does not support speech synthesis.
    ValueError
        The contexts do not go together.

    Notes
    -----
    :meth:`set_input`, then :meth:`step_prompt` until it gives 0, then sample a token and :meth:`step_gen` with the
    hidden state until it says stop, then :meth:`get_output`. Releases the GIL. Thread safety: one thread at a time.
    Source: ``mtmd_helper_gen_audio_init``, mtmd-helper.h.
    """

    cdef lib.mtmd_helper_gen_audio * _ptr
    cdef readonly LlamaContext context
    cdef readonly MtmdContext mtmd
    cdef int _left              # tokens of the prompt that are left; -1 without an input
    cdef bint _is_wav

    def __cinit__(self, LlamaContext ctx not None, MtmdContext mtmd not None):
        ctx._check_memory()
        _check_speech(mtmd)
        if ctx.model is not mtmd.model:
            raise ValueError("ctx is a context of another model than that of the projector")
        if not ctx._embeddings or llama.llama_get_pooling_type(ctx._ptr) != llama.LLAMA_POOLING_TYPE_NONE:
            raise ValueError("speech synthesis needs a LlamaContext with embeddings=True and pooling_type 'none'")
        if llama.llama_model_n_embd(ctx.model._ptr) != mtmd.n_embd:
            raise ValueError("the widths of the model's input and of its hidden states differ")
        self.context = ctx
        self.mtmd = mtmd
        self._left = -1
        self._ptr = lib.mtmd_helper_gen_audio_init(ctx._ptr, mtmd._ptr)
        self._opened("AudioGenerator", mtmd)
        ctx._n_children += 1

    def __init__(self, ctx: LlamaContext, mtmd: MtmdContext) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        cdef lib.mtmd_helper_gen_audio * c_ptr = self._ptr
        self._ptr = NULL
        with nogil:
            lib.mtmd_helper_gen_audio_free(c_ptr)
        (<Handle> self.context)._n_children -= 1
        return 0

    cdef int _start(self, CallState state) except -1:
        state.finish()
        self._begin()
        try:
            self.mtmd._eval_begin(self.context, state)
        except BaseException:
            self._end()
            raise
        self.mtmd._n_encoded = 0
        return 0

    cdef int _stop(self) noexcept:
        self.mtmd._eval_end(self.context)
        self._end()
        return 0

    cdef int _done(self, int code, str function, CallState state) except -1:
        """Raise the exception for a return code."""
        if code < 0 or self.mtmd._eval_error is not None:
            code = 1 if code == 0 else code
        error, self.mtmd._eval_error = self.mtmd._eval_error, None
        if error is not None:
            raise error
        state.finish()
        if code < 0 or code == 1:
            message = f"speech synthesis failed{reason(native.last_log())}"
            raise engine_error(DecodeError, message, "llava", function, code)
        return 0

    def reset(self) -> None:
        """Discard the input and the audio. Source: ``mtmd_helper_gen_audio_reset``, mtmd-helper.h."""
        self._begin()
        try:
            self._left = -1
            with nogil:
                lib.mtmd_helper_gen_audio_reset(self._ptr)
        finally:
            self._end()

    def set_input(self, prompt: str, *, seq_id: int = 0, speaker: Bitmap | None = None, lang: str | None = None,
                  top_k: int | None = None, top_p: float | None = None, seed: int | None = None,
                  out_type: int | str = "wav", cancel: object | None = None) -> None:
        """Set the text, the voice and the sampling parameters.

        Parameters
        ----------
        prompt : str
        seq_id : int
            A sequence of the context with nothing in it.
        speaker : Bitmap, optional
            Audio of the voice to imitate.
        lang : str, optional
            Such as ``"en"``.
        top_k, top_p, seed
            Default: the pipeline's; a random seed. As of :func:`gen_code`.
        out_type : AudioFormat, number or name
        cancel : object with ``is_set()``, optional

        Raises
        ------
        TypeError, ValueError
        DecodeError
            The pipeline rejects it, for example an unsupported language.

        Notes
        -----
        Source: ``mtmd_helper_gen_audio_set_input``, mtmd-helper.h.
        """
        cdef lib.mtmd_helper_gen_audio_inp inp
        cdef lib.mtmd_gen_inp sampling
        cdef CallState state = CallState(cancel)
        cdef Bitmap c_speaker = <Bitmap?> speaker if speaker is not None else None
        cdef int code = 0
        self._check()
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"prompt is {prompt!r}, expected a text")
        self.context._check_seq(seq_id, False)
        sampling.top_k, sampling.top_p, sampling.seed, sampling.temp = 0, 0, RANDOM_SEED, 0
        _fill_sampling(&sampling, top_k, top_p, seed, None)
        if c_speaker is not None and (c_speaker.is_lazy or not c_speaker.is_audio or not c_speaker.n_bytes):
            raise ValueError("speaker is not audio, expected Bitmap.from_audio")
        if lang is not None and not (isinstance(lang, str) and lang.isprintable()):
            raise ValueError(f"lang is {lang!r}, expected a language such as 'en'")
        raw_prompt, raw_lang = prompt.encode(), (lang or "").encode()
        inp.seq_id = seq_id
        inp.prompt, inp.prompt_len = <const char *> raw_prompt, len(raw_prompt)
        inp.speaker_ref = NULL
        inp.lang = NULL
        if c_speaker is not None:
            inp.speaker_ref = c_speaker._ptr
        if lang is not None:
            inp.lang = <const char *> raw_lang
        inp.top_k, inp.top_p, inp.seed = sampling.top_k, sampling.top_p, sampling.seed
        inp.out_type = <lib.mtmd_helper_gen_audio_outtype> <int> enum_value(AudioFormat, out_type, "out_type")
        self._is_wav = inp.out_type == lib.MTMD_HELPER_GEN_AUDIO_OUTTYPE_WAV
        self._left = -1
        self._start(state)
        try:
            if c_speaker is not None:
                c_speaker._lend()
            with nogil:
                code = lib.mtmd_helper_gen_audio_set_input(self._ptr, &inp)
        except EngineError as e:
            self.mtmd._failed(e)
            raise
        finally:
            if c_speaker is not None:
                c_speaker._return()
            self._stop()
        self._done(code, "mtmd_helper_gen_audio_set_input", state)
        self._left = 1

    def step_prompt(self, n_batch: int | None = None, *, cancel: object | None = None) -> int:
        """Evaluate a part of the prompt.

        Parameters
        ----------
        n_batch : int, optional
            Most tokens; default: the context's ``n_batch``.
        cancel : object with ``is_set()``, optional

        Returns
        -------
        int
            Tokens that are left; with 0 the last one has an output.

        Raises
        ------
        ValueError
            There is no input.
        DecodeError, CancelledError

        Notes
        -----
        Source: ``mtmd_helper_gen_audio_step_prompt``, mtmd-helper.h.
        """
        cdef CallState state = CallState(self.context._stop_signal(cancel))
        cdef int c_batch
        cdef int code = 0
        self._check()
        if self._left < 0:
            raise ValueError("there is no input: call set_input() first")
        most = self.context.n_batch()
        if n_batch is not None:
            check_range(n_batch, "n_batch", 1, most)
        c_batch = most if n_batch is None else n_batch
        self._start(state)
        try:
            with nogil:
                code = lib.mtmd_helper_gen_audio_step_prompt(self._ptr, c_batch)
        except EngineError as e:
            self.context._failed(e)
            raise
        finally:
            self._stop()
        self._done(min(code, 0), "mtmd_helper_gen_audio_step_prompt", state)
        self._left = code
        self.context._note_outputs(bytearray(b"\1" if code == 0 else b""))
        return code

    def step_gen(self, h_state: np.ndarray, token: int | None = None, *,
                 cancel: object | None = None) -> tuple[np.ndarray | None, bool]:
        """Generate one frame of speech.

        Parameters
        ----------
        h_state : float32 array, shape (n_embd,)
            ``ctx.get_embeddings_ith(-1)`` after the prompt, then the result of the previous step.
        token : int, optional
            Sampled from the context; pipelines without codes need none.
        cancel : object with ``is_set()``, optional

        Returns
        -------
        h_state : float32 array or None
        stop : bool
            The speech is at its end.

        Raises
        ------
        ValueError
            The prompt is not evaluated.
        IndexError
            The vocabulary has no such token.
        DecodeError, CancelledError

        Notes
        -----
        Source: ``mtmd_helper_gen_audio_step_gen``, mtmd-helper.h.
        """
        cdef CallState state = CallState(self.context._stop_signal(cancel))
        cdef llama.llama_token c_token = llama.LLAMA_TOKEN_NULL
        cdef const float[::1] view
        cdef const float * c_view
        cdef const float * c_out = NULL
        cdef cbool stop = False
        cdef int code = 0
        self._check()
        if self._left != 0:
            raise ValueError("the prompt is not evaluated: call step_prompt() until it gives 0")
        if token is not None:
            self.context.model._check_token(token)
            c_token = token
        view = _floats(h_state, "h_state", self.mtmd.n_embd)
        self._start(state)
        try:
            c_view = &view[0]
            with nogil:
                code = lib.mtmd_helper_gen_audio_step_gen(self._ptr, c_token, c_view, &c_out, &stop)
        except EngineError as e:
            self.context._failed(e)
            raise
        finally:
            self._stop()
        self._done(code, "mtmd_helper_gen_audio_step_gen", state)
        self.context._note_outputs(bytearray(b"" if c_out == NULL else b"\1"))
        return (None if c_out == NULL else self.mtmd._output(c_out, 1)[0]), bool(stop)

    def get_output(self, *, cancel: object | None = None) -> tuple[np.ndarray | bytes, int]:
        """Return the audio generated so far.

        Returns
        -------
        audio : bytes or float32 array
            A WAV file or samples, as requested in set_input().
        sample_rate : int
            In Hz.

        Raises
        ------
        ValueError
            There is no input.
        DecodeError, CancelledError

        Notes
        -----
        Source: ``mtmd_helper_gen_audio_get_output``, mtmd-helper.h.
        """
        cdef CallState state = CallState(cancel)
        cdef int32_t rate = 0
        cdef const char * c_data = NULL
        cdef size_t n = 0
        cdef int64_t n_samples = 0
        cdef int code = 0
        self._check()
        if self._left < 0:
            raise ValueError("there is no input: call set_input() first")
        self._start(state)
        try:
            with nogil:
                code = lib.mtmd_helper_gen_audio_get_output(self._ptr, &rate, &c_data, &n, &n_samples)
        except EngineError as e:
            self.mtmd._failed(e)
            raise
        finally:
            self._stop()
        self._done(code, "mtmd_helper_gen_audio_get_output", state)
        if self._is_wav:
            return c_data[:n], rate
        samples = np.empty(n_samples, np.float32)
        copy_floats(samples, <const float *> c_data)
        return samples, rate
