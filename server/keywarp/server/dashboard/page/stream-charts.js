/** A stream's timeline and its charts of latency and throughput, updated as responses arrive. */

import { Chart, SPAN } from "./charts.js";
import { h } from "./dom.js";
import { NONE, latency as formatLatency, quantile, rate } from "./format.js";
import { Timeline } from "./timeline.js";

/** @typedef {import("./vendor/messages.js").FrameResponse} FrameResponse */
/** @typedef {import("./vendor/messages.js").Result} Result */

const SMOOTHING = 5; // seconds per point of the charts; single seconds are noisy at low frame rates

/** Compute the seconds from a frame's arrival at the server to its result. @param {Result} result @returns {number} */
export const serverLatency = ({ timings }) => timings.decode + timings.queue + timings.inference + timings.postprocess;

/** The responses of one second. */
class Second {
  /** @type {number[]} */ keys = []; // latencies of key frames, seconds
  /** @type {number[]} */ propagated = []; // latencies of propagated frames, seconds
  failed = 0; // dropped and failed frames
}

/** A timeline, updated with every response, and charts, updated once a second. */
export class StreamCharts {
  /** @type {Map<number, Second>} */ #seconds = new Map();
  #start = 0; // time of the first response, seconds since 1970
  #timeline;
  #latency;
  #throughput;
  timeline;
  element;

  /**
   * @param {string} title the latency chart's title
   * @param {AbortSignal} signal
   */
  constructor(title, signal) {
    this.#timeline = new Timeline(signal);
    this.timeline = this.#timeline.element;
    this.#latency = new Chart(
      title,
      [
        { name: "key frames", color: "--key" },
        { name: "propagated", color: "--accent", fill: true },
      ],
      (seconds) => formatLatency(seconds).join(" ").trim(),
      0.02,
      signal,
    );
    this.#throughput = new Chart(
      "Throughput",
      [
        { name: "results", color: "--accent", fill: true },
        { name: "dropped or failed", color: "--bad" },
      ],
      (perSecond) => (perSecond === null ? NONE : `${rate(perSecond)}/s`),
      5,
      signal,
    );
    this.element = h("div", { class: "charts" }, this.#latency.element, this.#throughput.element);
    const timer = setInterval(() => this.#show(), 1000);
    signal.addEventListener("abort", () => clearInterval(timer));
  }

  /**
   * Add a response.
   *
   * @param {FrameResponse} response
   * @param {number} [latency] seconds from the frame to its response; by default those spent on the server
   */
  push(response, latency) {
    const now = Math.floor(Date.now() / 1000);
    if (!this.#start) this.#start = now;
    let second = this.#seconds.get(now);
    if (!second) this.#seconds.set(now, (second = new Second()));
    if (response.type !== "result") second.failed += 1;
    else (response.kind === "key" ? second.keys : second.propagated).push(latency ?? serverLatency(response));
    this.#timeline.push(response);
  }

  clear() {
    this.#seconds.clear();
    this.#start = 0;
    this.#timeline.clear();
  }

  #show() {
    const now = Math.floor(Date.now() / 1000); // The current second isn't complete.
    for (const time of this.#seconds.keys()) if (time < now - SPAN - 1) this.#seconds.delete(time);
    const first = Math.max(this.#start || now, now - SPAN - 1);
    const times = Array.from({ length: now - first }, (_, i) => first + i);
    const seconds = times.map((time) => this.#seconds.get(time) ?? new Second());
    const windows = seconds.map((_, i) => seconds.slice(Math.max(0, i - SMOOTHING + 1), i + 1));
    const mean = (/** @type {(second: Second) => number} */ count) =>
      windows.map((window) => window.reduce((sum, second) => sum + count(second), 0) / window.length);
    this.#latency.show(times, [
      windows.map((window) => quantile(window.flatMap(({ keys }) => keys), 0.5)),
      windows.map((window) => quantile(window.flatMap(({ propagated }) => propagated), 0.5)),
    ]);
    this.#throughput.show(times, [mean(({ keys, propagated }) => keys.length + propagated.length), mean(({ failed }) => failed)]);
  }
}
