"""Type checkers reject misspelt options of the engines, and accept the names of other tools."""

from __future__ import annotations

from pathlib import Path

import pytest
from type_checkers import CHECKERS, errors

IMPORTS = (
    "from cyllama.llava import Llava, describe\n"
    "from cyllama.sd import StableDiffusion, edit, img2img, img2vid, inpaint, txt2img, txt2vid, upscale\n"
    "from cyllama.whisper import Whisper, transcribe\n"
    "sd, speech, llava = StableDiffusion('m'), Whisper('m'), Llava('m', 'p')\n"
)
WRONG = (
    "txt2img('x', 'm', stepz=3)",
    "txt2img('x', 'm', steps='many')",
    "txt2img('x', 'm', t5xl='a')",
    "txt2img('x', 'm', init_image='a.png')",
    "img2img('x', 'a.png', 'm', strenght=0.5)",
    "inpaint('x', 'a.png', 'b.png', 'm', maskk='a')",
    "edit('x', 'a.png', 'm', refimages=[])",
    "txt2vid('x', 'm', framez=3)",
    "txt2vid('x', 'm', batch_size=3)",
    "img2vid('x', 'a.png', 'm', fsp=3)",
    "StableDiffusion('m', vaee='a')",
    "StableDiffusion('m', n_threads='a')",
    "sd.txt2img('x', n_threads=2)",
    "sd.txt2img('x', guidence_scale=2.0)",
    "sd.img2img('x', 'a.png', seeed=1)",
    "sd.txt2vid('x', sampller='euler')",
    "upscale('a.png', output_type='pt')",
    "transcribe('a.wav', beem_size=5)",
    "transcribe('a.wav', beam_size='5')",
    "Whisper('m', use_gpuu=True)",
    "speech('a.wav', languge='en')",
    "speech.transcribe('a.wav', word_timestamp=True)",
    "Llava('m')",
    "Llava('m', 'p', n_ctxx=5)",
    "llava.ask('x', image='a.png')",
    "llava.ask('x', images='a.png', temprature=1)",
    "llava.ask('x', images='a.png', stream=True).text",
    "llava.chat([{'role': 'user', 'content': 'x'}], max_token=5)",
    "describe('a.png', 'x', model='m', mmproj='p', temprature=1)",
)
RIGHT = (
    "txt2img('x', 'm', steps=3, seed=1, vae='a', lora_dir='b', on_step=print, sampler='DPM++ 2M Karras')",
    "txt2img('x', 'm', num_inference_steps=3, guidance_scale=5.0, num_images_per_prompt=2)",
    "txt2img('x', sd, cfg_scale=7, sampler_name='Euler a', n_iter=2, hires=2.0, cache='easycache')[0].save('a.png')",
    "img2img('x', init_images=['a.png'], model='m', denoising_strength=0.5)",
    "inpaint('x', 'a.png', mask='b.png', model='m')",
    "edit('x', ['a.png', 'b.png'], 'm', resize_references=True)",
    "txt2vid('x', 'm', num_frames=17, fps=16).save('a.mp4')",
    "img2vid('x', 'a.png', 'm', end_image='b.png')",
    "StableDiffusion('m', vae='a', n_threads=2, type='q8_0', embeddings={'word': 'file'})",
    "sd.inpaint('x', 'a.png', 'b.png', strength=1.0)",
    "upscale('a.png', factor=2).save('b.png')",
    "upscale('a.png', output_type='np').shape",
    "transcribe('a.wav', beam_size=5, vad=True, prompt='x', translate=True).text",
    "Whisper('m', use_gpu=False, dtw=True)",
    "speech('a.wav', language='en', cpu_threads=2, log_prob_threshold=-1.0)",
    "speech.transcribe('a.wav', word_timestamps=True)[1].language",
    "Llava('m', 'p', n_ctx=512, chat_template='chatml', allow_paths='.', media_limits={'max_pixels': 5})",
    "llava.ask(['What is in ', b'data', '?'], system='x', max_tokens=5).text",
    "llava.ask('x', images=['a.png', b'data'], stream=True).result().text",
    "llava.ask('x', images='a.png', stream=bool(input()))",
    "llava.chat([{'role': 'user', 'content': 'x'}], temperature=0, seed=1).timings.prompt_ms",
    "describe('a.png', model='m', mmproj='p', max_tokens=5).usage.prompt_tokens",
)


@pytest.mark.parametrize("checker", CHECKERS)
def test_misspelt_options_are_type_errors(checker: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(IMPORTS + "\n".join(WRONG) + "\n")
    (tmp_path / "right.py").write_text(IMPORTS + "\n".join(RIGHT) + "\n")
    found = errors(checker, tmp_path)
    first = IMPORTS.count("\n") + 1
    accepted = [text for line, text in enumerate(WRONG, first) if line not in found["wrong.py"]]
    rejected = {text: found["right.py"][line] for line, text in enumerate(RIGHT, first) if line in found["right.py"]}
    assert (accepted, rejected) == ([], {})
    assert min(found["wrong.py"]) >= first
