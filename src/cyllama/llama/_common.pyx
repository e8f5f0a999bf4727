"""Bindings of upstream's `common` library: parameters, tokenization, sampling, JSON schemas."""

import difflib
import json
import math
import os

import numpy as np

cimport cython
from libcpp.string cimport string
from libcpp.vector cimport vector

from cyllama._native._core cimport engine_error, start_call
from cyllama._native._handle cimport Handle, check_range
from cyllama.llama cimport libcommon as lib
from cyllama.llama cimport libllama as llama
from cyllama.llama._context cimport LlamaContext
from cyllama.llama._model cimport LlamaModel, fill_kv_overrides

from cyllama.errors import EngineError, GrammarError
from cyllama.llama._batch import token_array
from cyllama._native._tensors import TensorType
from cyllama._params import enum_value
from cyllama.llama._enums import (
    AttentionType,
    FlashAttnType,
    LazyMode,
    LoadMode,
    NumaStrategy,
    PoolingType,
    RopeScalingType,
    SplitMode,
)
from cyllama.llama._sampler import check_grammar
from cyllama.llama._vocab import LlamaVocab
from cyllama.llama.params import LlamaContextParams, LlamaModelParams
from cyllama.llama._json_schema import check_schema

lib.silence_common_log()

# Fields whose value is one of upstream's enums: names and numbers are accepted.
_ENUM_FIELDS = {
    "split_mode": SplitMode, "load_mode": LoadMode, "lazy_mode": LazyMode, "numa": NumaStrategy,
    "rope_scaling_type": RopeScalingType, "pooling_type": PoolingType, "attention_type": AttentionType,
    "flash_attn_type": FlashAttnType, "cache_type_k": TensorType, "cache_type_v": TensorType,
}


class _Section:
    """A nested struct of the parameters, such as ``params.cpuparams``."""

    def __init__(self, params: CommonParams, path: str) -> None:
        object.__setattr__(self, "_params", params)
        object.__setattr__(self, "_path", path)

    def __getattr__(self, name: str) -> object:
        return self._params.get_path(f"{self._path}.{name}")

    def __setattr__(self, name: str, value: object) -> None:
        self._params.set_path(f"{self._path}.{name}", value)

    def __dir__(self) -> list[str]:
        prefix = f"{self._path}."
        return sorted({name.removeprefix(prefix).split(".")[0] for name in self._params.field_names()
                       if name.startswith(prefix)})

    def __repr__(self) -> str:
        return f"<{self._path} of CommonParams>"


