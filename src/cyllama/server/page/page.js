// Shared by all panels: elements, notices, tabs, files, downloads.

import {ServerError} from "./api.js";

export const element = (id) => document.getElementById(id);

// Make an element; names with a hyphen, such as "aria-label", are attributes, others are properties.
export function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

export function makeButton(text, action, properties = {}) {
  return make("button", {type: "button", onclick: action, ...properties}, text);
}

export function notice(text) {
  element("notice").textContent = text;
  element("notice").hidden = !text;
}

// Run a function and show its error; an abort by the user is not an error.
export async function attempt(action) {
  notice("");
  try {
    return await action();
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    if (error instanceof ServerError && error.status === 401) {
      element("key-form").hidden = false;
      element("key").focus();
    }
    notice(error instanceof TypeError ? `The server is not reachable (${error.message}).` : error.message);
    return undefined;
  }
}

export const openPanel = () => document.querySelector("[role=tab][aria-selected=true]").id.slice(4);

export function openTab(name) {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    element(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
  document.dispatchEvent(new CustomEvent("panel", {detail: name}));
}

export function startTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  for (const tab of tabs) {
    tab.addEventListener("click", () => openTab(tab.id.slice(4)));
    tab.addEventListener("keydown", (event) => {
      const usable = tabs.filter((other) => !other.disabled), i = usable.indexOf(tab);
      const step = {ArrowRight: 1, ArrowLeft: usable.length - 1}[event.key];
      const next = step ? usable[(i + step) % usable.length] : {Home: usable[0], End: usable.at(-1)}[event.key];
      if (!next) return;
      event.preventDefault();
      openTab(next.id.slice(4));
      next.focus();
    });
  }
}

// Let a button open the dialog of a hidden file input.
export function startFileButton(name, take) {
  const input = element(name);
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = "";
  });
  element(`${name}-button`).addEventListener("click", () => input.click());
}

// Give files that are dropped anywhere to the open panel. Without the handlers, the browser would leave the page.
export function startDrops(takers) {
  const hasFiles = (event) => [...event.dataTransfer?.types ?? []].includes("Files");
  const mark = (on) => element("main").classList.toggle("over", on);
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    mark(true);
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget || mark(false));
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    mark(false);
    if (event.dataTransfer.files.length) takers[openPanel()]([...event.dataTransfer.files]);
  });
}

// The kind of a file by its type, or by its name where browsers do not have a type.
const NAMES = {
  audio: /\.(aac|aiff?|amr|au|caf|flac|m4a|m4b|mka|mp3|oga|ogg|opus|wav|weba|wma)$/i,
  video: /\.(avi|m4v|mkv|mov|mp4|mpe?g|ogv|webm|wmv|3gp)$/i,
  image: /\.(avif|bmp|gif|heic|heif|jpe?g|png|tiff?|webp)$/i,
};

export function fileKind(file) {
  const given = file.type.split("/")[0];
  if (given in NAMES) return given;
  return Object.keys(NAMES).find((kind) => NAMES[kind].test(file.name)) ?? "other";
}

// Show a stop button and disable the others while a request runs; return the function that reverts this.
export function running(stop, others, controller) {
  stop.hidden = false;
  stop.onclick = () => controller.abort();
  for (const button of others) button.disabled = true;
  return () => {
    stop.hidden = true;
    for (const button of others) button.disabled = false;
  };
}

export function download(name, content, type) {
  const url = URL.createObjectURL(new Blob([content], {type}));
  make("a", {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// Browsers have navigator.clipboard only on https and localhost.
function copyInsecurely(text) {
  const focused = document.activeElement, field = make("textarea", {value: text, className: "hidden"});
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus();
  if (!copied) throw new Error("This browser does not allow copying here.");
}

// Copy a text, and show for a moment on the button that it was copied.
export async function copy(text, button) {
  await attempt(async () => {
    if (navigator.clipboard) await navigator.clipboard.writeText(text);
    else copyInsecurely(text);
    const label = button.dataset.label ??= button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1_500);
  });
}

export const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
