/**
 * Markdown on the page. Elements are built from parsed data one by one, so a model's text can never become markup; links
 * lead to http, https and mailto only, images are links, and nothing is fetched.
 */

import { copyButton } from "./clipboard.js";
import { h } from "./dom.js";
import { closesFence, codeLine, fenceOf, parseBlocks } from "./markdown-blocks.js";
import { parseInline } from "./markdown-inline.js";

/** The beginning of a line that may become a marker, and is not shown before it is clear. */
const UNDECIDED = /(^|\n)[ \t]*(?:\d{1,9}[.)]?|[-*+>#|~=_`]{1,3})[ \t]*$/;

/** The elements of a whole text. */
export function renderMarkdown(source) {
  return parseBlocks(source).map((block) => blockElement(block, false));
}

/**
 * A text that is still coming. `append` as it comes, `render` once a frame, `finish` at its end.
 *
 * What can no longer change is rendered once and left alone: whole blocks before the last, items of a list before the
 * last, lines of code. Only the rest, `#open`, is rendered again.
 */
export class MarkdownStream {
  #container;
  #open = "";
  #openNodes = [];
  #list = null;
  #code = null;

  constructor(container) {
    this.#container = container;
  }

  append(text) {
    this.#open += text;
  }

  render() {
    this.#settle();
    if (!this.#code) this.#show(parseBlocks(this.#open.replace(UNDECIDED, "$1"), { streaming: true }), true);
  }

  finish() {
    this.#settle();
    if (this.#code) {
      this.#code.closed(this.#open);
      this.#code = null;
      this.#open = "";
    }
    this.#show(parseBlocks(this.#open), false);
    this.#openNodes = [];
    this.#open = "";
  }

  /** Moves everything that is settled out of `#open`. */
  #settle() {
    for (;;) {
      if (this.#code) {
        this.#open = this.#code.take(this.#open);
        if (!this.#code.done) return;
        this.#code = null;
      }
      // An unfinished line may yet turn into anything, so it settles nothing.
      const whole = this.#open.slice(0, this.#open.lastIndexOf("\n") + 1);
      const blocks = parseBlocks(whole);
      const last = blocks.pop();
      if (!last) return;
      this.#clear();
      for (const block of blocks) this.#place(block, false);
      if (last.type === "code") {
        // A code block that is closed is settled; one that is not grows line by line.
        this.#open = this.#open.slice(last.start);
        this.#list = null;
        const begin = this.#open.indexOf("\n") + 1;
        this.#code = new GrowingCode(fenceOf(this.#open.slice(0, begin - 1).replace(/\r$/, "")));
        this.#container.append(this.#code.element);
        this.#open = this.#open.slice(begin);
        continue;
      }
      if (last.type === "list" && last.items.length > 1) {
        const open = last.items.pop();
        this.#place(last, false);
        this.#list = { ordered: last.ordered, element: this.#container.lastElementChild };
        this.#open = this.#open.slice(open.start);
      } else {
        if (blocks.length > 0) this.#list = null;
        this.#open = this.#open.slice(last.start);
      }
      return;
    }
  }

  #clear() {
    for (const node of this.#openNodes) node.remove();
    this.#openNodes = [];
  }

  #show(blocks, streaming) {
    this.#clear();
    const list = this.#list;
    blocks.forEach((block, index) => {
      this.#openNodes.push(...this.#place(block, streaming && index === blocks.length - 1));
    });
    this.#list = streaming ? list : null;
  }

  /** Adds a block, or its items to the list that is open. Returns the added nodes. */
  #place(block, streaming) {
    const list = this.#list;
    this.#list = null;
    if (list && block.type === "list" && block.ordered === list.ordered) {
      const items = block.items.map((item) => itemElement(item, streaming));
      list.element.append(...items);
      return items;
    }
    const element = blockElement(block, streaming);
    this.#container.append(element);
    return [element];
  }
}

/** A code block that grows line by line without being rendered again. */
class GrowingCode {
  #fence;
  #settled = document.createTextNode("");
  #partial = document.createTextNode("");
  #first = true;
  done = false;

