// Render Markdown of a response. HTML in it is shown as text; what remains is sanitised; images are not requested.

import {Marked} from "./vendor/marked.esm.js";
import "./vendor/purify.min.js";
import {copy, make, makeButton} from "./page.js";

const MAX_LENGTH = 200_000; // characters; longer texts are shown as they are
const LOWEST_HEADING = 6;
const LANGUAGE = /^language-([\w+#.-]{1,30})$/;
const SANITISED = {
  ALLOWED_TAGS: ["a", "blockquote", "br", "code", "del", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre",
    "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"],
  ALLOWED_ATTR: ["align", "class", "href", "start", "title"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const escape = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({text}) => escape(text),
    image: ({href, text}) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
    checkbox: ({checked}) => (checked ? "☑ " : "☐ "),
    heading({tokens, depth}) { // the page itself has the first levels
      const level = Math.min(depth + 2, LOWEST_HEADING);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
  },
});

function codeBlock(pre) {
  const code = pre.textContent.replace(/\n$/, "");
  const language = LANGUAGE.exec(pre.querySelector("code")?.className ?? "")?.[1] ?? "";
  const button = makeButton("Copy code", () => copy(code, button));
  pre.tabIndex = 0; // it scrolls sideways
  pre.setAttribute("role", "group");
  pre.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
  const head = make("div", {className: "code-head"}, make("span", {}, language), button);
  const block = make("div", {className: "code"}, head);
  pre.replaceWith(block);
  block.append(pre);
}

function tableBlock(table) {
  const scroller = make("div", {className: "table", tabIndex: 0, role: "group", "aria-label": "Table"});
  table.replaceWith(scroller);
  scroller.append(table);
}

function renderToken(token) {
  let fragment;
  try {
    fragment = DOMPurify.sanitize(marked.parser([token]), SANITISED);
  } catch { // nested too deeply
    fragment = document.createDocumentFragment();
    fragment.append(make("p", {className: "raw"}, token.raw));
  }
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  fragment.querySelectorAll("pre").forEach(codeBlock);
  fragment.querySelectorAll("table").forEach(tableBlock);
  fragment.querySelectorAll("[class^=language-]").forEach((code) => code.removeAttribute("class"));
  return make("div", {className: "block"}, fragment);
}

function lex(text) {
  if (text.length > MAX_LENGTH) return null;
  try {
    return marked.lexer(text);
  } catch {
    return null;
  }
}

// Show a growing text in an element. Only the blocks that have changed are rendered again.
export class MarkdownView {
  #node;
  #raws = [];
  #links = 0;

  constructor(node) {
    this.#node = node;
  }

  update(text) {
    const tokens = lex(text);
    if (!tokens) {
      this.#raws = [];
      this.#node.replaceChildren(make("div", {className: "raw"}, text));
      return;
    }
    const links = Object.keys(tokens.links).length; // a definition can change any block
    const blocks = tokens.filter(({type}) => type !== "space" && type !== "def");
    let same = 0;
    if (links === this.#links) while (same < blocks.length && blocks[same].raw === this.#raws[same]) same += 1;
    while (this.#node.children.length > same) this.#node.lastChild.remove();
    this.#node.append(...blocks.slice(same).map(renderToken));
    this.#raws = blocks.map(({raw}) => raw);
    this.#links = links;
  }
}
