// Images and audio that belong to the next message.

import {accepts, modelName} from "./models.js";
import {element, fileKind, make, makeButton, notice} from "./page.js";
import {toWav} from "./wav.js";

const MAX_SIDE = 1024; // pixels of the longer side; models use no higher resolution

let attached = [];

// Return an image file as a data URL, with its EXIF orientation applied and scaled down.
async function imageUrl(file) {
  let image;
  try {
    image = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} is not an image that this browser can decode.`);
  }
  const scale = Math.min(1, MAX_SIDE / Math.max(image.width, image.height));
  const canvas = make("canvas", {width: Math.max(1, image.width * scale), height: Math.max(1, image.height * scale)});
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  image.close();
  return canvas.toDataURL("image/png");
}

function readUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

async function read(file) {
  const kind = fileKind(file);
  if (kind !== "image" && kind !== "audio") throw new Error(`${file.name} is neither an image nor audio.`);
  if (!accepts(kind)) throw new Error(`${file.name}: the model ${modelName("chat")} does not accept ${kind === "image" ? "images" : "audio"}.`);
  if (kind === "image") return {name: file.name, kind, url: await imageUrl(file)};
  try {
    return {name: file.name, kind, url: await readUrl(await toWav(file))};
  } catch {
    throw new Error(`${file.name} is not audio that this browser can decode.`);
  }
}

// Attach the files that can be read, and show which cannot.
export async function attach(files) {
  const results = await Promise.allSettled(files.map(read));
  attached.push(...results.filter(({status}) => status === "fulfilled").map(({value}) => value));
  notice(results.filter(({status}) => status === "rejected").map(({reason}) => reason.message).join(" "));
  show();
}

// The parts of a message's content.
export function toParts(items) {
  return items.map(({kind, url, name}) => (kind === "image"
    ? {type: "image_url", image_url: {url}, name}
    : {type: "input_audio", input_audio: {data: url.slice(url.indexOf(",") + 1), format: "wav"}, name}));
}

export function fromParts(parts) {
  return parts.filter(({type}) => type !== "text").map((part) => (part.type === "image_url"
    ? {kind: "image", url: part.image_url.url, name: part.name}
    : {kind: "audio", url: `data:audio/wav;base64,${part.input_audio.data}`, name: part.name}));
}

// An element that shows an item. Media of a conversation is a data URL: it needs no request.
export function makeMedia({kind, url, name}) {
  return kind === "image"
    ? make("img", {src: url, alt: name || "attached image"})
    : make("audio", {src: url, controls: true, "aria-label": name || "attached audio"});
}

export function takeAttached() {
  const taken = attached;
  attached = [];
  show();
  return taken;
}

export function restoreAttached(items) {
  attached = [...items, ...attached];
  show();
}

export const hasAttached = () => attached.length > 0;

function show() {
  element("chat-attached").replaceChildren(...attached.map((item) => {
    const remove = makeButton("Remove", () => {
      attached = attached.filter((other) => other !== item);
      show();
      element("chat-text").focus();
    }, {"aria-label": `Remove ${item.name}`});
    return make("li", {}, makeMedia(item), remove);
  }));
}

// Offer attaching only what the model accepts.
export function showAttachButton() {
  const kinds = ["image", "audio"].filter(accepts);
  element("chat-attach-button").hidden = !kinds.length;
  element("chat-attach").accept = kinds.map((kind) => `${kind}/*`).join(",");
  const what = kinds.map((kind) => (kind === "image" ? "images" : "audio")).join(" or ");
  element("chat-hint").textContent = kinds.length
    ? `Type a message. You can attach, paste or drop ${what}.`
    : "Type a message. The model accepts text only.";
}
