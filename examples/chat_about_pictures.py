"""Show pictures in a chat, and go on to talk about them."""

from PIL import Image, ImageDraw

from cyllama import LLM

picture = Image.new("RGB", (224, 224), "white")
ImageDraw.Draw(picture).polygon([(112, 45), (45, 180), (180, 180)], "green")
with LLM("smollm2-135m-instruct", mmproj="vision-dinov2s", n_ctx=2048) as llm:
    content = [{"type": "text", "text": "What is in this picture?"}, {"type": "image", "image": picture}]
    messages = [{"role": "user", "content": content}]
    answer = llm.chat(messages, max_tokens=32, temperature=0)
    print(answer.text)
    messages += [answer.message.to_dict(), {"role": "user", "content": "Which colour did you see?"}]
    again = llm.chat(messages, max_tokens=32, temperature=0)
    print(f"{again.text}\n[{again.timings.cache_n} tokens were still known, {again.timings.prompt_n} were new]")
