/** One question on the page, and the form that changes it. */

import { h, icon } from "./dom.js";

/**
 * `actions.edit(element, text)` sends the question anew in another form; it resolves to false where that did not work. The
 * element's `data-turn` and `data-message` say which question it is, as far as is known.
 */
export function questionElement(text, actions) {
  const bubble = h("div", { class: "bubble", dir: "auto" }, text);
  const label = "Edit this message";
  const pencil = h("button", { type: "button", class: "quiet-button", title: label, "aria-label": label, "data-testid": "edit" });
  pencil.append(icon("pencil"));
  const element = h(
    "article",
    { class: "question", "data-testid": "message-user", "aria-label": "Your message" },
    pencil,
    bubble,
  );
  pencil.addEventListener("click", () => {
    const form = editForm(text, {
      send: (changed) => actions.edit(element, changed),
      close: () => {
        form.replaceWith(pencil, bubble);
        pencil.focus();
      },
    });
    pencil.remove();
    bubble.replaceWith(form);
    form.querySelector("textarea").focus();
  });
  return element;
}

function editForm(text, { send, close }) {
  const field = h("textarea", { class: "bubble", dir: "auto", rows: "3", "aria-label": "Your message", "data-testid": "edit-input" });
  const submit = h("button", { type: "submit", class: "button primary", "data-testid": "edit-send" }, "Send");
  const leave = h("button", { type: "button", class: "button", "data-testid": "edit-cancel" }, "Cancel");
  const note = "The answer to it, and what came after, will no longer be shown.";
  const form = h(
    "form",
    { class: "edit" },
    field,
    h("div", { class: "edit-row" }, h("p", { class: "hint" }, note), leave, submit),
  );
  field.value = text;
  leave.addEventListener("click", close);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const changed = field.value.trim();
    if (submit.disabled || changed === "") return;
    if (changed === text) {
      close();
      return;
    }
    submit.disabled = true;
    if (!(await send(changed))) submit.disabled = false;
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.preventDefault();
      close();
    } else if (event.key === "Enter" && event.target === field && !event.shiftKey && !event.isComposing && event.keyCode !== 229) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  return form;
}
