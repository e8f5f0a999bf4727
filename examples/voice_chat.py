"""Reply to spoken messages. usage: voice_chat.py AUDIO ..."""

import sys

from cyllama.pipelines import voice_chat

messages = ()
for audio in sys.argv[1:]:
    turn = voice_chat(audio, messages, whisper_model="tiny.en", llm_model="smollm2-135m-instruct")
    print(f"user: {turn.transcript}\nassistant: {turn.text}")
    messages = turn.messages
