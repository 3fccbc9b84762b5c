/**
 * A tool call that waits for its user: what it would do, why it asks, and the two answers. Plain buttons, so that the
 * keyboard works as everywhere; it takes no focus by itself, because the user may be writing.
 *
 * The answer leaves as an event `approval` that bubbles: {approvalId, approved, failed(sentence)}.
 */

import { say } from "./announce.js";
import { h, icon } from "./dom.js";
import { section, toolLabel } from "./toolparts.js";

let made = 0;

export class ApprovalCard {
  #status = h("p", { class: "approval-status", role: "status" });
  #buttons;
  #sent = false;

  /** `call`: {name, arguments, approval: {id, reason}}. */
  constructor({ name, arguments: given, approval }) {
    const { server, tool } = toolLabel(name);
    const title = `approval-title-${(made += 1)}`;
    const reason = `approval-reason-${made}`;
    const button = (label, approved, look) => {
      const attributes = { type: "button", class: `button ${look}`, "data-testid": approved ? "approve" : "decline" };
      const described = { "aria-label": `${label}: ${tool}`, "aria-describedby": reason };
      return h("button", { ...attributes, ...described, on: { click: () => this.#answer(approval.id, approved) } }, label);
    };
    this.#buttons = [button("Run it", true, "primary"), button("Don't run it", false, "")];
    const heading = [h("strong", { id: title }, `Run ${tool}?`), server && h("span", { class: "tool-server" }, server)];
    this.element = h(
      "div",
      { class: "approval", role: "group", "aria-labelledby": title, "data-testid": "approval" },
      icon("warning"),
      h(
        "div",
        { class: "approval-body" },
        h("p", { class: "approval-title" }, heading),
        h("p", { id: reason, "data-testid": "approval-reason" }, approval.reason),
        section("Would be given", given ?? {}),
        h("div", { class: "approval-buttons" }, this.#buttons),
        this.#status,
      ),
    );
    say(`Waiting for you: run ${tool}? ${approval.reason}`);
  }

  #answer(approvalId, approved) {
    if (this.#sent) return;
    this.#sent = true;
    this.#disable(true);
    this.#status.textContent = approved ? "Running it …" : "Not running it …";
    const failed = (sentence) => {
      this.#sent = false;
      this.#disable(false);
      this.#status.textContent = sentence;
    };
    this.element.dispatchEvent(new CustomEvent("approval", { bubbles: true, detail: { approvalId, approved, failed } }));
  }

  /** Buttons that are disabled lose the focus, which then would be nowhere. */
  #disable(disabled) {
    for (const button of this.#buttons) button.setAttribute("aria-disabled", String(disabled));
  }

  /** Takes the card away; `next` gets the focus if it was in here. */
  settle(next) {
    const focused = this.element.contains(document.activeElement);
    this.element.remove();
    if (focused) next?.focus();
  }
}
