/** A tool call as it is shown: what runs, with what, how long it took and what came of it. Closed until opened. */

import { h, icon } from "./dom.js";

const SHOWN_CHARS = 12_000;
const PREVIEW_CHARS = 120;

export class ToolCallView {
  #name;
  #result = h("div");
  #mark = h("span", { class: "tool-mark" }, h("span", { class: "spinner" }));
  #preview = h("span", { class: "tool-preview", "data-testid": "tool-preview" });
  #time = h("span", { class: "tool-time" });

  /** `call`: {name, arguments}. */
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
    this.element = h(
      "details",
      { class: "tool", "data-testid": "tool-call", "data-tool": call.name, "data-state": "running" },
      summary,
      h("div", { class: "tool-body" }, given ? section("Given", call.arguments) : null, this.#result),
    );
    this.#label("running");
  }

  /** `outcome`: {ok, result, durationMs?}. */
  finish({ ok, result, durationMs }) {
    this.element.dataset.state = ok ? "done" : "failed";
    this.#mark.replaceChildren(icon(ok ? "check" : "warning"));
    this.#time.textContent = durationMs === undefined ? "" : durationText(durationMs);
    if (ok) this.#result.replaceChildren(section("Result", result));
    else this.#showFailure(failureOf(result));
    this.#label(ok ? "done" : "failed");
  }

  /** The turn ended before the call did. */
  abandon() {
    if (this.element.dataset.state !== "running") return;
    this.element.dataset.state = "failed";
    this.#mark.replaceChildren(icon("warning"));
    this.#showFailure("It did not finish; whether it took effect is not known.");
    this.#label("not finished");
  }

  /** A failure is told without opening the call. */
  #showFailure(sentence) {
    this.#preview.textContent = shortened(sentence);
    this.#result.replaceChildren(h("p", { class: "tool-failure" }, sentence));
  }

  #label(state) {
    const { server, tool } = toolLabel(this.#name);
    this.#mark.setAttribute("title", state);
    this.element.setAttribute("aria-label", `Tool ${tool}${server ? ` of ${server}` : ""}, ${state}`);
  }
}

/** A tool's name for people: "crm.find_account" is "find account" of "crm". */
export function toolLabel(name) {
  const dot = name.indexOf(".");
  const words = (text) => text.replaceAll("_", " ").trim();
  return dot > 0 ? { server: name.slice(0, dot), tool: words(name.slice(dot + 1)) } : { server: "", tool: words(name) };
}

function section(title, value) {
  const whole = typeof value === "string" ? value : JSON.stringify(value, null, 2) ?? "";
  const pre = h("pre", { tabindex: "0", role: "region", "aria-label": title, "data-testid": `tool-${title.toLowerCase()}` });
  const parts = [h("h4", {}, title), pre];
  if (whole.length > SHOWN_CHARS) {
    pre.textContent = `${whole.slice(0, SHOWN_CHARS)} …`;
    const button = h("button", { type: "button", class: "quiet-button" }, "Show all");
    button.addEventListener("click", () => {
      pre.textContent = whole;
      pre.focus();
      button.remove();
    });
    parts.push(button);
  } else {
    pre.textContent = whole === "" ? "nothing" : whole;
  }
  return h("section", {}, parts);
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
