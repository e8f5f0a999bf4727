// The menu of models: one for all tasks, with the state of each model.

import {request} from "./api.js";
import {attempt, element, make, openPanel, openTab} from "./page.js";
import {readSetting, writeSetting} from "./store.js";

const PANELS = {chat: "chat", speech: "audio", images: "image"};
const LABELS = {chat: "Chat", audio: "Transcribe", image: "Images"};
const POLL_MILLISECONDS = 1_500; // while a model is loaded

const chosen = readSetting("models", {});
let models = [];
let polling = null;

const panelOf = (model) => PANELS[model.task];
const ofPanel = (panel) => models.filter((model) => panelOf(model) === panel);

// The model of a panel, as the server lists it.
export function currentModel(panel) {
  const usable = ofPanel(panel);
  return usable.find((model) => model.id === chosen[panel]) ?? usable[0];
}

export const modelName = (panel) => currentModel(panel)?.id;
export const hasModel = (panel) => ofPanel(panel).length > 0;
export const accepts = (kind) => currentModel("chat")?.architecture?.input_modalities.includes(kind) ?? false;

const state = (model) => model?.status?.value ?? "unloaded";
const STATE_TEXTS = {loaded: "loaded", loading: "loading ...", unloaded: "not loaded"};

function show() {
  const panels = Object.keys(LABELS).filter(hasModel), shown = panels.flatMap(ofPanel);
  const options = () => [...element("model").options];
  if (shown.map(({id}) => id).join("\n") !== options().map(({value}) => value).join("\n")) { // else the menu may be open
    element("model").replaceChildren(...panels.map((panel) => make("optgroup", {label: LABELS[panel]},
      ...ofPanel(panel).map(({id}) => make("option", {value: id})))));
  }
  options().forEach((option, i) => { option.textContent = `${shown[i].id} (${STATE_TEXTS[state(shown[i])]})`; });
  for (const panel of Object.keys(LABELS)) {
    const tab = element(`tab-${panel}`);
    tab.disabled = !hasModel(panel);
    tab.title = hasModel(panel) ? "" : "This server has no model for this task.";
  }
  showCurrent();
}

function showCurrent() {
  const model = currentModel(openPanel());
  element("model").value = model?.id ?? "";
  element("model-state").textContent = model ? STATE_TEXTS[state(model)] : "no model";
  element("model-load").hidden = !model;
  element("model-load").textContent = state(model) === "unloaded" ? "Load" : "Unload";
  element("model-load").disabled = state(model) === "loading";
  document.dispatchEvent(new CustomEvent("model"));
}

export async function listModels() {
  const {data} = await (await request("/v1/models")).json();
  models = data.filter(panelOf);
  show();
  clearTimeout(polling);
  if (models.some((model) => state(model) === "loading")) polling = setTimeout(refresh, POLL_MILLISECONDS);
}

// List the models again; a failure shows with the next request.
export const refresh = () => listModels().catch(() => {});

async function load() {
  const model = currentModel(openPanel());
  const path = state(model) === "unloaded" ? "/models/load" : "/models/unload";
  const done = attempt(() => request(path, {json: {model: model.id}}));
  element("model-load").disabled = true;
  polling = setTimeout(refresh, POLL_MILLISECONDS / 5);
  await done;
  await refresh();
}

export function startModels() {
  element("model").addEventListener("change", () => {
    const model = models.find(({id}) => id === element("model").value);
    chosen[panelOf(model)] = model.id;
    writeSetting("models", chosen);
    openTab(panelOf(model));
  });
  element("model").addEventListener("focus", refresh);
  element("model-load").addEventListener("click", load);
  document.addEventListener("panel", showCurrent);
}