cdef class CommonParams:
    """Upstream's ``common_params``: the command line options of its programs.

    Fields have upstream's names; nested structs are attributes: ``params.cpuparams.n_threads``,
    ``params.sampling.temp``, ``params.speculative.draft.n_max``. ``params.model`` is the path of the model.
    An unknown name raises AttributeError with the nearest one, an invalid value TypeError or ValueError.

    Beside the plain fields there are ``tensor_split`` (list of float), ``antiprompt`` (list of str), ``kv_overrides``
    (dict), ``lora_adapters`` and ``control_vectors`` (lists of (path, scale)), ``cpuparams.mask`` and
    ``cpuparams_batch.mask`` (list of CPU numbers, empty: any), ``speculative.types`` (list of names),
    ``sampling.samplers`` (list of names), ``sampling.grammar`` (GBNF), ``sampling.logit_bias`` (dict) and
    ``sampling.dry_sequence_breakers`` (list of str).

    Notes
    -----
    Source: ``common_params``, common/common.h.
    """

    def __init__(self, **fields: object) -> None:
        for name, value in fields.items():
            setattr(self, name, value)

    def field_names(self) -> list[str]:
        """Return the names of all fields, nested ones with a dot."""
        names = [bytes(name).decode() for name in lib.field_names(self._params)]
        return sorted([*names, *_LISTS])

    def __dir__(self) -> list[str]:
        return sorted({name.split(".")[0] for name in self.field_names()} | set(object.__dir__(self)))

    def __getattr__(self, name: str) -> object:
        return self.get_path(name)

    def __setattr__(self, name: str, value: object) -> None:
        self.set_path(name, value)

    def get_path(self, path: str) -> object:
        """Return the field with this dotted name."""
        if path in _LISTS:
            return _LISTS[path][0](self)
        value = self._get(path)
        if value is None:
            if any(name.startswith(path + ".") for name in self.field_names()):
                return _Section(self, path)
            raise AttributeError(self._unknown(path))
        if path in _ENUM_FIELDS:
            return _ENUM_FIELDS[path](value)
        return value

    def set_path(self, path: str, value: object) -> None:
        """Set the field with this dotted name."""
        if path in _LISTS:
            _LISTS[path][1](self, value)
            return
        if path in _ENUM_FIELDS:
            value = enum_value(_ENUM_FIELDS[path], value, path)
        self._set(path, value)

    def _unknown(self, path: str) -> str:
        near = difflib.get_close_matches(path, self.field_names(), 1)
        return f"CommonParams has no field {path!r}" + (f"; did you mean {near[0]!r}?" if near else "")

    cdef object _get(self, str path):
        cdef lib.field_value value
        if not lib.get_field(self._params, path.encode(), value):
            return None
        if value.kind == lib.TEXT:
            return value.text.decode("utf-8", "surrogateescape")
        if value.kind == lib.REAL:
            return value.real
        return bool(value.integer) if value.kind == lib.BOOLEAN else value.integer

    cdef int _set(self, str path, object value) except -1:
        cdef lib.field_value field
        if not lib.get_field(self._params, path.encode(), field):
            raise AttributeError(self._unknown(path))
        if field.kind == lib.TEXT:
            if hasattr(value, "__fspath__"):
                value = value.__fspath__()
            if not isinstance(value, str):
                raise TypeError(f"{path} is {value!r}, expected str")
            field.text = value.encode("utf-8", "surrogateescape")
        elif field.kind == lib.BOOLEAN:
            if not isinstance(value, bool):
                raise TypeError(f"{path} is {value!r}, expected True or False")
            field.integer = value
        elif field.kind == lib.REAL:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{path} is {value!r}, expected a number")
            if not math.isfinite(value):
                raise ValueError(f"{path} is {value}, expected a finite number")
            field.real = value
        else:
            check_range(value, path, field.low, field.high)
            field.integer = value
        lib.set_field(self._params, path.encode(), field)
        return 0

    def to_dict(self) -> dict:
        """Return all fields by their dotted names."""
        return {name: self.get_path(name) for name in self.field_names()}

    def __repr__(self) -> str:
        return f"<CommonParams model={self.model!r} n_ctx={self.n_ctx}>"

    # ---------------------------------------------------------------------------- lists and maps

    def _get_tensor_split(self) -> list[float]:
        values = [self._params.tensor_split[i] for i in range(128)]
        while values and values[-1] == 0:
            values.pop()
        return values

    def _set_tensor_split(self, values) -> None:
        values = [float(value) for value in values]
        if len(values) > 128 or any(not math.isfinite(value) or value < 0 for value in values):
            raise ValueError(f"tensor_split is {values}, expected at most 128 proportions, 0 or more")
        for i in range(128):
            self._params.tensor_split[i] = values[i] if i < len(values) else 0

    def _get_antiprompt(self) -> list[str]:
        return [bytes(text).decode("utf-8", "replace") for text in self._params.antiprompt]

    def _set_antiprompt(self, values) -> None:
        self._params.antiprompt = [str(value).encode() for value in values]

    def _get_loras(self) -> list[tuple[str, float]]:
        cdef lib.common_adapter_lora_info item
        return [(os.fsdecode(bytes(item.path)), item.scale) for item in self._params.lora_adapters]

    def _set_loras(self, pairs) -> None:
        cdef vector[lib.common_adapter_lora_info] c_items
        cdef lib.common_adapter_lora_info c_item
        for path, scale in pairs:
            c_item.path = os.fsencode(path)
            c_item.scale = _finite(scale, "the scale of a LoRA adapter")
            c_item.ptr = NULL
            c_items.push_back(c_item)
        self._params.lora_adapters = c_items

    def _get_vectors(self) -> list[tuple[str, float]]:
        cdef lib.common_control_vector_load_info item
        return [(os.fsdecode(bytes(item.fname)), item.strength) for item in self._params.control_vectors]

    def _set_vectors(self, pairs) -> None:
        cdef vector[lib.common_control_vector_load_info] c_items
        cdef lib.common_control_vector_load_info c_item
        for path, strength in pairs:
            c_item.fname = os.fsencode(path)
            c_item.strength = _finite(strength, "the strength of a control vector")
            c_items.push_back(c_item)
        self._params.control_vectors = c_items

    def _get_mask(self) -> list[int]:
        return [i for i in range(512) if self._params.cpuparams.cpumask[i]]

    def _set_mask(self, cpus) -> None:
        cpus = _cpus(cpus)
        for i in range(512):
            self._params.cpuparams.cpumask[i] = i in cpus
        self._params.cpuparams.mask_valid = bool(cpus)

    def _get_mask_batch(self) -> list[int]:
        return [i for i in range(512) if self._params.cpuparams_batch.cpumask[i]]

    def _set_mask_batch(self, cpus) -> None:
        cpus = _cpus(cpus)
        for i in range(512):
            self._params.cpuparams_batch.cpumask[i] = i in cpus
        self._params.cpuparams_batch.mask_valid = bool(cpus)

    def _get_speculative_types(self) -> list[str]:
        return [bytes(name).decode() for name in lib.get_speculative_types(self._params)]

    def _set_speculative_types(self, names) -> None:
        cdef list raws = [str(name).encode() for name in names]
        if not raws:
            raws = [b"none"]
        lib.set_speculative_types(self._params, raws)

    def _get_breakers(self) -> list[str]:
        return [bytes(text).decode("utf-8", "replace") for text in self._params.sampling.dry_sequence_breakers]

    def _set_breakers(self, values) -> None:
        self._params.sampling.dry_sequence_breakers = [str(value).encode() for value in values]

    def _get_samplers(self) -> list[str]:
        return [bytes(name).decode() for name in lib.get_samplers(self._params.sampling)]

    def _set_samplers(self, names) -> None:
        names = list(names)
        before = self._get_samplers()
        if lib.set_samplers(self._params.sampling, [str(name).encode() for name in names]) != len(names):
            self._set_samplers(before)
            raise ValueError(f"sampling.samplers is {names}, expected names such as {before}")

    def _get_grammar(self) -> str:
        return self._grammar or ""

    def _set_grammar(self, grammar) -> None:
        if not isinstance(grammar, str):
            raise TypeError(f"sampling.grammar is {grammar!r}, expected str")
        if grammar:
            check_grammar(grammar)
        lib.set_grammar(self._params.sampling, grammar.encode())
        self._grammar = grammar

    def _get_logit_bias(self) -> dict[int, float]:
        cdef llama.llama_logit_bias pair
        return {pair.token: pair.bias for pair in self._params.sampling.logit_bias}

    def _set_logit_bias(self, biases) -> None:
        cdef vector[llama.llama_logit_bias] c_biases
        cdef llama.llama_logit_bias c_bias
        for token, bias in dict(biases).items():
            check_range(token, "sampling.logit_bias", 0, 2**31 - 1)
            if math.isnan(bias):
                raise ValueError(f"the bias of token {token} is not a number")
            c_bias.token = token
            c_bias.bias = bias
            c_biases.push_back(c_bias)
        self._params.sampling.logit_bias = c_biases

    def _get_kv_overrides(self) -> dict:
        cdef llama.llama_model_kv_override item
        values = {}
        for item in self._params.kv_overrides:
            key = item.key[:128].split(b"\0")[0].decode("utf-8", "replace")
            if not key:
                break
            if item.tag == llama.LLAMA_KV_OVERRIDE_TYPE_BOOL:
                values[key] = bool(item.val_bool)
            elif item.tag == llama.LLAMA_KV_OVERRIDE_TYPE_INT:
                values[key] = item.val_i64
            elif item.tag == llama.LLAMA_KV_OVERRIDE_TYPE_FLOAT:
                values[key] = item.val_f64
            else:
                values[key] = item.val_str[:128].split(b"\0")[0].decode("utf-8", "replace")
        return values

    def _set_kv_overrides(self, overrides) -> None:
        overrides = dict(overrides)
        cdef vector[llama.llama_model_kv_override] c_list
        c_list.resize(len(overrides) + 1)  # zeroed; the last one, without a key, ends the list
        fill_kv_overrides(overrides, c_list.data())
        if overrides:
            self._params.kv_overrides = c_list
        else:
            self._params.kv_overrides.clear()


