"""Vocabularies: upstream's expected tokens, and the properties of tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cyllama.errors import ClosedError, UnsupportedError
from cyllama.llama import LlamaModel, LlamaModelParams, LlamaVocab, TokenAttr, VocabType

VOCABULARIES = Path(__file__).resolve().parents[2] / "thirdparty" / "llama.cpp" / "models"
WITH_TOKENS = sorted(path for path in VOCABULARIES.glob("ggml-vocab-*.gguf") if Path(f"{path}.inp").exists())
ONLY_VOCABULARY = LlamaModelParams(vocab_only=True)


def test_vocabulary_files_exist() -> None:
    assert len(WITH_TOKENS) == 15


@pytest.mark.parametrize("path", WITH_TOKENS, ids=lambda path: path.stem.removeprefix("ggml-vocab-"))
def test_tokens_equal_upstreams(path: Path) -> None:
    texts = Path(f"{path}.inp").read_bytes().split(b"\n__ggml_vocab_test__\n")
    expected = [[int(token) for token in line.split()] for line in Path(f"{path}.out").read_text().split("\n")]
    with LlamaModel(path, ONLY_VOCABULARY) as model:
        vocab = model.vocab
        for text, tokens in zip(texts, expected, strict=False):
            assert vocab.tokenize(text, add_special=False) == tokens, text
            assert vocab.tokenize(text.decode(), add_special=False) == tokens, text
    assert len(expected) >= len(texts) > 40


@pytest.mark.parametrize("path", sorted(VOCABULARIES.glob("ggml-vocab-*.gguf")), ids=lambda path: path.stem)
def test_every_vocabulary_has_properties(path: Path) -> None:
    with LlamaModel(path, ONLY_VOCABULARY) as model:
        vocab = model.vocab
        assert len(vocab) == vocab.n_tokens > 10_000
        assert vocab.vocab_type in (VocabType.SPM, VocabType.BPE, VocabType.WPM, VocabType.UGM)
        for name in ("bos", "eos", "eot", "sep", "nl", "pad", "mask", "fim_pre", "fim_suf", "fim_mid", "fim_pad",
                     "fim_rep", "fim_sep"):  # fmt: skip
            token = getattr(vocab, name)
            assert token is None or 0 <= token < len(vocab), name
        for name in ("add_bos", "add_eos", "add_sep"):
            assert isinstance(getattr(vocab, name), bool)
        assert isinstance(vocab.suppress_tokens, list)
        for token in range(0, len(vocab), len(vocab) // 50):
            assert isinstance(vocab.get_text(token), str)
            assert isinstance(vocab.get_attr(token), TokenAttr)
            assert isinstance(vocab.token_to_bytes(token, special=True), bytes)


def test_special_tokens(tiny_model: LlamaModel) -> None:
    vocab = tiny_model.vocab
    assert (vocab.bos, vocab.eos, vocab.nl, vocab.eot, vocab.mask) == (1, 2, 13, None, None)
    assert vocab.vocab_type is VocabType.SPM
    assert (vocab.add_bos, vocab.add_eos, vocab.add_sep) == (True, False, False)
    assert vocab.is_eog(2) and not vocab.is_eog(5)
    assert vocab.is_control(1) and not vocab.is_control(100)
    assert TokenAttr.CONTROL in vocab.get_attr(1)
    assert vocab.get_text(1) == "<s>"
    assert vocab.token_to_piece(1) == ""
    assert vocab.token_to_piece(1, special=True) == "<s>"
    assert vocab.get_score(500) != 0.0


def test_special_text(smol_model: LlamaModel) -> None:
    vocab = smol_model.get_vocab()
    assert vocab.tokenize("<|im_end|>", add_special=False, parse_special=True) == [vocab.eos]
    plain = vocab.tokenize("<|im_end|>", add_special=False)
    assert len(plain) > 1 and vocab.eos not in plain
    assert vocab.detokenize([vocab.eos]) == ""
    assert vocab.detokenize([vocab.eos], unparse_special=True) == "<|im_end|>"


@pytest.fixture(scope="module")
def qwen() -> LlamaVocab:
    """A vocabulary with a token for every byte; SmolLM2's has none."""
    return LlamaModel(VOCABULARIES / "ggml-vocab-qwen2.gguf", ONLY_VOCABULARY).vocab


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_round_trip(qwen: LlamaVocab, text: str) -> None:
    tokens = qwen.tokenize(text, add_special=False)
    assert qwen.detokenize_bytes(tokens) == text.encode()
    assert qwen.detokenize(tokens) == text
    assert b"".join(qwen.token_to_bytes(token) for token in tokens) == text.encode()


