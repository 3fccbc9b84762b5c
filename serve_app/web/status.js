/** What the page says about its connection and its server, above the messages. */

import { say } from "./announce.js";
import { h, icon } from "./dom.js";

/** A line that is back at once need not be mentioned. */
const SHOWN_AFTER_MS = 800;

export class ConnectionBanner {
  #element;
  #sentence = h("span", {}, "Connecting…");
  #timer = 0;

  /** `retry` is called by whoever does not want to wait. */
  constructor(element, retry) {
    this.#element = element;
    const button = h("button", { type: "button", class: "quiet-button" }, "Try now");
    button.addEventListener("click", retry);
    element.append(h("span", { class: "spinner" }), this.#sentence, button);
  }

  show(state) {
    if (state.name === "open" || (state.name === "stopped" && !state.code)) {
      clearTimeout(this.#timer);
      this.#timer = 0;
      if (!this.#element.hidden) say("Connected again.");
      this.#element.hidden = true;
      return;
    }
    this.#element.dataset.state = state.name;
    if (state.name === "waiting") {
      const offline = navigator.onLine ? "Reconnecting…" : "You are offline. The page goes on by itself when the network is back.";
      this.#sentence.textContent = state.message ?? offline;
    }
    if (this.#timer === 0) {
      this.#timer = setTimeout(() => {
        this.#element.hidden = false;
        say("The connection is lost. Reconnecting.");
      }, SHOWN_AFTER_MS);
    }
  }

}

/** The server's own notice, for example that its model is simulated. Closed once, it stays so in this tab. */
export function showNotice(element, text) {
  element.hidden = !text;
  if (!text) return;
  const button = h("button", { type: "button", class: "icon-button", "aria-label": "Hide this notice" }, icon("close"));
  button.addEventListener("click", () => {
    element.hidden = true;
  });
  element.replaceChildren(icon("bolt"), h("p", {}, text), button);
}
