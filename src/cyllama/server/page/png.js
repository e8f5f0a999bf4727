// Parameters of generated images in PNG files: the text chunk "parameters", as AUTOMATIC1111 writes it.

const KEYWORD = "parameters";
const SIGNATURE = 8; // bytes
const AFTER_HEADER = 33; // where the chunk IHDR ends
const MAX_TEXT = 100_000;

const latin = new TextDecoder("latin1");

function crc(bytes) {
  let value = ~0;
  for (const byte of bytes) {
    value ^= byte;
    for (let i = 0; i < 8; i += 1) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  }
  return ~value >>> 0;
}

function* chunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = SIGNATURE; at + 12 <= bytes.length;) {
    const size = view.getUint32(at);
    if (at + 12 + size > bytes.length) return;
    yield [latin.decode(bytes.subarray(at + 4, at + 8)), bytes.subarray(at + 8, at + 8 + size)];
    at += 12 + size;
  }
}

export const isPng = (bytes) => latin.decode(bytes.subarray(1, 4)) === "PNG";

// The text of the parameters; null without any.
export function readText(bytes) {
  if (!isPng(bytes)) return null;
  for (const [type, data] of chunks(bytes)) {
    const end = data.indexOf(0);
    if (!["tEXt", "iTXt"].includes(type) || data.length > MAX_TEXT || latin.decode(data.subarray(0, end)) !== KEYWORD) continue;
    if (type === "tEXt") return latin.decode(data.subarray(end + 1));
    if (data[end + 1]) continue; // compressed
    const language = data.indexOf(0, end + 3), translated = data.indexOf(0, language + 1);
    return new TextDecoder().decode(data.subarray(translated + 1));
  }
  return null;
}

// Return the file with the text, unless it has one.
export function addText(bytes, text) {
  if (readText(bytes) !== null) return bytes;
  const content = new TextEncoder().encode(`iTXt${KEYWORD}\0\0\0\0\0${text}`);
  const chunk = new Uint8Array(8 + content.length), view = new DataView(chunk.buffer);
  view.setUint32(0, content.length - 4);
  chunk.set(content, 4);
  view.setUint32(4 + content.length, crc(content));
  const made = new Uint8Array(bytes.length + chunk.length);
  made.set(bytes.subarray(0, AFTER_HEADER));
  made.set(chunk, AFTER_HEADER);
  made.set(bytes.subarray(AFTER_HEADER), AFTER_HEADER + chunk.length);
  return made;
}

const LABELS = {steps: "Steps", seed: "Seed", strength: "Denoising strength"};

export function formatParameters({prompt, negative, width, height, model, ...values}) {
  const pairs = Object.entries(LABELS).filter(([name]) => values[name]).map(([name, label]) => `${label}: ${values[name]}`);
  if (width) pairs.push(`Size: ${width}x${height}`);
  pairs.push(`Model: ${/[,:"]/.test(model) ? JSON.stringify(model) : model}`, "Version: cyllama");
  return [prompt, negative && `Negative prompt: ${negative}`, pairs.join(", ")].filter(Boolean).join("\n");
}

// The inverse of formatParameters, also for texts of other programs.
export function parseParameters(text) {
  const lines = text.trim().split("\n"), found = {prompt: "", negative: ""};
  const last = /(^|, )Steps: |(^|, )Seed: /.test(lines.at(-1)) ? lines.pop() : "";
  const at = lines.findIndex((line) => line.startsWith("Negative prompt: "));
  found.prompt = lines.slice(0, at < 0 ? undefined : at).join("\n");
  if (at >= 0) found.negative = lines.slice(at).join("\n").slice("Negative prompt: ".length);
  for (const [name, label] of Object.entries(LABELS)) {
    const value = new RegExp(`(?:^|, )${label}: ([\\d.]{1,20})`).exec(last)?.[1];
    if (value) found[name] = value;
  }
  const size = /(?:^|, )Size: (\d{1,5})x(\d{1,5})/.exec(last);
  if (size) [, found.width, found.height] = size;
  return found;
}
