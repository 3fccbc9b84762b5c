/** One answer on the page, while it comes and afterwards: text, tool calls, how it ended, what can be done with it. */

import { say } from "./announce.js";
import { copyButton } from "./clipboard.js";
import { h, icon } from "./dom.js";
import { headingOf } from "./failures.js";
import { MarkdownStream, renderMarkdown } from "./markdown.js";
import { ToolCallView } from "./toolcall.js";
import { toolLabel } from "./toolparts.js";

/** Rendering takes at most a fifth of the time, however long the open block is. */
const RENDER_SHARE = 5;

export class AnswerView {
  #parts = [];
  #onChange;
  #frame = 0;
  #rendered = { at: 0, tookMs: 0 };
  #live = false;
  #body = h("div", { class: "answer-body" });
  #dots = h("div", { class: "dots", "data-testid": "working" }, h("span"), h("span"), h("span"));
  #wait = h("p", { class: "answer-mark", "data-testid": "answer-waiting", hidden: true }, icon("clock"), h("span"));
  #foot = h("div", { class: "answer-foot" });

  /** `onChange` is called when the answer has grown on the page. */
  constructor(onChange = () => {}) {
    this.#onChange = onChange;
    this.element = h(
      "article",
      { class: "answer", "data-testid": "message-assistant", "data-status": "complete", "aria-label": "Parley's answer" },
      this.#body,
      this.#foot,
    );
  }

  /** An answer that is coming. */
  begin() {
    this.#live = true;
    this.element.dataset.status = "running";
    this.element.setAttribute("aria-busy", "true");
    this.#body.after(this.#dots, this.#wait);
    return this;
  }

  addText(text) {
    let part = this.#parts.at(-1);
    if (!part?.stream) {
      const element = textElement();
      part = { element, stream: new MarkdownStream(element), texts: [] };
      this.#parts.push(part);
      this.#body.append(element);
    }
    part.texts.push(text);
    part.stream.append(text);
    part.dirty = true;
    this.#schedule();
  }

  /** What the model thinks aloud: folded, and no part of the answer's text. */
  addThought(text) {
    let part = this.#parts.at(-1);
    if (!part?.thought) {
      this.#finishText();
      const thought = h("p");
      const element = h("details", { class: "thoughts", "data-testid": "thoughts" }, h("summary", {}, "Thoughts"), thought);
      part = { element, thought };
      this.#parts.push(part);
      this.#body.append(element);
    }
    part.thought.append(text);
    this.#onChange();
  }

  addTool(call) {
    this.#finishText();
    const view = new ToolCallView(call);
    this.#parts.push({ element: view.element, tool: view });
    this.#body.append(view.element);
    if (!call.approval) say(`Running ${toolLabel(call.name).tool}.`);
    this.#onChange();
  }

  /** A call that waited has been approved. */
  startTool(index) {
    this.#parts[index].tool.approved();
    this.#onChange();
  }

  finishTool(index, outcome) {
    this.#parts[index].tool.finish(outcome);
    this.#onChange();
  }

