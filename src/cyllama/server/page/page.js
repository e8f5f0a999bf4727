// Shared by all panels: elements, notices, tabs, dropped files.

import {ServerError} from "./api.js";

export const element = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made[name] = value;
  made.append(...children);
  return made;
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

export function openTab(name) {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    element(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
}

export function startTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  for (const [i, tab] of tabs.entries()) {
    tab.addEventListener("click", () => openTab(tab.id.slice(4)));
    tab.addEventListener("keydown", (event) => {
      const step = {ArrowRight: 1, ArrowLeft: tabs.length - 1}[event.key];
      const next = step ? tabs[(i + step) % tabs.length] : {Home: tabs[0], End: tabs.at(-1)}[event.key];
      if (!next) return;
      event.preventDefault();
      openTab(next.id.slice(4));
      next.focus();
    });
  }
}

// Let the keyboard activate a label of a hidden file input as it activates a button.
export function startFileButton(name, take) {
  const input = element(name);
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = "";
  });
  element(`${name}-label`).addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    input.click();
  });
}

export function startDrop(target, kinds, take) {
  target.addEventListener("dragover", (event) => {
    event.preventDefault();
    target.classList.add("over");
  });
  target.addEventListener("dragleave", () => target.classList.remove("over"));
  target.addEventListener("drop", (event) => {
    event.preventDefault();
    target.classList.remove("over");
    const files = [...event.dataTransfer.files].filter((file) => kinds.some((kind) => file.type.startsWith(kind)));
    if (files.length) take(files);
    else notice("This type of file is not supported here.");
  });
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