def _finite(value: float, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} is {value!r}, expected a number")
    if not math.isfinite(value):
        raise ValueError(f"{what} is {value}, expected a finite number")
    return value


def _cpus(cpus: list) -> set[int]:
    cpus = set(cpus)
    for cpu in cpus:
        check_range(cpu, "a CPU of the mask", 0, 511)
    return cpus


_LISTS = {
    "lora_adapters": (CommonParams._get_loras, CommonParams._set_loras),
    "control_vectors": (CommonParams._get_vectors, CommonParams._set_vectors),
    "cpuparams.mask": (CommonParams._get_mask, CommonParams._set_mask),
    "cpuparams_batch.mask": (CommonParams._get_mask_batch, CommonParams._set_mask_batch),
    "speculative.types": (CommonParams._get_speculative_types, CommonParams._set_speculative_types),
    "tensor_split": (CommonParams._get_tensor_split, CommonParams._set_tensor_split),
    "antiprompt": (CommonParams._get_antiprompt, CommonParams._set_antiprompt),
    "kv_overrides": (CommonParams._get_kv_overrides, CommonParams._set_kv_overrides),
    "sampling.samplers": (CommonParams._get_samplers, CommonParams._set_samplers),
    "sampling.grammar": (CommonParams._get_grammar, CommonParams._set_grammar),
    "sampling.logit_bias": (CommonParams._get_logit_bias, CommonParams._set_logit_bias),
    "sampling.dry_sequence_breakers": (CommonParams._get_breakers, CommonParams._set_breakers),
}


