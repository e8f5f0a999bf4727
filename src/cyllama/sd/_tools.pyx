"""Convert model files and detect edges in images."""

import os

from libcpp cimport bool as cbool

from cyllama._native._exit cimport RunningCall
from cyllama._native._core cimport start_call
from cyllama._native._handle cimport path_bytes
from cyllama.sd cimport libsd as lib
from cyllama.sd cimport libshim as shim
from cyllama.sd._calls cimport EngineCall
from cyllama.sd._fill cimport c_image

from cyllama._native import _core as native
from cyllama._native.files import atomic_path
from cyllama.errors import EngineError
from cyllama.sd._context import engine_failed
from cyllama._params import check_image, check_number, check_text, enum_value
from cyllama.sd._enums import SDType
from cyllama.sd._pickle_check import check_checkpoint
from cyllama.sd.params import MAX_TEXT, check_tensor_type_rules

# Types that the engine can write: those whose quantizer needs no importance matrix.
_WRITABLE = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
             "IQ4_NL", "IQ4_XS", "IQ3_S", "IQ3_XXS", "IQ2_S", "TQ1_0", "TQ2_0", "MXFP4")
_SAFETENSORS = ("F32", "F16", "BF16")


def convert(input_path: str | bytes | os.PathLike, output_path: str | bytes | os.PathLike, *,
            vae_path: str | bytes | os.PathLike | None = None, output_type: int | str | None = None,
            tensor_type_rules: str | None = None, convert_name: bool = True, progress=None, cancel=None) -> None:
    """Convert a model file; the output is replaced only when it is complete.

    Parameters
    ----------
    input_path : path
        A model file, or a folder of the diffusers layout.
    output_path : path
        A ``.safetensors`` file; any other name gets the GGUF format.
    vae_path : path, optional
        An auto-encoder to include.
    output_type : SDType, number or name, optional
        None keeps each tensor's type.
    tensor_type_rules : str, optional
        Types by tensor name: ``'regex=type,...'``.
    convert_name : bool
        Use the engine's own tensor names.
    progress : callable, optional
        Called with (tensors done, tensors in total, seconds for each tensor); False cancels.
    cancel : object with ``is_set()``, optional

    Raises
    ------
    TypeError, ValueError, FileNotFoundError, CancelledError
    EngineError
        The input is not a model, or the output cannot be written; `output_path` is unchanged.

    Notes
    -----
    `cancel` is checked every 0.2 seconds while tensors are read, but not while the file is written. Releases the GIL.
    Source: ``convert``, stable-diffusion.h.
    """
    cdef bytes raw_input = os.fsencode(input_path) if _is_folder(input_path) else path_bytes(input_path, "input_path")
    cdef bytes raw_vae = b"" if vae_path is None else path_bytes(vae_path, "vae_path")
    cdef bytes raw_rules = check_text(tensor_type_rules or "", "tensor_type_rules", MAX_TEXT)
    check_tensor_type_rules(tensor_type_rules or "")
    if not isinstance(convert_name, bool):
        raise TypeError(f"convert_name is {convert_name!r}, expected True or False")
    for raw in filter(None, (raw_input, raw_vae)):
        check_checkpoint(raw)
    ending = ".safetensors" if os.fsdecode(output_path).endswith(".safetensors") else ".gguf"
    cdef int c_type = _output_type(output_type, ending)
    cdef EngineCall call = EngineCall(cancel, progress)
    native.load_backends()
    with atomic_path(output_path, suffix=ending) as temporary:
        _convert(raw_input, raw_vae, os.fsencode(temporary), c_type, raw_rules, convert_name, call)


cdef int _convert(bytes raw_input, bytes raw_vae, bytes raw_output, int c_type, bytes raw_rules, bint names,
                  EngineCall call) except -1:
    cdef const char * c_input = raw_input
    cdef const char * c_vae = raw_vae
    cdef const char * c_output = raw_output
    cdef const char * c_rules = raw_rules
    cdef cbool c_names = names
    cdef cbool done = False
    call.begin()
    try:
        with nogil:
            done = shim.run_convert(c_input, c_vae, c_output, <lib.sd_type_t> c_type, c_rules, c_names, call.hooks)
    except EngineError:
        call.finish()
        raise
    finally:
        call.end()
    call.finish()
    if not done:
        raise engine_failed(EngineError, f"cannot convert {os.fsdecode(raw_input)}", "convert")
    return 0


def _is_folder(path: object) -> bool:
    return isinstance(path, (str, bytes, os.PathLike)) and os.path.isdir(path)


def _output_type(output_type: object, ending: str) -> int:
    if output_type is None:
        return <int> lib.SD_TYPE_COUNT
    value = enum_value(SDType, output_type, "output_type")
    allowed = _SAFETENSORS if ending == ".safetensors" else _WRITABLE
    if SDType(value).name not in allowed:
        raise ValueError(f"output_type is {SDType(value).name.lower()}, expected one of: "
                         f"{', '.join(name.lower() for name in allowed)}")
    return value


def preprocess_canny(image, high_threshold: float = 0.08, low_threshold: float = 0.08, weak: float = 0.8,
                     strong: float = 1.0, inverse: bool = False):
    """Detect the edges of an image (Canny), for ControlNet.

    Parameters
    ----------
    image : ndarray, shape (height, width, 3), uint8
    high_threshold, low_threshold : float
        0 to 1: thresholds of strong and of weak edges, relative to the strongest edge and to the first threshold.
    weak, strong : float
        0 to 1: brightness of weak and of strong edges.
    inverse : bool
        Draw dark edges on a bright background.

    Returns
    -------
    ndarray, shape (height, width, 3), uint8
        A copy with three equal channels.

    Raises
    ------
    TypeError, ValueError

    Notes
    -----
    Releases the GIL. The call cannot be cancelled. Source: ``preprocess_canny``, stable-diffusion.h.
    """
    edges = check_image(image, "image").copy()
    if edges.shape[0] < 3 or edges.shape[1] < 3:
        raise ValueError(f"image has {edges.shape[1]}x{edges.shape[0]} pixels, expected at least 3x3")
    if not isinstance(inverse, bool):
        raise TypeError(f"inverse is {inverse!r}, expected True or False")
    cdef float c_high = check_number(high_threshold, "high_threshold", 0, 1)
    cdef float c_low = check_number(low_threshold, "low_threshold", 0, 1)
    cdef float c_weak = check_number(weak, "weak", 0, 1)
    cdef float c_strong = check_number(strong, "strong", 0, 1)
    cdef cbool c_inverse = <bint> inverse
    cdef lib.sd_image_t c_edges = c_image(edges)
    cdef RunningCall _running = RunningCall()  # the end of the interpreter waits for it
    start_call()
    with nogil:
        lib.preprocess_canny(c_edges, c_high, c_low, c_weak, c_strong, c_inverse)
    return edges


def num_physical_cores() -> int:
    """Return the number of physical cores. Source: ``sd_get_num_physical_cores``, stable-diffusion.h."""
    return lib.sd_get_num_physical_cores()
