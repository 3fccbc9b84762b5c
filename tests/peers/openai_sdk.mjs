// What openai-node makes of a server: {"baseURL", "scenario"} on stdin, what it saw on stdout.
import { readFileSync } from "node:fs";
import OpenAI from "openai";

const request = JSON.parse(readFileSync(0, "utf8"));
const client = new OpenAI({
  baseURL: request.baseURL,
  apiKey: "any",
  maxRetries: 0,
  timeout: 30_000,
  defaultHeaders: { "x-dev-user": "ana" },
});
const tools = [{ type: "function", function: { name: "get_weather", parameters: { type: "object", properties: {} } } }];
const flat = [{ type: "function", name: "get_weather", parameters: { type: "object", properties: {} }, strict: false }];
const hi = [{ role: "user", content: "Hi" }];

const failure = async (asking) => {
  try {
    await asking();
  } catch (error) {
    return {
      class: error.constructor.name,
      status: error.status ?? null,
      code: error.code ?? null,
      param: error.param ?? null,
      requestID: typeof error.requestID,
    };
  }
  return null;
};

const scenarios = {
  async chat() {
    const answer = await client.chat.completions.create({ model: "small", messages: hi });
    return { text: answer.choices[0].message.content, reason: answer.choices[0].finish_reason, total: answer.usage.total_tokens };
  },
  async stream() {
    const stream = client.chat.completions.stream({
      model: "small",
      messages: hi,
      stream_options: { include_usage: true },
    });
    const deltas = [];
    stream.on("content", (delta) => deltas.push(delta));
    const whole = await stream.finalChatCompletion();
    return { deltas: deltas.join(""), text: whole.choices[0].message.content, total: whole.usage.total_tokens };
  },
  async tools() {
    const messages = [...hi];
    const first = await client.chat.completions.stream({ model: "assistant/assistant", messages, tools }).finalChatCompletion();
    const message = first.choices[0].message;
    messages.push(message);
    for (const call of message.tool_calls) messages.push({ role: "tool", tool_call_id: call.id, content: "sun" });
    const second = await client.chat.completions.create({ model: "assistant/assistant", messages, tools });
    return {
      reason: first.choices[0].finish_reason,
      calls: message.tool_calls.map((call) => [call.id, call.function.name, call.function.arguments]),
      text: second.choices[0].message.content,
    };
  },
  async responses() {
    const stream = client.responses.stream({ model: "small", input: "Hi", tools: flat });
    const types = [];
    for await (const event of stream) types.push(event.type);
    const final = await stream.finalResponse();
    const next = await client.responses.create({
      model: "small",
      previous_response_id: final.id,
      input: [{ type: "function_call_output", call_id: "call_1", output: "sun" }],
      tools: flat,
    });
    const items = [];
    for await (const item of client.responses.inputItems.list(next.id, { order: "asc" })) items.push(item.type);
    return { types, text: final.output_text, call: final.output[1].arguments, next: next.output_text, items };
  },
  async background() {
    const stream = await client.responses.create({ model: "small", input: "Count", background: true, stream: true });
    const seen = [];
    for await (const event of stream) {
      seen.push(event);
      if (event.type === "response.output_text.delta") break;
    }
    const id = seen[0].response.id;
    const rest = await client.responses.retrieve(id, { stream: true, starting_after: seen.at(-1).sequence_number });
    const cancelled = await client.responses.cancel(id);
    for await (const event of rest) seen.push(event);
    await client.responses.delete(id);
    return {
      numbers: seen.map((event) => event.sequence_number),
      last: seen.at(-1).type,
      status: [seen.at(-1).response.status, cancelled.status],
      gone: await failure(() => client.responses.retrieve(id)),
    };
  },
  async errors() {
    const create = (more) => () => client.chat.completions.create({ model: "small", messages: hi, ...more });
    return {
      model: await failure(create({ model: "nobody" })),
      n: await failure(create({ n: 2 })),
      response: await failure(() => client.responses.retrieve("resp_none")),
      who: await failure(() => client.withOptions({ defaultHeaders: { "x-dev-user": "a b" } }).models.list()),
      busy: await failure(create()),
      midway: await failure(async () => {
        for await (const _ of await client.chat.completions.create({ model: "small", messages: hi, stream: true }));
      }),
    };
  },
  async leaving() {
    const stream = await client.chat.completions.create({ model: "small", messages: hi, stream: true });
    for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
    return {};
  },
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    return { ids, one: (await client.models.retrieve("assistant/assistant")).owned_by };
  },
};

process.stdout.write(JSON.stringify(await scenarios[request.scenario]()));
process.exit(0);
