// The page: which models there are, and one panel for each kind of work.

import {request, setKey} from "./api.js";
import {startChat} from "./chat.js";
import {attempt, element, make, startTabs} from "./page.js";
import {startPicture} from "./picture.js";
import {startSound} from "./sound.js";

const TASKS = {chat: "chat", speech: "sound", images: "picture"};

async function listModels() {
  const {data} = await (await request("/v1/models")).json();
  for (const [task, panel] of Object.entries(TASKS)) {
    const names = data.filter((model) => model.task === task).map((model) => model.id);
    element(`${panel}-model`).replaceChildren(...names.map((name) => make("option", {value: name}, name)));
    element(`tab-${panel}`).disabled = !names.length;
    element(`tab-${panel}`).title = names.length ? "" : "This server has no model for it.";
  }
  const first = Object.values(TASKS).find((panel) => !element(`tab-${panel}`).disabled);
  if (first && element("tab-chat").disabled) element(`tab-${first}`).click();
  for (const id of ["chat-speak", "picture-speak"]) element(id).hidden ||= element("tab-sound").disabled;
}

element("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(element("key").value);
  element("key-form").hidden = true;
  attempt(listModels);
});

startTabs();
startChat();
startSound();
startPicture();
attempt(listModels);
