// The page: the list of models, and one panel for each task.

import {request, setKey} from "./api.js";
import {startAudio} from "./audio.js";
import {startChat} from "./chat.js";
import {startImages} from "./image.js";
import {attempt, element, make, startTabs} from "./page.js";

const TASKS = {chat: "chat", speech: "audio", images: "image"};

async function listModels() {
  const {data} = await (await request("/v1/models")).json();
  for (const [task, panel] of Object.entries(TASKS)) {
    const names = data.filter((model) => model.task === task).map((model) => model.id);
    element(`${panel}-model`).replaceChildren(...names.map((name) => make("option", {value: name}, name)));
    element(`tab-${panel}`).disabled = !names.length;
    element(`tab-${panel}`).title = names.length ? "" : "This server has no model for this task.";
  }
  const first = Object.values(TASKS).find((panel) => !element(`tab-${panel}`).disabled);
  if (first && element("tab-chat").disabled) element(`tab-${first}`).click();
  for (const id of ["chat-dictate", "image-dictate"]) element(id).hidden ||= element("tab-audio").disabled;
}

element("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(element("key").value);
  element("key-form").hidden = true;
  attempt(listModels);
});

startTabs();
startChat();
startAudio();
startImages();
attempt(listModels);
