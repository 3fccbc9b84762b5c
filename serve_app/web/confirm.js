/** Asking before something that cannot be undone. */

import { h } from "./dom.js";

/** Resolves to whether the user agreed. The way back has the focus. */
export function confirmed({ title, sentence, action }) {
  return new Promise((resolve) => {
    const cancel = h("button", { type: "button", class: "button", autofocus: true, "data-testid": "confirm-cancel" }, "Cancel");
    const agree = h("button", { type: "button", class: "button danger", "data-testid": "confirm-ok" }, action);
    const dialog = h(
      "dialog",
      { class: "dialog", "aria-labelledby": "confirm-title", "aria-describedby": "confirm-text", "data-testid": "confirm" },
      h("h2", { id: "confirm-title" }, title),
      h("p", { id: "confirm-text" }, sentence),
      h("div", { class: "dialog-buttons" }, cancel, agree),
    );
    let agreed = false;
    cancel.addEventListener("click", () => dialog.close());
    agree.addEventListener("click", () => {
      agreed = true;
      dialog.close();
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(agreed);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
