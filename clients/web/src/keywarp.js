/**
 * The JavaScript client of Keywarp: the WebSocket protocol `keywarp.v1` and the REST API.
 *
 *     KeywarpError
 *     ├── ConnectError     no server responds at the address, or the connection broke
 *     ├── ApiError         the server refused a request           .status, .problem, .retryAfter, .temporary
 *     └── StreamError      the server ended the conversation      .code, .problem, .retryAfter, .temporary
 *
 * Times are in seconds, sizes in bytes. docs/protocol.md describes the messages.
 */

import { readLines, readParts } from "./streaming.js";

export { Feed, chooseCodec, containerOf, openCamera, sendFile } from "./media.js";

/** @typedef {import("./messages.js").Done} Done */
/** @typedef {import("./messages.js").Fleet} Fleet */
/** @typedef {import("./messages.js").FrameResponse} FrameResponse */
/** @typedef {import("./messages.js").Header} Header */
/** @typedef {import("./messages.js").Hello} Hello */
/** @typedef {import("./messages.js").Model} Model */
/** @typedef {import("./messages.js").Problem} Problem */
/** @typedef {import("./messages.js").Ready} Ready */
/** @typedef {import("./messages.js").Reloaded} Reloaded */
/** @typedef {import("./messages.js").Rules} Rules */
/** @typedef {import("./messages.js").StreamEvent} StreamEvent */
/** @typedef {import("./messages.js").StreamInfo} StreamInfo */
/** @typedef {import("./messages.js").Sink} Sink */
/** @typedef {import("./messages.js").StreamOptions} StreamOptions */
/** @typedef {import("./messages.js").StreamRequest} StreamRequest */
/** @typedef {import("./messages.js").WatchMessage} WatchMessage */
/** @typedef {Hello & {stream?: string, signal?: AbortSignal}} ConnectOptions `stream` is the stream's id, random by default */
/** @typedef {{apiKey?: string | null, WebSocket?: typeof WebSocket, fetch?: typeof fetch}} ClientOptions */

export const SUBPROTOCOL = "keywarp.v1";
export const KEY_SUBPROTOCOL = "keywarp.key."; // An API key follows. Browsers can't send it as a header.
const MAX_UNREAD = 256; // unread responses beyond which `send` waits

/** Error messages by close code, for when the server gives no reason. */
const CLOSE_MESSAGES = new Map([
  [1006, "the connection broke"],
  [1009, "a message was too large for the server"],
  [1011, "the server failed"],
  [1012, "the server is restarting: try again in a few seconds"],
  [1013, "the server is full: try again later"],
  [4400, "the server didn't understand a message"],
  [4404, "the server has no such model"],
  [4408, "the client sent no `hello` in time"],
  [4409, "another connection feeds this stream"],
  [4410, "the stream was deleted or has expired"],
  [4422, "the server can't decode the video"],
  [4423, "the stream goes on over another connection"],
  [4429, "the client sent more messages than the credit allows"],
]);

/** Base class of all errors of this module. The message is one sentence that can be shown to a user. */
export class KeywarpError extends Error {
  /** @param {string} message @param {ErrorOptions} [options] */
  constructor(message, options) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** No server responds at the address, or the connection broke. */
export class ConnectError extends KeywarpError {}

/** The server refused a request. */
export class ApiError extends KeywarpError {
  /**
   * @param {Problem} problem
   * @param {number | null} retryAfter seconds to wait before trying again, or null if the server doesn't say
   */
  constructor(problem, retryAfter = null) {
    super(problem.detail || problem.title);
    this.status = problem.status;
    this.problem = problem;
    this.retryAfter = retryAfter;
  }

