/** The server behind this page: whom it takes us for, and whether it is there. */

import { byId, setText } from "./dom.js";
import { askForKey, storedKey } from "./key.js";
import { ApiError, Client, ConnectError } from "./vendor/keywarp.js";

export const client = new Client(location.origin, { apiKey: storedKey() });

const LONGEST_WAIT = 8; // seconds between tries while the server doesn't answer
const PATIENCE = 10; // seconds for an answer, where one is asked for again and again

/**
 * Ask the server something; asks the user for an API key where it wants one.
 *
 * @template T
 * @param {() => Promise<T>} call
 * @returns {Promise<T>}
 */
export async function ask(call) {
  for (;;) {
    try {
      const answer = await call();
      show("live", "Live");
      return answer;
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 401)) throw error;
      show("lost", "An API key is needed");
      client.apiKey = await askForKey(client.apiKey ? error.message : "");
    }
  }
}

/**
 * Ask again and again while the page is in sight; less often while the server is away.
 *
 * @param {(signal: AbortSignal) => Promise<void>} call is given up by its signal: a server may take a request and never answer
 * @param {number} seconds in between
 * @param {AbortSignal} signal
 */
export async function poll(call, seconds, signal) {
  let wait = seconds;
  while (!signal.aborted) {
    if (document.hidden) {
      await sleep(0.5, signal);
      continue;
    }
    try {
      await ask(() => call(AbortSignal.any([signal, AbortSignal.timeout(PATIENCE * 1000)])));
      wait = seconds;
    } catch (error) {
      if (signal.aborted) return;
      wait = Math.min(LONGEST_WAIT, Math.max(1, wait * 2));
      show("lost", isSilent(error) ? "No answer, trying again" : inWords(error));
    }
    await sleep(wait, signal);
  }
}

/**
 * Watch something endless while the page is in sight, anew when it breaks: each watch takes one of the few connections
 * that a browser makes to a server.
 *
 * @param {(signal: AbortSignal) => Promise<boolean>} watch says whether to watch again
 * @param {AbortSignal} signal
 */
export async function keepWatching(watch, signal) {
  while (!signal.aborted) {
    if (!document.hidden) {
      const inner = new AbortController();
      const hide = () => document.hidden && inner.abort();
      document.addEventListener("visibilitychange", hide);
      try {
        if (!(await watch(AbortSignal.any([signal, inner.signal])))) return;
      } catch (error) {
        if (error instanceof ApiError && error.status === 404) return;
      } finally {
        document.removeEventListener("visibilitychange", hide);
      }
    }
    await sleep(1, signal);
  }
}

/** @param {number} seconds @param {AbortSignal} signal ends it early @returns {Promise<void>} */
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

/** Whether nobody answered: not the server, or only the proxy before it. @param {unknown} error */
const isSilent = (error) =>
  error instanceof ConnectError ||
  (error instanceof ApiError && (error.status === 502 || error.status === 504)) ||
  (error instanceof DOMException && error.name === "TimeoutError");

/**
 * Say what went wrong, to somebody who doesn't know the protocol.
 *
 * @param {unknown} error
 * @param {{again?: boolean}} options whether to say when to try again
 */
export function inWords(error, { again = true } = {}) {
  if (isSilent(error)) return "The server doesn't answer. It may be restarting.";
  if (error instanceof ApiError) {
    const later = again && error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
    if (error.status === 403) return `Not allowed: ${error.message.replace(/\.$/, "")}.`;
    if (error.status === 429) return `The server is full: ${error.message}.`;
    if (error.status === 503) return `Not ready: ${error.message}.${later}`;
    return `${sentence(error.message)}.`;
  }
  if (error instanceof DOMException && error.name === "NotAllowedError") return "The browser didn't allow the camera.";
  if (error instanceof DOMException && error.name === "NotFoundError") return "There is no camera.";
  if (error instanceof DOMException && error.name === "NotReadableError") return "Another program uses the camera.";
  return `${sentence(error instanceof Error ? error.message : String(error))}.`;
}

/** A sentence without its end. @param {string} text */
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1).replace(/\.$/, "");

/** @param {"live" | "lost"} state @param {string} text */
function show(state, text) {
  const element = byId("server");
  element.dataset.state = state;
  setText(/** @type {Element} */ (element.querySelector(".server-text")), text);
}
