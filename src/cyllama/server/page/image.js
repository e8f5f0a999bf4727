// Generate an image from a prompt, with previews.

import {request} from "./api.js";
import {startDictation} from "./audio.js";
import {attempt, element, running} from "./page.js";

const POLL_MILLISECONDS = 300;

function show(png, alt) {
  element("image-figure").hidden = false;
  element("image-result").src = `data:image/png;base64,${png}`;
  element("image-result").alt = alt;
}

function showProgress(fraction, text) {
  element("image-progress").hidden = fraction === null;
  element("image-progress").value = fraction ?? 0;
  element("image-status").textContent = text;
}

// Poll the progress until the signal is aborted.
async function pollProgress(prompt, signal) {
  while (!signal.aborted) {
    await new Promise((wake) => setTimeout(wake, POLL_MILLISECONDS));
    if (signal.aborted) return;
    const state = await (await request("/sdapi/v1/progress", {signal})).json();
    if (signal.aborted || !state.state?.sampling_steps) continue;
    showProgress(state.progress, `Step ${state.state.sampling_step} of ${state.state.sampling_steps}`);
    if (state.current_image) show(state.current_image, `Preview of: ${prompt}`);
  }
}

async function generate() {
  const prompt = element("image-text").value.trim();
  if (!prompt) return;
  const controller = new AbortController(), polling = new AbortController();
  const done = running(element("image-stop"), [element("image-generate")], controller);
  element("image-save").hidden = true;
  showProgress(0, "Waiting ...");
  pollProgress(prompt, polling.signal).catch(() => {}); // the image does not depend on previews
  const json = {model: element("image-model").value, prompt, response_format: "b64_json"};
  for (const name of ["seed", "steps"]) {
    const value = element(`image-${name}`).value;
    if (value !== "") json[name] = Number(value);
  }
  const result = await attempt(async () => (await request("/v1/images/generations", {json, signal: controller.signal})).json());
  polling.abort();
  done();
  showProgress(null, result ? `“${prompt}”` : controller.signal.aborted ? "Stopped." : "");
  if (!result) return;
  show(result.data[0].b64_json, prompt);
  element("image-save").href = element("image-result").src;
  element("image-save").hidden = false;
}

export function startImages() {
  element("image-form").addEventListener("submit", (event) => {
    event.preventDefault();
    generate();
  });
  startDictation(element("image-dictate"), element("image-text"));
}
