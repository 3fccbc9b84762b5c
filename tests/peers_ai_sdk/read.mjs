// Reads UI message streams with the AI SDK's own client code: one JSON request on stdin, one JSON answer on stdout.
//   {"version": "ai5", "streams": ["data: …"]}                          each stream parsed, validated and made a message
//   {"version": "ai5", "api": "http://…/api/chat", "chatId", "text"}    a whole exchange by the SDK's HTTP transport
import { readFileSync } from "node:fs";

const request = JSON.parse(readFileSync(0, "utf8"));
const ai = await import(request.version);

async function lastMessage(chunks) {
  let last = null;
  const errors = [];
  const messages = ai.readUIMessageStream({
    stream: chunks,
    onError: (error) => errors.push(String(error)),
    terminateOnError: false,
  });
  for await (const message of messages) last = message;
  return { message: last, errors };
}

async function readStream(text) {
  const types = [];
  const invalid = [];
  const chunks = ai
    .parseJsonEventStream({ stream: new Blob([text]).stream(), schema: ai.uiMessageChunkSchema })
    .pipeThrough(
      new TransformStream({
        transform(part, controller) {
          if (!part.success) {
            invalid.push(String(part.error));
            return;
          }
          types.push(part.value.type);
          controller.enqueue(part.value);
        },
      }),
    );
  return { types, invalid, ...(await lastMessage(chunks)) };
}

async function exchange({ api, chatId, text, headers }) {
  const transport = new ai.DefaultChatTransport({ api, headers });
  const idle = async () => (await transport.reconnectToStream({ chatId })) === null;
  const messages = [{ id: "m1", role: "user", parts: [{ type: "text", text }] }];
  const sent = await transport.sendMessages({ chatId, messages, trigger: "submit-message" });
  return { ...(await lastMessage(sent)), idleAfter: await idle() };
}

const answer = request.streams ? await Promise.all(request.streams.map(readStream)) : await exchange(request);
process.stdout.write(JSON.stringify(answer));
