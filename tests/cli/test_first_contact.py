"""The short help, misspelt flags, flags of other programs, settings, and colours."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cyllama.cli import COMMANDS, command_parser, main
from cyllama.cli._examples import COMMON, EXAMPLES, OVERVIEW
from cyllama.media.samples import SPEECH

ROOT = Path(__file__).resolve().parent.parent.parent
SCREEN = 62  # lines
TINY = "tiny-random-llama"


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def lines_of(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> list[str]:
    assert main(list(words)) == code
    shown = capsys.readouterr()
    return (shown.out if code == 0 else shown.err).splitlines()


# ------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_on_a_screen_and_has_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = lines_of(capsys, 0, name, "--help")
    assert len(shown) <= SCREEN and "examples:" in shown
    everything = lines_of(capsys, 0, name, "--help-all")
    parser = command_parser(name)
    text = "\n".join(everything)
    assert all(flag in text for action in parser._actions for flag in action.option_strings)
    if parser.hidden():
        assert f"cyllama {name} --help-all" in shown[-1] and len(everything) > len(shown)


def test_overview_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(lines_of(capsys, 0, "--help")) <= 35
    assert len([line for line in lines_of(capsys, 0, "--help-all") if line.startswith("  ")]) > len(COMMANDS)
    assert lines_of(capsys, 0, "help", "chat") == lines_of(capsys, 0, "chat", "--help")


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines] + list(OVERVIEW))
def test_examples_are_valid(line: str) -> None:
    program, name, *words = shlex.split(re.sub(r"  .*| > .*", "", line))
    parser = command_parser(name)
    parse = parser.parse_args if parser.subcommands else parser.parse_intermixed_args
    assert program == "cyllama" and parse(words)


@pytest.mark.parametrize("name", COMMON)
def test_short_help_has_the_common_flags(name: str) -> None:
    parser = command_parser(name)
    shown = {flag for action in parser._actions if action not in parser.hidden() for flag in action.option_strings}
    assert shown >= COMMON[name] & set(parser._option_string_actions)


# -------------------------------------------------------------------------------------------- typos


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("chat --temprature 0.5 hi", "did you mean --temperature"),
        ("chat --modle x", "did you mean --model?"),
        ("chat hi -model x", "did you mean --model?"),
        ("txt2img a --stpes=3", "did you mean --steps?"),
        ("transcribe a.wav --beam_size 5", "did you mean --beam-size?"),
        ("transcribe a.wav --langauge de", "did you mean --language?"),
        ("serve --prot 8080", "did you mean --port?"),
        ("models lst", "did you mean list?"),
        ("models list --jsn", "did you mean --json?"),
        ("completion bsh", "did you mean bash?"),
        ("trascribe a.wav", "did you mean transcribe?"),
        ("run llama3.2", "did you mean chat?"),
        ("--versoin", "did you mean --version?"),
        ("chat --zzzzz", "unknown option --zzzzz"),
    ],
)
def test_typos_are_answered_with_two_lines(line: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = lines_of(capsys, 2, *line.split())
    assert hint in first and second.startswith("see cyllama") and second.endswith(" --help")


def test_values_are_not_taken_for_flags() -> None:
    parser = command_parser("transcribe")
    given = parser.parse_intermixed_args(["a.wav", "--initial-prompt", "-x y", "--logprob-threshold", "-1", "-msmall"])
    assert (given.initial_prompt, given.logprob_threshold, given.model) == ("-x y", -1.0, "small")
    assert command_parser("chat").parse_intermixed_args(["-m", "x", "--", "--hello"]).prompt == "--hello"


# -------------------------------------------------------------------------------- other programs


def flags_of(program: str) -> set[str]:
    """Return the flags of one of upstream's programs, from its source."""
    if program == "whisper-cli":
        text = (ROOT / "thirdparty/whisper.cpp/examples/cli/cli.cpp").read_text()
        return set(re.findall(r'arg == "(--?[a-z][\w-]*)"', text[text.index("static bool whisper_params_parse") :]))
    if program == "sd-cli":
        folder = ROOT / "thirdparty/stable-diffusion.cpp/examples"
        text = (folder / "common/common.cpp").read_text() + (folder / "cli/main.cpp").read_text()
        return set(re.findall(r'^\s*\{?"(--?[A-Za-z][\w-]*)",$', text, re.MULTILINE))
    found: set[str] = set()
    for part in (ROOT / "thirdparty/llama.cpp/common/arg.cpp").read_text().split("add_opt(common_arg(")[1:]:
        uses = re.search(r"set_examples\(\{([^}]*)\}", part)
        if uses is None or "EXAMPLE_CLI" in uses[1] or "EXAMPLE_COMPLETION" in uses[1]:
            found |= set(re.findall(r'"(--?[A-Za-z][\w.-]*)"', part.split("set_examples")[0]))
    return found


