"""Completion scripts in bash, fish and zsh."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cyllama.cli import COMMANDS, main


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("completion")
    found = {}
    for shell in ("bash", "zsh", "fish"):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert main(["completion", shell]) == 0
        found[shell] = folder / f"cyllama.{shell}"
        found[shell].write_text(out.getvalue())
    return found


def run(shell: str, *arguments: str) -> str:
    program = shutil.which(shell)
    assert program, f"{shell} is missing; install it (Debian: apt-get install {shell})"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True, timeout=60).stdout


def offered_by_bash(script: Path, line: str) -> set[str]:
    words = line.split(" ")
    code = f"""
        source {script}
        COMP_WORDS=({" ".join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}
        COMP_LINE={line!r}; COMP_POINT={len(line)}; COMP_TYPE=9
        entry=$(complete -p cyllama | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        "$entry" cyllama {words[-1]!r} {words[-2]!r} 2>/dev/null
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return set(run("bash", "--norc", "-c", code).split())


def offered_by_fish(script: Path, line: str) -> set[str]:
    out = run("fish", "--no-config", "-c", f"source {script}; complete -C {line!r}")
    return {row.split("\t")[0] for row in out.splitlines()}


CASES = (
    ("cyllama t", {"transcribe", "tokenize", "txt2img", "txt2vid"}),
    ("cyllama models re", {"remove"}),
    ("cyllama completion f", {"fish"}),
    ("cyllama txt2img --negative-p", {"--negative-prompt"}),
    ("cyllama transcribe --vad-f", {"--vad-filter"}),
)


@pytest.mark.parametrize(("line", "offered"), CASES)
def test_bash_completes(line: str, offered: set[str], scripts: dict[str, Path]) -> None:
    assert offered_by_bash(scripts["bash"], line) >= offered


@pytest.mark.parametrize(("line", "offered"), CASES)
def test_fish_completes(line: str, offered: set[str], scripts: dict[str, Path]) -> None:
    assert offered_by_fish(scripts["fish"], line) >= offered


def test_zsh_completes_commands(scripts: dict[str, Path]) -> None:
    """Read the list that the script passes to zsh's `_describe`."""
    offer = 'compdef() { }; _describe() { print -rl -- "${(@P)2}" }'
    out = run("zsh", "-f", "-c", f"{offer}; source {scripts['zsh']}; _shtab_cyllama_commands")
    assert {line.split(":")[0] for line in out.splitlines()} == set(COMMANDS)


def test_reports_missing_shtab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert capsys.readouterr().err == "cyllama: completion needs shtab: pip install shtab\n"