@settings(max_examples=200, deadline=None)
@given(data=st.binary())
@example(data=b"\xf4\x90\x80\x80")
@example(data=b"a\xf7\xbf\xbf\xbf")
def test_any_bytes(smol_model: LlamaModel, data: bytes) -> None:
    smol_model.vocab.detokenize(smol_model.vocab.tokenize(data))


def test_null_characters(smol_model: LlamaModel) -> None:
    vocab = smol_model.vocab
    assert vocab.detokenize_bytes(vocab.tokenize("a\0b\0", add_special=False)) == b"a\0b\0"


def test_surrogates(smol_model: LlamaModel) -> None:
    vocab = smol_model.vocab
    assert vocab.tokenize("\udcff", add_special=False) == vocab.tokenize(b"\xff", add_special=False)
    with pytest.raises(UnicodeEncodeError):
        vocab.tokenize("\ud800")


def test_long_text(tiny_model: LlamaModel) -> None:
    vocab = tiny_model.vocab
    text = "word " * 20_000
    tokens = vocab.tokenize(text, add_special=False)
    assert vocab.detokenize(tokens) == text
    assert vocab.detokenize(np.array(tokens, np.int32)) == vocab.detokenize(np.array(tokens)[::1]) == text


def test_token_text_longer_than_the_first_buffer(smol_model: LlamaModel) -> None:
    pieces = [smol_model.vocab.token_to_bytes(token, special=True) for token in range(len(smol_model.vocab))]
    assert max(map(len, pieces)) > 64


def test_lstrip(tiny_model: LlamaModel) -> None:
    vocab = tiny_model.vocab
    token = next(t for t in vocab.tokenize("a word", add_special=False) if vocab.token_to_piece(t) == " word")
    assert vocab.token_to_piece(token, lstrip=1) == "word"
    with pytest.raises(ValueError, match="lstrip"):
        vocab.token_to_piece(token, lstrip=-1)


def test_empty(tiny_model: LlamaModel) -> None:
    vocab = tiny_model.vocab
    assert vocab.tokenize("", add_special=False) == []
    assert vocab.tokenize("") == [1]
    assert vocab.detokenize([]) == ""
    assert vocab.detokenize(np.empty(0, np.int32)) == ""


@pytest.mark.parametrize("token", [-1, 32000, 2**31 - 1, -(2**31), 2**40])
def test_rejects_tokens_out_of_range(tiny_model: LlamaModel, token: int) -> None:
    vocab = tiny_model.vocab
    for method in (vocab.token_to_piece, vocab.token_to_bytes, vocab.get_text, vocab.get_score, vocab.get_attr,
                   vocab.is_eog, vocab.is_control):  # fmt: skip
        with pytest.raises(IndexError, match=f"{token}, expected 0 to 31999"):
            method(token)
    with pytest.raises((IndexError, ValueError)):
        vocab.detokenize([5, token])


def test_rejects_wrong_types(tiny_model: LlamaModel) -> None:
    vocab = tiny_model.vocab
    with pytest.raises(TypeError):
        vocab.tokenize(5)
    with pytest.raises(TypeError):
        vocab.detokenize([1.5])
    with pytest.raises(TypeError):
        vocab.detokenize([[1]])
    for token in (True, "1", None, 1.0):
        with pytest.raises(TypeError):
            vocab.token_to_piece(token)


def test_closed_model(tiny_path: Path) -> None:
    model = LlamaModel(tiny_path, ONLY_VOCABULARY)
    vocab = model.vocab
    assert isinstance(vocab, LlamaVocab)
    model.close()
    for use in (lambda: vocab.bos, lambda: vocab.tokenize("x"), lambda: len(vocab), lambda: vocab.detokenize([1])):
        with pytest.raises(ClosedError):
            use()


def test_model_without_vocabulary(tiny_path: Path, tmp_path: Path) -> None:
    from cyllama.llama import GGUFContext

    source = GGUFContext.from_file(tiny_path)
    copy = GGUFContext.empty()
    for key in source:
        if not key.startswith("tokenizer."):
            copy.set(key, source[key], source.type_of(key))
    copy.set("tokenizer.ggml.model", "no_vocab")
    for info in source.tensors():
        copy.add_tensor(info.name, source.tensor_data(info.name))
    copy.write(tmp_path / "no-vocab.gguf")
    with LlamaModel(tmp_path / "no-vocab.gguf") as model:
        assert model.vocab.vocab_type is VocabType.NONE
        with pytest.raises(UnsupportedError):
            model.vocab.tokenize("x")
        with pytest.raises(UnsupportedError):
            model.vocab.detokenize([1])
