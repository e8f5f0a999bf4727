"""Comparisons of the package with the engines' native programs (make bench).

One module for each benchmark, with ``measure(rounds)`` and ``section(figures, charts)``; `measure.py` runs
processes, `show.py` makes tables and charts, `report.py` writes docs/benchmarks.md.
"""

NAMES = (
    "generation",
    "variants",
    "kernels",
    "perplexity",
    "loading",
    "kernel_uses",
    "contention",
    "overhead",
    "startup",
    "transcription",
    "accuracy",
    "speech_times",
    "diffusion",
    "networks",
    "serving",
    "tuning",
    "first_event",
    "load",
    "rpc",
    "cancelling",
    "together",
    "batches",
    "engines",
)
ON_REQUEST = ("engines",)  # needs another checkout, so it runs only when named
