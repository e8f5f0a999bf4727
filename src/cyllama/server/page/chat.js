// Chat with a language model: send, stop, regenerate, edit.

import {attach, hasAttached, restoreAttached, showAttachButton, takeAttached, toParts} from "./attachments.js";
import {complete, sentMessages} from "./completion.js";
import {lastConversation, newConversation, save, showList, startConversations} from "./conversations.js";
import {MessageView, mediaOf, textOf} from "./messages.js";
import {currentModel, modelName, refresh} from "./models.js";
import {attempt, element, notice, running, startFileButton} from "./page.js";
import {startDictation} from "./recorder.js";
import {Follower} from "./scroll.js";
import {requestFields, startSettings, systemPrompt} from "./settings.js";

const RENDER_MILLISECONDS = 60;

let conversation = newConversation();
let views = [];
let controller = null; // of the request that runs
let follower;

const handlers = {
  edit: (message, text) => {
    if (controller || (!text && !mediaOf(message).length)) return;
    const edited = {role: "user", content: contentOf(text, mediaOf(message))};
    replaceFrom(message, [edited]);
  },
  regenerate: (message) => controller || replaceFrom(message, []),
  results: (messages) => controller || extend(messages),
};

const contentOf = (text, media) => (media.length ? [...toParts(media), ...text ? [{type: "text", text}] : []] : text);

function addView(message) {
  const view = new MessageView(message, handlers);
  views.push(view);
  element("chat-log").append(view.node);
  return view;
}

function showAll(messages) {
  views = [];
  element("chat-log").replaceChildren();
  for (const message of messages) addView(message).finish();
  element("chat-hint").hidden = messages.length > 0;
  askForResults();
  follower.jump();
}

function askForResults() {
  const last = views.at(-1);
  if (last?.message.role === "assistant" && last.message.tool_calls?.length && !last.message.stopped) last.askForResults();
}

// Replace a message and those after it, then respond; if there is no response, restore them.
function replaceFrom(message, replacement) {
  const before = conversation.messages, kept = before.slice(0, before.indexOf(message));
  conversation.messages = [...kept, ...replacement];
  showAll(conversation.messages);
  respond(() => {
    conversation.messages = before;
    showAll(before);
  });
}

function extend(messages) {
  const before = conversation.messages;
  conversation.messages = [...before, ...messages];
  showAll(conversation.messages);
  respond(() => {
    conversation.messages = before;
    showAll(before);
  });
}

// Show a response in steps: rendering takes longer than tokens take.
function renderer(view) {
  let timer = null;
  const render = () => {
    timer = null;
    view.update();
    follower.follow();
  };
  return {
    later: () => { timer ??= setTimeout(render, RENDER_MILLISECONDS); },
    now: () => {
      clearTimeout(timer);
      render();
    },
  };
}

async function respond(onFailure) {
  const target = conversation, model = currentModel("chat"), log = element("chat-log");
  const message = {role: "assistant", content: "", model: modelName("chat")};
  controller = new AbortController();
  const {signal} = controller;
  const done = running(element("chat-stop"), [element("chat-send"), element("chat-new")], controller);
  const view = addView(message), show = renderer(view);
  const isLoaded = model?.status?.value === "loaded";
  view.startWaiting(isLoaded ? "Waiting for the model ..." : "Loading the model ...");
  log.setAttribute("aria-busy", "true");
  follower.jump();
  if (!isLoaded) setTimeout(refresh, 300);
  const completed = await attempt(async () => {
    const json = {model: modelName("chat"), messages: sentMessages(target.messages, systemPrompt()), ...requestFields()};
    await complete(json, message, show.later, signal);
    return true;
  });
  controller = null;
  done();
  log.setAttribute("aria-busy", "false");
  refresh();
  show.now();
  if (completed || message.content || message.reasoning_content) await keep(target, message, view, signal.aborted || !completed);
  else if (conversation === target) onFailure();
  if (document.activeElement === document.body) element("chat-text").focus();
}

async function keep(target, message, view, stopped) {
  message.stopped = stopped;
  target.messages.push(message);
  view.finish();
  if (conversation === target) {
    askForResults();
    follower.follow();
  }
  const shown = element("notice").textContent;
  await attempt(() => save(target));
  notice(element("notice").textContent || shown);
}

function send() {
  const field = element("chat-text"), text = field.value.trim();
  if (controller || (!text && !hasAttached())) return;
  const media = takeAttached();
  const message = {role: "user", content: contentOf(text, media)};
  field.value = "";
  element("chat-hint").hidden = true;
  conversation.messages.push(message);
  sessionStorage.setItem("chat", conversation.id);
  addView(message).finish();
  respond(() => { // without any response, put the message back into the field
    conversation.messages.pop();
    showAll(conversation.messages);
    field.value ||= textOf(message);
    restoreAttached(media);
  });
  field.focus();
}

function openConversation(opened) {
  controller?.abort();
  conversation = opened;
  sessionStorage.setItem("chat", opened.id);
  notice("");
  showAll(opened.messages);
}

function startNew() {
  takeAttached();
  openConversation(newConversation());
  attempt(showList);
  element("chat-text").focus();
}

export function startChat() {
  const field = element("chat-text");
  follower = new Follower(element("chat-log"), element("chat-latest"));
  element("chat-form").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  field.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (!files.length) return;
    event.preventDefault();
    attach(files);
  });
  element("chat-new").addEventListener("click", startNew);
  document.addEventListener("model", showAttachButton);
  startFileButton("chat-attach", attach);
  startDictation(element("chat-dictate"), field);
  startSettings();
  startConversations(openConversation, () => conversation);
  lastConversation().then((kept) => kept && !conversation.messages.length && openConversation(kept), () => {});
}
