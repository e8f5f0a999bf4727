"""User errors of every command: one line, or two for wrong usage, the right exit code, no traceback."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from cyllama.cli import COMMANDS, main

TINY, SHAPES = "tiny-random-llama", "tiny-shapes"
# Arguments, exit code, pattern in the first line on stderr. {junk} is a file of noise, {none} does not exist.
CASES: tuple[tuple[str, int, str], ...] = (
    ("chat", 2, "-m/--model"),
    ("chat hello -m {none}", 1, "no such file"),
    ("chat hello -m {junk}", 1, r"junk.*\(.*invalid magic"),
    ("chat hello -m no-such-model", 1, "no-such-model"),
    (f"chat hello -m {TINY} --ctx-size many", 1, "many|ctx-size"),
    (f"chat hello -m {TINY} --max-tokens many", 2, "invalid int value: 'many'"),
    (f"chat hello -m {TINY} --no-such-option", 2, "no-such-option"),
    ("complete text -f {junk} -m x", 1, "more than once"),
    (f"complete -f {{none}} -m {TINY}", 1, "none"),
    (f"complete -f {{junk}} -m {TINY}", 1, "utf-8"),
    (f"complete text -m {TINY} --lora {{none}}", 1, "no such file"),
    (f"complete text -m {TINY} --cache-type-k q9", 1, "q9"),
    (f"embed text -m {TINY} -o {{none}}/a.npy", 1, "token|none"),
    ("embed a -m {none}", 1, "no such file"),
    ("describe {image} -m {none} -mm {none}", 1, "no such file"),
    (f"describe {{image}} -m {TINY}", 1, "mmproj|projector"),
    (f"describe {{image}} -m {TINY} -mm {{junk}}", 1, "junk"),
    (f"describe {{image}} -m {TINY} -mm vision-dinov2s", 1, r"n_embd = 32\b.*n_embd = 576\b"),
    (f"describe -m {TINY}", 1, "."),
    ("describe {image}", 2, "-m"),
    ("rerank query -m {none} a b", 1, "no such file"),
    ("rerank", 2, "required"),
    ("tokenize text -m {junk}", 1, "junk"),
    ("quantize {junk} {none} q4_0", 1, "."),
    ("quantize {none} {none} q4_0", 1, "no such file"),
    (f"quantize {TINY} {{folder}}/out.gguf q99", 1, "q99"),
    ("bench -m {none}", 1, "no such file"),
    (f"perplexity -m {TINY} -f {{none}}", 1, "none"),
    ("gguf show {none}", 1, "."),
    ("gguf show {junk}", 1, "."),
    ("gguf", 2, "required"),
    ("transcribe", 2, "audio file is missing"),
    ("transcribe {none}", 1, "none"),
    ("transcribe {junk}", 1, "junk"),
    ("transcribe {audio} -m {junk}", 1, "junk"),
    ("transcribe {audio} -f xyz", 1, "format is 'xyz'"),
    ("transcribe {audio} --language xx", 1, "xx"),
    ("transcribe {audio} --temperature -1", 1, "temperature"),
    ("transcribe {audio} -o {junk}/x", 1, "junk"),
    ("whisper quantize {none} {none} -t q5_0", 1, "no such file"),
    ("whisper", 2, "required"),
    ("txt2img", 2, "prompt is missing"),
    ("txt2img a -m {none}", 1, "no such file"),
    ("txt2img a -m {junk}", 1, "."),
    ("txt2img a", 1, "model"),
    (f"txt2img a -m {SHAPES} --width -5", 1, "width"),
    (f"txt2img a -m {SHAPES} --sampler nothing", 1, "nothing"),
    (f"txt2img a -m {SHAPES} --steps 1 -o {{none}}/a/b.png", 1, "none"),
    (f"img2img a -m {SHAPES} --image {{none}}", 1, "none"),
    (f"img2img a -m {SHAPES} --image {{junk}}", 1, "."),
    (f"inpaint a -m {SHAPES} --image {{image}} --mask-image {{audio}}", 1, "."),
    (f"inpaint a -m {SHAPES} --image {{image}}", 2, "mask"),
    (f"edit a -m {SHAPES} --images {{none}}", 1, "none"),
    ("txt2vid a -m {none}", 1, "no such file"),
    ("img2vid a -m {none} --image {image}", 1, "no such file"),
    ("upscale {none}", 1, "none"),
    ("upscale {image} -m {junk}", 1, "."),
    ("upscale {image} --factor 99", 1, "factor is 99"),
    ("canny {junk}", 1, "."),
    ("convert {none} {none}", 1, "no such file"),
    ("convert {junk} {folder}/out.gguf", 1, "junk"),
    ("sd info {none}", 1, "no such file"),
    ("sd info {image}", 1, "parameters"),
    ("batch {none} {folder}/out -m x", 1, "none"),
    (f"batch {{junk}} {{folder}}/out -m {TINY}", 1, "line 1"),
    ("batch {junk}", 2, "required"),
    ("wyoming -m {none}", 1, "no such file"),
    ("wyoming -m tiny.en --host 0.0.0.0", 1, "allow"),
    ("wyoming -m tiny.en --port 70000", 1, "port is 70000"),
    ("wyoming -m tiny.en --max-clients 0", 1, "max_clients is 0"),
    ("wyoming -m tiny.en --max-seconds nan", 1, "max_seconds is nan"),
    (f"wyoming -m {TINY}", 1, "architecture llama"),
    ("wyoming -m tiny.en --allow everyone", 1, "everyone"),
    ("rpc-server --host 0.0.0.0", 1, "allow"),
    ("rpc-server --port 0 --allow everyone", 1, "everyone"),
    ("rpc-server --port 70000", 1, "70000"),
    ("rpc-server --threads many", 2, "many"),
    ("serve --port many", 2, "many"),
    ("serve -c {none}", 1, "none"),
    ("serve -c {junk}", 1, "junk"),
    ("serve -m {none}", 1, "no such file"),
    ("models", 2, "required"),
    ("models get no-such-model", 1, "no-such-model"),
    ("models remove no-such-model", 1, "no-such-model"),
    ("models get hf:a", 1, "expected hf:"),
    ("info --no", 2, "unknown option --no"),
    ("doctor --no", 2, "unknown option --no"),
    ("completion", 2, "required"),
    ("completion tcl", 2, "invalid choice: 'tcl'"),
    ("demo --audio {none}", 1, "none"),
    ("demo --audio {junk} -o {folder}/a.png", 1, "junk"),
    ("demo words --audio {audio}", 1, "."),
    ("chta", 2, "did you mean chat"),
    ("help chta", 2, "did you mean chat"),
    ("pull", 2, "required"),
    ("pull no-such-model", 1, "no-such-model"),
    ("--no", 2, "unknown option"),
)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    (folder / "junk").write_bytes(np.random.default_rng(0).integers(128, 256, 4096, np.uint8).tobytes())
    Image.new("RGB", (64, 64), "red").save(folder / "image.png")
    soundfile.write(folder / "audio.wav", np.zeros(16_000, np.int16), 16_000)
    return {
        "junk": str(folder / "junk"),
        "none": str(folder / "none"),
        "folder": str(folder),
        "image": str(folder / "image.png"),
        "audio": str(folder / "audio.wav"),
    }


@pytest.mark.parametrize(("line", "code", "pattern"), CASES, ids=[case[0] for case in CASES])
def test_error_is_one_line_with_exit_code(
    line: str,
    code: int,
    pattern: str,
    names: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main([word.format(**names) for word in line.split()]) == code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = error.strip().splitlines()
    assert re.search(pattern, lines[0], re.IGNORECASE), lines
    if code == 1:
        assert lines[0].startswith("cyllama: ") and len(lines) == 1, lines
        assert list(tmp_path.iterdir()) == []  # no partial files
    else:
        assert lines[1].startswith("see cyllama") and lines[1].endswith(" --help") and len(lines) == 2, lines


def test_every_command_has_an_error_case() -> None:
    assert {line.split()[0] for line, _, _ in CASES} >= set(COMMANDS)


def test_environment_variable_enables_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYLLAMA_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no-such-model"):
        main(["models", "get", "no-such-model"])


def test_ctrl_c_interrupts_generation() -> None:
    """Send SIGINT during generation."""
    code = f"import sys; sys.path[:0] = {[entry for entry in sys.path if entry]!r}\n"
    code += "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from cyllama.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["complete", "Once", "-m", "smollm2-135m-instruct", "--ctx-size", "2048", "--ignore-eos"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.read(12).startswith(b"Once")
    process.send_signal(2)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.decode().splitlines() == ["cyllama: interrupted"]
