/**
 * The turns of the open conversation that the page follows, in the order in which they are answered.
 *
 * Each is resumed after the last event it has on every new connection. More than one is followed where the server lets them
 * wait for one another. Events of turns that are not followed are passed over.
 */

import { LiveTurn } from "./live.js";
import { TERMINAL } from "./turn.js";

const MAX_RESUMES = 8;

export class Following {
  #thread;
  #connection;
  #hooks;
  #lives = [];
  #running = null;

  /**
   * Hooks: changed() when turns came, went or began; confirmed(live) when the server has taken a question, or it is given up;
   * accepted(live) when its turn is new; ended(live, event); lost(live, frame) when it cannot be followed any more; stale()
   * when the conversation holds what the page does not know, returning whether it is read again; later(ms, act).
   */
  constructor(thread, connection, hooks) {
    this.#thread = thread;
    this.#connection = connection;
    this.#hooks = hooks;
  }

  get busy() {
    return this.#lives.length > 0;
  }

  /** What is followed, the one that runs first. */
  get all() {
    return [...this.#lives];
  }

  /** Those that the server has not confirmed. */
  get unconfirmed() {
    return this.#lives.filter((live) => live.id === null);
  }

  /** Follows what `LiveTurn` takes. */
  add(what) {
    const live = new LiveTurn(what);
    this.#lives.push(live);
    this.#hooks.changed();
    return live;
  }

  /** Follows a turn that the server has. `questionOf`: the turn whose question it answers. */
  follow(turnId, questionOf = turnId) {
    this.resume(this.add({ turnId, view: this.#thread.follow(questionOf) }));
  }

  remove(live) {
    this.#lives = this.#lives.filter((other) => other !== live);
    this.#hooks.confirmed(live);
    this.#hooks.changed();
  }

  clear() {
    this.#lives = [];
    this.#running = null;
  }

  disconnected() {
    for (const live of this.#lives) live.disconnected();
  }

  /** A turn can be followed whether or not the conversation can be attached to right now. */
  connected() {
    for (const live of this.#lives) if (live.id !== null) this.resume(live);
  }

  resume(live) {
    live.tailed = live.resuming = this.#connection.send({ type: "resume", turn_id: live.id, after_seq: live.turn.seq });
    if (live.stopping) this.#connection.send({ type: "cancel", turn_id: live.id });
  }

  receive(event) {
    if (event.type === "turn.started") this.#identify(event);
    const live = this.#lives.find((candidate) => candidate.id === event.turn_id);
    if (!live) return;
    const outcome = live.turn.apply(event);
    if (outcome === "gap" && !live.resuming) this.resume(live);
    if (outcome !== "applied") return;
    live.resuming = false;
    live.resumes = 0;
    if (live.turn.seq === 2) this.#hooks.changed();
    if (TERMINAL.has(event.type)) {
      this.remove(live);
      this.#thread.answered(live.id);
      this.#hooks.ended(live, event);
    }
  }

  /** Finds out which turn a question has become. */
  #identify({ turn_id: turnId, client_turn_id: clientTurnId }) {
    const live = this.unconfirmed.find((candidate) => candidate.clientTurnId === clientTurnId);
    if (!live) return;
    if (live.stopping) this.#connection.send({ type: "cancel", turn_id: turnId });
    if (this.#thread.hasQuestion(turnId)) {
      // It had been accepted before the page was loaded, and is shown as the stored message it is.
      this.#thread.withdraw(live.view);
      this.remove(live);
    } else {
      live.turn.id = turnId;
      this.#thread.identify(live.view, turnId);
      this.#hooks.confirmed(live);
      this.#hooks.changed();
      this.#hooks.accepted(live);
    }
    this.#followOthers();
  }

  /** The conversation is attached to; `running` is its turn that has not ended, or null. */
  attached(running) {
    this.#running = running;
    this.#followOthers();
  }

  /** Follows the turns that have not ended and were asked for elsewhere, or before a reload. */
  #followOthers() {
    const followed = new Set(this.#lives.map((live) => live.id));
    const unanswered = this.#thread.unanswered.filter((turnId) => !followed.has(turnId));
    const running = this.#running;
    if (running === null) {
      // Without an answer, and not running: it ended between reading the messages and attaching.
      if (unanswered.length > 0) this.#hooks.stale();
    } else if (followed.has(running) || this.#thread.hasAnswer(running)) {
      // Nothing that is not shown.
    } else if (this.#thread.hasQuestion(running)) {
      for (const turnId of unanswered) this.follow(turnId);
    } else if (followed.has(null)) {
      // It may be what was asked here; that will be known in a moment.
    } else if (unanswered.length > 0) {
      // A turn without a question of its own answers an earlier one anew.
      const [anew, ...others] = unanswered;
      this.follow(running, anew);
      for (const turnId of others) this.follow(turnId);
    } else if (!this.#hooks.stale()) {
      this.follow(running);
    }
  }

  /** An error about a turn: the server cannot show it, or not now. The turn itself may be well. */
  troubled(frame) {
    const live = this.#lives.find((candidate) => candidate.id === frame.turn_id);
    if (!live) return;
    live.resumes += 1;
    if (!frame.retryable || live.resumes > MAX_RESUMES) {
      this.#hooks.lost(live, frame);
      return;
    }
    live.disconnected();
    this.#hooks.later(live.resumes, () => {
      if (this.#lives.includes(live) && this.#connection.open && !live.tailed) this.resume(live);
    });
  }
}
