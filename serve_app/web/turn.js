/**
 * A turn as its events tell it: which parts the answer has so far, and up to which event that is known. No DOM: what
 * changes is told to `view`, which shows it.
 */

export const TERMINAL = new Set(["chat_response", "turn.failed", "turn.cancelled"]);

export class Turn {
  #view;
  #parts = [];
  #steps = [0];
  #stepOver = false;
  id = null;
  messageId = null;
  seq = 0;

  /** `view`: addText(text), addThought(text), addTool(call), startTool(index), finishTool(index, result), truncate(length). */
  constructor(view) {
    this.#view = view;
  }

  /**
   * Takes the next event. "applied"; "repeated" for one that is known already; "gap" where events before it are missing,
   * which changes nothing.
   */
  apply(event) {
    if (event.seq <= this.seq) return "repeated";
    if (event.seq !== this.seq + 1) return "gap";
    this.seq = event.seq;
    switch (event.type) {
      case "turn.started":
        this.id = event.turn_id;
        this.messageId = event.message_id;
        break;
      case "text.delta":
        this.#add("text");
        this.#view.addText(event.delta);
        break;
      case "reasoning.delta":
        this.#add("thought");
        this.#view.addThought(event.delta);
        break;
      case "tool.approval":
        this.#startTool(event);
        break;
      case "tool.started":
        this.#startTool(event);
        break;
      case "tool.finished":
        this.#finishTool(event);
        break;
      case "step.reset":
        this.#reset(event.step);
        break;
      case "chat_response":
        this.messageId = event.message_id ?? this.messageId;
        break;
      default:
      // An event of a later protocol: its number counts, what it says is not shown.
    }
    return "applied";
  }

  /** A step ends when all its tools have; whatever comes then begins the next. */
  #begin() {
    if (!this.#stepOver) return;
    this.#stepOver = false;
    this.#steps.push(this.#parts.length);
  }

  /** `kind`: "text" or "thought"; what follows its like is no new part. */
  #add(kind) {
    this.#begin();
    if (this.#parts.at(-1) !== kind) this.#parts.push(kind);
  }

  #startTool(event) {
    this.#begin();
    const index = this.#running(event.tool_call_id);
    const asks = event.type === "tool.approval";
    if (index !== -1) {
      if (this.#parts[index].asked && !asks) this.#view.startTool(index);
      this.#parts[index].asked = asks;
      return;
    }
    this.#parts.push({ id: event.tool_call_id, running: true, asked: asks });
    const approval = asks ? { id: event.approval_id, reason: event.reason } : undefined;
    this.#view.addTool({ name: event.name, arguments: event.arguments, approval });
  }

  #finishTool(event) {
    let index = this.#running(event.tool_call_id);
    if (index === -1) {
      this.#startTool(event);
      index = this.#parts.length - 1;
    }
    this.#parts[index].running = false;
    this.#view.finishTool(index, { ok: event.ok, result: event.result, durationMs: event.duration_ms });
    this.#stepOver = this.#parts.every((part) => !part.running);
  }

  #running(id) {
    return this.#parts.findLastIndex((part) => part.running && part.id === id);
  }

  #reset(step) {
    const begin = this.#steps[step];
    if (begin === undefined) return;
    this.#steps.length = step + 1;
    this.#parts.length = begin;
    this.#stepOver = false;
    this.#view.truncate(begin);
  }
}
