// Settings of chats: system prompt, sampling, JSON mode, tools. The browser keeps them.

import {element} from "./page.js";
import {readSetting, writeSetting} from "./store.js";

const NUMBERS = {temperature: "temperature", "top-p": "top_p", "max-tokens": "max_tokens", seed: "seed"};
const TEXTS = ["system", "tools"];
const fields = () => [...Object.keys(NUMBERS), ...TEXTS].map((name) => element(`chat-${name}`));

export const systemPrompt = () => element("chat-system").value.trim();

function tools() {
  const text = element("chat-tools").value.trim();
  if (!text) return [];
  let found;
  try {
    found = JSON.parse(text);
  } catch (error) {
    throw new Error(`The tools in the settings are not JSON (${error.message}).`);
  }
  const list = Array.isArray(found) ? found : [found];
  return list.map((tool) => (tool?.type === "function" ? tool : {type: "function", function: tool}));
}

// The fields of a request, beside the model and the messages.
export function requestFields() {
  const found = {};
  for (const [name, field] of Object.entries(NUMBERS)) {
    const input = element(`chat-${name}`);
    if (!input.validity.valid) throw new Error(`${input.labels[0].textContent.trim()}: ${input.validationMessage}`);
    if (input.value !== "") found[field] = Number(input.value);
  }
  if (element("chat-json").checked) found.response_format = {type: "json_object"};
  const given = tools();
  if (given.length) found.tools = given;
  return found;
}

function countTools() {
  try {
    return tools().length;
  } catch {
    return 0;
  }
}

// Show next to the message field what changes the responses.
function showModes() {
  const count = countTools(), set = Object.keys(NUMBERS).filter((name) => element(`chat-${name}`).value !== "");
  const modes = [
    systemPrompt() && "System prompt",
    element("chat-json").checked && "JSON mode",
    count && `${count} ${count === 1 ? "tool" : "tools"}`,
    ...set.map((name) => `${element(`chat-${name}`).dataset.name} ${element(`chat-${name}`).value}`),
  ].filter(Boolean);
  element("chat-modes").textContent = modes.join(" · ");
}

function keep() {
  const values = Object.fromEntries(fields().map((field) => [field.id, field.value]));
  writeSetting("chat", {...values, json: element("chat-json").checked});
  showModes();
}

export function startSettings() {
  const kept = readSetting("chat", {}), dialog = element("settings");
  for (const field of fields()) field.value = kept[field.id] ?? "";
  element("chat-json").checked = kept.json ?? false;
  dialog.addEventListener("input", keep);
  element("settings-open").addEventListener("click", () => dialog.showModal());
  element("settings-reset").addEventListener("click", () => {
    for (const field of fields()) field.value = "";
    element("chat-json").checked = false;
    keep();
  });
  showModes();
}
