"""Send an image in a chat message, and continue the conversation."""

from PIL import Image, ImageDraw

from cyllama import LLM

image = Image.new("RGB", (224, 224), "white")
ImageDraw.Draw(image).polygon([(112, 45), (45, 180), (180, 180)], "green")
with LLM("smollm2-135m-instruct", mmproj="vision-dinov2s", n_ctx=2048) as llm:
    content = [{"type": "text", "text": "What is in this picture?"}, {"type": "image", "image": image}]
    messages = [{"role": "user", "content": content}]
    response = llm.chat(messages, max_tokens=32, temperature=0)
    print(response.text)
    messages += [response.message.to_dict(), {"role": "user", "content": "Which colour did you see?"}]
    response = llm.chat(messages, max_tokens=32, temperature=0)
    print(f"{response.text}\n[{response.timings.cache_n} tokens from the cache, {response.timings.prompt_n} computed]")
