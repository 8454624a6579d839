/**
 * The JavaScript client of Keywarp: the protocol `keywarp.v1` over WebSocket, and the REST routes beside it.
 *
 *     KeywarpError
 *     ├── ConnectError     no server answers at the address, or the connection broke
 *     ├── ApiError         the server refused a request                              .status, .problem, .retryAfter, .temporary
 *     └── StreamError      the server ended the conversation             .code, .problem, .retryAfter, .temporary
 *
 * Times are in seconds, sizes in bytes. The types of the messages are those of docs/protocol.md.
 */

import { lines, parts } from "./bodies.js";

export { Feed, chooseCodec, containerOf, openCamera, sendFile } from "./feed.js";

/** @typedef {import("./messages.js").Answer} Answer */
/** @typedef {import("./messages.js").Done} Done */
/** @typedef {import("./messages.js").Header} Header */
/** @typedef {import("./messages.js").Hello} Hello */
/** @typedef {import("./messages.js").Model} Model */
/** @typedef {import("./messages.js").Problem} Problem */
/** @typedef {import("./messages.js").Ready} Ready */
/** @typedef {import("./messages.js").StreamInfo} StreamInfo */
/** @typedef {import("./messages.js").StreamRequest} StreamRequest */
/** @typedef {import("./messages.js").Watched} Watched */
/** @typedef {Hello & {stream?: string, signal?: AbortSignal}} ConnectOptions `stream` is the id; default: a random one */
/** @typedef {{apiKey?: string | null, WebSocket?: typeof WebSocket, fetch?: typeof fetch}} ClientOptions */

export const SUBPROTOCOL = "keywarp.v1";
export const KEY_SUBPROTOCOL = "keywarp.key."; // with an API key behind it: browsers can't send headers
const UNREAD = 256; // answers that nobody has taken, before `send` waits

/** Why a conversation ended, by close code, where the server gave no reason. */
const MEANING = new Map([
  [1006, "the connection broke"],
  [1009, "a message was too big"],
  [1011, "the server failed"],
  [1012, "the server is restarting: try again in a few seconds"],
  [1013, "the server is full: try again later"],
  [4400, "a message wasn't understood"],
  [4404, "the server has no such model"],
  [4408, "no `hello` came in time"],
  [4409, "another connection feeds this stream"],
  [4410, "the stream was deleted or has expired"],
  [4422, "the server can't decode the video"],
  [4429, "more messages were sent than the credit allows"],
]);

/** Base of all errors of this module; the message is one sentence for a user. */
export class KeywarpError extends Error {
  /** @param {string} message @param {ErrorOptions} [options] */
  constructor(message, options) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** No server answers at the address, or the connection broke. */
export class ConnectError extends KeywarpError {}

/** The server refused a request. */
export class ApiError extends KeywarpError {
  /**
   * @param {Problem} problem
   * @param {number | null} retryAfter in how many seconds another try makes sense, if the server says so
   */
  constructor(problem, retryAfter = null) {
    super(problem.detail || problem.title);
    this.status = problem.status;
    this.problem = problem;
    this.retryAfter = retryAfter;
  }

  /** Whether the same may work in a few seconds: it is full, not ready, or a proxy doesn't reach it. */
  get temporary() {
    return [429, 502, 503, 504].includes(this.status);
  }
}

/** The server ended the conversation. */
export class StreamError extends KeywarpError {
  /**
   * @param {number} code the WebSocket's close code: see docs/protocol.md
   * @param {string} reason
   * @param {Problem | null} problem what the server said before it closed
   */
  constructor(code, reason = "", problem = null) {
    super(problem?.detail || problem?.title || reason || MEANING.get(code) || `the server closed with code ${code}`);
    this.code = code;
    this.problem = problem;
    this.retryAfter = problem?.retry_after ?? null; // seconds, as of `ApiError`
  }

