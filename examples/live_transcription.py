"""Transcribe live audio. usage: live_transcription.py AUDIO

Blocks of a file simulate a microphone. With the package sounddevice, its callback would pass the blocks.
"""

import sys

from cyllama.whisper import AudioStream, StreamingTranscriber, Whisper

audio = AudioStream(sys.argv[1])
with Whisper("tiny.en") as whisper:
    stream = StreamingTranscriber(whisper, step=2.0)
    for second in range(int(audio.duration) + 1):
        for segment in stream.feed(audio.read(second, second + 1)):
            print(f"{second + 1:3} s {'final' if segment.final else 'partial'}: {segment.text}")
    for segment in stream.flush():
        print(f"end: {segment.text}")