  /** Whether a retry may succeed: the server is full or not ready, or a proxy can't reach it. */
  get temporary() {
    return [429, 502, 503, 504].includes(this.status);
  }
}

/** The server ended the conversation. */
export class StreamError extends KeywarpError {
  /**
   * @param {number} code the WebSocket's close code, one of those in docs/protocol.md
   * @param {string} reason the close frame's reason
   * @param {Problem | null} problem the problem that the server sent before it closed
   */
  constructor(code, reason = "", problem = null) {
    super(problem?.detail || problem?.title || reason || CLOSE_MESSAGES.get(code) || `the server closed with code ${code}`);
    this.code = code;
    this.problem = problem;
    this.retryAfter = problem?.retry_after ?? null; // seconds to wait before trying again
  }

  /** Whether a retry may succeed. */
  get temporary() {
    return this.code === 1006 || this.code === 1012 || this.code === 1013;
  }
}

/**
 * Build a binary message: the header's length as 4 little-endian bytes, the header as JSON, the payload.
 *
 * @param {Header} header
 * @param {Uint8Array | ArrayBuffer} payload
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function pack(header, payload) {
  const encoded = new TextEncoder().encode(JSON.stringify(header));
  const message = new Uint8Array(4 + encoded.length + payload.byteLength);
  new DataView(message.buffer).setUint32(0, encoded.length, true);
  message.set(encoded, 4);
  message.set(payload instanceof Uint8Array ? payload : new Uint8Array(payload), 4 + encoded.length);
  return message;
}

/** A client of one server. */
export class Client {
  #fetch;
  #Socket;

  /**
   * @param {string | URL} server the server's address, such as `http://127.0.0.1:8080`
   * @param {ClientOptions} options `WebSocket` and `fetch` replace the platform's own
   */
  constructor(server, { apiKey = null, WebSocket = globalThis.WebSocket, fetch = globalThis.fetch } = {}) {
    this.server = new URL(server);
    this.apiKey = apiKey;
    this.#Socket = WebSocket;
    this.#fetch = fetch.bind(globalThis);
  }

  /** @param {{signal?: AbortSignal}} options @returns {Promise<Model[]>} the server's models */
  models({ signal } = {}) {
    return this.#json("/v1/models", { signal });
  }

  /** @param {{signal?: AbortSignal}} options @returns {Promise<StreamInfo[]>} all streams */
  streams({ signal } = {}) {
    return this.#json("/v1/streams", { signal });
  }

  /** @param {{signal?: AbortSignal}} options @returns {Promise<Fleet>} the streams of all servers behind one address */
  fleet({ signal } = {}) {
    return this.#json("/v1/fleet", { signal });
  }

  /** @param {string} id @returns {Promise<StreamInfo>} */
  stream(id) {
    return this.#json(streamPath(id));
  }

  /**
   * Create a stream for single images or for a later connection. With a `source`, the server pulls the stream itself.
   *
   * The path has the id, even one that is made up here, so that a proxy can choose the server by it.
   *
   * @param {StreamRequest} request
   * @returns {Promise<StreamInfo>}
   */
  createStream({ id, ...options } = {}) {
    return this.#send("PUT", streamPath(id ?? randomId()), options);
  }

  /** @param {string} id @returns {Promise<void>} */
  async deleteStream(id) {
    await this.#request(streamPath(id), { method: "DELETE" });
  }

  /**
   * Change options of a running stream, such as its interval; null is the server's default.
   *
   * @param {string} id
   * @param {Record<string, unknown>} changes
   * @returns {Promise<StreamInfo>}
   */
  change(id, changes) {
    return this.#send("PATCH", streamPath(id), changes);
  }

  /** @param {string} id @param {{signal?: AbortSignal}} options @returns {Promise<Rules>} the stream's zones, lines and rules */
  rules(id, { signal } = {}) {
    return this.#json(`${streamPath(id)}/rules`, { signal });
  }

  /**
   * Watch a stream by other zones, lines and rules from now on.
   *
   * @param {string} id
   * @param {Rules} rules
   * @returns {Promise<Rules>}
   */
  setRules(id, rules) {
    return this.#send("PUT", `${streamPath(id)}/rules`, rules);
  }

  /** @returns {Promise<Sink[]>} the server's sinks, which get the results of streams or the events of cameras */
  sinks() {
    return this.#json("/v1/sinks");
  }