  /** Whether the same may work in a few seconds. */
  get temporary() {
    return this.code === 1006 || this.code === 1012 || this.code === 1013;
  }
}

/**
 * Make one binary message: 4 bytes length of the header, little-endian, the header as JSON, the payload.
 *
 * @param {Header} header
 * @param {Uint8Array | ArrayBuffer} payload
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function pack(header, payload) {
  const head = new TextEncoder().encode(JSON.stringify(header));
  const message = new Uint8Array(4 + head.length + payload.byteLength);
  new DataView(message.buffer).setUint32(0, head.length, true);
  message.set(head, 4);
  message.set(payload instanceof Uint8Array ? payload : new Uint8Array(payload), 4 + head.length);
  return message;
}

/** One server, and who speaks to it. */
export class Client {
  #fetch;
  #Socket;

  /**
   * @param {string | URL} server its address, like `http://127.0.0.1:8080`
   * @param {ClientOptions} options `WebSocket` and `fetch` for where the platform has none, or for tests
   */
  constructor(server, { apiKey = null, WebSocket = globalThis.WebSocket, fetch = globalThis.fetch } = {}) {
    this.server = new URL(server);
    this.apiKey = apiKey;
    this.#Socket = WebSocket;
    this.#fetch = fetch.bind(globalThis);
  }

  /** @param {{signal?: AbortSignal}} options @returns {Promise<Model[]>} the models that the server has loaded */
  models({ signal } = {}) {
    return this.#json("/v1/models", { signal });
  }

  /** @param {{signal?: AbortSignal}} options @returns {Promise<StreamInfo[]>} */
  streams({ signal } = {}) {
    return this.#json("/v1/streams", { signal });
  }

  /** @param {string} id @returns {Promise<StreamInfo>} */
  stream(id) {
    return this.#json(streamPath(id));
  }

  /**
   * Create a stream: for single images, for a connection, or, with a `source`, one that the server pulls itself.
   *
   * @param {StreamRequest} request
   * @returns {Promise<StreamInfo>}
   */
  createStream(request = {}) {
    return this.#json("/v1/streams", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(request),
    });
  }

  /** @param {string} id @returns {Promise<void>} */
  async deleteStream(id) {
    await this.#request(streamPath(id), { method: "DELETE" });
  }

  /** @param {string} id of a pulled stream @returns {Promise<StreamInfo>} */
  pause(id) {
    return this.#json(`${streamPath(id)}/pause`, { method: "POST" });
  }

  /** @param {string} id of a pulled stream @returns {Promise<StreamInfo>} */
  resume(id) {
    return this.#json(`${streamPath(id)}/resume`, { method: "POST" });
  }

  /**
   * Watch what a stream gives, whoever feeds it, until it ends.
   *
   * @param {string} id
   * @param {{signal?: AbortSignal}} options
   * @returns {AsyncGenerator<Watched, void, void>}
   */
  async *results(id, { signal } = {}) {
    const response = await this.#request(`${streamPath(id)}/results`, { signal });
    for await (const line of lines(bodyOf(response))) yield JSON.parse(line);
  }

  /**
   * Watch a stream's pictures, with the results drawn on them.
   *
   * @param {string} id
   * @param {{fps?: number, width?: number, signal?: AbortSignal}} options
   * @returns {AsyncGenerator<Blob, void, void>}
   */
  async *preview(id, { fps = 10, width = 640, signal } = {}) {
    const response = await this.#request(`${streamPath(id)}/preview?fps=${fps}&width=${width}`, { signal });
    yield* parts(bodyOf(response));
  }

  /**
   * Start to feed a stream.
   *
   * @param {ConnectOptions} options
   * @returns {Promise<Conversation>}
   * @throws {ConnectError} nobody answers
   * @throws {ApiError} the server wants another API key, or isn't ready
   * @throws {StreamError} it refuses the stream
   */
  async connect({ stream = randomId(), signal, ...hello } = {}) {
    const url = new URL(`${streamPath(stream)}/ws`, this.server);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const protocols = this.apiKey ? [SUBPROTOCOL, KEY_SUBPROTOCOL + this.apiKey] : [SUBPROTOCOL];
    const conversation = new Conversation(new this.#Socket(url, protocols), hello, signal);
    try {
      await conversation.opened;
    } catch (error) {
      // A browser doesn't tell why a handshake was refused; an ordinary request does.
      if (error instanceof ConnectError) await this.#request("/v1/models", { signal });
      throw error;
    }
    return conversation;
  }

  /** @param {string} path @param {RequestInit} init */
  async #json(path, init = {}) {
    return (await this.#request(path, init)).json();
  }

  /** @param {string} path @param {RequestInit} init @returns {Promise<Response>} */
  async #request(path, init = {}) {
    const headers = new Headers(init.headers);
    if (this.apiKey) headers.set("Authorization", `Bearer ${this.apiKey}`);
    /** @type {Response} */
    let response;
    try {
      response = await this.#fetch(new URL(path, this.server), { ...init, headers });
    } catch (error) {
      if (init.signal?.aborted) throw error;
      throw new ConnectError(`no server answers at ${this.server.origin}`, { cause: error });
    }
    if (!response.ok) throw await apiError(response);
    return response;
  }
}

