// A chat as a page has it, by the AI SDK's own Chat: ask, ask for another answer, edit the question, reload and resume.
//   {"version": "ai5", "api": "http://…/api/chat", "chatId", "headers"} on stdin; what the chat shows after each step on stdout.
import { readFileSync } from "node:fs";

const request = JSON.parse(readFileSync(0, "utf8"));
const ai = await import(request.version);

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
    super({ id: request.chatId, state, transport: new ai.DefaultChatTransport({ api: request.api, headers: request.headers }) });
  }
}

const state = new State();
const chat = new Chat(state);
const text = (message) => message.parts.filter((part) => part.type === "text").map((part) => part.text).join("");
const shown = [];
const note = () => shown.push({ texts: state.messages.map(text), status: state.status, error: state.error ? String(state.error) : null });

await chat.sendMessage({ text: "Hi" });
note();
await chat.regenerate();
note();
await chat.sendMessage({ text: "Hello", messageId: state.messages[0].id });
note();
await chat.regenerate({ messageId: state.messages[1].id });
note();
await chat.sendMessage({ text: "More" });
note();
await chat.resumeStream();
note();
process.stdout.write(JSON.stringify(shown));
