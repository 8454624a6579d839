import assert from "node:assert/strict";
import { test } from "node:test";

import { ApiError, Client, ConnectError, StreamError, containerOf, pack } from "../src/keywarp.js";
import { readLines, readParts } from "../src/streaming.js";

const READY = { type: "ready", stream: "door", model: { name: "street" }, credit: 2, max_message_bytes: 1 << 20 };

/** A WebSocket whose server side is played by the test. */
class FakeSocket {
  /** @type {FakeSocket} */ static last;
  /** @type {any[]} */ sent = [];
  /** @type {any} */ onopen;
  /** @type {any} */ onmessage;
  /** @type {any} */ onclose;

  /** @param {URL} url @param {string[]} protocols */
  constructor(url, protocols) {
    this.url = url.href;
    this.protocols = protocols;
    FakeSocket.last = this;
    queueMicrotask(() => this.onopen());
  }

  /** @param {string | Uint8Array} message */
  send(message) {
    this.sent.push(typeof message === "string" ? JSON.parse(message) : message);
    if (this.sent.length === 1) this.receive(READY);
  }

  /** @param {object} message */
  receive(message) {
    this.onmessage({ data: JSON.stringify(message) });
  }

  close(code = 1000, reason = "") {
    this.onclose({ code, reason });
  }
}

const client = (/** @type {object} */ options = {}) =>
  new Client("http://localhost:8080", { WebSocket: /** @type {any} */ (FakeSocket), ...options });

/** @param {object} more */
const result = (more) => ({ type: "result", stream: "door", frame: 0, kind: "key", key_age: 0, ...more });

/** @param {string[]} texts */
const body = (...texts) =>
  new ReadableStream({
    start(controller) {
      for (const text of texts) controller.enqueue(new TextEncoder().encode(text));
      controller.close();
    },
  });

