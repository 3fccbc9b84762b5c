/** Where a message is written. Enter sends, Shift+Enter makes a line; drafts are kept for each conversation. */

import { recall, remember, tabStorage } from "./storage.js";

const COUNT_FROM = 0.9;

export class Composer {
  #form;
  #input;
  #send;
  #stop;
  #count;
  #handlers;
  #draftKey = "new";
  #state = "idle";
  #limits = { chars: 32_000, frameBytes: 65_536 };

  /** Handlers: send(text) returns whether it was taken, stop(). */
  constructor({ form, input, send, stop, count }, handlers) {
    this.#form = form;
    this.#input = input;
    this.#send = send;
    this.#stop = stop;
    this.#count = count;
    this.#handlers = handlers;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    input.addEventListener("keydown", (event) => {
      // While an input method composes, Enter chooses a word.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.#submit();
    });
    input.addEventListener("input", () => {
      this.#keep();
      this.#changed();
    });
    stop.addEventListener("click", () => {
      handlers.stop();
      input.focus();
    });
    this.#changed();
  }

  /** `idle`: may send; `busy`: an answer is coming and may be stopped; `both`: either; `off`: neither. */
  setState(state) {
    const stopHadFocus = document.activeElement === this.#stop;
    this.#state = state;
    this.#stop.hidden = state !== "busy" && state !== "both";
    this.#send.hidden = state === "busy";
    if (stopHadFocus && this.#stop.hidden) this.#input.focus();
    this.#changed();
  }

  setLimits(chars, frameBytes) {
    this.#limits = { chars, frameBytes };
    this.#changed();
  }

  /** Puts the draft of another conversation into the field; null is the one that does not exist yet. */
  switchTo(conversationId) {
    this.#draftKey = conversationId ?? "new";
    this.text = recall(`draft.${this.#draftKey}`, tabStorage()) ?? "";
  }

  /** The draft belongs to this conversation from now on. */
  rename(conversationId) {
    remember(`draft.${this.#draftKey}`, null, tabStorage());
    this.#draftKey = conversationId;
    this.#keep();
  }

  get text() {
    return this.#input.value;
  }

  set text(text) {
    this.#input.value = text;
    this.#keep();
    this.#changed();
  }

  focus() {
    this.#input.focus({ preventScroll: true });
  }

  #submit() {
    const text = this.#input.value.trim();
    if (this.#send.disabled) return;
    if (this.#handlers.send(text)) this.text = "";
  }

  #keep() {
    const text = this.#input.value;
    remember(`draft.${this.#draftKey}`, text === "" ? null : text, tabStorage());
  }

  #changed() {
    const text = this.#input.value;
    const { chars, frameBytes } = this.#limits;
    // Room for the frame around the text; most texts are too short to need encoding.
    const tooBig = text.length * 6 > frameBytes && new TextEncoder().encode(JSON.stringify(text)).length > frameBytes - 1024;
    const tooLong = text.length > chars;
    const share = text.length / chars;
    this.#count.hidden = share < COUNT_FROM && !tooBig;
    this.#count.textContent = tooLong || !tooBig ? `${text.length} of ${chars} characters` : "Too long to send at once";
    this.#count.classList.toggle("over", tooLong || tooBig);
    const mayNot = this.#state === "busy" || this.#state === "off";
    this.#send.disabled = mayNot || text.trim() === "" || tooLong || tooBig;
    // Browsers that size a field by its content need no help.
    if (!CSS.supports("field-sizing", "content")) {
      this.#input.style.setProperty("height", "auto");
      this.#input.style.setProperty("height", `${this.#input.scrollHeight}px`);
    }
  }
}
