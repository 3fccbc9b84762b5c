// A chat in which a tool call waits for the user: ask, answer the question as the SDK's own Chat does, read on.
//   {"version": "ai6", "api": "http://…/api/chat", "approvals": "http://…/api/approvals", "chatId", "headers", "approved": true}
//   on stdin; the message as it was while it waited, and as it is in the end, on stdout. Version 5 has no answers of its own:
//   there the question is a data part, and the page answers by itself.
import { readFileSync } from "node:fs";

const request = JSON.parse(readFileSync(0, "utf8"));
const ai = await import(request.version);
const native = "lastAssistantMessageIsCompleteWithApprovalResponses" in ai;

class State {
  messages = [];
  status = "ready";
  error = undefined;
  pushMessage = (message) => (this.messages = this.messages.concat(message));
  popMessage = () => (this.messages = this.messages.slice(0, -1));
  replaceMessage = (index, message) => {
    this.messages = [...this.messages.slice(0, index), structuredClone(message), ...this.messages.slice(index + 1)];
  };
  snapshot = (thing) => structuredClone(thing);
}

class Chat extends ai.AbstractChat {
  constructor(state) {
    super({
      id: request.chatId,
      state,
      transport: new ai.DefaultChatTransport({
        api: request.api,
        headers: request.headers,
        body: native ? {} : { approvals: "data" },
      }),
      ...(native ? { sendAutomaticallyWhen: ai.lastAssistantMessageIsCompleteWithApprovalResponses } : {}),
    });
  }
}

const state = new State();
const chat = new Chat(state);
const parts = () => state.messages.at(-1)?.parts ?? [];
const asked = () =>
  native ? parts().filter((part) => part.state === "approval-requested") : parts().filter((part) => part.type === "data-tool-approval");
const idOf = (part) => (native ? part.approval.id : part.data.approvalId);

async function until(reached, what) {
  const end = Date.now() + 20_000;
  while (!reached()) {
    if (state.error !== undefined || Date.now() > end) throw new Error(`${what}: ${state.status} ${state.error}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const sent = chat.sendMessage({ text: "Do it" });
await until(() => asked().length > 0 && (!native || state.status === "ready"), "no question came");
const waiting = structuredClone(state.messages.at(-1));
for (const part of asked()) {
  if (native) {
    await chat.addToolApprovalResponse({ id: idOf(part), approved: request.approved, reason: "Because." });
  } else {
    const answered = await fetch(`${request.approvals}/${idOf(part)}`, {
      method: "POST",
      headers: { ...request.headers, "content-type": "application/json" },
      body: JSON.stringify({ approved: request.approved }),
    });
    if (!answered.ok) throw new Error(await answered.text());
  }
}
await sent;
await until(() => state.status === "ready" && parts().some((part) => part.type === "text" && part.text.includes("Done.")), "no end");
const message = state.messages.at(-1);
process.stdout.write(JSON.stringify({ waiting, message, messages: state.messages.length, error: state.error ? String(state.error) : null }));
