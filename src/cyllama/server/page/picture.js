// A picture from words, that can be seen while it grows.

import {request} from "./api.js";
import {attempt, element, running} from "./page.js";
import {startDictation} from "./sound.js";

const EVERY = 300; // milliseconds between two looks at the progress

function show(png, alt) {
  element("picture-figure").hidden = false;
  element("picture-image").src = `data:image/png;base64,${png}`;
  element("picture-image").alt = alt;
}

function progress(part, words) {
  element("picture-progress").hidden = part === null;
  element("picture-progress").value = part ?? 0;
  element("picture-words").textContent = words;
}

// Look at the progress again and again until the picture is there.
async function watch(prompt, signal) {
  while (!signal.aborted) {
    await new Promise((wake) => setTimeout(wake, EVERY));
    if (signal.aborted) return;
    const state = await (await request("/sdapi/v1/progress", {signal})).json();
    if (signal.aborted || !state.state?.sampling_steps) continue;
    progress(state.progress, `Step ${state.state.sampling_step} of ${state.state.sampling_steps}`);
    if (state.current_image) show(state.current_image, `Preview of: ${prompt}`);
  }
}

async function draw() {
  const prompt = element("picture-text").value.trim();
  if (!prompt) return;
  const controller = new AbortController(), watching = new AbortController();
  const done = running(element("picture-stop"), [element("picture-draw")], controller);
  element("picture-save").hidden = true;
  progress(0, "Waiting ...");
  watch(prompt, watching.signal).catch(() => {}); // a preview that does not come is no failure
  const json = {model: element("picture-model").value, prompt, response_format: "b64_json"};
  for (const name of ["seed", "steps"]) {
    const value = element(`picture-${name}`).value;
    if (value !== "") json[name] = Number(value);
  }
  const found = await attempt(async () => (await request("/v1/images/generations", {json, signal: controller.signal})).json());
  watching.abort();
  done();
  progress(null, found ? `“${prompt}”` : controller.signal.aborted ? "Stopped." : "");
  if (!found) return;
  show(found.data[0].b64_json, prompt);
  element("picture-save").href = element("picture-image").src;
  element("picture-save").hidden = false;
}

export function startPicture() {
  element("picture-form").addEventListener("submit", (event) => {
    event.preventDefault();
    draw();
  });
  startDictation(element("picture-speak"), element("picture-text"));
}
