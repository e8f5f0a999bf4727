// The images that the browser keeps.

import {attempt, element, make, makeButton} from "./page.js";
import {getAll, put, randomId, remove} from "./store.js";

const MOST = 60; // images; the oldest ones are removed
const MOST_BYTES = 200 * 1024 * 1024;

let shown = []; // {id, created, blob, parameters, url}, the newest first
let open = null; // called with an item, or null

const urlOf = (item) => { item.url ??= URL.createObjectURL(item.blob); return item.url; };

async function forget(item) {
  if (item.url) URL.revokeObjectURL(item.url);
  await remove("images", item.id);
}

async function bound() {
  let bytes = 0;
  const kept = shown.filter((item, i) => {
    bytes += item.blob.size;
    return i === 0 || (i < MOST && bytes <= MOST_BYTES);
  });
  const dropped = shown.filter((item) => !kept.includes(item));
  shown = kept;
  await Promise.all(dropped.map(forget));
}

export async function addImage(blob, parameters) {
  const item = {id: randomId(), created: Date.now(), blob, parameters};
  await attempt(() => put("images", item)); // without storage it is shown until the page is closed
  shown.unshift({...item});
  await bound();
  show();
  select(shown[0]);
}

export async function deleteImage(item) {
  const i = shown.indexOf(item);
  shown.splice(i, 1);
  await forget(item);
  show();
  select(shown[Math.min(i, shown.length - 1)] ?? null);
}

function select(item) {
  for (const button of element("gallery").querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.item === item));
  open(item, item && urlOf(item));
}

function show() {
  const counts = shown.length ? `${shown.length} of at most ${MOST} images, kept in this browser.` : "";
  element("gallery-count").textContent = counts;
  element("gallery").replaceChildren(...shown.map((item) => {
    const picture = make("img", {src: urlOf(item), alt: item.parameters.prompt || "without a prompt", loading: "lazy"});
    return make("li", {}, makeButton(picture, () => select(item), {item, "aria-pressed": "false"}));
  }));
}

export async function startGallery(openItem) {
  open = openItem;
  const found = await getAll("images").catch(() => []);
  shown = [...shown, ...found.sort((a, b) => b.created - a.created)];
  show();
}