  constructor(fence) {
    this.#fence = fence;
    this.element = codeElement(fence.language, () => this.#settled.data + this.#partial.data);
    this.element.querySelector("code").append(this.#settled, this.#partial);
  }

  /** Takes whole lines off `text` up to the closing fence; returns the rest. The last, unfinished line is only shown. */
  take(text) {
    const lines = [];
    let start = 0;
    for (let end = text.indexOf("\n"); end !== -1 && !this.done; end = text.indexOf("\n", start)) {
      const line = text.slice(start, end).replace(/\r$/, "");
      start = end + 1;
      if (closesFence(line, this.#fence)) this.done = true;
      else lines.push(codeLine(line, this.#fence));
    }
    if (lines.length > 0) this.#settled.appendData((this.#first ? "" : "\n") + lines.join("\n"));
    if (lines.length > 0) this.#first = false;
    const rest = text.slice(start);
    this.#partial.data = this.done ? "" : this.#unfinished(rest);
    return rest;
  }

  /** The text has ended, perhaps inside the code. */
  closed(rest) {
    this.#partial.data = rest === "" || closesFence(rest, this.#fence) ? "" : this.#unfinished(rest);
  }

  #unfinished(rest) {
    // The closing fence does not show while it comes.
    if (rest === "" || (rest.trim() !== "" && this.#fence.mark.startsWith(rest.trim()))) return "";
    return (this.#first ? "" : "\n") + codeLine(rest, this.#fence);
  }
}

function blockElement(block, streaming) {
  switch (block.type) {
    case "heading":
      // The page and the conversation own the first two levels.
      return h(`h${Math.min(block.level + 2, 6)}`, { dir: "auto" }, inline(block.text, streaming));
    case "rule":
      return h("hr");
    case "code": {
      const element = codeElement(block.language, () => block.text);
      element.querySelector("code").append(block.text);
      return element;
    }
    case "quote":
      return h("blockquote", {}, inner(block.blocks, streaming));
    case "list":
      return listElement(block, streaming);
    case "table":
      return tableElement(block, streaming);
    default:
      return h("p", { dir: "auto" }, inline(block.text, streaming));
  }
}

function inner(blocks, streaming) {
  return blocks.map((block, index) => blockElement(block, streaming && index === blocks.length - 1));
}

function listElement(block, streaming) {
  const items = block.items.map((item, index) => itemElement(item, streaming && index === block.items.length - 1));
  if (!block.ordered) return h("ul", {}, items);
  return h("ol", { start: block.first === 1 ? null : String(block.first) }, items);
}

function itemElement(item, streaming) {
  const task = item.checked === null ? null : h("span", { class: "task" }, item.checked ? "☑ " : "☐ ");
  const [first, ...rest] = item.blocks;
  // The first paragraph needs no element of its own; so the form of an item does not depend on the others.
  if (first?.type === "paragraph") {
    const content = inline(first.text, streaming && rest.length === 0);
    return h("li", { dir: "auto", class: task && "task-item" }, task, content, inner(rest, streaming));
  }
  return h("li", { dir: "auto", class: task && "task-item" }, task, inner(item.blocks, streaming));
}

function tableElement(block, streaming) {
  const cell = (tag, text, column) =>
    h(tag, { class: block.aligns[column] && `align-${block.aligns[column]}`, dir: "auto" }, inline(text, streaming));
  const row = (tag, cells) => h("tr", {}, cells.map((text, column) => cell(tag, text, column)));
  return h(
    "div",
    { class: "table-scroll", role: "region", "aria-label": "Table", tabindex: "0" },
    h("table", {}, h("thead", {}, row("th", block.header)), h("tbody", {}, block.rows.map((cells) => row("td", cells)))),
  );
}

function codeElement(language, text) {
  const bar = h("div", { class: "code-bar" }, h("span", {}, language || "text"), copyButton(text, "Copy code"));
  const label = language ? `Code, ${language}` : "Code";
  return h("div", { class: "code" }, bar, h("pre", { tabindex: "0", role: "region", "aria-label": label }, h("code")));
}

function inline(text, streaming) {
  return spanNodes(parseInline(text, streaming));
}

function spanNodes(spans) {
  return spans.map((span) => {
    switch (span.type) {
      case "text":
        return span.text;
      case "code":
        return h("code", {}, span.text);
      case "break":
        return h("br");
      case "link":
        return link(span.href, spanNodes(span.children));
      case "image":
        return link(span.href, [`Image: ${span.text || "without description"}`]);
      default:
        return h(span.type, {}, spanNodes(span.children));
    }
  });
}

/** Where the address may not be followed the words stay, without a link. */
function link(href, children) {
  if (href === null) return h("span", {}, children);
  return h("a", { href, target: "_blank", rel: "noopener noreferrer nofollow", title: href }, children);
}