  /** What was shown from part `length` on is void. */
  truncate(length) {
    for (const part of this.#parts.splice(length)) part.element.remove();
    this.#onChange();
  }

  /** The answer's text as it was written. */
  get text() {
    return this.#parts.map((part) => part.texts?.join("") ?? "").join("");
  }

  /** The stored answer `message`, in the AI SDK's shape. */
  static of(message, actions) {
    const view = new AnswerView();
    for (const part of message.parts) {
      if (part.type === "text") {
        const element = textElement();
        element.append(...renderMarkdown(part.text));
        view.#parts.push({ element, texts: [part.text] });
      } else if (part.type.startsWith("tool-")) {
        const tool = new ToolCallView({ name: part.type.slice("tool-".length), arguments: part.input });
        if (part.state === "output-available") tool.finish({ ok: true, result: part.output });
        else if (part.state === "output-error") tool.finish({ ok: false, result: part.errorText });
        else tool.abandon();
        view.#parts.push({ element: tool.element, tool });
      }
    }
    view.#body.append(...view.#parts.map((part) => part.element));
    const { status, reaction } = message.metadata;
    view.#end(status, { messageId: message.id, reaction, actions });
    return view;
  }

  /** Ended as it should. `actions`: react(messageId, reaction), regenerate(messageId, element). */
  complete(messageId, actions) {
    this.#end("complete", { messageId, actions });
    say(this.#body.innerText.trim() || "The answer is empty.");
  }

  cancelled(messageId, actions) {
    this.#end("cancelled", { messageId, actions });
    say("Stopped.");
  }

  /** `failure`: {code, message}; `again` {label, act} offers a way on, or is null. */
  failed(failure, again, messageId = null, actions = null) {
    this.#end("failed", { messageId, actions, failure, again });
    say(`${headingOf(failure.code)}. ${failure.message}`);
  }

  /** Shows what the answer waits for before it begins; null when it need not wait. */
  waiting(why) {
    if (!this.#live || this.element.dataset.status === "stopping") return;
    this.element.dataset.status = why === null ? "running" : "waiting";
    this.#wait.lastElementChild.textContent = why ?? "";
    this.#wait.hidden = why === null;
    this.#dots.hidden = why !== null;
  }

  /** Shows that stopping has been asked for. */
  stopping() {
    if (this.#live) this.element.dataset.status = "stopping";
  }

  #end(status, { messageId = null, reaction = null, actions = null, failure = null, again = null }) {
    this.#finishText();
    cancelAnimationFrame(this.#frame);
    this.#live = false;
    for (const part of this.#parts) part.tool?.abandon();
    this.#dots.remove();
    this.#wait.remove();
    this.element.dataset.status = status;
    this.element.removeAttribute("aria-busy");
    const foot = [];
    if (failure) foot.push(failureElement(failure, again));
    else if (status === "failed") foot.push(mark("warning", "This answer failed."));
    if (status === "cancelled") foot.push(mark("stop", this.text === "" ? "Stopped before an answer." : "Stopped."));
    const tools = h("div", { class: "answer-actions" });
    if (this.text !== "") tools.append(copyButton(() => this.text, "Copy answer"));
    if (messageId !== null && actions !== null) {
      tools.append(...reactionButtons(messageId, reaction, actions), regenerateButton(messageId, actions, this.element));
    }
    if (tools.children.length > 0) foot.push(tools);
    this.#foot.replaceChildren(...foot);
    this.#onChange();
  }

  #schedule() {
    if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.#render());
  }

  #render() {
    this.#frame = 0;
    const begun = performance.now();
    if (begun - this.#rendered.at < this.#rendered.tookMs * RENDER_SHARE) {
      this.#schedule();
      return;
    }
    for (const part of this.#parts) {
      if (part.dirty) part.stream.render();
      part.dirty = false;
    }
    this.#onChange();
    const now = performance.now();
    this.#rendered = { at: now, tookMs: now - begun };
  }

  /** No more text comes to the last part. */
  #finishText() {
    const part = this.#parts.at(-1);
    if (!part?.stream) return;
    part.stream.finish();
    part.stream = null;
    part.dirty = false;
  }
}

function textElement() {
  return h("div", { class: "prose", "data-testid": "answer-text" });
}

function mark(iconName, text) {
  return h("p", { class: "answer-mark", "data-testid": "answer-mark" }, icon(iconName), text);
}

function failureElement(failure, again) {
  return h(
    "div",
    { class: "failure", "data-testid": "failure", "data-code": failure.code },
    icon("warning"),
    h("div", {}, h("strong", {}, headingOf(failure.code)), h("p", {}, failure.message), again && againButton(again)),
  );
}

function againButton({ label, act }) {
  const button = h("button", { type: "button", class: "button", "data-testid": "retry" }, label);
  button.addEventListener("click", () => {
    button.disabled = true;
    act();
  });
  return button;
}

/** Shown on the last answer only; see the style sheet. */
function regenerateButton(messageId, actions, element) {
  const label = "Answer again";
  const attributes = { type: "button", class: "quiet-button regenerate", title: label, "aria-label": label };
  const button = h("button", { ...attributes, "data-testid": "regenerate" }, icon("again"));
  button.addEventListener("click", async () => {
    button.disabled = true;
    await actions.regenerate(messageId, element);
    button.disabled = false;
  });
  return button;
}

function reactionButtons(messageId, reaction, actions) {
  let current = reaction;
  const buttons = [
    ["up", "thumbUp", "Good answer"],
    ["down", "thumbDown", "Bad answer"],
  ].map(([value, iconName, label]) => {
    const attributes = { type: "button", class: "quiet-button", title: label, "aria-label": label };
    const button = h("button", { ...attributes, "data-testid": `reaction-${value}` }, icon(iconName));
    button.addEventListener("click", async () => {
      const before = current;
      current = current === value ? null : value;
      show();
      if (!(await actions.react(messageId, current))) {
        current = before;
        show();
      }
    });
    return [value, button];
  });
  const show = () => {
    for (const [value, button] of buttons) button.setAttribute("aria-pressed", String(current === value));
  };
  show();
  return buttons.map(([, button]) => button);
}
