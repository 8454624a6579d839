/** Requests to the server: with the API key, with retries, and with the connection state shown in the sidebar. */

import { askForKey, storedKey } from "./api-key.js";
import { byId, setText } from "./dom.js";
import { ApiError, Client, ConnectError } from "./vendor/keywarp.js";

/** @typedef {import("./vendor/messages.js").StreamInfo} StreamInfo */

export const client = new Client(location.origin, { apiKey: storedKey() });

const MAX_RETRY_SECONDS = 8; // longest wait between polls while the server doesn't respond
const POLL_TIMEOUT = 10; // seconds

/**
 * Make a request. If the server needs another API key, ask the user for it and repeat the request.
 *
 * @template T
 * @param {() => Promise<T>} call
 * @returns {Promise<T>}
 */
export async function request(call) {
  for (;;) {
    try {
      const result = await call();
      showConnection("live", "Live");
      return result;
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 401)) throw error;
      showConnection("lost", "API key required");
      client.apiKey = await askForKey(client.apiKey ? error.message : "");
    }
  }
}

/**
 * Repeat a request while the page is visible, less often while the server doesn't respond.
 *
 * @param {(signal: AbortSignal) => Promise<void>} call makes the request; its signal aborts a request that takes too long
 * @param {number} seconds the interval
 * @param {AbortSignal} signal ends the polling
 */
export async function poll(call, seconds, signal) {
  let wait = seconds;
  while (!signal.aborted) {
    if (document.hidden) {
      await sleep(0.5, signal);
      continue;
    }
    try {
      await request(() => call(AbortSignal.any([signal, AbortSignal.timeout(POLL_TIMEOUT * 1000)])));
      wait = seconds;
    } catch (error) {
      if (signal.aborted) return;
      wait = Math.min(MAX_RETRY_SECONDS, Math.max(1, wait * 2));
      showConnection("lost", isUnreachable(error) ? "No response, retrying" : describeError(error));
    }
    await sleep(wait, signal);
  }
}

/**
 * Read an endless response while the page is visible, and start again when it breaks off. A hidden page disconnects, since
 * browsers open only a few connections to one server.
 *
 * @param {(signal: AbortSignal) => Promise<boolean>} read resolves to whether to start again
 * @param {AbortSignal} signal ends the reading
 */
export async function keepReading(read, signal) {
  while (!signal.aborted) {
    if (!document.hidden) {
      const inner = new AbortController();
      const hide = () => document.hidden && inner.abort();
      document.addEventListener("visibilitychange", hide);
      try {
        if (!(await read(AbortSignal.any([signal, inner.signal])))) return;
      } catch (error) {
        if (error instanceof ApiError && error.status === 404) return;
      } finally {
        document.removeEventListener("visibilitychange", hide);
      }
    }
    await sleep(1, signal);
  }
}

/**
 * List the streams of all servers behind this address.
 *
 * @param {AbortSignal} signal
 * @returns {Promise<{streams: StreamInfo[], missing: string}>} one stream of each id, and which servers don't answer
 */
export async function fleetStreams(signal) {
  const { servers, streams } = await client.fleet({ signal });
  /** @type {Map<string, StreamInfo>} */ const found = new Map();
  for (const stream of streams) {
    const other = found.get(stream.id); // left behind on a server that was away
    if (!other || isFresher(stream, other)) found.set(stream.id, stream);
  }
  const silent = servers.filter(({ problem }) => problem).map(({ address, problem }) => `${address}: ${problem}`);
  return { streams: [...found.values()], missing: silent.length ? `Streams are missing here. ${silent.join("; ")}.` : "" };
}

/** @param {StreamInfo} a @param {StreamInfo} b */
const isFresher = (a, b) => (a.connected === b.connected ? (a.frame_age ?? a.age) < (b.frame_age ?? b.age) : a.connected);

/** Wait. @param {number} seconds @param {AbortSignal} signal ends the wait early @returns {Promise<void>} */
export function sleep(seconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, seconds * 1000);
    signal.addEventListener("abort", end);
    if (signal.aborted) end();
  });
}

/** Whether neither the server nor a proxy's upstream responded. @param {unknown} error */
const isUnreachable = (error) =>
  error instanceof ConnectError ||
  (error instanceof ApiError && (error.status === 502 || error.status === 504)) ||
  (error instanceof DOMException && error.name === "TimeoutError");

/**
 * Describe an error to a user who doesn't know the protocol.
 *
 * @param {unknown} error
 * @param {{retry?: boolean}} options `retry`: whether to say when to try again
 */
export function describeError(error, { retry = true } = {}) {
  if (isUnreachable(error)) return "The server doesn't respond. It may be restarting.";
  if (error instanceof ApiError) {
    const advice = retry && error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
    if (error.status === 403) return `Not allowed: ${error.message.replace(/\.$/, "")}.`;
    if (error.status === 429) return `The server is full: ${error.message}.`;
    if (error.status === 503) return `Not ready: ${error.message}.${advice}`;
    return sentence(error.message);
  }
  if (error instanceof DOMException && error.name === "NotAllowedError") return "The browser didn't allow access to the camera.";
  if (error instanceof DOMException && error.name === "NotFoundError") return "No camera was found.";
  if (error instanceof DOMException && error.name === "NotReadableError") return "Another program is using the camera.";
  return sentence(error instanceof Error ? error.message : String(error));
}

/** Write a text as one sentence: with a capital letter and a full stop. @param {string} text */
export const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1).replace(/\.$/, "")}.`;

/** Show the connection's state in the sidebar. @param {"live" | "lost"} state @param {string} text */
function showConnection(state, text) {
  const element = byId("server");
  element.dataset.state = state;
  setText(/** @type {Element} */ (element.querySelector(".server-text")), text);
}
