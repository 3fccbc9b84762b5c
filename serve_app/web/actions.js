/** What can be done with a stored message: reacting to it, answering it again, editing it. */

import { toast } from "./announce.js";
import { Problem } from "./failures.js";

/**
 * For the messages of the open conversation. `chat`: conversationId(), modelId(), ask(text) shows a question and gives the view
 * of its answer, start(begin, show), where `begin` asks the server and gives the id of a turn, and `show` puts it on the page;
 * start resolves to whether that worked.
 */
export function messageActions({ api, thread, following, chat }) {
  return {
    react: async (messageId, reaction) => {
      try {
        await api.react(chat.conversationId(), messageId, reaction);
        return true;
      } catch (problem) {
        toast(`The reaction was not kept. ${problem.message}`);
        return false;
      }
    },

    regenerate: (messageId, element) =>
      chat.start(
        () => api.regenerate(chat.conversationId(), messageId, thread.questionOf(element), chat.modelId()),
        (turnId) => following.follow(turnId, thread.cutFrom(element)?.dataset.turn),
      ),

    edit: (element, text) =>
      chat.start(
        async () => {
          const messageId = element.dataset.message ?? (await storedId(api, chat.conversationId(), element.dataset.turn));
          return api.edit(chat.conversationId(), messageId, text, chat.modelId());
        },
        (turnId) => {
          thread.cutFrom(element);
          const view = chat.ask(text);
          thread.identify(view, turnId);
          following.resume(following.add({ turnId, content: text, view }));
        },
      ),
  };
}

/** The stored id of a question that was asked here. */
async function storedId(api, conversationId, turnId) {
  const { items } = await api.messages(conversationId);
  const found = items.find((message) => message.role === "user" && message.metadata.turn_id === turnId);
  if (!found) throw new Problem("not_found", "The message is not stored yet; try again in a moment.", true);
  return found.id;
}
