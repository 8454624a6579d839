/** What a stream's answers tell, as they come: the timeline and the charts. */

import { Chart, SPAN } from "./charts.js";
import { h } from "./dom.js";
import { latency, quantile, rate } from "./format.js";
import { Timeline } from "./timeline.js";

/** @typedef {import("./vendor/messages.js").Answer} Answer */
/** @typedef {import("./vendor/messages.js").Result} Result */

const CALM = 5; // seconds that a point of the charts is of: single ones jump where there are few frames

/** @param {Result} result @returns {number} seconds from the frame's arrival at the server to its result */
export const serverLatency = ({ timings }) => timings.decode + timings.queue + timings.inference + timings.postprocess;

/** One second's answers. */
class Second {
  /** @type {number[]} */ keys = []; // latencies
  /** @type {number[]} */ others = [];
  dropped = 0;
}

/** Shows answers; figures are taken over by once a second. */
export class Insight {
  /** @type {Map<number, Second>} */ #seconds = new Map();
  #began = 0;
  #timeline;
  #latency;
  #throughput;
  timeline;
  charts;

  /**
   * @param {string} title of the latencies
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
      (seconds) => latency(seconds).join(" ").trim(),
      0.02,
      signal,
    );
    this.#throughput = new Chart(
      "Throughput",
      [
        { name: "results", color: "--accent", fill: true },
        { name: "dropped or failed", color: "--bad" },
      ],
      (perSecond) => (perSecond === null ? "–" : `${rate(perSecond)}/s`),
      5,
      signal,
    );
    this.charts = h("div", { class: "charts" }, this.#latency.element, this.#throughput.element);
    const timer = setInterval(() => this.#show(), 1000);
    signal.addEventListener("abort", () => clearInterval(timer));
  }

  /** @param {Answer} answer @param {number} [seconds] from the frame to its answer; default: the server's part */
  push(answer, seconds) {
    const now = Math.floor(Date.now() / 1000);
    if (!this.#began) this.#began = now;
    let second = this.#seconds.get(now);
    if (!second) this.#seconds.set(now, (second = new Second()));
    if (answer.type !== "result") second.dropped += 1;
    else (answer.kind === "key" ? second.keys : second.others).push(seconds ?? serverLatency(answer));
    this.#timeline.push(answer);
  }

  clear() {
    this.#seconds.clear();
    this.#began = 0;
    this.#timeline.clear();
  }

  #show() {
    const now = Math.floor(Date.now() / 1000); // this second isn't complete
    for (const time of this.#seconds.keys()) if (time < now - SPAN - 1) this.#seconds.delete(time);
    const first = Math.max(this.#began || now, now - SPAN - 1);
    const times = Array.from({ length: now - first }, (_, i) => first + i);
    const seconds = times.map((time) => this.#seconds.get(time) ?? new Second());
    const spans = seconds.map((_, i) => seconds.slice(Math.max(0, i - CALM + 1), i + 1));
    const mean = (/** @type {(second: Second) => number} */ count) =>
      spans.map((span) => span.reduce((sum, second) => sum + count(second), 0) / span.length);
    this.#latency.show(times, [
      spans.map((span) => quantile(span.flatMap(({ keys }) => keys), 0.5)),
      spans.map((span) => quantile(span.flatMap(({ others }) => others), 0.5)),
    ]);
    this.#throughput.show(times, [mean(({ keys, others }) => keys.length + others.length), mean(({ dropped }) => dropped)]);
  }
}
