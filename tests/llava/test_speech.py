"""Speech synthesis with random weights: frames, audio step by step, a complete text."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from llava.projectors import projector_file, text_model
from llava.projectors_audio import AUDIO
from llava.support import After, changed, name_audio_token

from cyllama.errors import CancelledError, DecodeError, InUseError, UnsupportedError
from cyllama.llama import LlamaContext, LlamaContextParams, LlamaModel
from cyllama.llava import AudioGenerator, Bitmap, GenAudioType, MtmdContext, gen_code, gen_inp_default, gen_wav

RATE, LATENT = 24000, 16


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LlamaModel, MtmdContext]]:
    """Return Pocket TTS, whose vocabulary has the token that begins the audio."""
    folder = tmp_path_factory.mktemp("speech")
    family = AUDIO["pockettts_gen"]

    model = LlamaModel(changed(text_model(family, folder), folder / "text.gguf", name_audio_token))
    yield model, MtmdContext(projector_file("pockettts_gen", family, folder), model)


@pytest.fixture
def ctx(pair: tuple[LlamaModel, MtmdContext]) -> Iterator[LlamaContext]:
    with LlamaContext(pair[0], LlamaContextParams(n_ctx=1024, embeddings=True, pooling_type="none")) as ctx:
        yield ctx


def speak(ctx: LlamaContext, mtmd: MtmdContext, frames: int, **more: object) -> np.ndarray:
    with AudioGenerator(ctx, mtmd) as speaker:
        speaker.set_input("Hello to all of you.", seed=7, out_type="pcm", **more)
        while speaker.step_prompt(8):
            pass
        state, stop = ctx.get_embeddings_ith(-1), False
        for _ in range(frames):
            state, stop = speaker.step_gen(state)
            if stop:
                break
        samples, rate = speaker.get_output()
    assert rate == RATE
    return samples


def test_describes_the_generator(pair: tuple[LlamaModel, MtmdContext]) -> None:
    info = pair[1].gen_audio_info
    assert pair[1].frame_width == LATENT
    assert info["type"] == GenAudioType.POCKETTTS and info["sample_rate"] == RATE
    assert gen_inp_default(pair[1]) == {"top_k": 50, "top_p": 1.0, "temp": pytest.approx(0.7), "seed": None}


def test_generates_audio_from_frames(pair: tuple[LlamaModel, MtmdContext]) -> None:
    mtmd = pair[1]
    state = np.linspace(-1, 1, mtmd.n_embd, dtype=np.float32)
    frame = gen_code(mtmd, state, seed=3, temp=0.5)
    assert frame["feats"].shape == (LATENT,) and frame["codes"].size == 0 and frame["embd"].shape == (mtmd.n_embd,)
    other = gen_code(mtmd, state, seed=4, temp=0.5)
    assert not np.array_equal(other["feats"], frame["feats"])
    np.testing.assert_array_equal(gen_code(mtmd, state, seed=3, temp=0.5)["feats"], frame["feats"])
    samples, kept = gen_wav(mtmd, feats=frame["feats"], seed=3)
    assert samples.size > 0 and samples.size % 1920 == 0 and np.isfinite(samples).all() and kept
    more, _ = gen_wav(mtmd, feats=frame["feats"], state=kept, seed=3)
    assert not np.array_equal(more, samples)  # it continues


def test_generates_audio_from_text(pair: tuple[LlamaModel, MtmdContext], ctx: LlamaContext) -> None:
    state = np.zeros(pair[1].n_embd, np.float32)
    gen_code(pair[1], state, seed=1)  # resets the random numbers
    first = speak(ctx, pair[1], 4)
    assert first.dtype == np.float32 and first.size == 4 * 1920 and np.isfinite(first).all()
    ctx.memory.clear()
    gen_code(pair[1], state, seed=1)
    np.testing.assert_array_equal(speak(ctx, pair[1], 4), first)
    ctx.memory.clear()
    gen_code(pair[1], state, seed=1)
    voice = Bitmap.from_audio(np.sin(np.arange(RATE, dtype=np.float32) / 20))
    assert not np.array_equal(speak(ctx, pair[1], 4, speaker=voice), first)


def test_returns_a_wav_file(pair: tuple[LlamaModel, MtmdContext], ctx: LlamaContext) -> None:
    with AudioGenerator(ctx, pair[1]) as speaker:
        speaker.set_input("Hello.", seed=1)
        while speaker.step_prompt():
            pass
        speaker.step_gen(ctx.get_embeddings_ith(-1))
        data, rate = speaker.get_output()
        samples, found = soundfile.read(io.BytesIO(data))
        assert found == rate == RATE and samples.size > 0
        speaker.reset()
        with pytest.raises(ValueError, match=r"call set_input\(\) first"):
            speaker.get_output()


def test_rejects_wrong_order_of_calls(pair: tuple[LlamaModel, MtmdContext], ctx: LlamaContext) -> None:
    state = np.zeros(pair[1].n_embd, np.float32)
    with AudioGenerator(ctx, pair[1]) as speaker:
        for use in (speaker.step_prompt, speaker.get_output):
            with pytest.raises(ValueError, match=r"call set_input\(\) first"):
                use()
        with pytest.raises(ValueError, match=r"call step_prompt\(\)"):
            speaker.step_gen(state)
        speaker.set_input("A text of some length, so that it takes several steps.")
        assert speaker.step_prompt(2) > 0
        with pytest.raises(ValueError, match=r"call step_prompt\(\)"):
            speaker.step_gen(state)
        with pytest.raises(InUseError):
            ctx.close()
        with pytest.raises(InUseError):
            pair[1].close()


def test_rejects_invalid_arguments(pair: tuple[LlamaModel, MtmdContext], ctx: LlamaContext) -> None:
    with AudioGenerator(ctx, pair[1]) as speaker:
        for arguments, kind, message in (
            ({"prompt": " "}, ValueError, "prompt is ' '"),
            ({"prompt": 7}, ValueError, "prompt is 7"),
            ({"prompt": "a", "seq_id": 9}, IndexError, "seq_id is 9"),
            ({"prompt": "a", "top_k": 0}, ValueError, "top_k is 0"),
            ({"prompt": "a", "top_p": 2.0}, ValueError, "top_p is 2.0"),
            ({"prompt": "a", "seed": -1}, ValueError, "seed is -1"),
            ({"prompt": "a", "out_type": "mp3"}, ValueError, "out_type is 'mp3'"),
            ({"prompt": "a", "lang": "a\0"}, ValueError, "lang is"),
            ({"prompt": "a", "speaker": Bitmap.placeholder(3, 3)}, ValueError, "speaker is not audio"),
        ):
            with pytest.raises(kind, match=message):
                speaker.set_input(**arguments)
        speaker.set_input("a")
        while speaker.step_prompt():
            pass
        with pytest.raises(ValueError, match="h_state has 3 numbers"):
            speaker.step_gen(np.zeros(3, np.float32))
        with pytest.raises(IndexError):
            speaker.step_gen(np.zeros(pair[1].n_embd, np.float32), 2**30)
    state = np.zeros(pair[1].n_embd, np.float32)
    for use in (
        lambda: gen_code(pair[1], state[:-1]),
        lambda: gen_code(pair[1], state, -1),
        lambda: gen_code(pair[1], state, temp=-1.0),
        lambda: gen_wav(pair[1]),
        lambda: gen_wav(pair[1], codes=[1], feats=[1.0]),
        lambda: gen_wav(pair[1], feats=[]),
        lambda: gen_wav(pair[1], feats=np.zeros(LATENT + 1, np.float32)),
        lambda: gen_wav(pair[1], feats=np.zeros(LATENT * 100, np.float32)),
        lambda: gen_wav(pair[1], codes=np.zeros(LATENT, np.int32)),
    ):
        with pytest.raises(ValueError):
            use()


def test_rejects_contexts_of_other_models(
    pair: tuple[LlamaModel, MtmdContext], mtmd: MtmdContext, tiny_ctx: LlamaContext
) -> None:
    with LlamaContext(pair[0]) as plain, pytest.raises(ValueError, match="embeddings=True"):
        AudioGenerator(plain, pair[1])
    with pytest.raises(ValueError, match="another model"):
        AudioGenerator(tiny_ctx, pair[1])
    with LlamaContext(mtmd.model) as other, pytest.raises(UnsupportedError, match="speech synthesis"):
        AudioGenerator(other, mtmd)
    with pytest.raises(UnsupportedError, match="speech synthesis"):
        gen_inp_default(mtmd)


def test_cancel(pair: tuple[LlamaModel, MtmdContext], ctx: LlamaContext) -> None:
    state = np.zeros(pair[1].n_embd, np.float32)
    with pytest.raises(CancelledError):
        gen_code(pair[1], state, cancel=After(0))
    with AudioGenerator(ctx, pair[1]) as speaker:
        with pytest.raises(CancelledError):
            speaker.set_input("a", cancel=After(0))
        speaker.set_input("a")
        with pytest.raises(CancelledError):
            speaker.step_prompt(cancel=After(0))
        assert speaker.step_prompt() == 0


def test_rejects_vocabulary_without_audio_tokens(pair: tuple[LlamaModel, MtmdContext], tmp_path: Path) -> None:
    family = AUDIO["pockettts_gen"]
    with LlamaModel(text_model(family, tmp_path)) as model:
        with MtmdContext(pair[1].path_mmproj, model) as mtmd:
            with LlamaContext(model, LlamaContextParams(n_ctx=64, embeddings=True, pooling_type="none")) as ctx:
                with AudioGenerator(ctx, mtmd) as speaker, pytest.raises(DecodeError, match="audio_bos"):
                    speaker.set_input("Hello")
