"""docs/benchmarks.md and its charts, from the figures that the benchmarks kept."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path

import cyllama
from benchmarks.contention import SITUATIONS
from benchmarks.measure import N_CORES, ROOT, Spread, load


def machine() -> list[str]:
    """The machine and the build, in words."""
    info = cyllama.build_info()
    cpu = next((d["description"] for d in info["devices"] if d["type"] == "cpu"), "unknown")
    memory = max(d["memory_total"] for d in info["devices"]) / 2**30
    engines = ", ".join(f"{name} {engine['version']}" for name, engine in info["engines"].items())
    return [
        f"Measured on {datetime.date.today()}: {cpu}, {N_CORES} cores, {memory:.0f} GiB, Linux {platform.release()}, ",
        f"Python {platform.python_version()}. cyllama {info['version']} with ggml {info['ggml']['version']} "
        f"({engines}; package versions), CPU variant `{info['cpu']['variant']}`.",
    ]


def spread(value: object) -> Spread:
    """A figure that was kept."""
    assert isinstance(value, Spread)
    return value


def generation_section() -> list[str]:
    """Against native llama-bench."""
    lines = [
        "## Against the native program",
        "",
        "SmolLM2 135M Q4_1, tokens per second, median (range) of runs taken in turn; each run is a process of its own.",
        "`python -m benchmarks generation`",
        "",
        "| | cyllama | native llama-bench | ratio |",
        "|---|---|---|---|",
    ]
    names = {"prompt": "prompt of 256 tokens", "generation": "generation of 128 tokens", "simple": "tests/simple.py"}
    for key, name in names.items():
        found = load(f"generation-{key}")
        lines.append(f"| {name} | {found['ours']} | {found['native']} | {found['ratio']} |")
    return [
        *lines,
        "",
        "`tests/simple.py` prints as it generates: its figure includes printing and sampling, llama-bench's neither.",
        "",
    ]


def variants_section(charts: Path) -> list[str]:
    """What the choice of the CPU variant brings."""
    found = load("variants")
    runs = {name: value for name, value in found.items() if isinstance(value, dict)}
    lines = [
        "## CPU variants",
        "",
        "The same build, held to one variant by `CYLLAMA_CPU_VARIANT`. `python -m benchmarks generation`",
        "",
        "| variant | prompt, tokens/s | generation, tokens/s | prompt, of haswell | generation, of haswell |",
        "|---|---|---|---|---|",
    ]
    base = runs["haswell"]
    for name, value in sorted(found.items(), key=lambda item: runs.get(item[0], {}).get("prompt", 0)):
        if name not in runs:
            lines.append(f"| {name} | {value} | | | |")
            continue
        speed = runs[name]
        lines.append(
            f"| {name} | {speed['prompt']:.0f} | {speed['generation']:.0f} "
            f"| {speed['prompt'] / base['prompt']:.2f} | {speed['generation'] / base['generation']:.2f} |"
        )
    order = sorted(runs, key=lambda name: runs[name]["prompt"])
    series = {test: [runs[name][test] for name in order] for test in ("prompt", "generation")}
    bars(charts / "variants.svg", order, series, "tokens/s")
    amx = "sapphirerapids" in runs
    note = "" if amx else "This machine has no AMX, so the variant `sapphirerapids` could not be measured on it."
    return [*lines, "", "![CPU variants](benchmarks/variants.svg)", "", note, ""]


def contention_section(charts: Path) -> list[str]:
    """Beside busy neighbours."""
    found = load("contention")
    lines = [
        "## Beside busy processes",
        "",
        "Generation in tokens per second; speech in decoder runs per second (native whisper-cli, tiny.en, on the same "
        "ggml). *Before*: upstream's fixed team whose barrier spins (`GGML_TEAM_FIXED=1 "
        "GGML_BARRIER_SPINS=-1`). *After*: the team that follows the free cores. `python -m benchmarks contention`",
        "",
        "| | before | of idle | after | of idle |",
        "|---|---|---|---|---|",
    ]
    whens = ("before", "after")
    for what in ("generation", "speech"):
        idle = {when: spread(found[f"{what}, idle, {when}"]).median for when in whens}
        for situation in SITUATIONS:
            cells = []
            for when in whens:
                value = spread(found[f"{what}, {situation}, {when}"])
                cells += [str(value), f"{100 * value.median / idle[when]:.0f}%"]
            lines.append(f"| {what}, {situation} | {' | '.join(cells)} |")
    series = {when: [spread(found[f"generation, {name}, {when}"]).median for name in SITUATIONS] for when in whens}
    bars(charts / "contention.svg", list(SITUATIONS), series, "tokens/s")
    idle = {when: spread(found[f"generation, idle, {when}"]).median for when in whens}
    return [
        *lines,
        "",
        f"Idle, generation after is {idle['after'] / idle['before']:.3f} of before. When the neighbours leave, "
        f"the speed is back after {found['grow']} s (80% of the final speed in a window of 0.1 s).",
        "",
        "![Beside busy processes](benchmarks/contention.svg)",
        "",
    ]


def bars(path: Path, labels: list[str], series: dict[str, list[float]], unit: str) -> None:
    """A bar chart."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cyllama"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.5 + 0.45 * len(labels)))
    height = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        axes.barh([y + i * height for y in range(len(labels))], values, height, label=name)
    axes.set_yticks([y + 0.4 - height / 2 for y in range(len(labels))], labels)
    axes.set_xlabel(unit)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def write() -> Path:
    """Write the page."""
    target = ROOT / "docs" / "benchmarks.md"
    charts = target.parent / "benchmarks"
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Figures of one machine; the ratios are what carries over.",
        "",
        *machine(),
        "",
        *generation_section(),
        *variants_section(charts),
        *contention_section(charts),
    ]
    target.write_text("\n".join(lines).rstrip() + "\n")
    return target
