// The image to start from, and a mask that is painted on it with a pointer or the keyboard.

import {element, make} from "./page.js";

const MAX_PIXELS = 1024 * 1024;
const STEP = 0.02; // of the width, for an arrow key
const STEPS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

let image = null; // a canvas with the image to start from
let painted = false;
let last = null; // the last point of the pointer's line
let brush = [0.5, 0.5]; // of the keyboard, as fractions of the size

const mask = () => element("image-mask");

const toBlob = (canvas) => new Promise((resolve) => canvas.toBlob(resolve, "image/png"));

// Start from an image file; it is scaled down to what models compute.
export async function setStart(blob, name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    throw new Error(`${name} is not an image that this browser can decode.`);
  }
  const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (bitmap.width * bitmap.height)));
  const size = {width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale))};
  image = make("canvas", size);
  image.getContext("2d").drawImage(bitmap, 0, 0, size.width, size.height);
  bitmap.close();
  element("image-start-picture").width = size.width;
  element("image-start-picture").height = size.height;
  element("image-start-picture").getContext("2d").drawImage(image, 0, 0);
  Object.assign(mask(), size);
  element("image-start-name").textContent = `Start from ${name}, ${size.width}×${size.height}`;
  element("image-start").hidden = false;
  element("image-start").scrollIntoView({block: "nearest"});
  clearMask();
}

export function clearStart() {
  image = null;
  element("image-start").hidden = true;
}

export function clearMask() {
  mask().getContext("2d").clearRect(0, 0, mask().width, mask().height);
  painted = false;
  brush = [0.5, 0.5];
}

// The files {image, mask} of a request; null without an image. A mask is transparent where the image is made anew.
export async function startFiles() {
  if (!image) return null;
  if (!painted) return {image: await toBlob(image), mask: null};
  const hole = make("canvas", {width: image.width, height: image.height}), context = hole.getContext("2d");
  context.fillRect(0, 0, hole.width, hole.height);
  context.globalCompositeOperation = "destination-out";
  context.drawImage(mask(), 0, 0);
  return {image: await toBlob(image), mask: await toBlob(hole)};
}

function paint(from, to) {
  const context = mask().getContext("2d");
  const erases = element("image-erase").getAttribute("aria-pressed") === "true";
  context.globalCompositeOperation = erases ? "destination-out" : "source-over";
  context.lineWidth = Number(element("image-brush").value) / 100 * Math.max(mask().width, mask().height);
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = context.fillStyle = "#e0218a";
  context.beginPath();
  context.moveTo(...from);
  context.lineTo(...to);
  context.stroke();
  context.beginPath();
  context.arc(...to, context.lineWidth / 2, 0, 2 * Math.PI); // a line without length draws nothing
  context.fill();
  painted = true;
}

function pointOf(event) {
  const box = mask().getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * mask().width, (event.clientY - box.top) / box.height * mask().height];
}

function onKey(event) {
  const step = STEPS[event.key], point = () => [brush[0] * mask().width, brush[1] * mask().height];
  if (step) brush = brush.map((value, i) => Math.max(0, Math.min(1, value + step[i] * STEP)));
  else if (event.key !== " ") return;
  event.preventDefault();
  if (event.key === " " || event.shiftKey) paint(point(), point());
  const cursor = element("image-cursor");
  cursor.setAttribute("r", `${element("image-brush").value / 2}%`);
  cursor.setAttribute("cx", `${brush[0] * 100}%`);
  cursor.setAttribute("cy", `${brush[1] * 100}%`);
}

export function startMask() {
  const canvas = mask();
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = pointOf(event);
    paint(last, last);
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const point = pointOf(event);
    paint(last, point);
    last = point;
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { last = null; });
  canvas.addEventListener("keydown", onKey);
  element("image-erase").addEventListener("click", ({currentTarget: button}) => {
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  });
  element("image-mask-clear").addEventListener("click", clearMask);
  element("image-start-clear").addEventListener("click", clearStart);
}
