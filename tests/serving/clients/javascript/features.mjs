// The features of the server, tried with OpenAI's client for JavaScript:
//     node features.mjs ADDRESS MODEL FACTS
// FACTS is the JSON of facts.py; each line that is printed has a feature's key and what the table says, or an error.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { makeParseableResponseFormat, makeParseableTextFormat } from 'openai/lib/parser';

const [address, model, text] = process.argv.slice(2);
const facts = JSON.parse(text);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: 'none', maxRetries: 0 });
const greedy = { temperature: 0, max_completion_tokens: facts.tokens };
const short = { temperature: 0, max_completion_tokens: 110 };
const [instructions, question] = facts.messages.map((message) => message.content);
const fact = "the library's text";

const ask = (options) => client.chat.completions.create({ model, messages: facts.messages, ...options });
const respond = (options) => client.responses.create({ model, instructions, input: question, ...options });
const complete = (options) => client.completions.create({ model, prompt: facts.prompt, ...options });
const content = (answer, choice = 0) => answer.choices[choice].message.content;
const near = (one, other) => assert.ok(Math.abs(one - other) < 1e-4, `${one} is not near ${other}`);

async function all(stream) {
  const found = [];
  for await (const one of await stream) found.push(one);
  return found;
}

async function refused(promise, type, param) {
  const error = await promise.then(() => assert.fail('not refused'), (error) => error);
  assert.ok(error instanceof type, String(error));
  if (param) assert.equal(error.param, param);
  return error;
}

function checkWeather(json) {
  const found = JSON.parse(json);
  assert.deepEqual(Object.keys(found), ['city', 'days']);
  assert.ok(['Seoul', 'Busan'].includes(found.city) && [1, 2, 3].includes(found.days));
}

function checkSky(json) {
  const found = JSON.parse(json);
  assert.ok(['Seoul', 'Busan'].includes(found.city) && typeof found.hot === 'boolean');
}

const weather = { type: 'function', function: { name: 'weather', parameters: facts.toolParameters } };
const clock = { type: 'function', function: { name: 'clock', parameters: { type: 'object', properties: {} } } };
const calling = { tools: [weather], tool_choice: 'required', parallel_tool_calls: false, ...short };
const format = { type: 'json_schema', json_schema: { name: 'weather', schema: facts.schema, strict: true } };
const flat = { type: 'function', name: 'weather', parameters: facts.toolParameters, strict: true };
const responding = { tools: [flat], tool_choice: 'required', parallel_tool_calls: false, temperature: 0, max_output_tokens: 110 };
const briefly = { temperature: 0, max_output_tokens: facts.tokens };

function oneCall(answer) {
  assert.equal(answer.choices[0].finish_reason, 'tool_calls');
  assert.equal(answer.choices[0].message.tool_calls.length, 1);
  return answer.choices[0].message.tool_calls[0];
}

