"""The commands with language models: their output, and that every flag reaches the call."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cyllama import cli, models
from cyllama.cli import main
from cyllama.llama import GGUFContext
from cyllama.llama.imatrix import read_imatrix

CHAT = ("-m", "smollm2-135m-instruct")
TINY = ("-m", "tiny-random-llama")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def failed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    assert main(arguments) == code
    return capsys.readouterr().err


def test_chat_responds_once(capsys: pytest.CaptureFixture[str]) -> None:
    question = "What is the capital of France? Answer with one word."
    out = printed(capsys, "chat", question, *CHAT, "--temp", "0", "-c", "1024", "--max-tokens", "12")
    assert "Paris" in out


def test_interactive_chat_runs_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    lines = iter(
        ["/nothing", "/again", "Say \\", "yes.", "/save chat.json", "/clear", "/load chat.json", "/help", "/exit"]
    )
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    out = printed(capsys, "chat", *CHAT, "--temp", "0", "-c", "1024", "--max-tokens", "8", "-sys", "Be short.")
    chat = json.loads((folder / "chat.json").read_text())
    assert chat["system"] == "Be short."
    assert chat["messages"][0] == {"role": "user", "content": "Say \nyes."}
    assert chat["messages"][1]["content"] in out


def test_errors_do_not_end_a_chat(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (folder / "odd.json").write_text('["not", "a chat"]')
    (folder / "worse.json").write_text('{"messages": [{"content": 3}]}')
    lines = iter([
        "Say yes.", "word " * 400, "/load odd.json", "/load worse.json", "/load nothing.json", "/glob *.nothing",
        "/save chat.json",
    ])  # fmt: skip

    def next_line(prompt: str) -> str:
        line = next(lines, None)
        if line is None:
            raise EOFError
        return line

    monkeypatch.setattr("builtins.input", next_line)
    assert main(["chat", *CHAT, "--temp", "0", "-c", "256", "--max-tokens", "8"]) == 0
    err = capsys.readouterr().err
    assert "exceeds the available context size" in err and "odd.json is not a chat" in err and "worse.json" not in err
    assert "the role None" in err and "nothing.json" in err and "no file matches" in err
    messages = json.loads((folder / "chat.json").read_text())["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]


def test_adds_files_and_reads_multiline_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (folder / "a.txt").write_text("The cat is called Ödön.", encoding="utf-8")
    (folder / "system.txt").write_text("Be brief.")
    lines = iter(
        ["/glob *.txt", "/clear", "/read a.txt", "What is", "the cat called?\\", "/regen", "/save chat.json", "/exit"]
    )
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    options = ("--temp", "0", "-c", "512", "--max-tokens", "12", "--multiline-input", "-sysf", "system.txt")
    printed(capsys, "chat", *CHAT, *options, "-s", "5")
    chat = json.loads((folder / "chat.json").read_text(encoding="utf-8"))
    assert chat["system"] == "Be brief." and len(chat["messages"]) == 2
    assert chat["messages"][0]["content"] == "The cat is called Ödön.\n\nWhat is\nthe cat called?"
    assert "Ödön" in (folder / "chat.json").read_text(encoding="utf-8")


def test_prints_reasoning_to_stderr(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    from language.conftest import TEMPLATES

    (folder / "g.gbnf").write_text('root ::= "<think>\\nTwo and two.\\n</think>\\n\\nFour."')
    template = str(TEMPLATES / "Qwen-Qwen3-0.6B.jinja")
    options = ("--chat-template-file", template, "--grammar-file", "g.gbnf", "-c", "512")
    assert main(["chat", "-p", "What is 2 + 2?", *CHAT, *options]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == "Four." and "Two and two." in shown.err
    assert "is given twice" in failed(capsys, "chat", "x", "-p", "y", *CHAT)


def test_replaces_escapes_and_prints_prompt_tokens(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    options = (*CHAT, "-c", "512", "--max-tokens", "1")
    assert main(["complete", "-p", "One\\ntwo", *options, "-e", "--verbose-prompt"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("One\ntwo") and "'\\n'" in shown.err and "'One'" in shown.err
    assert main(["complete", "-p", "One\\ntwo", *options]) == 0
    assert capsys.readouterr().out.startswith("One\\ntwo")


def test_verbose_prints_the_engine_log(folder: Path) -> None:
    words = [sys.executable, "-m", "cyllama", "complete", "x", *TINY, "-c", "512", "--max-tokens", "1"]
    quiet, loud = (subprocess.run([*words, *more], capture_output=True, text=True, check=True) for more in ([], ["-v"]))
    assert quiet.stderr == "" and "cyllama.llama: " in loud.stderr and loud.stdout.startswith("x")


def test_prompt_cache_is_saved_and_loaded(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    options = (*CHAT, "--temp", "0", "-c", "512", "--max-tokens", "3", "--show-timings", "--prompt-cache", "a.cache")
    prompt = "The capital of France is"
    assert main(["complete", "-p", prompt, *options]) == 0
    first = capsys.readouterr()
    assert (folder / "a.cache").stat().st_size > 10_000 and ", 0 cached" in first.err
    before = (folder / "a.cache").read_bytes()
    assert main(["complete", "-p", prompt, *options, "--prompt-cache-ro"]) == 0
    second = capsys.readouterr()
    assert second.out == first.out and ", 0 cached" not in second.err and "1 tokens computed" in second.err
    assert (folder / "a.cache").read_bytes() == before


def test_ctrl_c_stops_a_response_and_keeps_the_chat(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    import signal

    from cyllama.llama.responses import ChatChunk

    text = ChatChunk.text.fget
    assert text is not None
    reads = []

    def interrupting(self: ChatChunk) -> str:
        reads.append(1)
        if len(reads) == 5:
            signal.raise_signal(signal.SIGINT)
        return text(self)

    monkeypatch.setattr(ChatChunk, "text", property(interrupting))
    lines = iter(["Tell a very long story.", "/save chat.json", "/exit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    printed(capsys, "chat", *CHAT, "-c", "1024", "--max-tokens", "500", "--ignore-eos")
    assert len(json.loads((folder / "chat.json").read_text())["messages"]) == 2 and len(reads) < 20


def test_complete_prints_prompt_and_completion(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (folder / "prompt.txt").write_text("The capital of France is")
    options = (*CHAT, "--temp", "0", "-c", "512", "--max-tokens", "3")
    out = printed(capsys, "complete", "-f", "prompt.txt", *options)
    assert out.startswith("The capital of France is") and "Paris" in out
    monkeypatch.setattr("sys.stdin", io.StringIO("The capital of France is"))
    assert "The capital of France is" + printed(capsys, "complete", "--no-echo", *options) == out
    assert "more than once" in failed(capsys, "complete", "x", "-f", "prompt.txt", *options)


def test_embed_writes_json_npy_and_similarities(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    model = ("-m", "minilm-l6")
    monkeypatch.setattr("sys.stdin", io.StringIO("one text\nanother text\n"))
    rows = [json.loads(line) for line in printed(capsys, "embed", *model).splitlines()]
    assert np.shape(rows) == (2, 384)
    printed(capsys, "embed", "one text", "another text", "-o", "v.npy", *model)
    np.testing.assert_allclose(np.load("v.npy"), rows, atol=2e-4)
    cosines = [
        [float(n) for n in line.split()]
        for line in printed(capsys, "embed", "a", "b", "--similarity", *model).splitlines()
    ]
    assert cosines[0][0] == cosines[1][1] == 1 and cosines[0][1] == cosines[1][0]
    assert "pooling is none" in failed(capsys, "embed", "x", *CHAT, "-c", "128")


def test_rerank_prints_the_best_texts(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(
        capsys, "rerank", "what?", "one", "two", "three", "--top", "2", "-m", "tiny-random-reranker"
    ).splitlines()
    scores = [float(line.split("\t")[0]) for line in lines]
    assert (
        len(lines) == 2 and scores[0] >= scores[1] and {line.split("\t")[1] for line in lines} < {"one", "two", "three"}
    )


def test_tokenize_and_detokenize(capsys: pytest.CaptureFixture[str]) -> None:
    model = ("-m", "vocab-llama-spm")
    assert json.loads(printed(capsys, "tokenize", "Hello World", "--ids", *model)) == [1, 15043, 2787]
    assert printed(capsys, "tokenize", "Hello World", "--count", "--no-special", *model) == "2\n"
    assert printed(capsys, "tokenize", "1 15043 2787", "--detokenize", *model).strip().endswith("Hello World")
    assert '" Hello"' in printed(capsys, "tokenize", "Hello World", *model)
    special = ("tokenize", "</s>", "--count", "--no-special", *model)
    assert printed(capsys, *special) == "1\n" and int(printed(capsys, *special, "--plain")) > 1


def test_quantize_sets_tensor_types(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    out = printed(capsys, "quantize", "tiny-random-llama", "q8.gguf", "q8_0", "--tensor-type", "ffn_up=q4_0", "-t", "1")
    assert out.startswith("q8.gguf: ")
    with GGUFContext.from_file("q8.gguf") as file:
        kinds = {info.name: info.type.name for info in file.tensors()}
    assert kinds["blk.0.ffn_up.weight"] == "Q4_0" and kinds["blk.0.ffn_down.weight"] == "Q8_0"
    assert "did you mean 'q8_0'" in failed(capsys, "quantize", "tiny-random-llama", "x.gguf", "q8_O")
    assert "expected PATTERN=TYPE" in failed(capsys, "quantize", "tiny-random-llama", "x.gguf", "--tensor-type", "q4_0")


def test_quantize_uses_an_importance_matrix(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    with GGUFContext.from_file(models.get("tiny-random-llama")) as model, GGUFContext.empty() as matrix:
        for info in model.tensors():
            if "ffn_" in info.name and len(info.shape) == 2:
                sums = np.arange(1, info.shape[1] + 1, dtype=np.float32)[None] ** 2
                matrix.add_tensor(f"{info.name}.in_sum2", sums)
                matrix.add_tensor(f"{info.name}.counts", np.array([[2.0]], np.float32))
        matrix.write("matrix.gguf")
    found = read_imatrix("matrix.gguf", exclude=["ffn_down"])
    assert found["blk.0.ffn_up.weight"][:3].tolist() == [0.5, 2.0, 4.5] and "blk.0.ffn_down.weight" not in found
    options = ("quantize", "tiny-random-llama")
    printed(capsys, *options, "plain.gguf", "q4_0")
    printed(
        capsys, *options, "weighted.gguf", "q4_0", "--imatrix", "matrix.gguf", "--override-kv", "general.name=str:ä"
    )
    printed(capsys, *options, "up.gguf", "q4_0", "--imatrix", "matrix.gguf", "--include-weights", "ffn_up")
    data = {}
    for name in ("plain", "weighted", "up"):
        with GGUFContext.from_file(f"{name}.gguf") as file:
            for info in file.tensors():
                data[name, info.name] = file.tensor_data(info.name).tobytes()
            assert (file["general.name"] == "ä") == (name == "weighted")
    for tensor, changes in (("ffn_up", "wu"), ("ffn_down", "w"), ("attn_q", "")):
        plain, weighted, up = (data[name, f"blk.0.{tensor}.weight"] for name in ("plain", "weighted", "up"))
        assert (weighted != plain) == ("w" in changes) and (up != plain) == ("u" in changes)
    assert "need --imatrix" in failed(capsys, *options, "x.gguf", "--include-weights", "a")
    assert "no importance matrix" in failed(
        capsys, *options, "x.gguf", "--imatrix", str(models.get("tiny-random-llama"))
    )
    assert "expected KEY=TYPE:VALUE" in failed(capsys, *options, "x.gguf", "--override-kv", "a=bool:7")


def test_bench_and_perplexity_print_results(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    out = json.loads(printed(capsys, "bench", *TINY, "-p", "16", "-n", "4", "-r", "2", "--json"))
    assert [row["test"] for row in out] == ["pp16", "tg4"] and all(len(row["runs"]) == 2 for row in out)
    assert printed(capsys, "bench", *TINY, "-p", "0", "-n", "4", "-r", "1", "-fa", "off").strip().startswith("tg4")
    (folder / "text.txt").write_text("one two three four five " * 100)
    assert "perplexity " in printed(capsys, "perplexity", *TINY, "-f", "text.txt", "-c", "64", "--chunks", "2")


def test_gguf_shows_edits_splits_and_merges(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert json.loads(printed(capsys, "gguf", "show", "tiny-random-llama", "llama.block_count")) == 2
    text = printed(capsys, "gguf", "show", "tiny-random-llama", "--tensors")
    assert 'general.architecture (str): "llama"' in text and "token_embd.weight f16" in text
    everything = json.loads(printed(capsys, "gguf", "show", "tiny-random-llama", "--json"))
    assert len(everything["metadata"]["tokenizer.ggml.tokens"]) == 32000
    printed(capsys, "gguf", "set", "tiny-random-llama", "general.name", "other", "-o", "a.gguf")
    printed(capsys, "gguf", "set", "a.gguf", "llama.context_length", "512", "-o", "a.gguf")
    printed(capsys, "gguf", "set", "a.gguf", "tokenizer.ggml.unknown_token_id", "x", "--remove", "-o", "a.gguf")
    with GGUFContext.from_file("a.gguf") as file:
        assert (file["general.name"], file["llama.context_length"], file.type_of("llama.context_length")) == (
            "other",
            512,
            "u32",
        )
        assert "tokenizer.ggml.unknown_token_id" not in file
    parts = printed(capsys, "gguf", "split", "tiny-random-llama", "part", "--split-max-size", "1M").split()
    assert printed(capsys, "gguf", "merge", parts[0], "whole.gguf").strip() == "whole.gguf"
    assert (folder / "whole.gguf").stat().st_size == models.get("tiny-random-llama").stat().st_size
    assert "no key 'x.y'" in failed(capsys, "gguf", "show", "tiny-random-llama", "x.y")
    assert failed(capsys, "gguf", "split", "tiny-random-llama", "p", "--split-max-size", "much", code=2)


@pytest.mark.parametrize(
    "name", ["chat", "complete", "embed", "rerank", "tokenize", "quantize", "bench", "perplexity", "gguf"]
)
def test_every_flag_is_used(name: str) -> None:
    """Each `dest` that a command declares is read in its module."""
    path = Path(cli.__file__).with_name(f"{name}.py")
    tree = ast.parse(path.read_text())
    read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    read |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            flags = [a.value for a in node.args if isinstance(a, ast.Constant)]
            if not flags:
                continue  # flags of a dataclass, whose names are not constants
            named = [k.value.value for k in node.keywords if k.arg == "dest" and isinstance(k.value, ast.Constant)]
            first = next((f for f in flags if str(f).startswith("--")), flags[0])
            dest = str(named[0] if named else first).lstrip("-").replace("-", "_")
            reads = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == dest]
            assert reads, f"{name}: {flags} is not read"


def test_every_llama_cpp_option_reaches_llm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag of llama.cpp's parser is an option of `LLM`."""
    from cyllama.cli import _language
    from cyllama.cli._parser import CommandParser
    from cyllama.llama import llm

    parser = CommandParser()
    _language.add_model(parser)
    given: dict[str, object] = {}
    monkeypatch.setattr(llm, "LLM", lambda model, **options: given.update(options))
    flags = [a for a in parser._actions if a.dest.startswith(_language.PREFIX)]
    assert len(flags) > 150
    for action in flags:
        values = {0: [], None: ["7"], 2: ["7", "8"]}[action.nargs]  # type: ignore[index]
        _language.load(parser.parse_args(["-m", "x", action.option_strings[-1], *values]))
        expected = True if action.nargs == 0 else ["7", "8"] if action.nargs == 2 else "7"
        assert given["options"] == {action.dest.removeprefix(_language.PREFIX): expected}
