"""Transcribe sound while it comes. usage: live_transcription.py SOUND

The blocks of a file stand in for a microphone; with the package sounddevice they would come from its callback.
"""

import sys

from cyllama.whisper import AudioStream, StreamingTranscriber, Whisper

sound = AudioStream(sys.argv[1])
with Whisper("tiny.en") as whisper:
    stream = StreamingTranscriber(whisper, step=2.0)
    for second in range(int(sound.duration) + 1):
        for segment in stream.feed(sound.read(second, second + 1)):
            print(f"{second + 1:3} s {'is said' if segment.final else 'perhaps'}: {segment.text}")
    for segment in stream.flush():
        print(f"the end: {segment.text}")
