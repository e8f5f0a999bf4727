"""The audio families; see projectors.py. Each is made for two seconds of audio."""

from __future__ import annotations

import numpy as np
from llava import projectors_vit
from llava.projectors import FORWARD, HEADS, LAYERS, TEXT, WIDTH, Family, Maker

SECONDS = 2
MELS, CHANNELS, STACK = 128, 8, 2
FRAMES = 3000  # of Whisper's thirty seconds


def _whisper(m: Maker, **sizes: int) -> None:
    m.sizes("audio", num_mel_bins=MELS, **sizes)
    m.tensor("a.conv1d.1.weight", WIDTH, MELS, 3, kind=np.float16)
    m.tensor("a.conv1d.2.weight", WIDTH, WIDTH, 3, kind=np.float16)
    for i in (1, 2):
        m.tensor(f"a.conv1d.{i}.bias", WIDTH, 1)
    m.tensor("a.position_embd.weight", FRAMES // 2, WIDTH)
    m.layers(key_bias=False)
    m.norm("a.post_ln")


def _mlp(m: Maker, columns: int, bias: bool = True, first: int = 1, second: int = 2) -> None:
    m.linear(f"mm.a.mlp.{first}", FORWARD, columns, bias)
    m.linear(f"mm.a.mlp.{second}", TEXT, FORWARD, bias)


def ultravox(m: Maker) -> None:
    _whisper(m, **{"projector.stack_factor": STACK})
    m.norm("mm.a.norm_pre", STACK * WIDTH, bias=False)
    m.linear("mm.a.mlp.1", 2 * FORWARD, STACK * WIDTH, bias=False)
    m.norm("mm.a.norm_mid", FORWARD, bias=False)
    m.linear("mm.a.mlp.2", TEXT, FORWARD, bias=False)


def qwen2a(m: Maker) -> None:
    _whisper(m)
    m.linear("mm.a.fc", TEXT, WIDTH)


def voxtral(m: Maker) -> None:
    _whisper(m, **{"projector.stack_factor": STACK})
    _mlp(m, STACK * WIDTH, bias=False)


def musicflamingo(m: Maker) -> None:
    _whisper(m)
    _mlp(m, WIDTH)


def meralion(m: Maker) -> None:
    _whisper(m, **{"projector.stack_factor": STACK})
    m.norm("mm.a.norm_pre", STACK * WIDTH)
    m.linear("mm.a.mlp.0", FORWARD, STACK * WIDTH)
    m.linear("mm.a.mlp.1", FORWARD, FORWARD)
    m.linear("mm.a.mlp.2", FORWARD, FORWARD)
    m.linear("mm.a.mlp.3", TEXT, FORWARD)


def glma(m: Maker) -> None:
    _whisper(m, **{"projector.stack_factor": STACK})
    m.norm("mm.a.norm_pre")
    _mlp(m, STACK * WIDTH)
    m.tensor("v.boi", TEXT)
    m.tensor("v.eoi", TEXT)


def _conv2d(m: Maker) -> None:
    """Add three layers that each halve time and frequency."""
    for i in (1, 2, 3):
        m.conv(f"a.conv2d.{i}", CHANNELS, 1 if i == 1 else CHANNELS, 3, 3)
    m.linear("a.conv_out", WIDTH, CHANNELS * MELS // 8, bias=False)


def qwen3a(m: Maker) -> None:
    m.sizes("audio", num_mel_bins=MELS)
    _conv2d(m)
    m.tensor("a.position_embd.weight", 20, WIDTH)
    m.layers()
    m.norm("a.post_ln")
    _mlp(m, WIDTH)


def dots3note_a(m: Maker) -> None:
    m.sizes("audio", num_mel_bins=MELS)
    m.keys["clip.use_silu"] = True
    _conv2d(m)
    m.layers(gate=True, norm_bias=False, bias=False)
    m.norm("a.post_ln", bias=False)
    m.norm("mm.a.norm_pre")
    _mlp(m, WIDTH, first=1, second=3)


def _conformer(m: Maker, *, bias: bool, kernel: int, attention_bias: bool | None = None) -> None:
    """Add the blocks of a conformer: half a feed-forward part, attention, a convolution, the other half."""
    attention_bias = bias if attention_bias is None else attention_bias
    m.layers(bias=attention_bias)
    for i in range(LAYERS):
        block = f"a.blk.{i}"
        for name in ("ffn_norm", "ffn_norm_1", "norm_conv", "conv_norm"):
            m.norm(f"{block}.{name}")
        for name, rows, columns in (
            *(("ffn_up", FORWARD, WIDTH), ("ffn_down", WIDTH, FORWARD)),
            *(("ffn_up_1", FORWARD, WIDTH), ("ffn_down_1", WIDTH, FORWARD)),
            *(("conv_pw1", 2 * WIDTH, WIDTH), ("conv_pw2", WIDTH, WIDTH), ("conv_dw", WIDTH, kernel)),
        ):
            m.linear(f"{block}.{name}", rows, columns, bias)


def _subsampling(m: Maker) -> None:
    """Add three layers that each halve the time; two of them are depthwise convolutions."""
    for i, columns, side in ((0, 1, 3), (2, 1, 3), (3, CHANNELS, 1), (5, 1, 3), (6, CHANNELS, 1)):
        m.tensor(f"a.conv1d.{i}.weight", CHANNELS, columns, side, side)
        m.tensor(f"a.conv1d.{i}.bias", CHANNELS, 1, 1)
    m.linear("a.pre_encode.out", WIDTH, CHANNELS * MELS // 8)


def lfm2a(m: Maker) -> None:
    m.sizes("audio", num_mel_bins=MELS)
    m.tensor("a.position_embd.weight", FRAMES // 2, TEXT)
    _subsampling(m)
    _conformer(m, bias=True, kernel=9)
    for i in range(LAYERS):
        m.tensor(f"a.blk.{i}.pos_bias_u", HEADS, WIDTH // HEADS)
        m.tensor(f"a.blk.{i}.pos_bias_v", HEADS, WIDTH // HEADS)
        m.linear(f"a.blk.{i}.linear_pos", WIDTH, 512, bias=False)
    m.norm("mm.a.mlp.0")
    _mlp(m, WIDTH, first=1, second=3)


def d1omni_a(m: Maker) -> None:
    lfm2a(m)
    m.norm("mm.a.mlp.4", TEXT)
    m.linear("mm.a.mlp.5", 16, TEXT)
    m.linear("mm.a.mlp.6", TEXT, 16)


def parakeet(m: Maker) -> None:
    m.sizes("audio", num_mel_bins=MELS, subsampling_factor=8, conv_kernel_size=9)
    m.tensors["a.mel_filters"] = np.abs(m.random.standard_normal((MELS, 257))).astype(np.float32)
    m.tensors["a.window"] = np.hanning(400).astype(np.float32)
    _subsampling(m)
    _conformer(m, bias=False, kernel=9)
    for i in range(LAYERS):
        m.tensor(f"a.blk.{i}.pos_bias_u", HEADS, WIDTH // HEADS)
        m.tensor(f"a.blk.{i}.pos_bias_v", HEADS, WIDTH // HEADS)
        m.linear(f"a.blk.{i}.linear_pos", WIDTH, WIDTH, bias=False)
        m.tensor(f"a.blk.{i}.conv_norm_mean", WIDTH)
        m.tensors[f"a.blk.{i}.conv_norm_var"] = np.full(WIDTH, 0.5, np.float32)
    m.norm("mm.a.norm_pre", bias=False)
    _mlp(m, WIDTH, bias=False)
    for i in (0, 1, 3):  # required, but not used
        m.tensor(f"mm.model.mlp.{i}.weight", 1, 32)


def granite_speech(m: Maker) -> None:
    words, queries = 20, 3
    m.sizes(
        "audio",
        num_mel_bins=2 * 80,
        chunk_size=50,
        conv_kernel_size=15,
        max_pos_emb=64,
        **{"projector.window_size": 15, "projector.downsample_rate": 5, "projector.head_count": HEADS},
    )
    m.linear("a.input_projection", WIDTH, 2 * 80)
    m.linear("a.enc_ctc_out", words, WIDTH)
    m.linear("a.enc_ctc_out_mid", WIDTH, words)
    _conformer(m, bias=True, kernel=15)
    for i in range(LAYERS):
        del m.tensors[f"a.blk.{i}.conv_dw.bias"]
        for name in ("attn_q", "attn_k", "attn_v"):
            del m.tensors[f"a.blk.{i}.{name}.bias"]
        m.tensor(f"a.blk.{i}.attn_rel_pos_emb", 2 * 64 + 1, WIDTH // HEADS)
    m.tensor("a.proj_query", queries, WIDTH)
    m.norm("a.proj_norm")
    m.linear("a.proj_linear", TEXT, WIDTH)
    for i in range(2):
        block = f"a.proj_blk.{i}"
        for kind in ("self", "cross"):
            for matrix in ("q", "k", "v", "out"):
                m.linear(f"{block}.{kind}_attn_{matrix}", WIDTH, WIDTH)
            m.norm(f"{block}.{kind}_attn_norm")
        m.linear(f"{block}.ffn_up", FORWARD, WIDTH)
        m.linear(f"{block}.ffn_down", WIDTH, FORWARD)
        m.norm(f"{block}.ffn_norm")


def gemma4a(m: Maker) -> None:
    m.sizes("audio", num_mel_bins=MELS)
    for i in range(2):
        m.conv(f"a.conv1d.{i}", CHANNELS, 1 if i == 0 else CHANNELS, 3, 3, bias=False)
        m.norm(f"a.conv1d.{i}.norm", CHANNELS, bias=False)
    m.linear("a.input_projection", WIDTH, CHANNELS * MELS // 4, bias=False)
    _conformer(m, bias=False, kernel=5)
    for i in range(LAYERS):
        block = f"a.blk.{i}"
        for name in ("attn_pre_norm", "attn_post_norm", "ffn_post_norm", "ffn_post_norm_1"):
            m.norm(f"{block}.{name}", bias=False)
        m.norm(f"{block}.per_dim_scale", WIDTH // HEADS, bias=False)
        m.norm(f"{block}.per_dim_k_scale", WIDTH // HEADS, bias=False)
        m.linear(f"{block}.attn_k_rel", WIDTH, WIDTH, bias=False)
    m.linear("a.pre_encode.out", WIDTH, WIDTH)
    m.norm("mm.a.soft_emb_norm", bias=False)
    m.linear("mm.a.input_projection", TEXT, WIDTH, bias=False)


def gemma4ua(m: Maker) -> None:
    m.sizes("audio", num_mel_bins=640, block_count=0)
    m.linear("mm.a.input_projection", TEXT, 640, bias=False)


def mimo_audio(m: Maker) -> None:
    books, group = 3, 4
    m.sizes("audio", num_mel_bins=MELS, window_size=8, local_block_count=1, local_group_size=group, block_count=3)
    m.keys |= {
        "clip.audio.rvq.num_quantizers": books,
        "clip.audio.rvq.codebook_size": [16, 16, 8],
        "clip.audio.wa_pattern_mode": [-1, 0, 0],
    }
    m.tensor("a.conv1d.1.weight", WIDTH, MELS, 3, kind=np.float16)
    m.tensor("a.conv1d.2.weight", WIDTH, WIDTH, 3, kind=np.float16)
    for i in (1, 2):
        m.tensor(f"a.conv1d.{i}.bias", WIDTH, 1)
    m.layers(count=3, key_bias=False)
    m.norm("a.post_ln")
    m.tensor("a.downsample.conv.weight", WIDTH, WIDTH, 2, kind=np.float16)
    m.norm("a.downsample.norm")
    m.tensor("a.rvq.codebook.weight", books, 16, WIDTH)
    m.tensor("mm.a.code_embd.weight", books, 16, WIDTH)
    block = "mm.a.local_blk.0"
    for name in ("attn_q", "attn_k", "attn_v"):
        m.linear(f"{block}.{name}", WIDTH, WIDTH)
    m.linear(f"{block}.attn_out", WIDTH, WIDTH, bias=False)
    for name, rows, columns in (("ffn_gate", FORWARD, WIDTH), ("ffn_up", FORWARD, WIDTH), ("ffn_down", WIDTH, FORWARD)):
        m.linear(f"{block}.{name}", rows, columns, bias=False)
    m.norm(f"{block}.ln1", bias=False)
    m.norm(f"{block}.ln2", bias=False)
    m.norm("mm.a.local_norm", bias=False)
    _mlp(m, group * WIDTH, bias=False)


def qwen3tts_spkenc(m: Maker) -> None:
    width, squeezed, pooled = 64, 8, 48
    m.sizes("audio", num_mel_bins=MELS, block_count=3)
    m.conv("a.conv1d.0", width, MELS, 5)
    for i in (1, 2, 3):
        block = f"a.blk.{i}"
        m.conv(f"{block}.conv_pw1", width, width, 1)
        m.conv(f"{block}.conv_pw2", width, width, 1)
        m.conv(f"{block}.se_conv1", squeezed, width, 1)
        m.conv(f"{block}.se_conv2", width, squeezed, 1)
        for part in range(7):
            m.conv(f"{block}.res2.{part}", width // 8, width // 8, 3)
    m.conv("a.conv_out", pooled, 3 * width, 1)
    m.conv("a.asp_tdnn", squeezed, 3 * pooled, 1)
    m.conv("a.asp_attn", pooled, squeezed, 1)
    m.conv("mm.a.fc", TEXT, 2 * pooled, 1)


def _mimi_layers(m: Maker, prefix: str) -> None:
    m.prefix, before = prefix, m.prefix
    m.layers(bias=False)
    m.prefix = before
    for i in range(LAYERS):
        m.norm(f"{prefix}.blk.{i}.ls1", bias=False)
        m.norm(f"{prefix}.blk.{i}.ls2", bias=False)


def pockettts_spkenc(m: Maker) -> None:
    width = 4
    m.sizes("audio", num_mel_bins=1)
    m.conv("a.seanet.conv_in", width, 1, 7)
    for i, ratio in enumerate((4, 5, 6)):
        stage = f"a.seanet.blk.{i}"
        m.conv(f"{stage}.res_conv1", width // 2, width, 3)
        m.conv(f"{stage}.res_conv2", width, width // 2, 1)
        m.conv(f"{stage}.scale_conv", 2 * width, width, 2 * ratio)
        width *= 2
    m.conv("a.seanet.conv_out", WIDTH, width, 3)
    _mimi_layers(m, "a")
    m.conv("a.downsample.conv", WIDTH, WIDTH, 32, bias=False)
    m.linear("a.speaker_proj", TEXT, WIDTH, bias=False)


def pockettts_gen(m: Maker) -> None:
    """Pocket TTS with its speaker encoder: mtmd rejects a file without an encoder."""
    latent, inner, width = 16, 32, 32
    pockettts_spkenc(m)
    m.keys |= {"clip.audio.projector_type": "pockettts_spkenc", "clip.gen.audio.projector_type": "pockettts_gen"}
    m.sizes("gen.audio")
    flow = "a.gen.flow"
    m.linear(f"{flow}.input_proj", inner, latent)
    m.linear(f"{flow}.cond_embd", inner, TEXT)
    m.linear(f"{flow}.final.ada", 2 * inner, inner)
    m.linear(f"{flow}.final.proj", latent, inner)
    for i in range(2):
        m.tensor(f"{flow}.time.{i}.freqs", 8)
        m.linear(f"{flow}.time.{i}.up", inner, 16)
        m.linear(f"{flow}.time.{i}.down", inner, inner)
        m.tensor(f"{flow}.time.{i}.norm", inner)
        m.norm(f"{flow}.blk.{i}.norm", inner)
        m.linear(f"{flow}.blk.{i}.up", inner, inner)
        m.linear(f"{flow}.blk.{i}.down", inner, inner)
        m.linear(f"{flow}.blk.{i}.ada", 3 * inner, inner)
    m.linear("a.gen.out_eos", 1, TEXT)
    m.linear("a.gen.input_linear", TEXT, latent, bias=False)
    m.tensor("a.gen.emb_mean", latent)
    m.tensor("a.gen.emb_std", latent)
    m.linear("a.gen.wav.quant_out", WIDTH, latent, bias=False)
    m.tensor("a.gen.wav.upsample.weight", WIDTH, 1, 32, kind=np.float32)
    m.conv("a.gen.wav.seanet.conv_in", width, WIDTH, 7)
    for i, ratio in enumerate((6, 5, 4)):
        stage = f"a.gen.wav.seanet.blk.{i}"
        m.tensor(f"{stage}.scale_conv.weight", width, width // 2, 2 * ratio)
        m.tensor(f"{stage}.scale_conv.bias", width // 2)
        width //= 2
        m.conv(f"{stage}.res_conv1", width // 2, width, 3)
        m.conv(f"{stage}.res_conv2", width, width // 2, 1)
    m.conv("a.gen.wav.seanet.conv_out", 1, width, 3)
    _mimi_layers(m, "a.gen.wav.tfm")


def qwen25o(m: Maker) -> None:
    """Qwen 2.5 Omni: one file with the image encoder of Qwen 2.5 VL and the audio encoder of Qwen 2 Audio."""
    m.prefix = "v"
    projectors_vit.qwen25vl(m)
    m.prefix = "a"
    qwen2a(m)
    m.keys["clip.use_silu"] = True


AUDIO = {
    "ultravox": Family(ultravox, FRAMES // 2 // STACK, prefix="a"),
    "qwen2a": Family(qwen2a, FRAMES // 4, prefix="a"),
    "qwen3a": Family(qwen3a, 3 * 13, prefix="a"),
    "glma": Family(glma, FRAMES // 2 // STACK + 2, prefix="a"),
    "voxtral": Family(voxtral, FRAMES // 4 // STACK, prefix="a"),
    "meralion": Family(meralion, FRAMES // 2 // STACK, prefix="a"),
    "musicflamingo": Family(musicflamingo, FRAMES // 4, prefix="a"),
    "dots3note_a": Family(dots3note_a, 25, prefix="a"),
    "lfm2a": Family(lfm2a, 26, prefix="a"),
    "d1omni_a": Family(d1omni_a, 25, prefix="a"),
    "parakeet": Family(parakeet, 26, prefix="a"),
    "granite_speech": Family(granite_speech, 21, prefix="a"),
    "gemma4a": Family(gemma4a, 50, prefix="a"),
    "gemma4ua": Family(gemma4ua, 50, prefix="a"),
    "mimo_audio": Family(mimo_audio, 13, prefix="a"),
    "qwen3tts_spkenc": Family(qwen3tts_spkenc, 1, prefix="a"),
    "pockettts_spkenc": Family(pockettts_spkenc, 25, prefix="a"),
    "pockettts_gen": Family(pockettts_gen, 25, prefix="a"),
    "qwen2.5o": Family(qwen25o, FRAMES // 4, mrope=True),
}
NOT_MADE = {
    "gemma3na": "mtmd knows the name and refuses to load it: it has neither sizes nor a graph for it",
    "qwen3tts_gen": "the sizes of its decoder stand in the source (8 layers of 512): 40 MB at least",
}
