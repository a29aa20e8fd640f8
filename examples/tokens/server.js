// A stand-in for a text generator: it "loads" for a while, then answers OpenAI-style completions with made-up words, whole
// or token by token as server-sent events. Plain Node.js, no packages.
'use strict';

const http = require('node:http');

const argument = (name) => {
  const index = process.argv.indexOf(name);
  return index < 0 ? undefined : process.argv[index + 1];
};
const port = Number(argument('--port') ?? process.env.PORT ?? 8000);
// A pod is probed from outside; on a laptop nobody outside should reach this.
const host = process.env.HOST ?? (process.env.KUBERNETES_SERVICE_HOST ? '0.0.0.0' : '127.0.0.1');
const loadMs = Number(process.env.LOAD_MS ?? 1500);
const tokenMs = Number(process.env.TOKEN_MS ?? 30);

const MODEL = 'tokens';
const MAX_BODY = 1024 * 1024;
const MAX_TOKENS = 4096;
const WORDS = ('a model that sleeps costs nothing and wakes when somebody asks it for an answer which it then gives one ' +
  'word after another until there is no more to say').split(' ');

let ready = false;
setTimeout(() => { ready = true; }, loadMs);

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function json(response, status, body) {
  const text = JSON.stringify(body);
  response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) });
  response.end(text);
}

async function readJson(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BODY) throw new Error('the body is too large');
    chunks.push(chunk);
  }
  const body = JSON.parse(Buffer.concat(chunks).toString() || '{}');
  if (body === null || typeof body !== 'object') throw new Error('the body is no JSON object');
  return body;
}

function chunk(id, delta, reason) {
  const choice = { index: 0, delta, finish_reason: reason };
  return `data: ${JSON.stringify({ id, object: 'chat.completion.chunk', model: MODEL, choices: [choice] })}\n\n`;
}

async function complete(request, response) {
  let body;
  try {
    body = await readJson(request);
  } catch (error) {
    json(response, 400, { error: { message: error.message } });
    return;
  }
  const count = body.max_tokens ?? 32;
  if (!Number.isInteger(count) || count < 1 || count > MAX_TOKENS) {
    json(response, 400, { error: { message: `max_tokens must be a whole number from 1 to ${MAX_TOKENS}` } });
    return;
  }
  const id = `chatcmpl-${process.pid}-${Date.now()}`;
  const tokens = Array.from({ length: count }, (_, index) => WORDS[index % WORDS.length]);

  // Nobody listens any more: stop working for them.
  let gone = false;
  response.on('close', () => { gone = !response.writableFinished; });

  if (body.stream !== true) {
    for (let index = 0; index < count && !gone; index++) await sleep(tokenMs);
    const message = { role: 'assistant', content: tokens.join(' ') };
    const usage = { completion_tokens: count };
    const choices = [{ index: 0, message, finish_reason: 'length' }];
    json(response, 200, { id, object: 'chat.completion', model: MODEL, choices, usage });
    return;
  }
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' });
  response.write(chunk(id, { role: 'assistant' }, null));
  for (const [index, token] of tokens.entries()) {
    await sleep(tokenMs);
    if (gone) return;
    response.write(chunk(id, { content: index === 0 ? token : ` ${token}` }, null));
  }
  response.end(`${chunk(id, {}, 'length')}data: [DONE]\n\n`);
}

const server = http.createServer((request, response) => {
  const path = request.url.split('?')[0];
  if (path === '/health') {
    json(response, ready ? 200 : 503, { status: ready ? 'ready' : 'loading' });
  } else if (!ready) {
    json(response, 503, { error: { message: 'the model is loading' } });
  } else if (path === '/v1/models' && request.method === 'GET') {
    json(response, 200, { object: 'list', data: [{ id: MODEL, object: 'model' }] });
  } else if (path === '/v1/chat/completions' && request.method === 'POST') {
    complete(request, response).catch((error) => {
      console.error(error);
      response.destroy();
    });
  } else {
    json(response, 404, { error: { message: `nothing at ${request.method} ${path}` } });
  }
});
// Longer than any client or proxy keeps an idle connection, so that it is never this side that closes a reused one.
server.keepAliveTimeout = 75_000;
server.listen(port, host, () => console.log(`listening on port ${port}, loading for ${loadMs} ms`));

// Finish what has begun, take nothing new.
process.on('SIGTERM', () => {
  console.log('ending');
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
