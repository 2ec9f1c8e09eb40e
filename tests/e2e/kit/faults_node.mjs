#!/usr/bin/env node
// Ask BASE_URL for each case of the JSON list on stdin with openai (npm); print what the app sees, one object a line.
import { readFileSync } from "node:fs";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "sk-test", maxRetries: 0, timeout: 30_000 });

const ask = async (one) => {
  const request = { model: one.model, messages: [{ role: "user", content: one.content }] };
  let text = "";
  try {
    if (one.stream) {
      for await (const event of await client.chat.completions.create({ ...request, stream: true })) {
        for (const choice of event.choices) text += choice.delta.content ?? "";
      }
    } else {
      text = (await client.chat.completions.create(request)).choices[0].message.content;
    }
  } catch (error) {
    if (error instanceof OpenAI.APIError && error.status) {
      return { text, raised: "status", status: error.status, code: error.code ?? error.type };
    }
    const raised = error instanceof OpenAI.OpenAIError ? "error" : "other";
    return { text, raised, status: 0, code: error.code ?? error.type ?? error.name };
  }
  return { text, raised: "", status: 200, code: "" };
};

for (const one of JSON.parse(readFileSync(0, "utf-8"))) console.log(JSON.stringify({ id: one.id, ...(await ask(one)) }));
