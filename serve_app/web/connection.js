/**
 * The one WebSocket. It opens, notices when the line is dead, and comes back by itself: after a wait that doubles and is
 * spread by chance, at once when the browser says the network is back, or when the server said to.
 *
 *   connecting ─ack─► open ─lost─► waiting ─► connecting        any ─► stopped (refused, or closed here)
 *
 * A line can be dead without being closed: after sleep, behind a network that went away. So what is quiet for long is asked
 * with a ping, what was sent without any reply sooner, and whatever the browser tells of sleep and network asks at once.
 */

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 15_000;
const CONNECT_TIMEOUT_MS = 10_000;
/** A connection begun before a sleep is begun anew after it, unless it is as young as this. */
const FRESH_MS = 1_000;
const QUIET_MS = 15_000;
const REPLY_MS = 4_000;
/** A server that has much to do answers late; a line that is held against a sleep or a network's end should answer soon. */
const PONG_TIMEOUT_MS = 10_000;
const WAKE_TIMEOUT_MS = 3_000;
const PROVEN_MS = 5_000;
const REFUSED = new Set([4401, 4403]);
/** What a socket would have been closed with, by the status that its ticket was refused with. */
const CLOSE_OF = { 401: 4401, 403: 4403 };

export class Connection {
  #credentials;
  #handlers;
  #socket = null;
  #state = "stopped";
  #failures = 0;
  #startedAt = 0;
  #attempt = null;
  #renewed = false;
  #openedAt = 0;
  #heardAt = 0;
  #pongDue = 0;
  #returnAfterMs = null;
  #lastError = null;
  #timers = {};
  #wake = () => document.visibilityState === "visible" && this.#check();
  #network = () => this.#check();

  /** Handlers: frame(frame), state({name, retryAt?, code?, message?}). */
  constructor(credentials, handlers) {
    this.#credentials = credentials;
    this.#handlers = handlers;
  }

  get open() {
    return this.#state === "open";
  }

  start() {
    addEventListener("online", this.#network);
    // It may be another network's end; a server on this machine is reached without any.
    addEventListener("offline", this.#network);
    addEventListener("pageshow", this.#wake);
    document.addEventListener("resume", this.#wake);
    document.addEventListener("visibilitychange", this.#wake);
    this.#connect();
  }

  stop() {
    removeEventListener("online", this.#network);
    removeEventListener("offline", this.#network);
    removeEventListener("pageshow", this.#wake);
    document.removeEventListener("resume", this.#wake);
    document.removeEventListener("visibilitychange", this.#wake);
    this.#drop();
    this.#enter("stopped");
  }

  /** Sends a frame; false when there is no connection to send it on. True does not say that it arrives. */
  send(frame) {
    if (!this.open || this.#socket.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(frame));
    this.#expectReply();
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
    this.#startedAt = Date.now();
    const attempt = Symbol("attempt");
    this.#attempt = attempt;
    this.#timers.connect = setTimeout(() => this.#lost(1006, "timeout"), CONNECT_TIMEOUT_MS);
    this.#credentials.query().then(
      (query) => this.#attempt === attempt && this.#openSocket(query),
      (problem) => this.#attempt === attempt && this.#lost(CLOSE_OF[problem.status] ?? 1006, problem.message),
    );
  }

  #openSocket(query) {
    const url = new URL("/ws/chat", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.search = new URLSearchParams(query).toString();
    const socket = new WebSocket(url);
    this.#socket = socket;
    // What a socket that was given up still says is about the past.
    const current = (handle) => (event) => this.#socket === socket && handle(event);
    socket.addEventListener("message", current((event) => this.#receive(event.data)));
    socket.addEventListener("close", current((event) => this.#lost(event.code, event.reason)));
  }

  #receive(data) {
    this.#heardAt = Date.now();
    this.#forget("reply");
    this.#forget("pong");
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
        this.#forget("connect");
        this.#openedAt = Date.now();
        this.#renewed = false;
        this.#timers.beat = setInterval(() => this.#beat(), QUIET_MS / 5);
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

  /** Something happened to the machine or its network: the line is held against it. */
  #check() {
    if (this.#state === "waiting") this.#connect();
    else if (this.#state === "connecting" && Date.now() - this.#startedAt > FRESH_MS) this.#connect();
    else this.#probe(WAKE_TIMEOUT_MS);
  }

  /** Asks whether the other side is still there; silence for `timeout` ms says no. */
  #probe(timeout = PONG_TIMEOUT_MS) {
    if (!this.open) return;
    const due = Date.now() + timeout;
    if (this.#timers.pong && this.#pongDue <= due) return;
    this.#forget("pong");
    this.#pongDue = due;
    this.send({ type: "ping" });
    this.#timers.pong = setTimeout(() => this.#lost(1006, "silent"), timeout);
  }

  #expectReply() {
    this.#timers.reply ??= setTimeout(() => this.#probe(), REPLY_MS);
  }

  #lost(code, reason) {
    const served = this.open && Date.now() - this.#openedAt >= PROVEN_MS;
    const acknowledged = this.open;
    this.#drop();
    if (code === 4401 && !this.#renewed) {
      this.#renew(reason);
      return;
    }
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

  /** What was signed in with has run out: once, before anybody is asked, the next is fetched. */
  async #renew(reason) {
    this.#renewed = true;
    this.#enter("connecting");
    const attempt = Symbol("renewing");
    this.#attempt = attempt;
    const renewed = await this.#credentials.renew().catch(() => true); // away: connecting anew will tell
    if (this.#attempt !== attempt) return;
    if (renewed) this.#connect();
    else this.#lost(4401, reason);
  }

  #forget(timer) {
    clearTimeout(this.#timers[timer]);
    delete this.#timers[timer];
  }

  #drop() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#timers = {};
    const socket = this.#socket;
    this.#attempt = null;
    this.#socket = null;
    socket?.close();
  }

  #enter(name, details = {}) {
    this.#state = name;
    this.#handlers.state({ name, ...details });
  }
}
