// Chat with a language model: streamed responses, attached images.

import {events, request} from "./api.js";
import {startDictation} from "./audio.js";
import {attempt, element, make, notice, running, startDrop, startFileButton} from "./page.js";

const MAX_SIDE = 1024; // pixels of the longer side; models use no higher resolution

const messages = [];
let attached = [];
let busy = false;

// Return an image file as a data URL, with its EXIF orientation applied and scaled down.
async function dataUrl(file) {
  let image;
  try {
    image = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} is not an image that this browser can decode.`);
  }
  const scale = Math.min(1, MAX_SIDE / Math.max(image.width, image.height));
  const canvas = make("canvas", {width: Math.max(1, image.width * scale), height: Math.max(1, image.height * scale)});
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/png");
}

function attach(files) {
  return attempt(async () => {
    for (const file of files) attached.push({name: file.name, url: await dataUrl(file)});
    showAttached();
  });
}

function showAttached() {
  element("chat-attached").replaceChildren(...attached.map((item) => {
    const remove = make("button", {type: "button"}, "Remove");
    remove.setAttribute("aria-label", `Remove ${item.name}`);
    remove.onclick = () => {
      attached = attached.filter((other) => other !== item);
      showAttached();
      element("chat-text").focus();
    };
    return make("li", {}, make("img", {src: item.url, alt: item.name}), remove);
  }));
}

function bubble(role, ...content) {
  const made = make("div", {className: `message ${role}`}, make("span", {className: "hidden"}, role === "user" ? "You: " : "Model: "), ...content);
  element("chat-log").append(made);
  follow();
  return made;
}

function follow() {
  const log = element("chat-log");
  log.scrollTop = log.scrollHeight;
}

function addQuestion(text) {
  const images = attached;
  attached = [];
  showAttached();
  const parts = images.map(({url}) => ({type: "image_url", image_url: {url}}));
  messages.push({role: "user", content: parts.length ? [...parts, {type: "text", text}] : text});
  document.querySelector("#chat-log .hint")?.remove();
  bubble("user", ...images.map(({url, name}) => make("img", {src: url, alt: name})), text);
}

async function respond() {
  const controller = new AbortController();
  const done = running(element("chat-stop"), [element("chat-send"), element("chat-clear")], controller);
  const log = element("chat-log"), reasoning = make("div", {className: "reasoning", hidden: true}), content = make("span");
  const made = bubble("assistant", reasoning, content);
  log.setAttribute("aria-busy", "true");
  busy = true;
  let text = "", last = null;
  const start = performance.now();
  const complete = await attempt(async () => {
    const json = {model: element("chat-model").value, messages, stream: true, stream_options: {include_usage: true}};
    if (element("chat-temperature").value !== "") json.temperature = Number(element("chat-temperature").value);
    for await (const chunk of events(await request("/v1/chat/completions", {json, signal: controller.signal}))) {
      last = chunk.usage ? chunk : last;
      const delta = chunk.choices?.[0]?.delta ?? {};
      if (delta.reasoning_content) {
        reasoning.hidden = false;
        reasoning.append(delta.reasoning_content);
      }
      if (delta.content) {
        text += delta.content;
        content.textContent = text;
        follow();
      }
    }
    return true;
  });
  busy = false;
  done();
  log.setAttribute("aria-busy", "false");
  finish(made, text, complete, controller.signal.aborted);
  if (last) {
    const seconds = (performance.now() - start) / 1000;
    made.append(make("div", {className: "usage"}, `${last.usage.completion_tokens} tokens in ${seconds.toFixed(1)} s`));
  }
  element("chat-text").focus();
  follow();
}

// Keep a response even if it was stopped; without any response, put the question back into the field.
function finish(made, text, complete, stopped) {
  if (complete || text) {
    messages.push({role: "assistant", content: text});
    made.classList.toggle("stopped", stopped);
    return;
  }
  made.remove();
  const {content} = messages.pop();
  const questions = element("chat-log").querySelectorAll(".message.user");
  questions[questions.length - 1].remove();
  element("chat-text").value ||= typeof content === "string" ? content : content.at(-1).text;
}

function send() {
  const text = element("chat-text").value.trim();
  if (busy || !text) return;
  element("chat-text").value = "";
  addQuestion(text);
  respond();
}

function clear() {
  messages.length = 0;
  attached = [];
  showAttached();
  notice("");
  element("chat-log").replaceChildren();
  element("chat-text").focus();
}

export function startChat() {
  const field = element("chat-text");
  element("chat-form").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  field.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files].filter((file) => file.type.startsWith("image/"));
    if (!files.length) return;
    event.preventDefault();
    attach(files);
  });
  element("chat-clear").addEventListener("click", clear);
  startFileButton("chat-attach", attach);
  startDrop(element("panel-chat"), ["image/"], attach);
  startDictation(element("chat-dictate"), field);
}
