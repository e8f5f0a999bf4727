"""Speak, and be answered. usage: voice_chat.py SOUND ..."""

import sys

from cyllama.pipelines import voice_chat

messages = ()
for sound in sys.argv[1:]:
    turn = voice_chat(sound, messages, on_heard=lambda segment: print("..." if not segment.final else segment.text))
    print(f"you: {turn.heard}\nmodel: {turn.text}")
    messages = turn.messages
