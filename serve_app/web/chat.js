/**
 * The conversation that is open: what is shown of it, what is asked in it, and how it is attached to.
 *
 * A question carries an id made here and is kept until the server has confirmed it, so asking again after a drop or a reload
 * gives the same turn. What becomes of a turn then is told in `following.js`.
 */

import { messageActions } from "./actions.js";
import { say, toast } from "./announce.js";
import { Connection } from "./connection.js";
import { h } from "./dom.js";
import { headingOf } from "./failures.js";
import { Following } from "./following.js";
import * as pending from "./pending.js";
import { loadingElement, problemElement } from "./thread.js";

const MAX_ATTACHES = 8;
const AGAIN_WAIT_MS = 800;
const LONGEST_AGAIN_WAIT_MS = 5_000;
const LOADING_SHOWN_AFTER_MS = 200;
/** A turn that has not begun after so long may be waiting for another one. */
const BEGINS_WITHIN_MS = 1_500;

export class Chat {
  #api;
  #thread;
  #composer;
  #hooks;
  #connection;
  #following;
  #visit = 0;
  #conversationId = null;
  #loaded = false;
  #unread = false;
  #reread = false;
  #attached = null;
  #attaching = [];
  #attaches = 0;
  #timers = new Set();

  /**
   * Hooks: session(frame), title(id, title), created(id, question), active(id), connection(state), empty(ask) gives the
   * element of a conversation without messages, goNew(), modelId(), queues() says whether one may ask while an answer comes.
   */
  constructor({ credentials, api, thread, composer, hooks }) {
    this.#api = api;
    this.#thread = thread;
    this.#composer = composer;
    this.#hooks = hooks;
    this.#connection = new Connection(credentials, {
      frame: (frame) => this.#receive(frame),
      state: (state) => this.#connectionChanged(state),
    });
    this.#following = new Following(thread, this.#connection, {
      changed: () => this.#showState(),
      confirmed: (live) => pending.forget(this.#conversationId, live.clientTurnId),
      accepted: (live) => this.#watch(live),
      ended: (live, event) => this.#ended(live, event),
      lost: (live, frame) => this.#lost(live, frame),
      stale: () => this.#readAgain(),
      later: (times, act) => this.#later(AGAIN_WAIT_MS * times, act),
    });
  }

  start() {
    this.#thread.onApproval((detail) => this.#answer(detail));
    this.#connection.start();
  }

  /** Over HTTP, which says whether it counts; what becomes of the call comes with the turn's events. */
  async #answer({ approvalId, approved, failed }) {
    try {
      await this.#api.answer(approvalId, approved);
    } catch (problem) {
      failed(problem.message);
    }
  }

  stop() {
    this.#visit += 1;
    this.#following.clear();
    for (const timer of this.#timers) clearTimeout(timer);
    this.#connection.stop();
  }

  retryNow() {
    this.#connection.retryNow();
  }

  get conversationId() {
    return this.#conversationId;
  }

  get busy() {
    return this.#following.busy;
  }

  /** Opens a conversation; null is a new one, made with its first message. */
  open(id) {
    this.#reread = false;
    return this.#open(id);
  }

  async #open(id) {
    const visit = this.#leave(id);
    this.#conversationId = id;
    this.#loaded = false;
    this.#unread = false;
    this.#composer.switchTo(id);
    if (id === null) {
      this.#showEmpty();
      this.#ready();
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
    this.#ready();
  }

  /** The conversation is on the page. What had been asked in it and was never confirmed is asked again. */
  #ready() {
    this.#loaded = true;
    const { fresh, stale } = pending.restore(this.#conversationId);
    if (stale.length > 0 && this.#composer.text === "") {
      this.#composer.text = stale.map((question) => question.content).join("\n\n");
    }
    for (const question of fresh) this.#following.add({ ...question, view: this.#showQuestion(question.content) });
    this.#showState();
    this.#attach();
  }

  /** Leaves what is open for `id`; its turns go on at the server. A question not sent yet becomes a draft again. */
  #leave(id) {
    if (id !== this.#conversationId) {
      const unsent = this.#following.unconfirmed.filter((live) => !live.sent);
      for (const live of unsent) pending.forget(this.#conversationId, live.clientTurnId);
      if (unsent.length > 0) this.#composer.text = unsent.map((live) => live.content).join("\n\n");
    }
    this.#following.clear();
    this.#visit += 1;
    return this.#visit;
  }

  /** The empty state again, as tools and roles may have become known. */
  refreshEmpty() {
    if (this.#conversationId === null && !this.busy && this.#loaded) this.#showEmpty();
  }

  /** Sends a question; false when it cannot be sent now. One that was tried before keeps its id and its model. */
  ask(content, { clientTurnId, modelId = this.#hooks.modelId() } = {}) {
    if (content === "" || !this.#loaded || (this.busy && !this.#hooks.queues())) return false;
    const live = this.#following.add({ content, modelId, clientTurnId, view: this.#showQuestion(content) });
    pending.keep(this.#conversationId, live);
    say("Sent.");
    if (this.#attached !== null && this.#attached === this.#conversationId) this.#sendQuery(live);
    else this.#attach();
    return true;
  }

  /** Stops the answer that is coming; asked again, the one that waits for it. */
  cancel() {
    const live = this.#following.all.find((candidate) => !candidate.stopping);
    if (!live) return;
    live.stopping = true;
    live.view.stopping();
    if (live.id !== null) this.#connection.send({ type: "cancel", turn_id: live.id });
    else if (!live.sent) this.#takeBack(live);
  }

  #takeBack(live) {
    this.#following.remove(live);
    live.view.cancelled(null, null);
  }

  #showEmpty() {
    this.#thread.showInstead(this.#hooks.empty((question) => this.ask(question)));
  }

  #showQuestion(content) {
    return this.#thread.ask(content, this.#actions());
  }

  #show(page) {
    this.#thread.show(page, { actions: this.#actions(), onEarlier: (cursor) => this.#earlier(cursor) });
    if (page.items.length === 0) this.#showEmpty();
    this.#thread.offerRetry(() => this.ask(this.#thread.lastQuestion));
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

  #cannotOpen(id, problem) {
    const fresh = h("button", { type: "button", class: "button primary" }, "New conversation");
    fresh.addEventListener("click", () => this.#hooks.goNew());
    if (problem.code === "not_found" || problem.code === "invalid_input") {
      const sentence = "It may have been deleted, or it belongs to another user.";
      this.#thread.showInstead(problemElement("There is no such conversation", sentence, [fresh]));
      return;
    }
    // Tried again by itself as soon as there is a connection.
    this.#unread = problem.retryable && !this.#connection.open;
    const again = h("button", { type: "button", class: "button", "data-testid": "retry" }, "Try again");
    again.addEventListener("click", () => this.open(id));
    this.#thread.showInstead(problemElement(headingOf(problem.code), problem.message, [again, fresh]));
  }

  #actions() {
    const chat = {
      conversationId: () => this.#conversationId,
      modelId: () => this.#hooks.modelId() ?? undefined,
      ask: (text) => this.#showQuestion(text),
      start: (begin, show) => this.#startInstead(begin, show),
    };
    return messageActions({ api: this.#api, thread: this.#thread, following: this.#following, chat });
  }

  /** Starts a turn in the place of messages that are shown, and shows it once the server has taken it; false where it has not. */
  async #startInstead(begin, show) {
    if (this.busy || !this.#loaded) {
      toast("An answer is still coming; stop it or wait for its end.");
      return false;
    }
    const visit = this.#visit;
    this.#composer.setState("off");
    try {
      const turnId = await begin();
      if (visit === this.#visit) show(turnId);
      return true;
    } catch (problem) {
      toast(problem.message);
      return false;
    } finally {
      if (visit === this.#visit) this.#showState();
    }
  }

  /** What may be done now, and what each answer that has not begun waits for. */
  #showState() {
    if (!this.#loaded) return;
    this.#composer.setState(!this.busy ? "idle" : this.#hooks.queues() ? "both" : "busy");
    this.#following.all.forEach((live, place) => {
      let why = null;
      if (live.id === null && !this.#connection.open) why = "It will be sent when the connection is back.";
      else if (place > 0 && !live.begun) why = "Waiting for the answer before it.";
      live.view.waiting(why);
    });
  }

  #connectionChanged(state) {
    if (state.name !== "open") {
      this.#attached = null;
      this.#attaching = [];
      this.#following.disconnected();
    }
    this.#hooks.connection(state);
    this.#showState();
    if (state.name !== "open") return;
    this.#attaches = 0;
    if (this.#unread) {
      this.open(this.#conversationId);
      return;
    }
    this.#attach();
    this.#following.connected();
  }

  /** Attaches the socket to the open conversation. A new one is made only once there is a question for it. */
  #attach() {
    if (!this.#connection.open || !this.#loaded) return;
    if (this.#conversationId === null && !this.busy) return;
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
        if (typeof frame.seq === "number" && typeof frame.turn_id === "string") this.#following.receive(frame);
    }
  }

  #sessionCreated(frame) {
    const attaching = this.#attaching.shift();
    this.#attached = frame.session_id;
    this.#hooks.session(frame);
    if (attaching?.visit !== this.#visit) return;
    this.#attaches = 0;
    if (this.#conversationId === null) {
      this.#conversationId = frame.session_id;
      this.#composer.rename(frame.session_id);
      pending.rename(frame.session_id);
      this.#hooks.created(frame.session_id, this.#following.all[0]?.content ?? "");
    }
    this.#following.attached(frame.active_turn?.turn_id ?? null);
    for (const live of this.#following.unconfirmed) if (!live.tailed) this.#sendQuery(live);
  }

  #sendQuery(live) {
    if (live.stopping) {
      this.#takeBack(live);
      return;
    }
    const frame = { type: "query", content: live.content, client_turn_id: live.clientTurnId };
    if (live.modelId) frame.model_id = live.modelId;
    if (this.#connection.send(frame)) live.sent = live.tailed = true;
  }

  /** Reads the conversation again, once, as something is in it that the page does not know; false when that was done. */
  #readAgain() {
    if (this.#reread || this.#following.unconfirmed.length > 0) return false;
    this.#reread = true;
    this.#open(this.#conversationId);
    return true;
  }

  /** A turn that does not begin may wait for one that was asked for elsewhere: that one is to be shown, too. */
  #watch(live) {
    const silent = () => this.#following.all[0] === live && !live.begun && this.#connection.open;
    this.#later(BEGINS_WITHIN_MS, async () => {
      if (!silent()) return;
      const turn = await this.#api.turn(live.id).catch(() => null);
      if (turn?.waits && silent()) this.open(this.#conversationId);
    });
  }

  #ended(live, event) {
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

  /** A turn cannot be followed. What the conversation holds may show its end. */
  #lost(live, frame) {
    if (!frame.retryable && this.#readAgain()) return;
    this.#following.remove(live);
    live.view.failed(frame, { label: "Show the answer", act: () => this.open(this.#conversationId) });
  }

  /** An error frame: about a turn, or about the one frame that is waiting for its answer. */
  #failed(frame) {
    if (frame.turn_id) {
      this.#following.troubled(frame);
      return;
    }
    if (this.#attaching.length > 0) {
      const { visit } = this.#attaching.shift();
      if (visit === this.#visit) this.#notAttached(frame);
      return;
    }
    const asked = this.#following.unconfirmed.find((live) => live.tailed);
    if (asked) this.#notSent(asked, frame);
    else toast(frame.message);
  }

  /** What runs is followed all the same; what is to be sent waits for a few more attempts. */
  #notAttached(frame) {
    this.#attaches += 1;
    if (frame.retryable && this.#attaches < MAX_ATTACHES) {
      this.#later(AGAIN_WAIT_MS * this.#attaches, () => this.#attach());
      return;
    }
    const unsent = this.#following.unconfirmed;
    for (const live of unsent) this.#notSent(live, frame);
    if (unsent.length === 0) toast(frame.message);
  }

  #notSent(live, frame) {
    this.#following.remove(live);
    if (frame.code === "conflict" && this.#conversationId !== null) {
      // Another window asked here first: show what it asked, and keep the question for afterwards.
      toast(frame.message);
      const question = live.content;
      this.open(this.#conversationId).then(() => {
        if (this.#composer.text === "") this.#composer.text = question;
      });
      return;
    }
    const again = {
      label: "Try again",
      act: () => {
        this.#thread.withdraw(live.view);
        // Under the same id: the server may have taken it all the same.
        this.ask(live.content, live);
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

  #later(ms, act) {
    const visit = this.#visit;
    const run = () => {
      this.#timers.delete(timer);
      if (visit === this.#visit) act();
    };
    const timer = setTimeout(run, Math.min(ms, LONGEST_AGAIN_WAIT_MS));
    this.#timers.add(timer);
  }
}
