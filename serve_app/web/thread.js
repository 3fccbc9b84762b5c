/** The messages of the open conversation, and where one is in them. */

import { AnswerView } from "./answer.js";
import { h, icon } from "./dom.js";
import { questionElement } from "./question.js";

const NEAR_END_PX = 64;

export class Thread {
  #scroller;
  #list;
  #jump;
  #atEnd = true;
  #questions = new Map();
  #answered = new Set();

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
    this.#questions.clear();
    this.#answered.clear();
    this.#atEnd = true;
    this.#look();
  }

  /** Something else in the messages' place: an empty state, a problem, a sign of loading. */
  /** `act` is given what the user answers to a tool call that waits: see `approval.js`. */
  onApproval(act) {
    this.#list.addEventListener("approval", (event) => act(event.detail));
  }

  showInstead(element) {
    this.clear();
    this.#list.append(element);
  }

  /** A stored page, the newest first as the server gives it; `earlier` puts it before what is shown. */
  show(page, { actions, onEarlier, earlier = false }) {
    if (!earlier) this.clear();
    const messages = [...page.items].reverse();
    const elements = messages.map((message) => {
      const turnId = message.metadata.turn_id;
      if (message.role !== "user") {
        this.#answered.add(turnId);
        return AnswerView.of(message, actions).element;
      }
      const question = questionElement(textOf(message), actions);
      question.dataset.message = message.id;
      this.#name(question, turnId);
      return question;
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
    this.toEnd();
  }

  /** Adds a question and an answer that is to come. */
  ask(question, actions) {
    this.#list.querySelector(":scope > :not(.question, .answer, .earlier)")?.remove();
    this.#list.append(questionElement(question, actions));
    return this.#begin(null);
  }

  /** Adds the answer that is to come to the question of this turn, or else at the end. */
  follow(turnId) {
    return this.#begin(this.#questions.get(turnId) ?? null);
  }

  /** The text of the question above an answer. */
  questionOf(answer) {
    return answer.previousElementSibling?.querySelector(".bubble")?.textContent ?? "";
  }

  #begin(question) {
    const answer = new AnswerView(() => this.#stick()).begin();
    if (question === null) this.#list.append(answer.element);
    else question.after(answer.element);
    this.toEnd();
    return answer;
  }

  /** Takes an answer and its question away: the server never had them, or they are shown already. */
  withdraw(answer) {
    answer.element.previousElementSibling?.remove();
    answer.element.remove();
  }

  /** Says which turn an answer asked for here belongs to. */
  identify(answer, turnId) {
    const question = answer.element.previousElementSibling;
    if (question?.matches(".question")) this.#name(question, turnId);
  }

  #name(question, turnId) {
    question.dataset.turn = turnId;
    this.#questions.set(turnId, question);
  }

  /** Takes away what is shown from `element` on; the question before it, or null. */
  cutFrom(element) {
    const before = element.previousElementSibling;
    while (element.nextElementSibling) element.nextElementSibling.remove();
    element.remove();
    for (const [turnId, question] of this.#questions) if (!question.isConnected) this.#questions.delete(turnId);
    return before?.matches(".question") ? before : null;
  }

  /** The answer of this turn is shown whole. */
  answered(turnId) {
    this.#answered.add(turnId);
  }

  hasQuestion(turnId) {
    return this.#questions.has(turnId);
  }

  hasAnswer(turnId) {
    return this.#answered.has(turnId);
  }

  /** The turns whose question is shown without an answer below it, in their order. */
  get unanswered() {
    const waiting = [...this.#questions].filter(([, question]) => !question.nextElementSibling?.matches(".answer"));
    return waiting.map(([turnId]) => turnId);
  }

  get lastQuestion() {
    return [...this.#list.querySelectorAll(".bubble")].at(-1)?.textContent ?? "";
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
