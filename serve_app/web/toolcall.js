/**
 * A tool call as it is shown: what runs, with what, how long it took and what came of it. Closed until opened. One that
 * waits for its user has a card before it, which goes when there is an answer.
 */

import { ApprovalCard } from "./approval.js";
import { h, icon } from "./dom.js";
import { section, toolLabel } from "./toolparts.js";

const PREVIEW_CHARS = 120;

export class ToolCallView {
  #name;
  #result = h("div");
  #mark = h("span", { class: "tool-mark" }, h("span", { class: "spinner" }));
  #preview = h("span", { class: "tool-preview", "data-testid": "tool-preview" });
  #time = h("span", { class: "tool-time" });
  #card = null;

  /** `call`: {name, arguments, approval?: {id, reason}}. */
  constructor(call) {
    this.#name = call.name;
    const { server, tool } = toolLabel(call.name);
    const given = call.arguments && Object.keys(call.arguments).length > 0;
    if (given) this.#preview.textContent = previewOf(call.arguments);
    const summary = h(
      "summary",
      {},
      this.#mark,
      h("span", { class: "tool-name" }, tool),
      server && h("span", { class: "tool-server" }, server),
      this.#preview,
      this.#time,
      h("span", { class: "tool-chevron" }, icon("chevron")),
    );
    this.call = h(
      "details",
      { class: "tool", "data-testid": "tool-call", "data-tool": call.name, "data-state": "running" },
      summary,
      h("div", { class: "tool-body" }, given ? section("Given", call.arguments) : null, this.#result),
    );
    this.#label("running");
    if (call.approval) this.#card = new ApprovalCard(call);
    if (this.#card) this.#state("waiting", "clock");
    this.element = this.#card ? h("div", { class: "tool-asked" }, this.#card.element, this.call) : this.call;
  }

  /** It has been approved, and runs. */
  approved() {
    this.#settle();
    this.#mark.replaceChildren(h("span", { class: "spinner" }));
    this.call.dataset.state = "running";
    this.#label("running");
  }

  /** `outcome`: {ok, result, durationMs?}. */
  finish({ ok, result, durationMs }) {
    this.#settle();
    this.call.dataset.state = ok ? "done" : "failed";
    this.#mark.replaceChildren(icon(ok ? "check" : "warning"));
    this.#time.textContent = durationMs === undefined ? "" : durationText(durationMs);
    if (ok) this.#result.replaceChildren(section("Result", result));
    else this.#showFailure(failureOf(result));
    this.#label(ok ? "done" : "failed");
  }

  /** The turn ended before the call did. */
  abandon() {
    const before = this.call.dataset.state;
    if (before !== "running" && before !== "waiting") return;
    this.#settle();
    this.call.dataset.state = "failed";
    this.#mark.replaceChildren(icon("warning"));
    const waited = before === "waiting";
    this.#showFailure(waited ? "It was not run." : "It did not finish; whether it took effect is not known.");
    this.#label("not finished");
  }

  /** A failure is told without opening the call. */
  #showFailure(sentence) {
    this.#preview.textContent = shortened(sentence);
    this.#result.replaceChildren(h("p", { class: "tool-failure" }, sentence));
  }

  #settle() {
    this.#card?.settle(this.call.querySelector("summary"));
    this.#card = null;
  }

  #state(state, iconName) {
    this.call.dataset.state = state;
    this.#mark.replaceChildren(icon(iconName));
    this.#label(state);
  }

  #label(state) {
    const { server, tool } = toolLabel(this.#name);
    this.#mark.setAttribute("title", state);
    this.call.setAttribute("aria-label", `Tool ${tool}${server ? ` of ${server}` : ""}, ${state}`);
  }
}

function previewOf(given) {
  const text = Object.values(given)
    .map((value) => (typeof value === "string" ? value : JSON.stringify(value)))
    .join(", ");
  return shortened(text);
}

function shortened(text) {
  const line = text.slice(0, PREVIEW_CHARS * 4).replace(/\s+/g, " ");
  return line.length > PREVIEW_CHARS ? `${line.slice(0, PREVIEW_CHARS)}…` : line;
}

function failureOf(result) {
  if (typeof result === "string" && result !== "") return result;
  return result === null || result === undefined ? "The tool failed and did not say why." : JSON.stringify(result);
}

function durationText(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}
