/** Copying text, also where the page's origin is not a secure one. */

import { say, toast } from "./announce.js";
import { h, icon } from "./dom.js";

const SHOWN_MS = 1600;

/** A button that copies what `text()` returns and says that it did. */
export function copyButton(text, label = "Copy") {
  const button = h("button", { type: "button", class: "quiet-button", "data-testid": "copy", "aria-label": label });
  const rest = () => button.replaceChildren(icon("copy"), h("span", {}, "Copy"));
  let timer = 0;
  button.addEventListener("click", async () => {
    if (!(await copy(text()))) {
      toast("The text could not be copied.");
      return;
    }
    say("Copied.");
    button.replaceChildren(icon("check"), h("span", {}, "Copied"));
    clearTimeout(timer);
    timer = setTimeout(rest, SHOWN_MS);
  });
  rest();
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

/** The old way, for origins on which `navigator.clipboard` does not exist. */
function copyBySelection(text) {
  const field = h("textarea", { class: "offscreen", readonly: true, "aria-hidden": "true", tabindex: "-1" });
  const focused = document.activeElement;
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return copied;
}
