"""Text: parallel chats against llama-server, one stream against llama-bench, and other packages."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import command, show
from benchmarks.measure import (
    RESULTS,
    ROOT,
    Figures,
    Missing,
    Rounds,
    competing_process,
    figures_of,
    in_turn,
    model,
    peer,
    program,
    python,
    run,
    spell,
    threads,
)

TITLE = "Chat, against llama-server, llama-bench and other packages"
CHATS = 8
# name: (what to install, the Python it needs or None for this one)
OTHERS = {
    "llama-cpp-python": ("llama-cpp-python==0.3.36", None),
    "xllamacpp": ("xllamacpp==2026.10.11549", None),
    "cyllama-0.7": ("cyllama==0.7.0", "python3.12"),
    "inferna-0.7": ("inferna==0.7.0", "python3.12"),
}
DEPTHS = (100, 4000)
CARRIED = "Q4_1"  # the weights of the model that packages carry
TYPES = (CARRIED, "Q4_0", "Q8_0")  # ggml has kernels for several rows at once for the last two, and none for the first


def weights(kind: str) -> str:
    """Return the model with weights of another type."""
    path = RESULTS / f"SmolLM2-135M-Instruct.{kind}.gguf"
    if kind == CARRIED:
        return model()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        run([sys.executable, "-m", "cyllama", "quantize", model(), str(path), kind, "--allow-requantize"])
    return str(path)


@contextlib.contextmanager
def server(chats: int, file: str) -> Iterator[str]:
    """Run the native server with `chats` slots; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [program("llama-server"), "--model", file, "--host", "127.0.0.1", "--port", str(port), "--no-webui"]
    words += ["--threads", str(threads()), "--parallel", str(chats), "--ctx-size", str(512 * chats), "--kv-unified"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                if answer.status == 200:
                    break
            if process.poll() is not None:
                raise Missing("llama-server did not start")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def cyllama_server(config: str) -> Iterator[tuple[str, int]]:
    """Run cyllama's server with a configuration; yield its address and process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "models.toml"
        file.write_text(config)
        words = [sys.executable, "-m", "cyllama", "serve", "--config", str(file), "--port", "0"]
        process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if line.startswith("http://"):
                    drain = threading.Thread(target=process.stderr.read, daemon=True)
                    drain.start()
                    yield line.split()[0], process.pid
                    return
            raise Missing("cyllama serve did not start")
        finally:
            process.terminate()
            process.wait()
            process.stderr.close()


def load_of(target: str, tokens: int, file: str) -> list[str]:
    """Return the command that chats through the package, or through a server."""
    return python("chat_load", target, file, "--chats", CHATS, "--tokens", tokens, "--threads", threads())


def native_load(tokens: int, file: str) -> dict[str, float]:
    """Run the same chats through the native server."""
    with server(CHATS, file) as url:
        return figures_of(load_of(url, tokens, file))


def stream_of(package: str, depth: int, tokens: int, interpreter: str = sys.executable) -> list[str]:
    """Return the command that streams one long answer."""
    script = str(ROOT / "benchmarks" / "stream_once.py")
    sizes = ["--depth", str(depth), "--tokens", str(tokens), "--threads", str(threads())]
    return [interpreter, "-P", script, package, model(), *sizes]


def bench_of(depth: int, tokens: int) -> list[str]:
    """Return the command of llama-bench for `tokens` tokens after `depth` tokens."""
    sizes = ["-p", "0", "-n", str(tokens), "-d", str(depth), "-t", str(threads()), "-r", "1", "-o", "json"]
    return [program("llama-bench"), "-m", model(), *sizes]


def bench_speed(words: list[str]) -> dict[str, float]:
    """Return tokens per second, as llama-bench prints them."""
    out = run(words).stdout
    return {"tokens per second": float(json.loads(out[out.index("[") :])[0]["avg_ts"])}


def other_package(name: str) -> str:
    """Return the interpreter of another package, installed on first use."""
    requirement, interpreter = OTHERS[name]
    return peer(name, requirement, base=sys.executable if interpreter is None else interpreter_called(interpreter))


def interpreter_called(name: str) -> str:
    """Return an interpreter by name, from the path or pyenv."""
    found = shutil.which(name)
    if found is not None and subprocess.run([found, "-V"], capture_output=True, check=False).returncode == 0:
        return found
    root = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    for folder in sorted(root.glob(f"{name.removeprefix('python')}.*")):
        return str(folder / "bin" / "python")
    raise Missing(f"{name} is not there, and the wheels to compare with need it")


def second_turn() -> dict[str, int]:
    """Return the tokens of a long chat's second turn, and the number computed."""
    from cyllama import LLM

    with LLM(model(), n_ctx=4096, n_parallel=1) as llm:
        messages = [{"role": "user", "content": "The quick brown fox jumps over the lazy dog. " * 200}]
        first = llm.chat(messages, temperature=0, max_tokens=32)
        messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "Again, please."}]
        second = llm.chat(messages, temperature=0, max_tokens=8)
        return {"tokens": second.usage.prompt_tokens, "computed": second.timings.prompt_n}