  /** Let the server read its site file and API keys again. @returns {Promise<Reloaded>} */
  reload() {
    return this.#json("/v1/reload", { method: "POST" });
  }

  /** @param {string} id a pulled stream's id @returns {Promise<StreamInfo>} */
  pause(id) {
    return this.#json(`${streamPath(id)}/pause`, { method: "POST" });
  }

  /** @param {string} id a pulled stream's id @returns {Promise<StreamInfo>} */
  resume(id) {
    return this.#json(`${streamPath(id)}/resume`, { method: "POST" });
  }

  /**
   * Subscribe to a stream's responses until it ends, whichever producer feeds it.
   *
   * @param {string} id
   * @param {{signal?: AbortSignal}} options
   * @returns {AsyncGenerator<WatchMessage, void, void>}
   */
  async *results(id, { signal } = {}) {
    const response = await this.#request(`${streamPath(id)}/results`, { signal });
    for await (const line of readLines(bodyOf(response))) yield JSON.parse(line);
  }

  /**
   * Subscribe to a stream's frames as JPEG images with the results drawn on them.
   *
   * @param {string} id
   * @param {{fps?: number, width?: number, zones?: boolean, signal?: AbortSignal}} options `fps` and `width` are upper
   *     limits; `zones` is whether zones and lines are drawn, too
   * @returns {AsyncGenerator<Blob, void, void>}
   */
  async *preview(id, options = {}) {
    for await (const { jpeg } of this.pictures(id, options)) yield jpeg;
  }

  /**
   * Subscribe to a stream's frames like `preview`, with their positions in the stream.
   *
   * @param {string} id
   * @param {{fps?: number, width?: number, zones?: boolean, signal?: AbortSignal}} options
   * @returns {AsyncGenerator<{frame: number, jpeg: Blob}, void, void>}
   */
  async *pictures(id, { fps = 10, width = 640, zones = true, signal } = {}) {
    const response = await this.#request(`${streamPath(id)}/preview?fps=${fps}&width=${width}&zones=${zones}`, { signal });
    for await (const { headers, blob } of readParts(bodyOf(response))) yield { frame: Number(headers.get("keywarp-frame")), jpeg: blob };
  }

  /**
   * Subscribe to the frames of all streams over one connection, since browsers open only a few to a server.
   *
   * @param {{fps?: number, width?: number, fleet?: boolean, signal?: AbortSignal}} options `fps` and `width` are upper
   *     limits; `fleet` is whether the streams of the other servers behind this address are shown, too
   * @returns {AsyncGenerator<{stream: string, frame: number, jpeg: Blob}, void, void>}
   */
  async *previews({ fps = 2, width = 320, fleet = false, signal } = {}) {
    const response = await this.#request(`/v1/previews?fps=${fps}&width=${width}&fleet=${fleet}`, { signal });
    for await (const { headers, blob } of readParts(bodyOf(response))) {
      yield { stream: headers.get("keywarp-stream") ?? "", frame: Number(headers.get("keywarp-frame")), jpeg: blob };
    }
  }

  /**
   * List what the rules of streams reported, the newest first.
   *
   * @param {{stream?: string, rule?: string, since?: Date, until?: Date, limit?: number, signal?: AbortSignal}} options
   *     `stream` and `rule` for the events of one only; `since` (inclusive) and `until` (exclusive) are about their start
   * @returns {Promise<StreamEvent[]>}
   */
  events({ stream, rule, since, until, limit = 100, signal } = {}) {
    const query = new URLSearchParams({ limit: String(limit) });
    const filters = { stream, rule, since: since?.toISOString(), until: until?.toISOString() };
    for (const [name, value] of Object.entries(filters)) if (value !== undefined) query.set(name, value);
    return this.#json(`/v1/events?${query}`, { signal });
  }