@pytest.mark.parametrize(
    ("program", "name", "most"),
    [
        ("llama-cli", "chat", 150),
        ("llama-cli", "complete", 150),
        ("whisper-cli", "transcribe", 100),
        *(("sd-cli", name, 100) for name in ("txt2img", "img2img", "inpaint", "edit", "txt2vid", "img2vid")),
    ],
)
def test_flags_of_other_programs_are_understood_or_refused(
    program: str, name: str, most: int, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = command_parser(name)
    flags = flags_of(program)
    assert len(flags) > most
    assert flags - set(parser._option_string_actions) - set(parser.refused) == set()
    for flag in sorted(flags & set(parser.refused))[:8]:
        first, second = lines_of(capsys, 2, name, flag)
        assert f"{flag} is not supported: " in first and len(first) < 200 and second == f"see cyllama {name} --help"


def test_whisper_cli_command_line_works(speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "talk"
    words = [
        "-m",
        "tiny.en",
        "-f",
        str(speech),
        "-l",
        "en",
        "-t",
        "2",
        "-bs",
        "2",
        "-nf",
        "-otxt",
        "-osrt",
        "-of",
        str(out),
        "-np",
    ]
    assert main(["transcribe", *words]) == 0, capsys.readouterr().err
    assert "[00:00" in capsys.readouterr().out
    assert {path.name for path in tmp_path.glob("talk.*")} == {"talk.txt", "talk.srt"}
    assert main(["transcribe", "--file", str(speech), "-nt", "-d", "1000"]) == 0
    assert "[00:00" not in capsys.readouterr().out


def test_sd_cli_command_line_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.png"
    words = [
        "-m",
        "tiny-shapes",
        "-p",
        "a red circle",
        "--sampling-method",
        "euler",
        "--steps",
        "1",
        "-W",
        "64",
        "-H",
        "64",
    ]
    assert main(["txt2img", *words, "-s", "3", "-o", str(out)]) == 0, capsys.readouterr().err
    assert out.is_file()


@pytest.fixture
def speech() -> Path:
    return SPEECH


# ----------------------------------------------------------------------------------------- settings


def test_flags_win_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'[tokenize]\nmodel = "{TINY}"\ncount = true\n[gguf]\n')
    monkeypatch.setenv("CYLLAMA_CONFIG", str(file))
    assert lines_of(capsys, 0, "tokenize", "a b")[0].isdigit()
    monkeypatch.setenv("CYLLAMA_TOKENIZE_COUNT", "false")
    assert not lines_of(capsys, 0, "tokenize", "a b")[0].isdigit()
    assert lines_of(capsys, 0, "tokenize", "a b", "--count")[0].isdigit()
    monkeypatch.setenv("CYLLAMA_TOKENIZE_MODEL", str(tmp_path / "none.gguf"))
    assert "none.gguf" in lines_of(capsys, 1, "tokenize", "a b")[0]
    assert lines_of(capsys, 0, "tokenize", "a b", "-m", TINY)


def test_user_file_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if sys.platform != "linux":
        pytest.skip("the folder of this platform is another one")
    folder = tmp_path / "config" / "cyllama"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(
        f'[complete]\nmodel = "{TINY}"\nmax-tokens = 2\nctx-size = 64\nno-echo = true\n'
    )
    assert len(lines_of(capsys, 0, "complete", "a")) >= 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[chat\n", "not a TOML file"),
        ("[chta]\n", r"did you mean \[chat\]"),
        ("model = 3\n", r"'model'.*\[COMMAND\]"),
        ("[complete]\nmodle = 'x'\n", "modle.*did you mean model"),
        ("[complete]\nmax-tokens = 'many'\n", "max-tokens is 'many'"),
        ("[complete]\nno-echo = 'perhaps'\n", "true or false"),
        ("[complete]\nhelp = true\n", "not an option"),
    ],
)
def test_wrong_settings_are_named(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    monkeypatch.setenv("CYLLAMA_CONFIG", str(file))
    (line,) = lines_of(capsys, 1, "complete", "a", "-m", TINY)
    assert re.search(words, line) and str(file) in line
    assert lines_of(capsys, 0, "complete", "--help")  # the help needs no settings


def test_missing_file_and_unknown_variable_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CYLLAMA_COMPLETE_MODLE", "x")
    assert "CYLLAMA_COMPLETE_MODLE" in lines_of(capsys, 1, "complete", "a")[0]
    monkeypatch.delenv("CYLLAMA_COMPLETE_MODLE")
    monkeypatch.setenv("CYLLAMA_CONFIG", str(tmp_path / "none.toml"))
    assert "none.toml" in lines_of(capsys, 1, "complete", "a")[0]


# -------------------------------------------------------------------------------------- terminals


def on_terminal(words: list[str], typed: bytes = b"", **environment: str) -> tuple[int, str]:
    """Run the program on a pseudo-terminal; return its exit code and what it shows."""
    master, slave = pty.openpty()
    path = os.pathsep.join(entry for entry in sys.path if entry)
    variables = {**os.environ, "TERM": "xterm", "PYTHONPATH": path, **environment}
    process = subprocess.Popen(
        [sys.executable, "-m", "cyllama", *words], stdin=slave, stdout=slave, stderr=slave, env=variables
    )
    os.close(slave)
    os.write(master, typed)
    shown, end = b"", time.monotonic() + 60
    with contextlib.suppress(OSError):  # EIO: the program has ended
        while time.monotonic() < end and (process.poll() is None or select.select([master], [], [], 0)[0]):
            if select.select([master], [], [], 0.1)[0]:
                shown += os.read(master, 65536)
    os.close(master)
    return process.wait(10), shown.decode()


def test_colours_are_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\x1b[1m" in on_terminal(["--help"])[1]
    assert "\x1b[31m" in on_terminal(["chat", "--zzz"])[1]
    assert "\x1b" not in on_terminal(["chat", "--zzz"], NO_COLOR="1")[1]
    assert "\x1b" not in on_terminal(["--help"], TERM="dumb")[1]
    assert "\x1b" not in "".join(lines_of(capsys, 0, "--help"))


def test_chat_asks_before_it_uses_the_small_model() -> None:
    code, shown = on_terminal(["chat", "Say hi.", "--max-tokens", "2", "--ctx-size", "256"], b"n\n")
    assert code == 1 and "[Y/n]" in shown and "cyllama chat -m MODEL" in shown
    code, shown = on_terminal(["chat", "Say hi.", "--max-tokens", "2", "--ctx-size", "256"], b"\n")
    assert code == 0 and len(shown.split("[Y/n]")[1].split()) >= 1


def test_chat_without_a_terminal_needs_a_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    first, _ = lines_of(capsys, 2, "chat", "hello")
    assert "-m/--model" in first and "smollm2" in first


# ------------------------------------------------------------------------------------------ bench


def test_bench_compares_with_a_saved_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "before.json"
    words = ["bench", "-m", TINY, "-p", "16", "-n", "4", "-r", "1"]
    lines_of(capsys, 0, *words, "--save", str(file))
    saved = json.loads(file.read_text())
    assert [row["test"] for row in saved["results"]] == ["pp16", "tg4"] and saved["settings"]["n_prompt"] == 16
    for row in saved["results"]:
        row["tokens_per_second"] = 1e-6  # any machine is faster
    file.write_text(json.dumps(saved))
    assert all("+" in line and line.endswith("%") for line in lines_of(capsys, 0, *words, "--compare", str(file)))
    for row in saved["results"]:
        row["tokens_per_second"] = 1e12
    file.write_text(json.dumps(saved))
    assert main([*words, "--compare", str(file), "--json", "--max-slowdown", "50"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert all(row["change_percent"] < -50 for row in rows)
    assert "--n-prompt is 8" in lines_of(capsys, 1, *words, "-p", "8", "--compare", str(file))[0]
    file.write_text("[]")
    assert "cyllama bench --save" in lines_of(capsys, 1, *words, "--compare", str(file))[0]
    assert "without --compare" in lines_of(capsys, 1, *words, "--max-slowdown", "5")[0]
