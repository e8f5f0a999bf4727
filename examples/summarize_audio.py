"""What a recording says, in short. usage: summarize_audio.py SOUND"""

import sys

from cyllama.pipelines import summarize_audio

found = summarize_audio(sys.argv[1], on_text=lambda piece: print(piece, end="", flush=True))
print(f"\n[from {found.transcription.duration:.0f} s of speech, {len(found.transcription.text.split())} words]")
