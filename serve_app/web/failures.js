/** Failures in words: a heading by code, above the sentence the server gave. */

const HEADINGS = {
  conflict: "Not now",
  deadline_exceeded: "That took too long",
  gone: "No longer there",
  internal: "Something went wrong",
  invalid_input: "That cannot be sent",
  not_found: "Not found",
  not_permitted: "Not allowed",
  offline: "No connection",
  overloaded: "Busy right now",
  quota_exceeded: "A little too fast",
  too_large: "Too long",
  unauthenticated: "Please sign in",
  upstream_failed: "The model could not answer",
};

export function headingOf(code) {
  return HEADINGS[code] ?? "Something went wrong";
}

/** A failed request: code, sentence, whether trying again can help, HTTP status (0 where there was no answer). */
export class Problem extends Error {
  constructor(code, message, retryable, status = 0) {
    super(message);
    this.name = "Problem";
    this.code = code;
    this.retryable = retryable;
    this.status = status;
  }
}
