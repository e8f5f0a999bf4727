"""Train the weights of a model."""

from dataclasses import dataclass

import numpy as np

cimport cython
from libc.stdint cimport int64_t
from libc.string cimport memcpy
from libcpp cimport bool as cbool

from cyllama._native cimport libggml as ggml
from cyllama._native._core cimport start_call
from cyllama._native._exit cimport is_ending
from cyllama._native._handle cimport CallState, Handle
from cyllama.llama cimport libllama as lib
from cyllama.llama.libmodel cimport has_reordered_weights
from cyllama.llama._context cimport LlamaContext

from cyllama.errors import EngineError, UnsupportedError
from cyllama._params import enum_value
from cyllama._native._tensors import TensorType
from cyllama.llama._enums import LoadMode

cdef dict OPTIMIZERS = {
    "adamw": <int> ggml.GGML_OPT_OPTIMIZER_TYPE_ADAMW,
    "sgd": <int> ggml.GGML_OPT_OPTIMIZER_TYPE_SGD,
}


@dataclass(frozen=True)
class TrainingResult:
    """Loss and accuracy over some tokens.

    Attributes
    ----------
    n_tokens : int
    loss : float
        Mean cross entropy for each token, in nats.
    loss_uncertainty : float
        Its standard error; NaN where there is one batch only.
    accuracy : float
        Part of the tokens, 0 to 1, that had the highest logit.
    """

    n_tokens: int
    loss: float
    loss_uncertainty: float
    accuracy: float


cdef class _Filter:
    """The callable that selects the tensors to train, called from C."""

    cdef object ask
    cdef object error


cdef bint _filter(const ggml.ggml_tensor * tensor, void * data) noexcept with gil:
    cdef _Filter self = <_Filter> data
    if self.error is not None:
        return False
    try:
        return bool(self.ask(ggml.ggml_get_name(tensor).decode()))
    except BaseException as e:
        self.error = e
        return False


cdef cbool _filter_nogil(const ggml.ggml_tensor * tensor, void * data) noexcept nogil:
    return not is_ending() and _filter(tensor, data)