  /**
   * Get the frame on which an event started, with its result drawn in.
   *
   * @param {string} id the event's id
   * @param {{signal?: AbortSignal}} options
   * @returns {Promise<Blob>} a JPEG
   */
  async snapshot(id, { signal } = {}) {
    return (await this.#request(`/v1/events/${encodeURIComponent(id)}/snapshot`, { signal })).blob();
  }

  /**
   * Get the seconds around the start of an event, as its camera sent them. Until they are over, this is an error (404).
   *
   * @param {string} id the event's id
   * @returns {Promise<Blob>} an MP4 file
   */
  async clip(id) {
    return (await this.#request(`/v1/events/${encodeURIComponent(id)}/clip`)).blob();
  }

  /**
   * Process a video, and get it with its results drawn in.
   *
   * @param {Blob} file a video whose type or codec the server knows
   * @param {StreamOptions & {codec?: string, id?: string, width?: number, signal?: AbortSignal}} options `id` is the
   *     stream's while it is processed
   * @returns {Promise<Blob>} an MP4 file
   */
  async annotate(file, { signal, ...options } = {}) {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(options)) if (value != null) query.set(name, String(value));
    return (await this.#request(`/v1/videos/annotated?${query}`, { method: "POST", body: file, signal })).blob();
  }

  /**
   * Open a connection that feeds a stream.
   *
   * @param {ConnectOptions} options
   * @returns {Promise<Conversation>}
   * @throws {ConnectError} if no server responds
   * @throws {ApiError} if the API key is missing or wrong, or the server isn't ready
   * @throws {StreamError} if the server refuses the stream
   */
  async connect({ stream = randomId(), signal, ...hello } = {}) {
    const url = new URL(`${streamPath(stream)}/ws`, this.server);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const protocols = this.apiKey ? [SUBPROTOCOL, KEY_SUBPROTOCOL + this.apiKey] : [SUBPROTOCOL];
    const conversation = new Conversation(new this.#Socket(url, protocols), hello, signal);
    try {
      await conversation.opened;
    } catch (error) {
      // Browsers don't report why a handshake was refused. The response to an ordinary request says why.
      if (error instanceof ConnectError) await this.#request("/v1/models", { signal });
      throw error;
    }
    return conversation;
  }

  /** Send an object as JSON. @param {string} method @param {string} path @param {object} body */
  #send(method, path, body) {
    return this.#json(path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
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
      throw new ConnectError(`no server responds at ${this.server.origin}`, { cause: error });
    }
    if (!response.ok) throw await apiError(response);
    return response;
  }
}

/**
 * A connection that feeds one stream: `send` frames, iterate over the responses, then call `end`.
 *
 * Each frame gets exactly one response, in order: a `result`, an `error` or a `dropped`.
 */
export class Conversation {
  /** @type {Ready} */ #ready = /** @type {any} */ (null);
  /** @type {Done | null} */ #done = null;
  /** @type {FrameResponse[]} */ #responses = [];
  #wakeReader = () => {}; // resumes the reader that waits for a response
  #wakeSender = () => {}; // resumes the `send` that waits for credit
  /** @type {Promise<void>} */ #lastSend = Promise.resolve(); // settles after the latest call of `send`
  /** @type {KeywarpError | null} */ #failure = null;
  /** @type {Problem | null} */ #problem = null; // a fatal error that precedes the close frame
  /** @type {PromiseWithResolvers<void>} */ #opening = withResolvers();
  /** @type {PromiseWithResolvers<void>} */ #closing = withResolvers();
  #credit = 0;
  #sent = 0;
  #pending = 0; // unfinished calls of `send`
  #closed = false;
  #socket;
  #signal;
  #abort = () => this.close();

