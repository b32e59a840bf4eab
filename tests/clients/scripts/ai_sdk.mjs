// The Vercel AI SDK's OpenAI-compatible provider: model name, provider options, header, a file's id; object, tools.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, generateText, isStepCount, streamText, tool } from "ai";
import { z } from "zod";
import {
  BASE, DOCUMENT, KEY, MAX_TOKENS, NAMED, QUESTION, TOOL_TOKENS, UNKNOWN, URL, collect, each, say,
} from "./given.mjs";

const lift = createOpenAICompatible({
  name: "lift",
  baseURL: URL,
  apiKey: KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
  metadataExtractor: { extractMetadata: async ({ parsedBody }) => ({ lift: parsedBody.lift }), createStreamExtractor },
});
const Pet = z.object({ kind: z.enum(["dog", "cat"]), name: z.enum(["Brisket", "Biscuit"]) });
const plain = { model: lift(BASE), prompt: QUESTION, temperature: 0, maxOutputTokens: MAX_TOKENS, maxRetries: 0 };
const parts = [
  { type: "file", mediaType: "text/plain", data: { type: "reference", reference: { lift: DOCUMENT } } },
  { type: "text", text: QUESTION },
];

const ways = {
  model: { ...plain, model: lift(NAMED) },
  options: { ...plain, providerOptions: { lift: { document_id: DOCUMENT } } },
  header: { ...plain, headers: { "X-Document-Id": DOCUMENT } },
  file_id: { ...plain, prompt: undefined, messages: [{ role: "user", content: parts }] },
  base: plain,
};

// `lift` is on a stream's last chunk.
function createStreamExtractor() {
  let last;
  return { processChunk: (chunk) => (last = chunk.lift ?? last), buildMetadata: () => ({ lift: last }) };
}

async function streamed(asked) {
  const result = streamText(asked);
  const text = (await collect(result.textStream)).join("");
  return { text, usage: await result.usage, lift: (await result.providerMetadata).lift };
}

async function parsed() {
  const asked = { ...ways.model, maxOutputTokens: TOOL_TOKENS, output: Output.object({ schema: Pet }) };
  return (await generateText(asked)).output;
}

// A call, what came of it, and the answer after its result is told.
async function called() {
  const remember = tool({ inputSchema: Pet, strict: true, execute: async () => "remembered" });
  const result = await generateText({
    ...ways.model,
    maxOutputTokens: TOOL_TOKENS,
    tools: { remember },
    toolChoice: { type: "tool", toolName: "remember" },
    stopWhen: isStepCount(2),
    prepareStep: ({ stepNumber }) => (stepNumber === 1 ? { toolChoice: "none" } : undefined),
  });
  const [call] = result.steps[0].toolCalls;
  return { name: call.toolName, arguments: call.input, answer: result.text };
}

async function unknown() {
  try {
    await generateText({ ...plain, model: lift(`${BASE}:${UNKNOWN}`) });
  } catch (error) {
    if (!APICallError.isInstance(error)) throw error;
    return [error.name, error.statusCode, error.data.error.code];
  }
  return null;
}

const streams = await each(ways, streamed);
const answers = await each(ways, generateText);
say({
  answers: await each(answers, (answer) => answer.text),
  lift: await each(answers, (answer) => answer.providerMetadata.lift),
  usage: answers.model.usage,
  streamed: await each(streams, (stream) => stream.text),
  streams,
  parsed: await parsed(),
  tool: await called(),
  unknown: await unknown(),
});
