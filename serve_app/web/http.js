/** One request to the server, with a deadline. Every failure is a Problem. */

import { Problem } from "./failures.js";

const TIMEOUT_MS = 20_000;

/** A response that is well. */
export async function request(method, path, { headers = {}, body } = {}) {
  const json = body === undefined ? {} : { "content-type": "application/json" };
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: { accept: "application/json", ...json, ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "TimeoutError") throw new Problem("deadline_exceeded", "The server did not answer in time.", true);
    throw new Problem("offline", "The server cannot be reached.", true);
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** What the response holds; null where it has nothing to say. */
export async function contentOf(response) {
  if (response.status === 204) return null;
  try {
    return await response.json();
  } catch {
    throw new Problem("internal", "The server's answer could not be read.", true, response.status);
  }
}

async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  const code = typeof body.code === "string" ? body.code : "internal";
  const message = typeof body.detail === "string" ? body.detail : `The server answered ${response.status}.`;
  return new Problem(code, message, body.retryable === true || response.status >= 500, response.status);
}