  /**
   * @param {WebSocket} socket a socket that is connecting
   * @param {Hello} hello
   * @param {AbortSignal} [signal] closes the conversation
   */
  constructor(socket, hello, signal) {
    this.codec = hello.codec ?? "image";
    this.#socket = socket;
    this.#signal = signal;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => socket.send(JSON.stringify({ type: "hello", ...hello }));
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = ({ code, reason }) => this.#close(code, reason);
    signal?.addEventListener("abort", this.#abort);
    if (signal?.aborted) this.close();
    this.#opening.promise.catch(() => {}); // A failure before anyone awaits `opened` isn't an unhandled rejection.
  }

  /** A promise that resolves when the server is ready for frames. */
  get opened() {
    return this.#opening.promise;
  }

  /** The server's response to `hello`: the model, the stream's id and its settings. */
  get ready() {
    return this.#ready;
  }

  /** The server's counters, sent at the end of the stream. */
  get done() {
    return this.#done;
  }

  get closed() {
    return this.#closed;
  }

  /** Number of messages that can be sent now without waiting. */
  get room() {
    if (this.#closed || this.#responses.length >= MAX_UNREAD) return 0;
    return Math.max(0, this.#credit - this.#sent - this.#pending);
  }

  /**
   * Send an image, packet or chunk as soon as there is credit for it. Payloads are sent in the order of the calls.
   *
   * @param {Uint8Array | ArrayBuffer | Blob} payload
   * @param {Header} header `id` and `timestamp` are returned with the result
   */
  async send(payload, header = {}) {
    const previous = this.#lastSend;
    const current = withResolvers();
    this.#lastSend = current.promise;
    this.#pending += 1;
    try {
      const bytes = payload instanceof Blob ? await payload.arrayBuffer() : payload;
      await previous;
      while (!this.#closed && (this.#sent >= this.#credit || this.#responses.length >= MAX_UNREAD)) {
        await new Promise((resolve) => (this.#wakeSender = () => resolve(undefined)));
      }
      if (this.#closed) throw this.#failure ?? new StreamError(1000, "the conversation has ended");
      this.#sent += 1;
      this.#socket.send(pack(header, bytes));
    } finally {
      this.#pending -= 1;
      current.resolve();
    }
  }

  /** Iterate over the responses until the conversation ends. Throws if it ends early. */
  async *[Symbol.asyncIterator]() {
    for (;;) {
      const response = this.#responses.shift();
      if (response) {
        this.#wakeSender();
        yield response;
      } else if (this.#closed) {
        if (this.#failure) throw this.#failure;
        return;
      } else {
        await new Promise((resolve) => (this.#wakeReader = () => resolve(undefined)));
      }
    }
  }

  /** End the stream. Remaining responses still arrive; then the promise resolves to the server's counters. */
  async end() {
    while (this.#pending) await this.#lastSend; // Earlier calls of `send` go first.
    if (!this.#closed) this.#socket.send(JSON.stringify({ type: "end" }));
    await this.#closing.promise;
    if (this.#failure) throw this.#failure;
    return this.#done;
  }

  /** Close the connection. Frames without a response are lost. */
  close() {
    this.#socket.close(1000);
    this.#close(1000, "");
  }

  /** @param {any} message */
  #receive(message) {
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
        } // Fall through: an error about one frame is its response.
      case "result":
      case "dropped":
        this.#responses.push(message);
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
    this.#opening.reject(unopened ?? new ConnectError(`can't connect to ${new URL(this.#socket.url).origin}`));
    this.#closing.resolve();
    this.#wakeReader();
    this.#wakeSender();
  }
}

/** @param {string} id */
const streamPath = (id) => `/v1/streams/${encodeURIComponent(id)}`;

/** Make a stream id. Pages without https have no `crypto.randomUUID`. */
const randomId = () => `web-${Math.random().toString(36).slice(2, 10)}`;

/** @param {Response} response */
async function apiError(response) {
  /** @type {Problem} */
  let problem = { title: response.statusText || `status ${response.status}`, status: response.status };
  try {
    problem = { ...problem, ...(await response.json()) };
  } catch {
    // The response comes from a proxy, not from Keywarp, so only the status is known.
  }
  const seconds = Number(response.headers.get("Retry-After") || NaN);
  return new ApiError(problem, Number.isFinite(seconds) ? seconds : null);
}

/** @param {Response} response @returns {ReadableStream<Uint8Array>} */
function bodyOf(response) {
  if (!response.body) throw new KeywarpError("the server's response has no body");
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
