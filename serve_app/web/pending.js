/**
 * Questions the server has not confirmed yet, kept for this tab by conversation, so that neither a reload nor a dead line
 * loses one. Each is sent again under its own id, which the server takes once however often it comes.
 */

import { recall, remember, tabStorage } from "./storage.js";

const MAX_KEPT = 16;
/** What is older was given up on; it comes back as a draft and is not sent without being asked. */
const FRESH_MS = 10 * 60_000;

/** `question`: {content, clientTurnId, modelId}; `conversationId` null is the conversation that does not exist yet. */
export function keep(conversationId, question) {
  const { content, clientTurnId, modelId } = question;
  const others = kept(conversationId).filter((other) => other.clientTurnId !== clientTurnId);
  save(conversationId, [...others, { content, clientTurnId, modelId, at: Date.now() }]);
}

export function forget(conversationId, clientTurnId) {
  save(
    conversationId,
    kept(conversationId).filter((question) => question.clientTurnId !== clientTurnId),
  );
}

/** The conversation has got its id. */
export function rename(conversationId) {
  save(conversationId, kept(null));
  save(null, []);
}

/** What is to be sent again, and what is too old for that: {fresh, stale}. The stale ones are forgotten. */
export function restore(conversationId) {
  const all = kept(conversationId);
  const fresh = all.filter((question) => Date.now() - question.at < FRESH_MS);
  const stale = all.filter((question) => !fresh.includes(question));
  if (stale.length > 0) save(conversationId, fresh);
  return { fresh, stale };
}

function kept(conversationId) {
  const found = recall(keyOf(conversationId), tabStorage());
  if (!Array.isArray(found)) return [];
  return found.filter((question) => typeof question?.content === "string" && typeof question.clientTurnId === "string");
}

function save(conversationId, questions) {
  remember(keyOf(conversationId), questions.length === 0 ? null : questions.slice(-MAX_KEPT), tabStorage());
}

function keyOf(conversationId) {
  return `pending.${conversationId ?? "new"}`;
}
