/** The HTTP routes the page uses. Every failure is a Problem. */

import { Problem } from "./failures.js";
import { contentOf, request } from "./http.js";
import { newId } from "./live.js";

const PAGE = 30;
const MESSAGES = 50;

export class Api {
  #credentials;

  constructor(credentials) {
    this.#credentials = credentials;
  }

  /** Who one is to the server: {user_id, tenant_id, roles, …}. */
  authz() {
    return this.#request("GET", "/api/authz");
  }

  capabilities() {
    return this.#request("GET", "/api/capabilities");
  }

  /** A page of conversations: {items, next_cursor}. */
  conversations({ archived = false, cursor = null } = {}) {
    return this.#request("GET", `/api/conversations${query({ archived, limit: PAGE, cursor })}`);
  }

  conversation(id) {
    return this.#request("GET", conversationPath(id));
  }

  rename(id, title) {
    return this.#request("PATCH", conversationPath(id), { title });
  }

  archive(id, archived) {
    return this.#request("PATCH", conversationPath(id), { archived });
  }

  remove(id) {
    return this.#request("DELETE", conversationPath(id));
  }

  /** A page of messages, the newest first: {items, next_cursor}. */
  messages(id, cursor = null) {
    return this.#request("GET", `${conversationPath(id)}/messages${query({ order: "desc", limit: MESSAGES, cursor })}`);
  }

  /** `reaction` is "up", "down" or null. */
  react(id, messageId, reaction) {
    return this.#request("PATCH", `${conversationPath(id)}/messages/${encodeURIComponent(messageId)}`, { reaction });
  }

  /** Answers the question of a tool call. */
  answer(approvalId, approved) {
    return this.#request("POST", `/api/approvals/${encodeURIComponent(approvalId)}`, { approved });
  }

  /** A turn: {state, waits, …}. */
  turn(id) {
    return this.#request("GET", `/api/turns/${encodeURIComponent(id)}`);
  }

  /** Has the answer `messageId` made again; the id of the turn that does it. */
  regenerate(id, messageId, question, modelId) {
    return this.#branch({ id, trigger: "regenerate-message", messageId, model_id: modelId }, newId(), question);
  }

  /** Sends `text` in the place of the question `messageId`; the id of its turn. */
  edit(id, messageId, text, modelId) {
    return this.#branch({ id, trigger: "submit-message", messageId, model_id: modelId }, messageId, text);
  }

  /** The turn goes on without this request, and is followed over the socket. */
  async #branch(body, messageId, text) {
    const message = { id: messageId, role: "user", parts: [{ type: "text", text }] };
    const response = await this.#send("POST", "/api/chat", { ...body, messages: [message] });
    const turnId = response.headers.get("x-turn-id");
    response.body?.cancel();
    if (!turnId) throw new Problem("internal", "The server did not say which turn it is.", true, response.status);
    return turnId;
  }

  async #request(method, path, body) {
    return contentOf(await this.#send(method, path, body));
  }

  async #send(method, path, body) {
    return request(method, path, { headers: await this.#credentials.headers(), body });
  }
}

function conversationPath(id) {
  return `/api/conversations/${encodeURIComponent(id)}`;
}

function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== null);
  return `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}`;
}
