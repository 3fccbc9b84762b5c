/** The messages of the open conversation, and where one is in them. */

import { AnswerView } from "./answer.js";
import { h, icon } from "./dom.js";

const NEAR_END_PX = 64;

export class Thread {
  #scroller;
  #list;
  #jump;
  #atEnd = true;
  #lastQuestion = "";
  #turns = new Set();
  #awaits = false;

  /** Elements: the scrolling one, the list inside it, and the button that leads to the end. */
  constructor(scroller, list, jump) {
    this.#scroller = scroller;
    this.#list = list;
    this.#jump = jump;
    scroller.addEventListener("scroll", () => this.#look(), { passive: true });
    new ResizeObserver(() => this.#stick()).observe(scroller);
    jump.addEventListener("click", () => this.toEnd());
  }

  clear() {
    this.#list.replaceChildren();
    this.#lastQuestion = "";
    this.#turns.clear();
    this.#awaits = false;
    this.#atEnd = true;
    this.#look();
  }

  /** Something else in the messages' place: an empty state, a problem, a sign of loading. */
  showInstead(element) {
    this.clear();
    this.#list.append(element);
  }

  /** A stored page, the newest first as the server gives it; `earlier` puts it before what is shown. */
  show(page, { actions, onEarlier, earlier = false }) {
    if (!earlier) this.clear();
    const messages = [...page.items].reverse();
    const elements = messages.map((message) => {
      this.#turns.add(`${message.role} ${message.metadata.turn_id}`);
      return message.role === "user" ? questionElement(textOf(message)) : AnswerView.of(message, actions).element;
    });
    if (page.next_cursor !== null) elements.unshift(earlierButton(() => onEarlier(page.next_cursor)));
    if (earlier) {
      const before = this.#scroller.scrollHeight - this.#scroller.scrollTop;
      this.#list.querySelector("[data-testid=earlier]")?.remove();
      this.#list.prepend(...elements);
      this.#scroller.scrollTop = this.#scroller.scrollHeight - before;
      return;
    }
    this.#list.append(...elements);
    const last = messages.at(-1);
    this.#awaits = last?.role === "user";
    this.#lastQuestion = textOf(messages.findLast((message) => message.role === "user"));
    this.toEnd();
  }

  /** Adds a question and an answer that is to come. Without `question` the question is there already. */
  beginAnswer(question) {
    if (question !== null) {
      this.#list.append(questionElement(question));
      this.#lastQuestion = question;
    }
    this.#awaits = false;
    const answer = new AnswerView(() => this.#stick()).begin();
    this.#list.append(answer.element);
    this.toEnd();
    return answer;
  }

  /** Takes an answer and its question away: the server never had them. */
  withdraw(answer) {
    answer.element.previousElementSibling?.remove();
    answer.element.remove();
  }

  /** Whether the stored answer of this turn is shown. */
  hasAnswer(turnId) {
    return this.#turns.has(`assistant ${turnId}`);
  }

  /** Whether the last thing shown is a question without its answer. */
  get awaitsAnswer() {
    return this.#awaits;
  }

  get lastQuestion() {
    return this.#lastQuestion;
  }

  /** The last stored answer, where it failed, gets a way to try again. */
  offerRetry(act) {
    const last = this.#list.lastElementChild;
    if (last?.dataset.status !== "failed" || last.querySelector("[data-testid=retry]")) return;
    const button = h("button", { type: "button", class: "button", "data-testid": "retry" }, "Try again");
    button.addEventListener("click", () => {
      button.remove();
      act();
    });
    last.querySelector(".answer-foot").prepend(button);
  }

  toEnd() {
    this.#atEnd = true;
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#look();
  }

  /** Follows the end for as long as the reader is there. */
  #stick() {
    if (this.#atEnd) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    else this.#look();
  }

  #look() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    this.#atEnd = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    this.#jump.hidden = this.#atEnd;
  }
}

/** A sign that messages are being read; it appears only when that takes a while. */
export function loadingElement() {
  return h("div", { class: "loading", role: "status" }, h("span", { class: "spinner" }), "Loading the conversation…");
}

/** What stands in the messages' place when they cannot be had. */
export function problemElement(title, sentence, buttons) {
  return h(
    "div",
    { class: "instead", "data-testid": "problem" },
    h("div", { class: "instead-icon" }, icon("warning")),
    h("h2", {}, title),
    h("p", {}, sentence),
    h("div", { class: "instead-buttons" }, buttons),
  );
}

function questionElement(text) {
  return h(
    "article",
    { class: "question", "data-testid": "message-user", "aria-label": "Your message" },
    h("div", { class: "bubble", dir: "auto" }, text),
  );
}

function earlierButton(act) {
  const button = h("button", { type: "button", class: "button earlier", "data-testid": "earlier" }, "Show earlier messages");
  button.addEventListener("click", () => {
    button.disabled = true;
    act();
  });
  return button;
}

function textOf(message) {
  const texts = (message?.parts ?? []).filter((part) => part.type === "text");
  return texts.map((part) => part.text).join("\n");
}