def common_model_params_to_llama(params: CommonParams) -> LlamaModelParams:
    """Return the model parameters. Source: same name, common/common.h."""
    cdef CommonParams p = <CommonParams?> params
    cdef llama.llama_model_params c_params = lib.common_model_params_to_llama(p._params)
    return LlamaModelParams(
        n_gpu_layers=c_params.n_gpu_layers,
        split_mode=<int> c_params.split_mode,
        load_mode=<int> c_params.load_mode,
        lazy_mode=<int> c_params.lazy_mode,
        main_gpu=c_params.main_gpu,
        tensor_split=params.tensor_split or None,
        kv_overrides=params.kv_overrides or None,
        check_tensors=c_params.check_tensors,
        use_extra_bufts=c_params.use_extra_bufts,
        no_host=c_params.no_host,
        no_alloc=c_params.no_alloc,
        load_mtp=c_params.load_mtp,
    )


def common_context_params_to_llama(params: CommonParams) -> LlamaContextParams:
    """Return the context parameters; thread counts that are not set follow :func:`cyllama.get_threads`.

    Source: same name, common/common.h.
    """
    cdef CommonParams p = <CommonParams?> params
    cdef llama.llama_context_params c_params = lib.common_context_params_to_llama(p._params)
    return LlamaContextParams(
        n_ctx=<int> c_params.n_ctx,
        n_batch=c_params.n_batch,
        n_ubatch=c_params.n_ubatch,
        n_seq_max=c_params.n_seq_max,
        n_rs_seq=c_params.n_rs_seq,
        n_outputs_max=c_params.n_outputs_max,
        n_outputs_max_per_seq=c_params.n_outputs_max_per_seq,
        n_threads=c_params.n_threads if c_params.n_threads > 0 else None,
        n_threads_batch=c_params.n_threads_batch if c_params.n_threads_batch > 0 else None,
        rope_scaling_type=<int> c_params.rope_scaling_type,
        pooling_type=<int> c_params.pooling_type,
        attention_type=<int> c_params.attention_type,
        flash_attn_type=<int> c_params.flash_attn_type,
        rope_freq_base=c_params.rope_freq_base,
        rope_freq_scale=c_params.rope_freq_scale,
        yarn_ext_factor=c_params.yarn_ext_factor,
        yarn_attn_factor=c_params.yarn_attn_factor,
        yarn_beta_fast=c_params.yarn_beta_fast,
        yarn_beta_slow=c_params.yarn_beta_slow,
        yarn_orig_ctx=c_params.yarn_orig_ctx,
        type_k=<int> c_params.type_k,
        type_v=<int> c_params.type_v,
        embeddings=c_params.embeddings,
        offload_kqv=c_params.offload_kqv,
        no_perf=c_params.no_perf,
        op_offload=c_params.op_offload,
        swa_full=c_params.swa_full,
        kv_unified=c_params.kv_unified,
    )


