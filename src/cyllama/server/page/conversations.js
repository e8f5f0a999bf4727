// The list of conversations that the browser keeps: search, open, export, delete.

import {attempt, download, element, make, makeButton} from "./page.js";
import {textOf} from "./messages.js";
import {each, get, getAll, put, randomId, remove} from "./store.js";

const SHOWN = 50; // conversations in the list; the search finds the others
const TITLE_LENGTH = 60;
const SEARCH_MILLISECONDS = 200;

export const newConversation = () => ({id: randomId(), title: "", messages: []});

let open = null; // called with a conversation
let current = () => null; // returns the open conversation
let searching = null;

function titleOf(messages) {
  const text = textOf(messages.find(({role}) => role === "user") ?? {content: ""}).replace(/\s+/g, " ").trim();
  return text.length > TITLE_LENGTH ? `${text.slice(0, TITLE_LENGTH)}…` : text || "Without text";
}

// The conversation that was open before the page was loaded again.
export async function lastConversation() {
  const id = sessionStorage.getItem("chat");
  return id ? get("messages", id) : undefined;
}

export async function save(conversation) {
  const {id, messages} = conversation;
  conversation.title = titleOf(messages);
  await put("messages", {id, messages});
  await put("chats", {id, title: conversation.title, updated: Date.now()});
  await showList();
}

async function find(words) {
  const found = new Set();
  await each("messages", ({id, messages}) => {
    const text = messages.map(textOf).join("\n").toLowerCase();
    if (words.every((word) => text.includes(word))) found.add(id);
  });
  return found;
}

export async function showList() {
  const words = element("chats-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [chats, found] = await Promise.all([getAll("chats"), words.length ? find(words) : null]);
  const wanted = chats.filter(({id}) => !found || found.has(id)).sort((a, b) => b.updated - a.updated);
  element("chats-list").replaceChildren(...wanted.slice(0, SHOWN).map(makeItem));
  const more = wanted.length - SHOWN;
  element("chats-count").textContent = more > 0 ? `${more} older ones: use the search.` : wanted.length ? "" : "None.";
}

function makeItem({id, title}) {
  const link = makeButton(title, () => attempt(async () => {
    const kept = await get("messages", id);
    if (kept) open({...kept, title});
    if (!isWide()) showChats(false); // it covers the messages
    await showList();
  }), {className: "chat-link"});
  if (current()?.id === id) link.setAttribute("aria-current", "true");
  return make("li", {}, link, makeButton("×", () => drop(id, title), {"aria-label": `Delete ${title}`, className: "icon"}));
}

function drop(id, title) {
  if (!confirm(`Delete the conversation “${title}”?`)) return;
  attempt(async () => {
    await remove("messages", id);
    await remove("chats", id);
    if (current()?.id === id) open(newConversation());
    await showList();
    element("chats-search").focus();
  });
}

async function exportAll() {
  const chats = new Map((await getAll("chats")).map((chat) => [chat.id, chat]));
  const found = [];
  await each("messages", ({id, messages}) => {
    const {title, updated} = chats.get(id) ?? {title: titleOf(messages), updated: 0};
    found.push({id, title, updated: new Date(updated).toISOString(), messages});
  });
  download("conversations.json", JSON.stringify(found, null, 1), "application/json");
}

const isWide = () => matchMedia("(min-width: 64rem)").matches;

function showChats(on) {
  const hadFocus = element("chats").contains(document.activeElement);
  element("chats").hidden = !on;
  element("chats-toggle").setAttribute("aria-expanded", String(on));
  if (!on && hadFocus) element("chats-toggle").focus();
}

export function startConversations(openConversation, currentConversation) {
  open = openConversation;
  current = currentConversation;
  element("chats-search").addEventListener("input", () => {
    clearTimeout(searching);
    searching = setTimeout(() => attempt(showList), SEARCH_MILLISECONDS);
  });
  element("chats-export").addEventListener("click", () => attempt(exportAll));
  element("chats-toggle").addEventListener("click", () => showChats(element("chats").hidden));
  element("chats").addEventListener("keydown", (event) => event.key === "Escape" && showChats(false));
  showChats(isWide());
  attempt(showList);
}
