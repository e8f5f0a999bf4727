// The page: one panel for each task.

import {setKey} from "./api.js";
import {attach} from "./attachments.js";
import {startAudio, takeAudioFiles} from "./audio.js";
import {startChat} from "./chat.js";
import {startImages, takeImageFiles} from "./image.js";
import {hasModel, listModels, startModels} from "./models.js";
import {attempt, element, openTab, startDrops, startTabs} from "./page.js";

async function start() {
  await listModels();
  const first = ["chat", "audio", "image"].find(hasModel);
  if (first && !hasModel("chat")) openTab(first);
  for (const id of ["chat-dictate", "image-dictate"]) element(id).hidden ||= !hasModel("audio");
}

element("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(element("key").value);
  element("key-form").hidden = true;
  attempt(start);
});

startTabs();
startModels();
startChat();
startAudio();
startImages();
startDrops({chat: attach, audio: takeAudioFiles, image: takeImageFiles});
attempt(start);
