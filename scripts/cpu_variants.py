"""CPU variants of ggml's CPU backend: instruction-set levels, each a module of its own, chosen at run time.

``CYLLAMA_CPU_VARIANTS`` says which ones a build makes: ``native`` (the default: the one that this machine runs),
``all`` (what a wheel carries), or names separated by commas.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

# The flags of /proc/cpuinfo behind each feature of ggml, in ascending order of what ggml's score gives for it
# (ggml-cpu/arch/*/cpu-feats.cpp). tests/quality/test_cpu_variants.py compares this table and the next one with ggml.
FLAGS = {
    "x86_64": {
        "FMA": ("fma",),
        "F16C": ("f16c",),
        "SSE42": ("sse4_2",),
        "BMI2": ("bmi2",),
        "AVX": ("avx",),
        "AVX2": ("avx2",),
        "AVX_VNNI": ("avx_vnni",),
        "AVX512": ("avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"),
        "AVX512_VBMI": ("avx512vbmi",),
        "AVX512_BF16": ("avx512_bf16",),
        "AVX512_VNNI": ("avx512_vnni",),
        "AMX_TILE": ("amx_tile",),
        "AMX_INT8": ("amx_int8",),
    },
    "aarch64": {
        "DOTPROD": ("asimddp",),
        "FP16_VECTOR_ARITHMETIC": ("fphp", "asimdhp"),
        "SVE": ("sve",),
        "MATMUL_INT8": ("i8mm",),
        "SVE2": ("sve2",),
        "SME": ("sme",),
    },
}

_AVX2 = ("SSE42", "AVX", "F16C", "FMA", "AVX2", "BMI2")
_AVX512 = (*_AVX2, "AVX512")
_ARM_V82 = ("DOTPROD", "FP16_VECTOR_ARITHMETIC")
VARIANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "x64": (),
        "sse42": ("SSE42",),
        "sandybridge": ("SSE42", "AVX"),
        "ivybridge": ("SSE42", "AVX", "F16C"),
        "piledriver": ("SSE42", "AVX", "F16C", "FMA"),
        "haswell": _AVX2,
        "skylakex": _AVX512,
        "cannonlake": (*_AVX512, "AVX512_VBMI"),
        "cascadelake": (*_AVX512, "AVX512_VNNI"),
        "icelake": (*_AVX512, "AVX512_VBMI", "AVX512_VNNI"),
        "cooperlake": (*_AVX512, "AVX512_VNNI", "AVX512_BF16"),
        "zen4": (*_AVX512, "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16"),
        "alderlake": (*_AVX2, "AVX_VNNI"),
        "sapphirerapids": (*_AVX512, "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16", "AMX_TILE", "AMX_INT8"),
    },
    "aarch64": {
        "armv8.0_1": (),
        "armv8.2_1": ("DOTPROD",),
        "armv8.2_2": _ARM_V82,
        "armv8.2_3": (*_ARM_V82, "SVE"),
        "armv8.6_1": (*_ARM_V82, "SVE", "MATMUL_INT8"),
        "armv8.6_2": (*_ARM_V82, "SVE", "MATMUL_INT8", "SVE2"),
        "armv9.2_1": (*_ARM_V82, "SVE", "MATMUL_INT8", "SME"),
        "armv9.2_2": (*_ARM_V82, "SVE", "MATMUL_INT8", "SVE2", "SME"),
    },
}

# Variants that a wheel leaves out: what the processors concerned take instead is as fast, or they are rare
# (docs/howto/install.md). ggml has no code for VBMI.
NEAR_TWINS = {
    "piledriver": "ivybridge and FMA: processors of 2012 to 2015",
    "cannonlake": "skylakex and VBMI",
    "icelake": "cascadelake and VBMI",
    "cooperlake": "cascadelake and BF16: servers of 2020",
}


def machine() -> str:
    """Return the key of this machine in the tables, or an empty string if they do not have it."""
    name = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return name if sys.platform == "linux" and name in VARIANTS else ""


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return the flags that the kernel lists for the first processor."""
    for line in cpuinfo.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def best(kind: str, flags: Iterable[str], names: Iterable[str] = ()) -> str:
    """Return the variant (of `names`, or of all) with the highest score that a processor with these flags runs."""
    order, present = list(FLAGS[kind]), set(flags)
    known = {name: VARIANTS[kind][name] for name in names} or VARIANTS[kind]

    def runs(features: tuple[str, ...]) -> bool:
        return all(present.issuperset(FLAGS[kind][feature]) for feature in features)

    usable = {name: features for name, features in known.items() if runs(features)}
    return max(usable, key=lambda name: sum(1 << order.index(feature) for feature in usable[name]))


def chosen(wanted: str, fail: Callable[[str], object]) -> list[str]:
    """Return the variants that `wanted` (the value of ``CYLLAMA_CPU_VARIANTS``) names.

    An empty list stands for every variant that ggml defines: on machines that the tables do not have.
    """
    kind = machine()
    if not kind:
        return []
    if wanted in ("", "native"):
        return [best(kind, processor_flags())]
    if wanted == "all":
        return [name for name in VARIANTS[kind] if name not in NEAR_TWINS]
    names = wanted.split(",")
    for name in names:
        if name not in VARIANTS[kind]:
            fail(f"CYLLAMA_CPU_VARIANTS has {name!r}, expected native, all or some of {','.join(VARIANTS[kind])}")
    return names