/**
 * One stream that is being fed: `send` frames, iterate over the answers, `end`.
 *
 * Each frame is answered once, in order: by a `result`, an `error` or a `dropped`.
 */
export class Conversation {
  /** @type {Ready} */ #ready = /** @type {any} */ (null);
  /** @type {Done | null} */ #done = null;
  /** @type {Answer[]} */ #answers = [];
  #wakeReader = () => {}; // who waits for an answer
  #wakeSender = () => {}; // who waits for credit
  /** @type {Promise<void>} */ #turn = Promise.resolve(); // of the next to send
  /** @type {KeywarpError | null} */ #failure = null;
  /** @type {Problem | null} */ #problem = null; // the last words before a close
  /** @type {PromiseWithResolvers<void>} */ #opening = withResolvers();
  /** @type {PromiseWithResolvers<void>} */ #closing = withResolvers();
  #credit = 0;
  #sent = 0;
  #waiting = 0; // calls of `send`
  #closed = false;
  #socket;
  #signal;
  #abort = () => this.close();

  /**
   * @param {WebSocket} socket that is being opened
   * @param {Hello} hello
   * @param {AbortSignal} [signal] closes the conversation
   */
  constructor(socket, hello, signal) {
    this.codec = hello.codec ?? "image";
    this.#socket = socket;
    this.#signal = signal;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => socket.send(JSON.stringify({ type: "hello", ...hello }));
    socket.onmessage = ({ data }) => this.#hear(JSON.parse(data));
    socket.onclose = ({ code, reason }) => this.#close(code, reason);
    signal?.addEventListener("abort", this.#abort);
    if (signal?.aborted) this.close();
    this.#opening.promise.catch(() => {}); // whoever waits for it hears of it
  }

  /** Resolves when the server is ready for frames. */
  get opened() {
    return this.#opening.promise;
  }

  /** What the server answered to `hello`: the model, the stream's id and its settings. */
  get ready() {
    return this.#ready;
  }

  /** The counts that the server gave at the end. */
  get done() {
    return this.#done;
  }

  get closed() {
    return this.#closed;
  }

  /** How many messages may be sent now. */
  get room() {
    if (this.#closed || this.#answers.length >= UNREAD) return 0;
    return Math.max(0, this.#credit - this.#sent - this.#waiting);
  }

  /**
   * Send a frame, packet or chunk, as soon as there is credit for it; in the order of the calls.
   *
   * @param {Uint8Array | ArrayBuffer | Blob} payload
   * @param {Header} header `id` and `timestamp` come back with the result
   */
  async send(payload, header = {}) {
    const before = this.#turn;
    const mine = withResolvers();
    this.#turn = mine.promise;
    this.#waiting += 1;
    try {
      const bytes = payload instanceof Blob ? await payload.arrayBuffer() : payload;
      await before;
      while (!this.#closed && (this.#sent >= this.#credit || this.#answers.length >= UNREAD)) {
        await new Promise((resolve) => (this.#wakeSender = () => resolve(undefined)));
      }
      if (this.#closed) throw this.#failure ?? new StreamError(1000, "the conversation has ended");
      this.#sent += 1;
      this.#socket.send(pack(header, bytes));
    } finally {
      this.#waiting -= 1;
      mine.resolve();
    }
  }

  /** The answers, until the conversation ends; throws where it ends before its time. */
  async *[Symbol.asyncIterator]() {
    for (;;) {
      const answer = this.#answers.shift();
      if (answer) {
        this.#wakeSender();
        yield answer;
      } else if (this.#closed) {
        if (this.#failure) throw this.#failure;
        return;
      } else {
        await new Promise((resolve) => (this.#wakeReader = () => resolve(undefined)));
      }
    }
  }

  /** Say that no frame follows. The remaining answers still come; the promise is of the server's counts. */
  async end() {
    while (this.#waiting) await this.#turn; // what was given to `send` before goes first
    if (!this.#closed) this.#socket.send(JSON.stringify({ type: "end" }));
    await this.#closing.promise;
    if (this.#failure) throw this.#failure;
    return this.#done;
  }

  /** Hang up: what is under way is lost. */
  close() {
    this.#socket.close(1000);
    this.#close(1000, "");
  }

  /** @param {any} message */
  #hear(message) {
    if (message.credit !== undefined && message.credit > this.#credit) this.#credit = message.credit;
    switch (message.type) {
      case "ready":
        this.#ready = message;
        this.#opening.resolve();
        break;
      case "done":
        this.#done = message;
        break;
      case "error":
        if (message.fatal) {
          this.#problem = message.problem;
          break;
        } // fall through: an error of one frame is its answer
      case "result":
      case "dropped":
        this.#answers.push(message);
        this.#wakeReader();
    }
    this.#wakeSender();
  }

  /** @param {number} code @param {string} reason */
  #close(code, reason) {
    if (this.#closed) return;
    this.#closed = true;
    this.#signal?.removeEventListener("abort", this.#abort);
    if (code !== 1000) this.#failure = new StreamError(code, reason, this.#problem);
    const unopened = this.#ready || this.#problem ? this.#failure : null;
    this.#opening.reject(unopened ?? new ConnectError(`no conversation with ${new URL(this.#socket.url).origin}`));
    this.#closing.resolve();
    this.#wakeReader();
    this.#wakeSender();
  }
}

/** @param {string} id */
const streamPath = (id) => `/v1/streams/${encodeURIComponent(id)}`;

/** Not by `crypto.randomUUID`, which pages without https don't have. */
const randomId = () => `web-${Math.random().toString(36).slice(2, 10)}`;

/** @param {Response} response */
async function apiError(response) {
  /** @type {Problem} */
  let problem = { title: response.statusText || `status ${response.status}`, status: response.status };
  try {
    problem = { ...problem, ...(await response.json()) };
  } catch {
    // Not from Keywarp but from a proxy before it: the status must do.
  }
  const seconds = Number(response.headers.get("Retry-After") || NaN);
  return new ApiError(problem, Number.isFinite(seconds) ? seconds : null);
}

/** @param {Response} response @returns {ReadableStream<Uint8Array>} */
function bodyOf(response) {
  if (!response.body) throw new KeywarpError("the server's answer is empty");
  return response.body;
}

/** @returns {PromiseWithResolvers<void>} */
function withResolvers() {
  let resolve = /** @type {any} */ (null);
  let reject = /** @type {any} */ (null);
  const promise = new Promise((res, rej) => {
    resolve = res;
    reject = rej;
  });
  return { promise: /** @type {Promise<void>} */ (promise), resolve, reject };
}
