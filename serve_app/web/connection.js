/**
 * The one WebSocket. It opens, notices when the line is dead, and comes back by itself: after a wait that doubles and is
 * spread by chance, at once when the browser says the network is back, or when the server said to.
 *
 *   connecting ─ack─► open ─lost─► waiting ─► connecting        any ─► stopped (refused, or closed here)
 */

import { credentials } from "./identity.js";

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 15_000;
const CONNECT_TIMEOUT_MS = 10_000;
const QUIET_MS = 20_000;
const PONG_TIMEOUT_MS = 10_000;
const PROVEN_MS = 5_000;
const REFUSED = new Set([4401, 4403]);

export class Connection {
  #identity;
  #handlers;
  #socket = null;
  #state = "stopped";
  #failures = 0;
  #openedAt = 0;
  #heardAt = 0;
  #returnAfterMs = null;
  #lastError = null;
  #timers = {};
  #wake = () => this.retryNow();
  #look = () => document.visibilityState === "visible" && this.#probe();

  /** Handlers: frame(frame), state({name, retryAt?, code?, message?}). */
  constructor(identity, handlers) {
    this.#identity = identity;
    this.#handlers = handlers;
  }

  get open() {
    return this.#state === "open";
  }

  start() {
    addEventListener("online", this.#wake);
    document.addEventListener("visibilitychange", this.#look);
    this.#connect();
  }

  stop() {
    removeEventListener("online", this.#wake);
    document.removeEventListener("visibilitychange", this.#look);
    this.#drop();
    this.#enter("stopped");
  }

  /** Sends a frame; false when there is no connection to send it on. */
  send(frame) {
    if (!this.open || this.#socket.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  /** Connects at once if it was waiting to. */
  retryNow() {
    if (this.#state === "waiting") this.#connect();
  }

  #connect() {
    this.#drop();
    this.#enter("connecting");
    this.#lastError = null;
    const url = new URL("/ws/chat", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.search = new URLSearchParams(credentials(this.#identity)).toString();
    const socket = new WebSocket(url);
    this.#socket = socket;
    // What a socket that was given up still says is about the past.
    const current = (handle) => (event) => this.#socket === socket && handle(event);
    socket.addEventListener("message", current((event) => this.#receive(event.data)));
    socket.addEventListener("close", current((event) => this.#lost(event.code, event.reason)));
    this.#timers.connect = setTimeout(() => this.#lost(1006, "timeout"), CONNECT_TIMEOUT_MS);
  }

  #receive(data) {
    this.#heardAt = Date.now();
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return;
    }
    switch (frame.type) {
      case "pong":
        return;
      case "connection.ack":
        clearTimeout(this.#timers.connect);
        this.#openedAt = Date.now();
        this.#timers.beat = setInterval(() => this.#beat(), QUIET_MS / 4);
        this.#enter("open");
        return;
      case "reconnect":
        this.#returnAfterMs = Math.min(Math.max(Number(frame.after_ms) || 0, 0), LONGEST_WAIT_MS);
        // The server closes next; if it does not, the page does.
        this.#timers.leave = setTimeout(() => this.#lost(1012, "reconnect"), 1000);
        return;
      default:
        if (frame.type === "error") this.#lastError = frame;
        this.#handlers.frame(frame);
    }
  }

  #beat() {
    if (Date.now() - this.#heardAt >= QUIET_MS) this.#probe();
  }

  /** Asks whether the other side is still there. */
  #probe() {
    this.retryNow();
    if (!this.open || this.#timers.pong) return;
    const asked = Date.now();
    this.send({ type: "ping" });
    this.#timers.pong = setTimeout(() => {
      this.#timers.pong = null;
      if (this.#heardAt < asked) this.#lost(1006, "silent");
    }, PONG_TIMEOUT_MS);
  }

  #lost(code, reason) {
    const served = this.open && Date.now() - this.#openedAt >= PROVEN_MS;
    const acknowledged = this.open;
    this.#drop();
    if (REFUSED.has(code)) {
      const message = this.#lastError?.message ?? (reason || "The server refused the connection.");
      this.#enter("stopped", { code: code === 4401 ? "unauthenticated" : "not_permitted", message });
      return;
    }
    if (served) this.#failures = 0;
    let wait;
    if (this.#returnAfterMs !== null) {
      wait = this.#returnAfterMs;
      this.#returnAfterMs = null;
    } else {
      const most = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#failures);
      wait = most / 2 + Math.random() * (most / 2);
      this.#failures = Math.min(this.#failures + 1, 10);
    }
    this.#timers.retry = setTimeout(() => this.#connect(), wait);
    const message = code === 1008 ? this.#lastError?.message : undefined;
    this.#enter("waiting", { retryAt: Date.now() + wait, message, acknowledged });
  }

  #drop() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#timers = {};
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #enter(name, details = {}) {
    this.#state = name;
    this.#handlers.state({ name, ...details });
  }
}
