// The view of a message: content, reasoning, tool calls, and the buttons below it.

import {fromParts, makeMedia} from "./attachments.js";
import {MarkdownView} from "./markdown.js";
import {copy, make, makeButton} from "./page.js";
import {canSpeak, toggleSpeech} from "./speak.js";

const nameOf = ({role, model = "the model"}) => ({user: "Your message", tool: "Result of a tool"}[role] ?? `Response of ${model}`);

export function textOf(message) {
  const {content} = message;
  if (typeof content === "string") return content;
  return (content ?? []).filter(({type}) => type === "text").map(({text}) => text).join("\n");
}

export const mediaOf = (message) => (Array.isArray(message.content) ? fromParts(message.content) : []);

export class MessageView {
  #content = make("div", {className: "content"});
  #reasoning = make("details", {className: "reasoning", hidden: true}, make("summary", {}, "Reasoning"));
  #thoughts = make("div", {});
  #calls = make("div", {className: "calls"});
  #foot = make("div", {className: "foot"});
  #waiting = null;
  #markdown = null;

  // `handlers`: edit, regenerate, result; each gets the message.
  constructor(message, handlers) {
    this.message = message;
    this.handlers = handlers;
    this.#reasoning.append(this.#thoughts);
    const isResponse = message.role === "assistant";
    this.node = make("article", {className: `message ${message.role}`, "aria-label": nameOf(message)},
      ...mediaOf(message).map(makeMedia), ...isResponse ? [this.#reasoning] : [], this.#content,
      ...isResponse ? [this.#calls] : [], this.#foot);
    if (isResponse) this.#markdown = new MarkdownView(this.#content);
    this.update();
  }

  // Show the present state of the message.
  update() {
    const {message} = this;
    if (this.#markdown) this.#markdown.update(message.content);
    else this.#content.textContent = textOf(message);
    if (message.reasoning_content) {
      this.#reasoning.hidden = false;
      this.#thoughts.textContent = message.reasoning_content;
    }
    this.#calls.replaceChildren(...(message.tool_calls ?? []).map((call) => make("div", {className: "call"},
      "Calls ", make("code", {}, `${call.function.name}(${call.function.arguments})`))));
    if (this.#waiting && (message.content || message.reasoning_content || message.tool_calls)) this.stopWaiting();
  }

  startWaiting(text) {
    this.#waiting = make("p", {className: "waiting", role: "status"}, text);
    this.#content.before(this.#waiting);
  }

  stopWaiting() {
    this.#waiting?.remove();
    this.#waiting = null;
  }

  // Add what belongs to a message that is complete.
  finish() {
    const {message, handlers} = this, isResponse = message.role === "assistant";
    this.stopWaiting();
    this.node.classList.toggle("stopped", message.stopped ?? false);
    const actions = make("div", {className: "actions"});
    if (textOf(message)) actions.append(this.#copyButton());
    if (message.role === "user") actions.append(makeButton("Edit", () => this.#edit()));
    if (isResponse && message.content && canSpeak()) actions.append(this.#speakButton());
    if (isResponse) actions.append(makeButton("Regenerate", () => handlers.regenerate(message)));
    this.#foot.replaceChildren(...this.#usage(), actions);
  }

  // Ask for the results of the calls.
  askForResults() {
    const forms = this.message.tool_calls.map((call) => {
      const field = make("textarea", {rows: 2, "aria-label": `Result of ${call.function.name}`});
      return [call, field];
    });
    const send = makeButton("Send results", () => this.handlers.results(forms.map(([call, field]) => (
      {role: "tool", tool_call_id: call.id, content: field.value}))), {className: "main"});
    this.#calls.append(...forms.map(([, field]) => field), send);
  }

  #usage() {
    const {usage, stopped, finish} = this.message;
    const parts = [];
    if (usage) parts.push(`${usage.tokens} tokens`, `${usage.rate.toFixed(1)} tokens/s`, `${usage.seconds.toFixed(1)} s`);
    if (stopped) parts.push("stopped");
    else if (finish === "length") parts.push("ended at the maximum length");
    return parts.length ? [make("div", {className: "usage"}, parts.join(", "))] : [];
  }

  #copyButton() {
    const button = makeButton("Copy", () => copy(textOf(this.message), button));
    return button;
  }

  #speakButton() {
    const button = makeButton("Read aloud", () => toggleSpeech(this.#content.innerText, button), {"aria-pressed": "false"});
    return button;
  }

  #edit() {
    const field = make("textarea", {value: textOf(this.message), rows: 4, "aria-label": "Edited message"});
    const close = () => {
      this.#content.textContent = textOf(this.message);
      this.finish();
      this.#foot.querySelector("button")?.focus();
    };
    const save = () => this.handlers.edit(this.message, field.value.trim());
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") close();
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      save();
    });
    this.#content.replaceChildren(field);
    this.#foot.replaceChildren(make("div", {className: "actions"}, makeButton("Send", save), makeButton("Cancel", close)));
    field.focus();
  }
}