def common_params_get_system_info(params: CommonParams) -> str:
    """Return threads and CPU features, as upstream's programs print them. Source: same name, common/common.h."""
    cdef CommonParams p = <CommonParams?> params
    return lib.common_params_get_system_info(p._params).decode("utf-8", "replace")


# -------------------------------------------------------------------------------------- text helpers

def _vocab(owner) -> LlamaVocab:
    if isinstance(owner, LlamaVocab):
        return owner
    if isinstance(owner, LlamaContext):
        return owner.model.vocab
    if isinstance(owner, LlamaModel):
        return owner.vocab
    raise TypeError(f"got {owner!r}, expected a LlamaContext, LlamaModel or LlamaVocab")


def common_tokenize(owner: LlamaContext | LlamaModel | LlamaVocab, text: str, add_special: bool,
                    parse_special: bool = False) -> list[int]:
    """Tokenize a text; see :meth:`LlamaVocab.tokenize`. Source: same name, common/common.h."""
    return _vocab(owner).tokenize(text, add_special, parse_special)


def common_token_to_piece(owner: LlamaContext | LlamaModel | LlamaVocab, token: int, special: bool = True) -> str:
    """Return the text of a token; see :meth:`LlamaVocab.token_to_piece`. Source: same name, common/common.h."""
    return _vocab(owner).token_to_piece(token, 0, special)


def common_detokenize(owner: LlamaContext | LlamaModel | LlamaVocab, tokens: list, special: bool = True) -> str:
    """Return the text of tokens; see :meth:`LlamaVocab.detokenize`. Source: same name, common/common.h."""
    return _vocab(owner).detokenize(tokens, False, special)


def common_batch_add(batch: object, token: int, pos: int, seq_ids: list, logits: bool) -> None:
    """Add a token to a batch; see :meth:`LlamaBatch.add`."""
    batch.add(token, pos, seq_ids, logits)


def common_batch_clear(batch: object) -> None:
    """Clear a batch; see :meth:`LlamaBatch.clear`."""
    batch.clear()


def string_process_escapes(text: str) -> str:
    r"""Replace the escape sequences ``\n``, ``\t``, ``\x41``, ... in a text.

    Notes
    -----
    Source: same name, common/common.h.
    """
    cdef string processed = text.encode()
    lib.string_process_escapes(processed)
    return processed.decode("utf-8", "replace")


