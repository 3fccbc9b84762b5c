/** What is said besides what is shown: to screen readers in one polite region, and briefly to everyone in a toast. */

import { byId, h } from "./dom.js";

const TOAST_MS = 6000;
const MAX_TOASTS = 3;
const MAX_SAID = 4000;

/** Says a sentence to screen readers. Streaming text is never said piece by piece. */
export function say(text) {
  const region = byId("announcer");
  const sentence = text.length > MAX_SAID ? `${text.slice(0, MAX_SAID)} …` : text;
  // The same words twice would not count as a change.
  region.textContent = region.textContent === sentence ? `${sentence}\u00a0` : sentence;
}

/** Shows a sentence for a few seconds. */
export function toast(text) {
  const region = byId("toasts");
  const element = h("div", { class: "toast", "data-testid": "toast" }, text);
  region.append(element);
  while (region.children.length > MAX_TOASTS) region.firstElementChild.remove();
  setTimeout(() => element.remove(), TOAST_MS);
}