def training_windows(tokens: np.ndarray, n_ctx: int, stride: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Split a long text into windows of tokens and labels.

    Parameters
    ----------
    tokens : int32 array, shape (n,)
    n_ctx : int
        Tokens of a window.
    stride : int, optional
        From one window to the next; default: half a window.

    Returns
    -------
    tokens, labels : int32 arrays, shape (n_windows, n_ctx)
        ``labels`` is ``tokens`` one token later.
    """
    tokens = np.ascontiguousarray(tokens, np.int32)
    step = max(1, n_ctx // 2) if stride is None else stride
    if tokens.ndim != 1 or n_ctx < 1 or step < 1 or tokens.size < n_ctx + 1:
        raise ValueError(f"tokens has the shape {tokens.shape}, n_ctx is {n_ctx} and stride {step}, expected at least "
                         "n_ctx + 1 tokens in one dimension and positive numbers")
    starts = np.arange(0, tokens.size - n_ctx, step)[:, None] + np.arange(n_ctx)
    return tokens[starts], tokens[starts + 1]


@cython.no_gc_clear  # __dealloc__ uses the fields, the parent first of all
cdef class Trainer(Handle):
    """A trainer of the F32 weights of a context's model, except the token embeddings.

    Parameters
    ----------
    context : LlamaContext
        Kept open. It has one sequence, F32 caches (``type_k``, ``type_v``), and its ``n_ctx`` is a multiple of
        ``n_batch`` and that of ``n_ubatch``. For gradients of the keys and values ``n_ubatch`` equals ``n_ctx``.
        Its model was loaded with ``load_mode="none"``: a mapped file cannot be written to.
    optimizer : {"adamw", "sgd"}
    learning_rate, beta1, beta2, eps, weight_decay : float
        Of the optimizer; sgd has a learning rate and a weight decay only. May be changed between epochs.
    param_filter : callable, optional
        ``param_filter(name)`` returns whether a tensor is trained; default: all.

    Raises
    ------
    UnsupportedError
        The context or the model does not support training; the message has the reason.
    ValueError
        A parameter is out of range.

    Notes
    -----
    All contexts of the model use the new weights; :meth:`LlamaModel.save_to_file` keeps them.
    Thread safety: one thread at a time. Source: ``llama_opt_init``, llama.h.
    """

    cdef readonly LlamaContext context
    cdef readonly str optimizer
    cdef public double learning_rate
    cdef public double beta1
    cdef public double beta2
    cdef public double eps
    cdef public double weight_decay
    cdef ggml.ggml_opt_optimizer_params _params

    def __cinit__(self, LlamaContext context not None, *, optimizer="adamw", learning_rate=1e-4, beta1=0.9,
                  beta2=0.999, eps=1e-8, weight_decay=0.0, param_filter=None):
        cdef lib.llama_opt_params c_params
        cdef _Filter chosen = _Filter()
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer is {optimizer!r}, expected one of {list(OPTIMIZERS)}")
        if param_filter is not None and not callable(param_filter):
            raise TypeError(f"param_filter is {param_filter!r}, expected a callable")
        self.optimizer = optimizer
        self.learning_rate, self.beta1, self.beta2 = learning_rate, beta1, beta2
        self.eps, self.weight_decay = eps, weight_decay
        self._set_params()
        context._check()
        _check_trainable(context)
        self.context = context
        chosen.ask = param_filter
        c_params.n_ctx_train = 0
        c_params.param_filter = lib.llama_opt_param_filter_all if param_filter is None else _filter_nogil
        c_params.param_filter_ud = <void *> chosen
        c_params.get_opt_pars = ggml.ggml_opt_get_constant_optimizer_params
        c_params.get_opt_pars_ud = &self._params
        c_params.optimizer_type = <ggml.ggml_opt_optimizer_type> <int> OPTIMIZERS[optimizer]
        start_call()
        context._begin()
        context._has_optimizer = True
        try:
            with nogil:
                lib.llama_opt_init(context._ptr, context.model._ptr, c_params)
        except EngineError as e:
            context._failed(e)
            raise
        finally:
            context._end()
        if chosen.error is not None:
            raise chosen.error
        self._opened("Trainer", context)

    def __init__(self, context: LlamaContext, *, optimizer: str = "adamw", learning_rate: float = 1e-4,
                 beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0,
                 param_filter: object | None = None) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    def _set_params(self) -> None:
        for name, low, high in (("learning_rate", 0.0, float("inf")), ("beta1", 0.0, 1.0), ("beta2", 0.0, 1.0),
                                ("eps", 0.0, float("inf")), ("weight_decay", 0.0, 1.0)):
            value = getattr(self, name)
            if not low <= value <= high or value == float("inf") or (name == "learning_rate" and value == 0):
                raise ValueError(f"{name} is {value}, expected {'more than ' if name == 'learning_rate' else ''}"
                                 f"{low:g} to {high:g}")
        self._params.adamw.alpha = self._params.sgd.alpha = self.learning_rate
        self._params.adamw.beta1, self._params.adamw.beta2 = self.beta1, self.beta2
        self._params.adamw.eps = self.eps
        self._params.adamw.wd = self._params.sgd.wd = self.weight_decay

    def epoch(self, tokens: np.ndarray, labels: np.ndarray, n_train: int | None = None, *,
              callback: object | None = None, cancel: object | None = None) -> tuple[TrainingResult, TrainingResult]:
        """Train on the first windows and evaluate on the others. The context's memory is cleared.

        Parameters
        ----------
        tokens, labels : int32 arrays, shape (n_windows, n_ctx)
            As of :func:`training_windows`.
        n_train : int, optional
            Number of windows to train on; default: all.
        callback : callable, optional
            Called with the fraction done, 0.0 to 1.0, after each window; False cancels.
        cancel : object with ``is_set()``, optional
            Polled between windows, like Ctrl-C; completed steps are kept.

        Returns
        -------
        TrainingResult, TrainingResult
            Of the training (before each step) and of the evaluation.

        Raises
        ------
        ValueError, IndexError
            The arrays have the wrong shape, or a token is not in the vocabulary.
        CancelledError

        Notes
        -----
        Releases the GIL. Source: ``llama_opt_epoch``, llama.h.
        """
        self._check()
        self._set_params()
        rows = _windows(self.context, tokens, "tokens")
        wanted = _windows(self.context, labels, "labels")
        if rows.shape != wanted.shape:
            raise ValueError(f"tokens has the shape {rows.shape} and labels {wanted.shape}, expected the same")
        if n_train is None:
            n_train = len(rows)
        if not 0 <= n_train <= len(rows):
            raise ValueError(f"n_train is {n_train}, expected 0 to {len(rows)}")
        cdef CallState state = CallState(cancel, callback)
        self._begin()
        try:
            self.context._begin()
            try:
                self.context._n_outputs = -1
                return self._run(rows, wanted, n_train, state)
            except EngineError as e:
                self.context._failed(e)
                raise
            finally:
                self.context._end()
        finally:
            self._end()

    def _run(self, rows: np.ndarray, wanted: np.ndarray, n_train: int, CallState state) -> tuple:
        # One window at a time, so that a cancelled call stops between two windows.
        cdef int64_t n_ctx = rows.shape[1]
        cdef int64_t c_train
        cdef Py_ssize_t i
        cdef int[:, ::1] c_rows = rows
        cdef int[:, ::1] c_wanted = wanted
        cdef ggml.ggml_opt_result_t trained = ggml.ggml_opt_result_init()
        cdef ggml.ggml_opt_result_t measured = ggml.ggml_opt_result_init()
        cdef ggml.ggml_opt_dataset_t window = NULL
        start_call()
        try:
            window = ggml.ggml_opt_dataset_init(ggml.GGML_TYPE_I32, ggml.GGML_TYPE_I32, n_ctx, n_ctx, 1, 1)
            for i in range(rows.shape[0]):
                if state.poll():
                    break
                memcpy(ggml.ggml_opt_dataset_data(window).data, &c_rows[i, 0], n_ctx * sizeof(int))
                memcpy(ggml.ggml_opt_dataset_labels(window).data, &c_wanted[i, 0], n_ctx * sizeof(int))
                c_train = i < n_train
                with nogil:
                    lib.llama_opt_epoch(self.context._ptr, window, trained, measured, c_train, NULL, NULL)
                if not state.progress((i + 1.0) / rows.shape[0]):
                    break
            state.finish()
            return _result(trained), _result(measured)
        finally:
            ggml.ggml_opt_dataset_free(window)
            ggml.ggml_opt_result_free(trained)
            ggml.ggml_opt_result_free(measured)


cdef object _result(ggml.ggml_opt_result_t result):
    cdef int64_t n = 0
    cdef double loss = 0, uncertainty = 0, accuracy = 0
    ggml.ggml_opt_result_ndata(result, &n)
    if n == 0:
        return TrainingResult(0, float("nan"), float("nan"), float("nan"))
    ggml.ggml_opt_result_loss(result, &loss, &uncertainty)
    ggml.ggml_opt_result_accuracy(result, &accuracy, NULL)
    return TrainingResult(n, loss, uncertainty, accuracy)


cdef int _check_trainable(LlamaContext context) except -1:
    """Check the conditions that the engine asserts or needs."""
    cdef unsigned int n_ctx = lib.llama_n_ctx(context._ptr)
    cdef unsigned int n_batch = min(lib.llama_n_batch(context._ptr), n_ctx)
    cdef unsigned int n_ubatch = min(lib.llama_n_ubatch(context._ptr), n_batch)
    if context._has_optimizer:
        raise UnsupportedError("this context has a Trainer already; a context can have one in its life")
    mode = context.model.params.load_mode
    if mode is None or enum_value(LoadMode, mode, "load_mode") != LoadMode.NONE:
        raise UnsupportedError(f"load_mode of the model is {mode!r}, expected 'none' to be able to change its weights")
    if has_reordered_weights(context.model._ptr):
        raise UnsupportedError("the weights of the model were reordered for this CPU and have no gradients; load the "
                               "model with use_extra_bufts=False")
    for name in ("type_k", "type_v"):
        value = getattr(context.params, name)
        if value is None or enum_value(TensorType, value, name) != TensorType.F32:
            raise UnsupportedError(f"{name} of the context is {value!r}, expected 'f32' for training")
    if lib.llama_n_seq_max(context._ptr) != 1:
        raise UnsupportedError(f"n_seq_max of the context is {lib.llama_n_seq_max(context._ptr)}, expected 1")
    if n_ctx % n_batch or n_batch % n_ubatch:
        raise UnsupportedError(f"n_ctx is {n_ctx}, n_batch {n_batch} and n_ubatch {n_ubatch}, "
                               "expected each to be a multiple of the next")
    if lib.llama_get_memory(context._ptr) == NULL or lib.llama_model_is_recurrent(context.model._ptr):
        raise UnsupportedError("only models with a KV cache can be trained")
    return 0


def _windows(LlamaContext context, values, what: str) -> np.ndarray:
    """Return int32 windows, C-contiguous, shape (n, n_ctx), all ids in the vocabulary."""
    found = np.asarray(values)
    n_ctx = lib.llama_n_ctx(context._ptr)
    if found.dtype.kind not in "iu" or found.ndim != 2 or found.shape[1] != n_ctx or len(found) == 0:
        raise ValueError(f"{what} is {found.dtype} of the shape {found.shape}, "
                         f"expected integers of (n_windows, {n_ctx})")
    if found.min() < 0 or found.max() >= context.model.n_vocab:
        raise IndexError(f"{what} has tokens from {found.min()} to {found.max()}, expected 0 to "
                         f"{context.model.n_vocab - 1}")
    return np.ascontiguousarray(found, np.int32)