def json_schema_to_grammar(schema: dict | str) -> str:
    """Return a GBNF grammar for the JSON values that a schema allows.

    Parameters
    ----------
    schema : dict or str
        A JSON schema.

    Raises
    ------
    GrammarError
        The schema is not valid JSON, or contains a keyword that the converter does not support.

    Notes
    -----
    Source: same name, common/json-schema-to-grammar.h.
    """
    try:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        parsed = json.loads(text)
    except (TypeError, ValueError) as e:
        raise GrammarError(f"the schema is not JSON: {e}") from None
    except RecursionError:
        raise GrammarError("the schema is nested too deeply") from None
    try:
        check_schema(parsed)
    except ValueError as e:
        raise GrammarError(str(e)) from None
    try:
        return lib.schema_to_grammar(text.encode()).decode()
    except (EngineError, ValueError, IndexError) as e:
        raise GrammarError(f"the schema cannot become a grammar: {e}") from e


# ------------------------------------------------------------------------------------------- sampler

@cython.no_gc_clear  # __dealloc__ uses the fields, the parent first of all
cdef class CommonSampler(Handle):
    """Upstream's sampler: a chain from ``params.sampling``, with grammar and history.

    Parameters
    ----------
    model : LlamaModel
        Kept open.
    params : CommonParams
        Its ``sampling`` is read once.

    Raises
    ------
    GrammarError
        ``params.sampling.grammar`` cannot be parsed.

    Notes
    -----
    Thread safety: one thread at a time. Source: ``common_sampler_init``, common/sampling.h.
    """

    cdef lib.common_sampler * _ptr
    cdef readonly LlamaModel model
    cdef bint _sampled          # whether there are candidates

    def __cinit__(self, LlamaModel model not None, CommonParams params not None):
        cdef lib.common_params_sampling c_params = params._params.sampling
        cdef llama.llama_logit_bias pair
        model._check()
        self.model = model
        for pair in c_params.logit_bias:
            model._check_token(pair.token)
        check_range(params.get_path("sampling.mirostat"), "sampling.mirostat", 0, 2)
        for name in ("n_prev", "penalty_last_n", "dry_penalty_last_n"):  # they allocate memory
            check_range(params.get_path(f"sampling.{name}"), f"sampling.{name}", -1, 2**24)
        start_call()
        try:
            self._ptr = lib.common_sampler_init(model._ptr, c_params)
        except EngineError as e:
            raise (GrammarError(f"the grammar cannot be parsed: {e}") if params._grammar else e) from e
        if self._ptr == NULL:
            if params._grammar:
                raise GrammarError(f"the grammar cannot be parsed: {params._grammar!r}")
            raise engine_error(EngineError, "cannot make the sampler", "llama", "common_sampler_init", None)
        self._opened("CommonSampler", model)

    def __init__(self, model: LlamaModel, params: CommonParams) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        lib.common_sampler_free(self._ptr)
        self._ptr = NULL
        return 0

    def accept(self, token: int, is_generated: bool = True) -> None:
        """Accept `token`; GrammarError if the grammar does not allow it.

        Source: ``common_sampler_accept``, common/sampling.h.
        """
        self.model._check_token(token)
        self._begin()
        try:
            lib.common_sampler_accept(self._ptr, token, is_generated)
        except EngineError as e:
            raise GrammarError(f"token {token} does not follow the grammar: {e}") from e
        finally:
            self._end()

    cdef int _check_context(self, LlamaContext ctx, object idx) except -1:
        ctx._check()
        if ctx.model is not self.model:
            raise ValueError("the context belongs to another model")
        ctx._check_output(idx)
        return 0

    def sample(self, ctx: LlamaContext, idx: int = -1, grammar_first: bool = False) -> int:
        """Sample a token from output `idx`, without accepting it; errors as :meth:`LlamaSampler.sample`.

        Releases the GIL. Source: ``common_sampler_sample``, common/sampling.h.
        """
        return self._sample(ctx, idx, grammar_first)

    def _sample(self, LlamaContext ctx not None, idx, bint grammar_first) -> int:
        cdef llama.llama_token token = 0
        self._check_context(ctx, idx)
        cdef int c_idx = idx
        self._begin()
        try:
            ctx._begin()
            try:
                with nogil:
                    token = lib.common_sampler_sample(self._ptr, ctx._ptr, c_idx, grammar_first)
            except EngineError as e:
                self._failed(e)
                raise
            finally:
                ctx._end()
        finally:
            self._end()
        self._sampled = True
        return token

    def sample_and_accept_n(self, ctx: LlamaContext, idxs: list, draft: list, grammar_first: bool = False) -> list[int]:
        """Sample and accept tokens while they match `draft`; at least one token.

        Parameters
        ----------
        idxs : sequence of int
            Outputs, one more than `draft` has tokens.

        Notes
        -----
        Releases the GIL. Source: ``common_sampler_sample_and_accept_n``, common/sampling.h.
        """
        if len(idxs) != len(draft) + 1:
            raise ValueError(f"idxs has {len(idxs)} entries, expected {len(draft) + 1} (one more than draft)")
        return self._sample_n(ctx, idxs, draft, grammar_first)

    def _sample_n(self, LlamaContext ctx not None, idxs, draft, bint grammar_first) -> list[int]:
        cdef vector[int] c_idxs = idxs
        cdef vector[llama.llama_token] c_draft = token_array(draft).tolist()
        cdef vector[llama.llama_token] result
        for idx in idxs:
            self._check_context(ctx, idx)
        self._begin()
        try:
            ctx._begin()
            try:
                with nogil:
                    result = lib.common_sampler_sample_and_accept_n(self._ptr, ctx._ptr, c_idxs, c_draft, grammar_first)
            except EngineError as e:
                self._failed(e)
                raise
            finally:
                ctx._end()
        finally:
            self._end()
        self._sampled = True
        return result

    def reset(self) -> None:
        """Reset the sampler. Source: ``common_sampler_reset``, common/sampling.h."""
        self._check()
        lib.common_sampler_reset(self._ptr)

    def clone(self) -> CommonSampler:
        """Return a copy with the same state. Source: ``common_sampler_clone``, common/sampling.h."""
        self._check()
        cdef lib.common_sampler * c_copy = lib.common_sampler_clone(self._ptr)
        cdef CommonSampler other = CommonSampler(self.model, CommonParams())
        lib.common_sampler_free(other._ptr)
        other._ptr = c_copy
        return other

    @property
    def last(self) -> int | None:
        """Return the last accepted token, or None. Source: ``common_sampler_last``, common/sampling.h."""
        self._check()
        try:
            return lib.common_sampler_last(self._ptr)
        except EngineError:  # nothing was accepted
            return None

    @property
    def seed(self) -> int:
        """Return the seed. Source: ``common_sampler_get_seed``, common/sampling.h."""
        self._check()
        return lib.common_sampler_get_seed(self._ptr)

    def prev_str(self, ctx: LlamaContext, n: int) -> str:
        """Return the text of the last `n` accepted tokens. Source: ``common_sampler_prev_str``, common/sampling.h."""
        self._check()
        check_range(n, "n", 0, 2**31 - 1)
        (<LlamaContext?> ctx)._check()
        return lib.common_sampler_prev_str(self._ptr, (<LlamaContext> ctx)._ptr, n).decode("utf-8", "replace")

    def candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ids (int32) and probabilities (float32) after :meth:`sample`, most likely first, as copies.

        Empty before the first sample, also of a clone. Source: ``common_sampler_get_candidates``, common/sampling.h.
        """
        self._check()
        if not self._sampled:  # a clone would return the candidates of the original
            return np.empty(0, np.int32), np.empty(0, np.float32)
        cdef llama.llama_token_data_array * c_array = lib.common_sampler_get_candidates(self._ptr, True)
        cdef size_t i
        ids = np.empty(c_array.size, np.int32)
        ps = np.empty(c_array.size, np.float32)
        cdef llama.llama_token[::1] id_view = ids
        cdef float[::1] p_view = ps
        for i in range(c_array.size):
            id_view[i] = c_array.data[i].id
            p_view[i] = c_array.data[i].p
        return ids, ps

    def __repr__(self) -> str:
        if not self._open:
            return "<CommonSampler (closed)>"
        return f"<CommonSampler {lib.common_sampler_print(self._ptr).decode().strip()}>"
