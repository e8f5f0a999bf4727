// Generate images from a prompt, or from an image and a mask.

import {addImage, deleteImage, startGallery} from "./gallery.js";
import {generate, randomSeed} from "./generate.js";
import {clearStart, setStart, startFiles, startMask} from "./mask.js";
import {modelName, refresh} from "./models.js";
import {attempt, element, fileKind, makeButton, notice, running, startFileButton} from "./page.js";
import {addText, formatParameters, parseParameters, readText} from "./png.js";
import {startDictation} from "./recorder.js";

const FIELDS = {prompt: "text", negative: "negative", width: "width", height: "height", steps: "steps", strength: "strength"};
const MAX_SEED = 2n ** 63n - 1n;

let selected = null; // the item of the gallery that is shown

function showPicture(url, alt) {
  element("image-figure").hidden = !url;
  if (!url) return;
  element("image-result").src = url;
  element("image-result").alt = alt;
}

function showProgress(fraction, text) {
  element("image-progress").hidden = fraction === null;
  element("image-progress").value = fraction ?? 0;
  element("image-status").replaceChildren(text);
}

function showItem(item, url) {
  selected = item;
  element("image-caption").hidden = !item;
  showPicture(url, item?.parameters.prompt || "without a prompt");
  if (!item) return;
  const {prompt, negative, width, height, steps, seed, model} = item.parameters;
  element("image-seed-used").textContent = `Seed ${seed}`;
  element("image-details").textContent = [prompt && `“${prompt}”`, negative && `without “${negative}”`,
    width && `${width}×${height}`, steps && `${steps} steps`, model].filter(Boolean).join(", ");
  element("image-save").href = url;
  element("image-save").download = `image-${seed}.png`;
}

function readForm() {
  const found = {model: modelName("image")};
  for (const [name, field] of Object.entries(FIELDS)) found[name] = element(`image-${field}`).value.trim();
  if (Boolean(found.width) !== Boolean(found.height)) throw new Error("Give the width and the height, or neither.");
  if (element("image-start").hidden) delete found.strength;
  return found;
}

function readSeed() {
  const text = element("image-seed").value.trim();
  if (!text) return randomSeed();
  if (!/^\d{1,19}$/.test(text) || BigInt(text) > MAX_SEED) throw new Error(`Seed is ${text}, expected a number from 0 to ${MAX_SEED}.`);
  return BigInt(text);
}

function writeForm({seed, ...values}) {
  for (const [name, field] of Object.entries(FIELDS)) element(`image-${field}`).value = values[name] ?? "";
  element("image-seed").value = seed ?? "";
}

const pngOf = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

async function sizeOf(bytes) {
  const view = new DataView(bytes.buffer); // of a PNG file
  return {width: view.getUint32(16), height: view.getUint32(20)};
}

async function makeImages(signal) {
  const settings = readForm(), first = readSeed(), files = await startFiles();
  const count = Number(element("image-count").value) || 1;
  for (let i = 0; i < count; i += 1) {
    const seed = first + BigInt(i), part = count > 1 ? `Image ${i + 1} of ${count}` : "Generating";
    showProgress(i / count, `${part} ...`);
    const base64 = await generate(settings, seed, files, (preview, done) => {
      showProgress((i + done) / count, `${part}, ${Math.round(100 * done)}%`);
      element("image-caption").hidden = true;
      showPicture(`data:image/png;base64,${preview}`, `Preview of: ${settings.prompt}`);
    }, signal);
    const bytes = pngOf(base64), parameters = {...settings, ...await sizeOf(bytes), seed: String(seed)};
    const blob = new Blob([addText(bytes, formatParameters(parameters))], {type: "image/png"});
    await addImage(blob, parameters);
  }
  return count;
}

async function start() {
  const controller = new AbortController();
  const done = running(element("image-stop"), [element("image-generate")], controller);
  showProgress(0, "Waiting for the model ...");
  element("image-panel-status").setAttribute("aria-busy", "true");
  setTimeout(refresh, 300);
  const count = await attempt(() => makeImages(controller.signal));
  done();
  refresh();
  element("image-panel-status").setAttribute("aria-busy", "false");
  showProgress(null, count ? (count > 1 ? `${count} images.` : "Done.") : controller.signal.aborted ? "Stopped." : "");
  if (!count && element("image-result").alt.startsWith("Preview of")) showItem(selected, selected?.url);
}

const startFrom = (blob, name) => attempt(() => setStart(blob, name));

// Take an image file: read the settings of a generated one, and start from another.
export async function takeImageFiles([file, ...others]) {
  if (fileKind(file) !== "image") return notice(`${file.name} is not an image.`);
  const text = await attempt(async () => readText(new Uint8Array(await file.arrayBuffer())));
  if (text) {
    writeForm(parseParameters(text));
    const use = makeButton("Start from this image", () => {
      startFrom(file, file.name);
      element("image-status").replaceChildren();
    });
    element("image-status").replaceChildren(`The settings of ${file.name} were read. `, use);
  } else await startFrom(file, file.name);
  if (others.length) notice(`One image at a time: ${others.map(({name}) => name).join(", ")} not used.`);
}

export function startImages() {
  element("image-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!element("image-generate").disabled) start();
  });
  element("image-again").addEventListener("click", () => writeForm(selected.parameters));
  element("image-start-from").addEventListener("click", () => startFrom(selected.blob, `image ${selected.parameters.seed}`));
  element("image-delete").addEventListener("click", () => attempt(() => deleteImage(selected)));
  startFileButton("image-file", ([file]) => startFrom(file, file.name));
  startMask();
  clearStart();
  startGallery(showItem);
  startDictation(element("image-dictate"), element("image-text"));
}
