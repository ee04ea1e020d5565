// The official `openai` client for JavaScript against a server: node openai_client.mjs CLIENTS-FOLDER BASE-URL MODEL
// One line per case: "pass NAME" or "fail NAME: why". real_engines_test.py runs it.
import { createRequire } from 'node:module';
import path from 'node:path';

const [folder, baseURL, model] = process.argv.slice(2);
const require = createRequire(path.resolve(folder) + '/');
const { OpenAI } = require('openai');
const client = new OpenAI({ baseURL: baseURL + '/v1', apiKey: 'none', maxRetries: 0, timeout: 60_000 });
const messages = [{ role: 'user', content: 'Tell me about actors and messages.' }];

function check(condition, why) {
  if (!condition) throw new Error(why);
}

const cases = {
  async models_are_listed() {
    const models = await client.models.list();
    check(models.data.some((m) => m.id === model), JSON.stringify(models.data));
  },
  async whole_chat() {
    const answer = await client.chat.completions.create({ model, messages, max_tokens: 8 });
    check(answer.choices[0].message.content.length > 0, 'no content');
    check(answer.usage.completion_tokens === 8, JSON.stringify(answer.usage));
  },
  async whole_completion() {
    const answer = await client.completions.create({ model, prompt: 'The server', max_tokens: 6 });
    check(answer.usage.completion_tokens === 6 && answer.choices[0].text.length > 0, JSON.stringify(answer));
  },
  async streamed_chat_with_usage() {
    const stream = await client.chat.completions.create({ model, messages, max_tokens: 12, stream: true, stream_options: { include_usage: true } });
    let events = 0, finish, usage, text = '';
    for await (const event of stream) {
      events += 1;
      text += event.choices[0]?.delta?.content ?? '';
      finish = event.choices[0]?.finish_reason ?? finish;
      usage = event.usage ?? usage;
    }
    check(events >= 12 && text.length > 0 && finish === 'length' && usage.completion_tokens === 12, `${events} ${finish} ${JSON.stringify(usage)}`);
  },
  async streamed_completion() {
    let events = 0;
    for await (const event of await client.completions.create({ model, prompt: [300, 301, 302], max_tokens: 9, stream: true })) events += event.choices.length;
    check(events >= 9, `${events} events`);
  },
  async unknown_model_is_not_found() {
    try {
      await client.chat.completions.create({ model: 'no-such-model', messages, max_tokens: 2 });
    } catch (error) {
      return check(error instanceof OpenAI.NotFoundError && error.code === 'model_not_found', String(error));
    }
    throw new Error('it was answered');
  },
  async a_prompt_that_is_too_long_is_the_engines_400() {
    try {
      await client.completions.create({ model, prompt: 'word '.repeat(40_000), max_tokens: 2 });
    } catch (error) {
      return check(error instanceof OpenAI.BadRequestError, String(error));
    }
    throw new Error('it was answered');
  },
  async a_bad_request_is_a_bad_request() {
    try {
      await client.chat.completions.create({ model, messages: 'none', max_tokens: 2 });
    } catch (error) {
      return check(error instanceof OpenAI.BadRequestError, String(error));
    }
    throw new Error('it was answered');
  },
  async an_aborted_stream_ends() {
    const stream = await client.chat.completions.create({ model, messages, max_tokens: 4_000, stream: true, ignore_eos: true });
    let events = 0;
    for await (const event of stream) if (++events === 5) stream.controller.abort();
    check(events < 1_000, `${events} events`);
  },
  async twenty_streams_at_once() {
    const counts = await Promise.all(Array.from({ length: 20 }, async (_, i) => {
      let events = 0;
      const stream = await client.completions.create({ model, prompt: `number ${i} `.repeat(1 + i), max_tokens: 10, stream: true });
      for await (const event of stream) events += event.choices.length;
      return events;
    }));
    check(counts.every((n) => n >= 10), JSON.stringify(counts));
  },
};

let failed = 0;
for (const [name, run] of Object.entries(cases)) {
  try {
    await run();
    console.log(`pass ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`fail ${name}: ${String(error).replaceAll('\n', ' ')}`);
  }
}
process.exit(failed ? 1 : 0);
