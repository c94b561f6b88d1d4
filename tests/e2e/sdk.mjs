// Calls a gateway with OpenAI's Node SDK and prints what came of it as JSON: sdk.mjs SDK-FOLDER BASE-URL KEY POOR-KEY
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, baseURL, apiKey, poorKey] = process.argv.slice(2);
const { default: OpenAI, toFile } = createRequire(join(folder, "package.json"))("openai");
const clientOf = (key) => new OpenAI({ baseURL, apiKey: key, maxRetries: 0 });
const client = clientOf(apiKey);

const model = "gpt-4o-mini";
const messages = [{ role: "user", content: "hello wide world" }];
const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } }];
const wav = () => toFile(Buffer.concat([Buffer.from("RIFF"), Buffer.alloc(64)]), "a.wav", { type: "audio/wav" });
const png = () => toFile(Buffer.concat([Buffer.from("\x89PNG", "latin1"), Buffer.alloc(64)]), "a.png", { type: "image/png" });

async function gathered(stream) {
  let text = "", usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  return { text, usage: usage && usage.completion_tokens };
}

async function failure(call) {
  try {
    await call();
    return null;
  } catch (error) {
    return { name: error.constructor.name, status: error.status, code: error.code, param: error.param ?? null };
  }
}

const chat = (fields, of = client) => of.chat.completions.create({ model, messages, ...fields });

const works = {
  chat: async () => (await chat({})).choices[0].message.content,
  stream: async () => gathered(await chat({ stream: true })),
  "stream with usage": async () => gathered(await chat({ stream: true, stream_options: { include_usage: true } })),
  tools: async () => (await chat({ tools, tool_choice: "required" })).choices[0].message.tool_calls[0].function.name,
  embeddings: async () =>
    (await client.embeddings.create({ model: "text-embedding-3-small", input: ["a", "b"] })).data.map((item) => item.embedding.length),
  "images generate": async () =>
    Buffer.from((await client.images.generate({ model: "dall-e-3", prompt: "a cat" })).data[0].b64_json, "base64").subarray(1, 4).toString(),
  "images edit": async () =>
    (await client.images.edit({ model: "dall-e-2", image: await png(), prompt: "a hat", n: 2 })).data.length,
  "images variation": async () => (await client.images.createVariation({ image: await png() })).data.length,
  speech: async () =>
    Buffer.from(await (await client.audio.speech.create({ model: "tts-1", voice: "alloy", input: "hello" })).arrayBuffer()).subarray(8, 12).toString(),
  transcription: async () =>
    (await client.audio.transcriptions.create({ model: "whisper-1", file: await wav(), prompt: "good day" })).text,
  "transcription as text": async () =>
    client.audio.transcriptions.create({ model: "whisper-1", file: await wav(), prompt: "good day", response_format: "text" }),
  translation: async () => (await client.audio.translations.create({ model: "whisper-1", file: await wav() })).text,
  moderation: async () => (await client.moderations.create({ input: "fine" })).results[0].flagged,
  "models list": async () => (await client.models.list()).data.map((item) => item.id).sort(),
  "models get": async () => (await client.models.retrieve(model)).id,
  "unknown key": async () => failure(() => chat({}, clientOf("sk-nobody"))),
  "empty balance": async () => failure(() => chat({}, clientOf(poorKey))),
  "unknown model": async () => failure(() => chat({ model: "gpt-9" })),
  "bad field": async () => failure(() => chat({ messages: [] })),
  "unknown path": async () => failure(() => client.post("/nothing", { body: {} })),
};

const found = {};
for (const [name, work] of Object.entries(works)) found[name] = await work();
console.log(JSON.stringify(found));
