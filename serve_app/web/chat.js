/**
 * The conversation that is open: what is asked, the turn that answers, and how both survive a lost connection.
 *
 * One turn at most is live on the page. Its question carries an id made here, so asking again after a drop gives the same
 * turn; once the turn is known, the page resumes after the last event it has. Events of other turns are not shown: opening
 * their conversation shows them.
 */

import { say, toast } from "./announce.js";
import { Connection } from "./connection.js";
import { h } from "./dom.js";
import { headingOf } from "./failures.js";
import { loadingElement, problemElement } from "./thread.js";
import { TERMINAL, Turn } from "./turn.js";

const MAX_RESUMES = 4;
const RESUME_WAIT_MS = 800;
const LOADING_SHOWN_AFTER_MS = 200;

export class Chat {
  #api;
  #thread;
  #composer;
  #hooks;
  #connection;
  #visit = 0;
  #conversationId = null;
  #loaded = false;
  #attached = null;
  #attaching = [];
  #reread = false;
  #live = null;
  #timers = new Set();

  /**
   * Hooks: session(frame), title(id, title), created(id, question), active(id), connection(state), empty(ask) gives the
   * element of a conversation without messages, goNew(), modelId().
   */
  constructor({ identity, api, thread, composer, hooks }) {
    this.#api = api;
    this.#thread = thread;
    this.#composer = composer;
    this.#hooks = hooks;
    this.#connection = new Connection(identity, {
      frame: (frame) => this.#receive(frame),
      state: (state) => this.#connectionChanged(state),
    });
  }

  start() {
    this.#connection.start();
  }

  stop() {
    this.#visit += 1;
    this.#live = null;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#connection.stop();
  }

  retryNow() {
    this.#connection.retryNow();
  }

  get conversationId() {
    return this.#conversationId;
  }

  /** Opens a conversation; null is a new one, made with its first message. */
  async open(id) {
    const visit = this.#leave();
    this.#conversationId = id;
    this.#loaded = false;
    this.#reread = false;
    this.#composer.switchTo(id);
    if (id === null) {
      this.#showEmpty();
      this.#loaded = true;
      this.#composer.setState("idle");
      return;
    }
    this.#composer.setState("off");
    const loading = setTimeout(() => this.#thread.showInstead(loadingElement()), LOADING_SHOWN_AFTER_MS);
    this.#thread.clear();
    let page;
    try {
      page = await this.#api.messages(id);
    } catch (problem) {
      if (visit === this.#visit) this.#cannotOpen(id, problem);
      return;
    } finally {
      clearTimeout(loading);
    }
    if (visit !== this.#visit) return;
    this.#show(page);
    this.#loaded = true;
    this.#composer.setState("idle");
    this.#attach();
  }

  /** The empty state again, as tools and roles may have become known. */
  refreshEmpty() {
    if (this.#conversationId === null && this.#live === null && this.#loaded) this.#showEmpty();
  }

  /** Sends a question; false when it cannot be sent now. */
  ask(content) {
    if (content === "" || this.#live !== null || !this.#loaded) return false;
    if (this.#conversationId === null) this.#thread.clear();
    this.#begin(content, this.#thread.beginAnswer(content));
    say("Sent.");
    if (this.#attached !== null && this.#attached === this.#conversationId) this.#sendQuery();
    else this.#attach();
    return true;
  }

  /** Stops the answer that is coming. */
  cancel() {
    const live = this.#live;
    if (!live || live.stopping) return;
    live.stopping = true;
    live.view.stopping();
    if (live.turn.id !== null) {
      this.#connection.send({ type: "cancel", turn_id: live.turn.id });
    } else if (!live.sent) {
      this.#settle();
      live.view.cancelled(null, null);
    }
  }

  get busy() {
    return this.#live !== null;
  }

  #showEmpty() {
    this.#thread.showInstead(this.#hooks.empty((question) => this.ask(question)));
  }

  #show(page) {
    this.#thread.show(page, { actions: this.#actions(), onEarlier: (cursor) => this.#earlier(cursor) });
    if (page.items.length === 0) this.#showEmpty();
    this.#thread.offerRetry(() => this.ask(this.#thread.lastQuestion));
  }

  #cannotOpen(id, problem) {
    const fresh = h("button", { type: "button", class: "button primary" }, "New conversation");
    fresh.addEventListener("click", () => this.#hooks.goNew());
    if (problem.code === "not_found" || problem.code === "invalid_input") {
      const sentence = "It may have been deleted, or it belongs to another user.";
      this.#thread.showInstead(problemElement("There is no such conversation", sentence, [fresh]));
      return;
    }
    const again = h("button", { type: "button", class: "button", "data-testid": "retry" }, "Try again");
    again.addEventListener("click", () => this.open(id));
    this.#thread.showInstead(problemElement(headingOf(problem.code), problem.message, [again, fresh]));
  }

  async #earlier(cursor) {
    const visit = this.#visit;
    try {
      const page = await this.#api.messages(this.#conversationId, cursor);
      if (visit !== this.#visit) return;
      const onEarlier = (next) => this.#earlier(next);
      this.#thread.show(page, { actions: this.#actions(), onEarlier, earlier: true });
    } catch (problem) {
      toast(problem.message);
    }
  }

  #actions() {
    const conversationId = this.#conversationId;
    return {
      react: async (messageId, reaction) => {
        try {
          await this.#api.react(conversationId, messageId, reaction);
          return true;
        } catch (problem) {
          toast(`The reaction was not kept. ${problem.message}`);
          return false;
        }
      },
    };
  }

  /** Leaves the open conversation; its turn goes on at the server. A question not sent yet becomes a draft again. */
  #leave() {
    const live = this.#live;
    if (live && !live.sent && live.content !== null) this.#composer.text = live.content;
    this.#live = null;
    this.#visit += 1;
    return this.#visit;
  }

  #begin(content, view) {
    this.#live = {
      content,
      view,
      turn: new Turn(view),
      clientTurnId: newId(),
      modelId: this.#hooks.modelId(),
      sent: false,
      stopping: false,
      resuming: false,
      resumes: 0,
    };
    this.#composer.setState("busy");
    return this.#live;
  }

  /** The live turn is over. */
  #settle() {
    this.#live = null;
    this.#composer.setState("idle");
  }

  #connectionChanged(state) {
    if (state.name !== "open") {
      this.#attached = null;
      this.#attaching = [];
      if (this.#live) this.#live.resuming = false;
    }
    this.#hooks.connection(state);
    if (state.name === "open") this.#attach();
  }

  /** Attaches the socket to the open conversation. A new one is made only once there is a question for it. */
  #attach() {
    if (!this.#connection.open || !this.#loaded) return;
    if (this.#conversationId === null && this.#live === null) return;
    if (this.#attaching.at(-1)?.visit === this.#visit) return;
    const frame = { type: "session.update" };
    if (this.#conversationId !== null) frame.session_id = this.#conversationId;
    if (this.#connection.send(frame)) this.#attaching.push({ visit: this.#visit });
  }

  #receive(frame) {
    switch (frame.type) {
      case "session.created":
        this.#sessionCreated(frame);
        break;
      case "title":
        this.#hooks.title(frame.session_id, frame.title);
        break;
      case "error":
        this.#failed(frame);
        break;
      default:
        if (typeof frame.seq === "number" && typeof frame.turn_id === "string") this.#event(frame);
    }
  }

  #sessionCreated(frame) {
    const attaching = this.#attaching.shift();
    this.#attached = frame.session_id;
    this.#hooks.session(frame);
    if (attaching?.visit !== this.#visit) return;
    const live = this.#live;
    if (this.#conversationId === null) {
      this.#conversationId = frame.session_id;
      this.#composer.rename(frame.session_id);
      this.#hooks.created(frame.session_id, live?.content ?? "");
    }
    if (live) {
      if (live.turn.id !== null) this.#resume();
      else this.#sendQuery();
    } else if (frame.active_turn && !this.#thread.hasAnswer(frame.active_turn.turn_id)) {
      const shown = this.#begin(null, this.#thread.beginAnswer(null));
      shown.turn.id = frame.active_turn.turn_id;
      shown.sent = true;
      this.#resume();
    } else if (this.#thread.awaitsAnswer && !this.#reread) {
      // It ended between reading the messages and attaching.
      this.#readAgain();
    }
  }

  async #readAgain() {
    const visit = this.#visit;
    this.#reread = true;
    try {
      const page = await this.#api.messages(this.#conversationId);
      if (visit === this.#visit && this.#live === null) this.#show(page);
    } catch (problem) {
      toast(problem.message);
    }
  }

  #sendQuery() {
    const live = this.#live;
    if (live.stopping) {
      this.#settle();
      live.view.cancelled(null, null);
      return;
    }
    const frame = { type: "query", content: live.content, client_turn_id: live.clientTurnId };
    if (live.modelId) frame.model_id = live.modelId;
    if (this.#connection.send(frame)) live.sent = true;
  }

  #resume() {
    const live = this.#live;
    live.resuming = true;
    this.#connection.send({ type: "resume", turn_id: live.turn.id, after_seq: live.turn.seq });
    if (live.stopping) this.#connection.send({ type: "cancel", turn_id: live.turn.id });
  }

  #event(event) {
    const live = this.#live;
    if (!live) return;
    const begins = live.turn.id === null && event.type === "turn.started" && event.client_turn_id === live.clientTurnId;
    if (!begins && live.turn.id !== event.turn_id) return;
    const outcome = live.turn.apply(event);
    if (outcome === "gap" && !live.resuming) this.#resume();
    if (outcome !== "applied") return;
    live.resuming = false;
    live.resumes = 0;
    if (begins && live.stopping) this.#connection.send({ type: "cancel", turn_id: live.turn.id });
    if (TERMINAL.has(event.type)) this.#finished(live, event);
  }

  #finished(live, event) {
    this.#settle();
    const actions = this.#actions();
    const { messageId } = live.turn;
    if (event.type === "chat_response") {
      live.view.complete(messageId, actions);
    } else if (event.type === "turn.cancelled") {
      live.view.cancelled(messageId, actions);
    } else {
      const question = live.content ?? this.#thread.lastQuestion;
      const again = event.retryable && question ? { label: "Try again", act: () => this.ask(question) } : null;
      live.view.failed(event, again, messageId, actions);
    }
    this.#hooks.active(this.#conversationId);
  }

  /** An error frame: about a turn, or about the one frame that is waiting for its answer. */
  #failed(frame) {
    const live = this.#live;
    if (frame.turn_id) {
      if (live?.turn.id === frame.turn_id) this.#turnTroubled(live, frame);
      return;
    }
    if (this.#attaching.length > 0) {
      const { visit } = this.#attaching.shift();
      if (visit !== this.#visit) return;
      if (live) this.#notSent(live, frame);
      else toast(frame.message);
    } else if (live && live.sent && live.turn.id === null) {
      this.#notSent(live, frame);
    } else {
      toast(frame.message);
    }
  }

  #notSent(live, frame) {
    this.#settle();
    if (frame.code === "conflict" && this.#conversationId !== null) {
      // Another window asked here first: show what it asked, and keep the question for afterwards.
      toast(frame.message);
      const question = live.content;
      this.open(this.#conversationId).then(() => {
        if (this.#composer.text === "" && question !== null) this.#composer.text = question;
      });
      return;
    }
    const again = {
      label: "Try again",
      act: () => {
        this.#thread.withdraw(live.view);
        this.ask(live.content);
      },
    };
    const edit = {
      label: "Edit the message",
      act: () => {
        this.#thread.withdraw(live.view);
        this.#composer.text = live.content;
        this.#composer.focus();
      },
    };
    live.view.failed(frame, frame.retryable ? again : edit);
  }

  /** The server cannot show the turn, or not now. The turn itself may be well. */
  #turnTroubled(live, frame) {
    if (!frame.retryable) {
      this.open(this.#conversationId);
      return;
    }
    live.resumes += 1;
    if (live.resumes > MAX_RESUMES) {
      this.#settle();
      live.view.failed(frame, { label: "Show the answer", act: () => this.open(this.#conversationId) });
      return;
    }
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      if (this.#live === live && this.#connection.open) this.#resume();
    }, RESUME_WAIT_MS * live.resumes);
    this.#timers.add(timer);
  }
}

/** A random UUID, also on origins where `crypto.randomUUID` does not exist. */
function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const digits = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
