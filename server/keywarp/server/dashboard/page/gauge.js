/** The figures of a stream that this page feeds itself. */

import { h } from "./dom.js";
import { NONE, latency, number, percent, quantile, rate } from "./format.js";
import { showFigure } from "./streams.js";

/** @typedef {import("./vendor/messages.js").Answer} Answer */

const SPAN = 5; // seconds that rates and latencies are of

/** Named figures in a row. */
export class Figures {
  /** @type {Map<string, HTMLElement>} */ #values = new Map();
  element = h("dl", { class: "card tiles" });

  /** @param {string[]} names */
  constructor(names) {
    for (const name of names) {
      const value = h("dd", {}, NONE);
      this.#values.set(name, value);
      this.element.append(h("div", { class: "tile" }, h("dt", {}, name), value));
    }
  }

  /** @param {string} name @param {string} figure @param {string} [unit] */
  show(name, figure, unit) {
    const value = this.#values.get(name);
    if (value) showFigure(value, figure, unit);
  }
}

/** Counts answers, and shows how they come, twice a second. */
export class Gauge {
  /** @type {{time: number, latency: number, key: boolean}[]} */ #recent = [];
  #results = 0;
  #dropped = 0;
  #errors = 0;
  #figures;
  #name;

  /** @param {string} name of the latency @param {AbortSignal} signal */
  constructor(name, signal) {
    this.#name = name;
    this.#figures = new Figures(["Frames/s", name, "Latency p95", "Key frames", "Results", "Dropped", "Errors"]);
    this.element = this.#figures.element;
    const timer = setInterval(() => this.#show(), 500);
    signal.addEventListener("abort", () => clearInterval(timer));
  }

  get results() {
    return this.#results;
  }

  /** @param {Answer} answer @param {number} seconds from the frame to its answer */
  push(answer, seconds) {
    if (answer.type === "dropped") this.#dropped += 1;
    else if (answer.type === "error") this.#errors += 1;
    else {
      this.#results += 1;
      this.#recent.push({ time: performance.now() / 1000, latency: seconds, key: answer.kind === "key" });
    }
  }

  clear() {
    this.#recent = [];
    this.#results = this.#dropped = this.#errors = 0;
    this.#show();
  }

  #show() {
    const now = performance.now() / 1000;
    this.#recent = this.#recent.filter(({ time }) => time > now - SPAN);
    const span = Math.min(SPAN, now - (this.#recent[0]?.time ?? now));
    const latencies = this.#recent.map(({ latency }) => latency);
    const keys = this.#recent.filter(({ key }) => key).length;
    this.#figures.show("Frames/s", this.#recent.length > 1 ? rate(this.#recent.length / Math.max(span, 0.1)) : NONE);
    this.#figures.show(this.#name, ...latency(quantile(latencies, 0.5)));
    this.#figures.show("Latency p95", ...latency(quantile(latencies, 0.95)));
    this.#figures.show("Key frames", percent(this.#recent.length ? keys / this.#recent.length : null), "%");
    this.#figures.show("Results", number(this.#results));
    this.#figures.show("Dropped", number(this.#dropped));
    this.#figures.show("Errors", number(this.#errors));
  }
}
