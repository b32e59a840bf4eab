// openai-node: every way to name a document, chat, responses, files, helpers for streams, parse, tools.

import OpenAI, { toFile } from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import {
  BASE, DOCUMENT, MAX_TOKENS, NAMED, QUESTION, RECIPE, TEXT, TOOL_TOKENS, UNKNOWN, collect, each, say,
} from "./given.mjs";

const client = new OpenAI({ maxRetries: 0 });
const Pet = z.object({ kind: z.enum(["dog", "cat"]), name: z.enum(["Brisket", "Biscuit"]) });
const messages = [{ role: "user", content: QUESTION }];
const plain = { model: BASE, messages, temperature: 0, max_tokens: MAX_TOKENS };
const data = `data:text/plain;base64,${Buffer.from(TEXT).toString("base64")}`;

const ways = {
  document_id: [{ ...plain, document_id: DOCUMENT }],
  metadata: [{ ...plain, metadata: { document_id: DOCUMENT } }],
  header: [plain, { headers: { "X-Document-Id": DOCUMENT } }],
  model: [{ ...plain, model: NAMED }],
  file_id: [{ ...plain, messages: withFile({ file_id: DOCUMENT }) }],
  file_data: [
    { ...plain, messages: withFile({ filename: "varn.txt", file_data: data }), lift: { recipe: RECIPE } },
  ],
  base: [plain],
};

function withFile(file) {
  return [{ role: "user", content: [{ type: "file", file }, { type: "text", text: QUESTION }] }];
}

async function streamed([body, options]) {
  const stream = client.chat.completions.stream({ ...body, stream_options: { include_usage: true } }, options);
  const chunks = await collect(stream);
  const final = await stream.finalChatCompletion();
  return {
    text: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""),
    final: final.choices[0].message.content,
    usage: final.usage,
    lift: chunks.at(-1).lift,
  };
}

async function responses() {
  const asked = { model: BASE, temperature: 0, max_output_tokens: MAX_TOKENS };
  const content = [{ type: "input_file", file_id: DOCUMENT }, { type: "input_text", text: QUESTION }];
  const answer = await client.responses.create({ ...asked, input: [{ role: "user", content }] });
  const stream = client.responses.stream({ ...asked, model: NAMED, input: QUESTION });
  const events = await collect(stream);
  const deltas = events.filter((event) => event.type === "response.output_text.delta");
  return {
    answer: answer.output_text,
    lift: answer.lift,
    streamed: deltas.map((event) => event.delta).join(""),
    final: (await stream.finalResponse()).output_text,
  };
}

async function files() {
  const content = await toFile(Buffer.from(TEXT), "varn.txt");
  const file = await client.files.create({ file: content, purpose: "user_data", recipe: RECIPE });
  const answer = await client.chat.completions.create({ ...plain, model: `${BASE}:${file.id}` });
  return {
    answer: answer.choices[0].message.content,
    listed: (await collect(client.files.list())).some((listed) => listed.id === file.id),
    content: await (await client.files.content(file.id)).text(),
    deleted: (await client.files.delete(file.id)).deleted,
    after: await errorOf(() => client.files.retrieve(file.id)),
  };
}

async function parsed() {
  const answer = await client.chat.completions.parse({
    ...plain, model: NAMED, max_tokens: TOOL_TOKENS, response_format: zodResponseFormat(Pet, "pet"),
  });
  return answer.choices[0].message.parsed;
}

// A call, and the answer after its result is told.
async function tool() {
  const tools = [zodFunction({ name: "remember", parameters: Pet })];
  const asked = { ...plain, model: NAMED, max_tokens: TOOL_TOKENS, tools };
  const named = { type: "function", function: { name: "remember" } };
  const called = (await client.chat.completions.parse({ ...asked, tool_choice: named })).choices[0].message;
  const [call] = called.tool_calls;
  const told = [called, { role: "tool", tool_call_id: call.id, content: "remembered" }];
  const answer = await client.chat.completions.create({
    ...asked, messages: [...messages, ...told], tool_choice: "none",
  });
  return {
    name: call.function.name,
    arguments: call.function.parsed_arguments,
    answer: answer.choices[0].message.content,
  };
}

async function errorOf(ask) {
  try {
    await ask();
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    return [error.constructor.name, error.status, error.code];
  }
  return null;
}

const streams = await each(ways, streamed);
const answers = await each(ways, ([body, options]) => client.chat.completions.create(body, options));
say({
  answers: await each(answers, (answer) => answer.choices[0].message.content),
  lift: await each(answers, (answer) => answer.lift),
  usage: answers.model.usage,
  streamed: await each(streams, (stream) => stream.text),
  streams,
  responses: await responses(),
  files: await files(),
  models: (await collect(client.models.list())).map((model) => model.id),
  parsed: await parsed(),
  tool: await tool(),
  unknown: await each(
    {
      model: () => client.chat.completions.create({ ...plain, model: `${BASE}:${UNKNOWN}` }),
      stream: () => client.chat.completions.create({ ...plain, document_id: UNKNOWN, stream: true }),
      file: () => client.files.retrieve(UNKNOWN),
    },
    errorOf,
  ),
});
