/** A turn that the page follows: its question, the view that shows its answer, and how far the two have come. */

import { Turn } from "./turn.js";

export class LiveTurn {
  /** The question's text; null where it is shown already. */
  content;
  view;
  turn;
  clientTurnId;
  modelId;
  /** Whether it was handed to any connection: the server may know it. */
  sent = false;
  /** Whether the connection that is open now brings its events, as far as is known. */
  tailed = false;
  stopping = false;
  resuming = false;
  resumes = 0;

  constructor({ view, content = null, clientTurnId = newId(), modelId = null, turnId = null }) {
    this.view = view;
    this.content = content;
    this.clientTurnId = clientTurnId;
    this.modelId = modelId;
    this.turn = new Turn(view);
    this.turn.id = turnId;
    this.sent = turnId !== null;
  }

  get id() {
    return this.turn.id;
  }

  /** Whether anything has come of it but that it was accepted. */
  get begun() {
    return this.turn.seq > 1;
  }

  /** The line it was followed on is gone. */
  disconnected() {
    this.tailed = false;
    this.resuming = false;
  }
}

/** A random UUID, also on origins where `crypto.randomUUID` does not exist. */
export function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const digits = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