def peers(rounds: Rounds, tokens: int) -> Figures:
    """Measure one stream of each package that can be installed, alone and with a busy thread on every core."""
    commands = {"cyllama": stream_of("cyllama", 100, tokens)}
    missing = []
    for name in OTHERS:
        try:
            words = stream_of(name, 100, tokens, other_package(name))
            figures_of(words)  # check that it runs
            commands[name] = words
        except Missing as error:
            missing.append(str(error))
    found: Figures = {"commands": [spell(words) for words in commands.values()], "missing": missing}
    for situation, busy in (("idle", 0), ("busy", os.cpu_count() or 1)):
        with competing_process(busy):
            measured = in_turn(rounds.count, {name: functools.partial(figures_of, c) for name, c in commands.items()})
        found[situation] = {name: spread["tokens per second"] for name, spread in measured.items()}
    return found


def measure(rounds: Rounds) -> Figures:
    """Measure all in turn."""
    tokens = rounds.pick(64, 16)
    found: Figures = {"tokens": tokens, "loads": {}, "streams": {}, "commands": []}
    for kind in TYPES:
        ours = load_of("cyllama", tokens, weights(kind))
        loads: dict[str, Callable[[], dict[str, float]]] = {
            "cyllama": functools.partial(figures_of, ours),
            "llama-server": functools.partial(native_load, tokens, weights(kind)),
        }
        found["loads"][kind] = in_turn(rounds.count, loads)
        found["commands"].append(spell(ours))
    for depth in DEPTHS:
        count = rounds.pick(128, 16)
        stream, bench = stream_of("cyllama", depth, count), bench_of(depth, count)
        whole = [*stream, "--whole"]
        found["commands"] += [spell(stream), spell(whole), spell(bench)]
        measured = in_turn(
            rounds.count,
            {
                "streamed": functools.partial(figures_of, stream),
                "whole": functools.partial(figures_of, whole),
                "llama-bench": functools.partial(bench_speed, bench),
            },
            best_of=rounds.pick(2, 1),
        )
        found["streams"][str(depth)] = {name: spread["tokens per second"] for name, spread in measured.items()}
    return found | {"second turn": second_turn(), "peers": peers(rounds, rounds.pick(128, 16))}


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    peer_figures, turn = figures["peers"], figures["second turn"]
    rows = []
    for kind, load in figures["loads"].items():
        for name in ("together", "in sequence"):
            ours, native = load["cyllama"][name], load["llama-server"][name]
            rows.append((f"{kind}, {name}", ours, native, ours / native))
    gains = "; ".join(
        f"{kind} {load['cyllama']['together'] / load['cyllama']['in sequence']}"
        for kind, load in figures["loads"].items()
    )
    lines = [
        f"SmolLM2 135M, tokens per second. {CHATS} chats of {figures['tokens']} tokens, in parallel and in "
        f"sequence, through `LLM` and through llama-server with the same slots; with the weights of the registry "
        f"({CARRIED}), and with the same requantised to types for which ggml has kernels for several rows at once:",
        "",
        *show.commands(figures["commands"]),
        *show.table(("", "cyllama", "llama-server", "ratio"), rows),
        f"In parallel, relative to in sequence: {gains}. The second turn of a chat of {turn['tokens']} tokens "
        f"computes {turn['computed']} of them.",
        "",
        "One response at a time, streamed or not, against llama-bench, which does not sample:",
        "",
        *show.table(
            ("after", "streamed", "not streamed", "llama-bench", "streamed / it", "not streamed / it"),
            [
                (f"{depth} tokens", *row.values(), *(row[way] / row["llama-bench"] for way in ("streamed", "whole")))
                for depth, row in figures["streams"].items()
            ],
        ),
        "One stream, against other packages, alone and with a process that keeps all cores busy:",
        "",
        *show.commands(peer_figures["commands"]),
    ]
    rows = []
    for name, idle in peer_figures["idle"].items():
        busy = peer_figures["busy"][name]
        ratios = [peer_figures[s]["cyllama"] / peer_figures[s][name] for s in ("idle", "busy")]
        rows.append((name, idle, busy, *("" if name == "cyllama" else ratio for ratio in ratios)))
    lines += show.table(("", "idle", "busy", "cyllama / other, idle", "cyllama / other, busy"), rows)
    return [*lines, *(f"Not compared: {reason}." for reason in peer_figures["missing"]), ""]


if __name__ == "__main__":
    sys.exit(command.main(["serving", *sys.argv[1:]]))
