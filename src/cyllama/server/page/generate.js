// One image from the server, with previews. Each request is a job of its own: closing it stops this job only.

import {events, request} from "./api.js";

const PREVIEWS = 10;

function fields(settings, seed) {
  const {model, prompt, negative, width, height, steps, strength} = settings;
  const found = {model, prompt, stream: true, partial_images: PREVIEWS};
  if (negative) found.negative_prompt = negative;
  if (width) found.size = `${width}x${height}`;
  if (steps) found.steps = Number(steps);
  if (strength) found.strength = Number(strength);
  return {...found, seed};
}

function send(settings, seed, files, signal) {
  const found = fields(settings, seed);
  if (!files) {
    delete found.strength;
    delete found.seed;
    const json = `${JSON.stringify(found).slice(0, -1)},"seed":${seed}}`; // JavaScript's numbers have 53 bits
    return request("/v1/images/generations", {json, signal});
  }
  const form = new FormData();
  for (const [name, value] of Object.entries(found)) form.append(name, String(value));
  form.append("image", files.image, "image.png");
  if (files.mask) form.append("mask", files.mask, "mask.png");
  return request("/v1/images/edits", {form, signal});
}

// Resolve to the image in base64. `onPreview` gets previews in base64, and the fraction that is done.
export async function generate(settings, seed, files, onPreview, signal) {
  for await (const event of events(await send(settings, seed, files, signal))) {
    if (event.type?.endsWith(".partial_image")) onPreview(event.b64_json, (event.partial_image_index + 1) / (PREVIEWS + 1));
    if (event.type?.endsWith(".completed")) return event.b64_json;
  }
  throw new Error("The response ended without an image.");
}

export const randomSeed = () => BigInt(crypto.getRandomValues(new Uint32Array(1))[0]);