const features = {
  async chat_whole() {
    const answer = await ask(greedy);
    assert.equal(content(answer), facts.chat);
    assert.equal(answer.usage.prompt_tokens, facts.prompt_tokens);
    return fact;
  },
  async chat_parts() {
    const messages = [{ role: 'developer', content: [{ type: 'text', text: instructions }] }, facts.messages[1]];
    assert.equal(content(await ask({ messages, ...greedy })), facts.chat);
    return fact;
  },
  async chat_stream() {
    const chunks = await all(ask({ stream: true, ...greedy }));
    assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? '').join(''), facts.chat);
    assert.equal(chunks.at(-1).choices[0].finish_reason, 'length');
    return fact;
  },
  async chat_stream_usage() {
    const chunks = await all(ask({ stream: true, stream_options: { include_usage: true }, ...greedy }));
    assert.equal(chunks.at(-1).usage.completion_tokens, facts.tokens);
  },
  async chat_stream_helper() {
    const stop = facts.chat.slice(-4);
    const stream = client.chat.completions.stream({ model, messages: facts.messages, stop, ...greedy });
    let deltas = '';
    stream.on('content', (delta) => (deltas += delta));
    assert.equal(await stream.finalContent(), facts.chat.slice(0, facts.chat.indexOf(stop)));
    assert.equal(deltas, await stream.finalContent());
    return fact;
  },
  async chat_cached_tokens() {
    const asked = [{ role: 'user', content: 'What is there to see in Seoul, and where is it? '.repeat(8) }];
    const first = await ask({ messages: asked, ...greedy });
    const answered = [...asked, first.choices[0].message, { role: 'user', content: 'Why?' }];
    const { usage } = await ask({ messages: answered, ...greedy });
    const cached = usage.prompt_tokens_details.cached_tokens;
    if (cached === 0 && facts.windows) return '0 with sliding windows';
    assert.ok(cached > first.usage.prompt_tokens / 2);
  },
  async chat_choices() {
    const options = { n: 3, seed: 5, temperature: 1, max_completion_tokens: facts.tokens };
    const [first, second] = [await ask(options), await ask(options)];
    assert.deepEqual(first.choices, second.choices);
    assert.ok(new Set(first.choices.map((choice) => choice.message.content)).size > 1);
  },
  async chat_stop() {
    const stop = facts.chat.slice(8, 14);
    const answer = await ask({ stop: [stop, 'never'], ...greedy });
    assert.equal(content(answer), facts.chat.slice(0, facts.chat.indexOf(stop)));
    assert.equal(answer.choices[0].finish_reason, 'stop');
  },
  async chat_length() {
    for (const name of ['max_completion_tokens', 'max_tokens']) {
      assert.equal((await ask({ temperature: 0, [name]: 3 })).usage.completion_tokens, 3);
    }
  },
  async chat_sampling() {
    const options = { temperature: 2, seed: 1, max_completion_tokens: facts.tokens };
    assert.equal(content(await ask({ top_p: 1e-6, ...options })), facts.chat);
    assert.notEqual(content(await ask(options)), facts.chat);
  },
  async chat_penalties() {
    const options = { temperature: 0, max_completion_tokens: 40 };
    const plain = content(await ask(options));
    for (const name of ['presence_penalty', 'frequency_penalty']) {
      assert.notEqual(content(await ask({ [name]: 2, ...options })), plain);
    }
  },
  async chat_bias() {
    const answer = await ask({ logit_bias: { 100: 100 }, logprobs: true, ...greedy });
    assert.equal(new Set(answer.choices[0].logprobs.content.map((entry) => entry.token)).size, 1);
  },
  async chat_logprobs() {
    const answer = await ask({ logprobs: true, top_logprobs: 2, ...greedy });
    const entries = answer.choices[0].logprobs.content;
    assert.equal(entries.length, facts.logprobs.length);
    entries.forEach((entry, index) => {
      const [token, logprob, top] = facts.logprobs[index];
      assert.equal(entry.token, token);
      near(entry.logprob, logprob);
      assert.deepEqual(entry.top_logprobs.map((one) => one.token), top);
    });
    return "the library's";
  },
  async chat_thought() {
    const ways = [{ reasoning_effort: 'high' }, { chat_template_kwargs: { enable_thinking: true } }];
    if (facts.thought_end === null) {
      for (const way of ways) await refused(ask({ ...way, ...greedy }), OpenAI.BadRequestError);
      return 'refused for a template without thoughts';
    }
    for (const way of ways) {
      const answer = await ask({ logit_bias: { [facts.thought_end]: -100 }, ...way, ...greedy });
      assert.ok(answer.choices[0].message.reasoning_content);
      assert.equal(answer.usage.completion_tokens_details.reasoning_tokens, facts.tokens);
    }
  },
  async tools_required() {
    checkWeather(oneCall(await ask(calling)).function.arguments);
  },
  async tools_named() {
    for (const name of ['weather', 'clock']) {
      const tool_choice = { type: 'function', function: { name } };
      assert.equal(oneCall(await ask({ ...calling, tools: [weather, clock], tool_choice })).function.name, name);
    }
  },
  async tools_auto() {
    for (const tool_choice of ['auto', 'none']) {
      assert.ok(content(await ask({ tools: [weather, clock], tool_choice, ...short })));
    }
  },
  async tools_single() {
    oneCall(await ask(calling));
  },
  async tools_stream() {
    const whole = oneCall(await ask(calling)).function.arguments;
    const chunks = await all(ask({ stream: true, ...calling }));
    const deltas = chunks.flatMap((chunk) => chunk.choices[0].delta.tool_calls ?? []);
    assert.equal(deltas[0].function.name, 'weather');
    assert.equal(deltas.map((delta) => delta.function.arguments ?? '').join(''), whole);
  },
  async tools_result() {
    const { message } = (await ask(calling)).choices[0];
    const result = { role: 'tool', tool_call_id: message.tool_calls[0].id, content: '{"sky": "rain"}' };
    const messages = [...facts.messages, message, result];
    assert.ok(content(await ask({ messages, tools: [weather], tool_choice: 'none', ...short })));
  },
  async tools_parse() {
    const tool = { ...weather, function: { ...weather.function, strict: true } };
    const answer = await client.chat.completions.parse({ model, messages: facts.messages, ...calling, tools: [tool] });
    checkWeather(JSON.stringify(oneCall(answer).function.parsed_arguments));
  },
  async structured_schema() {
    checkSky(content(await ask({ response_format: format, ...short })));
  },
  async structured_stream() {
    const chunks = await all(ask({ response_format: format, stream: true, ...short }));
    checkSky(chunks.map((chunk) => chunk.choices[0].delta.content ?? '').join(''));
  },
  async structured_object() {
    const answer = await ask({ response_format: { type: 'json_object' }, temperature: 0, max_completion_tokens: 200 });
    if (answer.choices[0].finish_reason === 'stop') assert.equal(typeof JSON.parse(content(answer)), 'object');
    else assert.ok(content(answer).startsWith('{'));
  },
  async structured_parse() {
    const response_format = makeParseableResponseFormat(format, JSON.parse);
    const answer = await client.chat.completions.parse({ model, messages: facts.messages, response_format, ...short });
    checkSky(JSON.stringify(answer.choices[0].message.parsed));
  },
  async structured_stream_helper() {
    const stream = client.chat.completions.stream({ model, messages: facts.messages, response_format: format, ...short });
    checkSky(await stream.finalContent());
  },
  async texts_completion() {
    const answer = await complete({ temperature: 0, max_tokens: facts.tokens });
    assert.equal(answer.choices[0].text, facts.completion);
    return fact;
  },
  async texts_stream() {
    const chunks = await all(complete({ stream: true, temperature: 0, max_tokens: facts.tokens }));
    assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(''), facts.completion);
    return fact;
  },
  async texts_options() {
    const more = { n: 2, seed: 3, temperature: 1, max_tokens: 4, echo: true, logprobs: 1 };
    const answer = await complete({ prompt: [facts.prompt, 'A'], ...more });
    assert.deepEqual(answer.choices.map((choice) => choice.text.startsWith(facts.prompt)), [true, true, false, false]);
  },
  async texts_refused() {
    await refused(complete({ suffix: 'end' }), OpenAI.BadRequestError, 'suffix');
    await refused(complete({ best_of: 3 }), OpenAI.BadRequestError, 'best_of');
    return 'refused by name';
  },
  async texts_embeddings() {
    const given = { model: 'encoder', input: ['a text', 'another'] };
    const packed = await client.embeddings.create(given);
    const plain = await client.embeddings.create({ ...given, encoding_format: 'float' });
    plain.data.forEach((item, index) => {
      item.embedding.forEach((value, place) => near(value, packed.data[index].embedding[place]));
    });
  },
  async texts_models() {
    const names = await all(client.models.list());
    assert.ok(names.some((one) => one.id === model));
    assert.equal((await client.models.retrieve(model)).id, model);
    await refused(client.models.retrieve('nothing'), OpenAI.NotFoundError);
  },
  async responses_text() {
    const answer = await respond(briefly);
    assert.equal(answer.output_text, facts.chat);
    assert.equal(answer.usage.input_tokens, facts.prompt_tokens);
    return fact;
  },
  async responses_items() {
    const input = [
      { role: 'developer', content: instructions },
      { role: 'user', content: [{ type: 'input_text', text: question }] },
    ];
    const first = await respond({ instructions: null, input, ...briefly });
    assert.equal(first.output_text, facts.chat);
    const more = [...input, ...first.output, { role: 'user', content: 'Why?' }];
    const again = await respond({ instructions: null, input: more, ...briefly });
    assert.ok(again.usage.input_tokens > first.usage.total_tokens);
    return fact;
  },
  async responses_stream() {
    const events = await all(respond({ stream: true, ...briefly }));
    assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
    const deltas = events.filter((event) => event.type === 'response.output_text.delta').map((event) => event.delta);
    assert.equal(deltas.join(''), facts.chat);
    assert.equal(events.at(-1).type, 'response.incomplete');
    return fact;
  },
  async responses_stream_helper() {
    const stream = client.responses.stream({ model, input: question, text: { format: { ...format.json_schema, type: 'json_schema' } }, temperature: 0, max_output_tokens: 110 });
    checkSky((await stream.finalResponse()).output_text);
  },
  async responses_incomplete() {
    const answer = await respond({ temperature: 0, max_output_tokens: 3 });
    assert.equal(answer.status, 'incomplete');
    assert.equal(answer.incomplete_details.reason, 'max_output_tokens');
  },
  async responses_tools() {
    const answer = await respond(responding);
    const call = answer.output.at(-1);
    assert.equal(call.type, 'function_call');
    checkWeather(call.arguments);
    const result = { type: 'function_call_output', call_id: call.call_id, output: '{"sky": "rain"}' };
    const input = [{ role: 'user', content: question }, ...answer.output, result];
    assert.ok((await respond({ ...responding, input, tool_choice: 'none' })).output_text);
  },
  async responses_tools_stream() {
    const events = await all(respond({ stream: true, ...responding }));
    const deltas = events.filter((event) => event.type === 'response.function_call_arguments.delta');
    checkWeather(deltas.map((event) => event.delta).join(''));
  },
  async responses_format() {
    const schema = { format: { type: 'json_schema', ...format.json_schema } };
    checkSky((await respond({ text: schema, temperature: 0, max_output_tokens: 110 })).output_text);
    const json = { format: { type: 'json_object' } };
    assert.ok((await respond({ text: json, temperature: 0, max_output_tokens: 110 })).output_text.startsWith('{'));
  },
  async responses_parse() {
    const parsing = makeParseableTextFormat({ type: 'json_schema', ...format.json_schema }, JSON.parse);
    const answer = await client.responses.parse({ model, input: question, text: { format: parsing }, temperature: 0, max_output_tokens: 110 });
    checkSky(JSON.stringify(answer.output_parsed));
  },
  async responses_logprobs() {
    const include = ['message.output_text.logprobs'];
    const answer = await respond({ include, top_logprobs: 2, ...briefly });
    const entries = answer.output.at(-1).content[0].logprobs;
    assert.deepEqual(entries.map((entry) => entry.token), facts.logprobs.map(([token]) => token));
    entries.forEach((entry, index) => near(entry.logprob, facts.logprobs[index][1]));
    return "the library's";
  },
  async responses_thought() {
    const options = { reasoning: { effort: 'high' }, ...briefly };
    if (facts.thought_end === null) {
      await refused(respond(options), OpenAI.BadRequestError, 'reasoning.effort');
      return 'refused for a template without thoughts';
    }
    const answer = await respond({ logit_bias: { [facts.thought_end]: -100 }, ...options });
    assert.deepEqual(answer.output.map((item) => item.type), ['reasoning']);
    const events = await all(respond({ stream: true, logit_bias: { [facts.thought_end]: -100 }, ...options }));
    const deltas = events.filter((event) => event.type === 'response.reasoning_text.delta').map((event) => event.delta);
    assert.equal(deltas.join(''), answer.output[0].content[0].text);
  },
  async responses_refused() {
    const options = { previous_response_id: 'resp_1', store: true, background: true, conversation: 'conv_1', truncation: 'auto' };
    for (const [name, value] of Object.entries(options)) {
      await refused(respond({ [name]: value }), OpenAI.BadRequestError, name);
    }
    return 'refused by name';
  },
  async errors_parameter() {
    await refused(ask({ temperature: -1 }), OpenAI.BadRequestError, 'temperature');
    await refused(ask({ no_such: 1 }), OpenAI.BadRequestError, 'no_such');
  },
  async errors_context() {
    const messages = [{ role: 'user', content: 'Seoul '.repeat(2000) }];
    assert.equal((await refused(ask({ messages }), OpenAI.BadRequestError)).code, 'context_length_exceeded');
  },
  async errors_model() {
    const promise = client.chat.completions.create({ model: 'nothing', messages: facts.messages });
    assert.equal((await refused(promise, OpenAI.NotFoundError)).code, 'model_not_found');
  },
  async errors_raw() {
    const { data, response, request_id } = await ask(greedy).withResponse();
    assert.equal(content(data), facts.chat);
    assert.equal(request_id, response.headers.get('x-request-id'));
    assert.ok(response.headers.has('openai-processing-ms'));
  },
  async errors_streaming() {
    const response = await ask({ stream: true, ...greedy }).asResponse();
    const lines = (await response.text()).split('\n').filter((line) => line);
    assert.equal(lines.at(-1), 'data: [DONE]');
  },
};

for (const [key, run] of Object.entries(features)) {
  try {
    console.log(JSON.stringify({ key, outcome: (await run()) ?? 'yes' }));
  } catch (error) {
    console.log(JSON.stringify({ key, error: String(error.stack ?? error) }));
  }
}