/** Wait until a condition holds. @param {() => boolean} condition */
async function until(condition) {
  for (let tries = 0; !condition(); tries++) {
    assert.ok(tries < 1000, `never: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Wait until everything that can run without outside events has run. */
const settled = () => new Promise((resolve) => setTimeout(resolve, 20));

test("a message consists of the header's length, the header and the payload", () => {
  const message = pack({ id: "ä", timestamp: 1.5 }, new Uint8Array([7, 8]));
  const length = new DataView(message.buffer).getUint32(0, true);
  assert.deepEqual(JSON.parse(new TextDecoder().decode(message.subarray(4, 4 + length))), { id: "ä", timestamp: 1.5 });
  assert.deepEqual([...message.subarray(4 + length)], [7, 8]);
});

test("hello is sent first, and the key travels as a subprotocol", async () => {
  const conversation = await client({ apiKey: "kw_1" }).connect({ stream: "door", model: "street", codec: "h264" });
  assert.equal(FakeSocket.last.url, "ws://localhost:8080/v1/streams/door/ws");
  assert.deepEqual(FakeSocket.last.protocols, ["keywarp.v1", "keywarp.key.kw_1"]);
  assert.deepEqual(FakeSocket.last.sent, [{ type: "hello", model: "street", codec: "h264" }]);
  assert.equal(conversation.ready.model.name, "street");
});

test("messages are sent in order and only while there is credit", async () => {
  const conversation = await client().connect();
  assert.equal(conversation.room, 2);
  const sending = [1, 2, 3, 4].map((n) => conversation.send(new Blob([new Uint8Array([n])])));
  await settled();
  assert.equal(FakeSocket.last.sent.length, 1 + 2);
  assert.equal(conversation.room, 0);
  FakeSocket.last.receive({ type: "credit", credit: 3 });
  await settled();
  assert.equal(FakeSocket.last.sent.length, 1 + 3);
  FakeSocket.last.receive(result({ credit: 4 }));
  await Promise.all(sending);
  assert.deepEqual(FakeSocket.last.sent.slice(1).map((message) => message.at(-1)), [1, 2, 3, 4]);
});

test("responses arrive in order, and iteration ends with the conversation", async () => {
  const conversation = await client().connect();
  /** @type {string[]} */ const types = [];
  const reading = (async () => {
    for await (const response of conversation) types.push(response.type);
  })();
  FakeSocket.last.receive(result({}));
  FakeSocket.last.receive({ type: "dropped", frame: 1, reason: "newer" });
  await until(() => types.length === 2);
  FakeSocket.last.receive({ type: "error", fatal: false, frame: 2, problem: { title: "Unprocessable", status: 422 } });
  const done = conversation.end();
  assert.deepEqual(FakeSocket.last.sent.at(-1), { type: "end" });
  FakeSocket.last.receive({ type: "done", frames: 1, key_frames: 1, errors: 1, dropped: 1 });
  FakeSocket.last.close(1000);
  await reading;
  assert.deepEqual(types, ["result", "dropped", "error"]);
  assert.equal((await done)?.frames, 1);
});

test("end is sent after the payloads of earlier calls of send", async () => {
  const conversation = await client().connect();
  const sending = [1, 2, 3].map((n) => conversation.send(new Blob([new Uint8Array([n])])));
  const done = conversation.end();
  await settled();
  assert.equal(FakeSocket.last.sent.length, 1 + 2);
  FakeSocket.last.receive({ type: "credit", credit: 3 });
  await until(() => FakeSocket.last.sent.length === 1 + 3 + 1);
  assert.deepEqual(FakeSocket.last.sent.at(-1), { type: "end" });
  await Promise.all(sending);
  FakeSocket.last.close(1000);
  await done;
});

test("reader, sender and end fail with the problem that the server sent before it closed", async () => {
  const conversation = await client().connect();
  const blocked = Promise.allSettled([1, 2, 3].map(() => conversation.send(new Uint8Array(1))));
  await until(() => FakeSocket.last.sent.length === 1 + 2);
  FakeSocket.last.receive({ type: "error", fatal: true, problem: { title: "Gone", status: 410, detail: "it was deleted" } });
  FakeSocket.last.close(4410, "gone");
  /** @param {unknown} error */
  const gone = (error) => error instanceof StreamError && error.code === 4410 && error.message === "it was deleted";
  await assert.rejects(async () => {
    for await (const _ of conversation);
  }, gone);
  await assert.rejects(conversation.end(), gone);
  assert.deepEqual((await blocked).map((one) => one.status), ["fulfilled", "fulfilled", "rejected"]);
  await assert.rejects(conversation.send(new Uint8Array(1)), gone);
});

test("a signal closes the conversation, whose listener is removed at the end", async () => {
  const { signal } = new AbortController();
  /** @type {Set<unknown>} */ const listeners = new Set();
  signal.addEventListener = (/** @type {string} */ _, /** @type {unknown} */ listener) => void listeners.add(listener);
  signal.removeEventListener = (/** @type {string} */ _, /** @type {unknown} */ listener) => void listeners.delete(listener);
  await client().connect({ signal });
  assert.equal(listeners.size, 1);
  FakeSocket.last.close(1012);
  assert.equal(listeners.size, 0);
  const stop = new AbortController();
  const conversation = await client().connect({ signal: stop.signal });
  stop.abort();
  assert.ok(conversation.closed);
});

test("connect fails with the problem of a refused hello", async () => {
  class Refusing extends FakeSocket {
    send() {
      this.receive({ type: "error", fatal: true, problem: { title: "Not Found", status: 404, detail: "no model 'x'" } });
      this.close(4404);
    }
  }
  await assert.rejects(client({ WebSocket: Refusing }).connect({ model: "x" }), /no model 'x'/);
});

test("a hello that a full server refuses says when to try again", async () => {
  class Refusing extends FakeSocket {
    send() {
      const problem = { title: "Service Unavailable", status: 503, detail: "no room", retry_after: 5 };
      this.receive({ type: "error", fatal: true, problem });
      this.close(1013);
    }
  }
  const tryLater = (/** @type {unknown} */ error) =>
    error instanceof StreamError && error.temporary && error.retryAfter === 5 && error.message === "no room";
  await assert.rejects(client({ WebSocket: Refusing }).connect(), tryLater);
});

test("a refused handshake is explained by a REST request", async () => {
  class Closed extends FakeSocket {
    send() {
      this.close(1006);
    }
  }
  const refused = async () =>
    new Response(JSON.stringify({ title: "Unauthorized", status: 401, detail: "this server requires an API key" }), {
      status: 401,
    });
  await assert.rejects(
    client({ WebSocket: Closed, fetch: refused }).connect(),
    (error) => error instanceof ApiError && error.status === 401,
  );
  const unreachable = () => Promise.reject(new TypeError("fetch failed"));
  await assert.rejects(client({ WebSocket: Closed, fetch: unreachable }).connect(), ConnectError);
});

test("requests carry the key, and errors carry the delay before a retry", async () => {
  /** @type {any[]} */ const requests = [];
  const full = async (/** @type {any} */ url, /** @type {any} */ init) => {
    requests.push([String(url), init.method, init.headers.get("Authorization"), init.body]);
    const problem = JSON.stringify({ title: "Too Many Requests", status: 429, detail: "the server has its 64 streams" });
    return new Response(problem, { status: 429, headers: { "Retry-After": "5" } });
  };
  await assert.rejects(
    client({ apiKey: "kw_1", fetch: full }).createStream({ source: "rtsp://camera/1" }),
    (error) => error instanceof ApiError && error.retryAfter === 5 && /64 streams/.test(error.message),
  );
  const sent = '{"source":"rtsp://camera/1"}';
  assert.deepEqual(requests, [["http://localhost:8080/v1/streams", "POST", "Bearer kw_1", sent]]);
});

test("a proxy's error is reported by its status", async () => {
  const proxy = async () => new Response("<h1>Bad Gateway</h1>", { status: 502, statusText: "Bad Gateway" });
  await assert.rejects(client({ fetch: proxy }).models(), /Bad Gateway/);
  await assert.rejects(client({ fetch: proxy }).models(), (error) => error instanceof ApiError && error.temporary);
});

test("lines are found wherever the chunks are split", async () => {
  const found = [];
  for await (const line of readLines(body('{"a"', ':1}\n{"b":2', "}\n", "\n", '{"c":3}'))) found.push(line);
  assert.deepEqual(found, ['{"a":1}', '{"b":2}', '{"c":3}']);
});

test("parts of a multipart body are found wherever the chunks are split", async () => {
  const part = (/** @type {string} */ text) =>
    `--frame\r\nContent-Type: image/jpeg\r\nContent-Length: ${text.length}\r\n\r\n${text}\r\n`;
  const whole = part("one\r\n\r\n--frame") + part("") + part("three");
  for (const size of [1, 7, 1000]) {
    const chunks = whole.match(new RegExp(`[^]{1,${size}}`, "g")) ?? [];
    const found = [];
    for await (const { blob } of readParts(body(...chunks))) {
      assert.equal(blob.type, "image/jpeg");
      found.push(await blob.text());
    }
    assert.deepEqual(found, ["one\r\n\r\n--frame", "", "three"]);
  }
});

test("a file's codec is guessed from its name or type", () => {
  const names = ["a.MP4", "b.mov", "c.mkv", "d.ts", "e.264", "f.hevc", "g.txt"];
  const found = names.map((name) => containerOf({ name, type: "" }));
  assert.deepEqual(found, ["mp4", "mp4", "webm", "mpegts", "h264", "hevc", null]);
  assert.equal(containerOf({ name: "video", type: "video/webm" }), "webm");
});

test("rules, events and videos are asked for as the REST API has them", async () => {
  /** @type {[string, string, any][]} */ const asked = [];
  const answer = async (/** @type {URL} */ url, /** @type {RequestInit} */ { method = "GET", body }) => {
    asked.push([method, url.pathname + url.search, typeof body === "string" ? JSON.parse(body) : body]);
    return new Response("{}");
  };
  const rest = client({ fetch: answer });
  const file = new Blob(["video"]);
  const since = new Date(Date.UTC(2026, 10, 30));
  await rest.rules("a b");
  await rest.setRules("gate", { title: "Gate" });
  await rest.change("gate", { interval: 5 });
  await rest.reload();
  await rest.events({ stream: "gate", rule: "entry", since, limit: 5 });
  await rest.annotate(file, { codec: "mp4", interval: 5, model: null });
  assert.deepEqual(asked, [
    ["GET", "/v1/streams/a%20b/rules", undefined],
    ["PUT", "/v1/streams/gate/rules", { title: "Gate" }],
    ["PATCH", "/v1/streams/gate", { interval: 5 }],
    ["POST", "/v1/reload", undefined],
    ["GET", "/v1/events?limit=5&stream=gate&rule=entry&since=2026-11-30T00%3A00%3A00.000Z", undefined],
    ["POST", "/v1/videos/annotated?codec=mp4&interval=5", file],
  ]);
});

test("pictures name their stream and frame", async () => {
  const part = "--x\r\nContent-Type: image/jpeg\r\nKeywarp-Stream: gate\r\nKeywarp-Frame: 12\r\nContent-Length: 3\r\n\r\none\r\n";
  const answer = async () => new Response(body(part, "--x--\r\n"));
  const found = [];
  for await (const { stream, frame, jpeg } of client({ fetch: answer }).previews()) found.push([stream, frame, await jpeg.text()]);
  for await (const { frame, jpeg } of client({ fetch: answer }).pictures("gate")) found.push([frame, await jpeg.text()]);
  assert.deepEqual(found, [
    ["gate", 12, "one"],
    [12, "one"],
  ]);
});
