/** Tiles of named values, and the metrics of a stream that this page feeds. */

import { h } from "./dom.js";
import { NONE, latency, mean, number, percent, quantile, rate } from "./format.js";

/** @typedef {import("./vendor/messages.js").FrameResponse} FrameResponse */

const WINDOW = 5; // seconds over which rates and latencies are computed

/** A row of tiles, each with a name and a value. */
export class MetricTiles {
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

  /** Show a tile's value. @param {string} name @param {string} value @param {string} [unit] */
  show(name, value, unit) {
    const element = this.#values.get(name);
    const withUnit = unit && value !== NONE;
    if (!element || element.textContent === value + (withUnit ? unit : "")) return;
    element.replaceChildren(value, ...(withUnit ? [h("span", { class: "unit" }, unit)] : []));
  }
}

/** Counts a stream's responses and shows rates, latencies and counts twice a second. */
export class ResponseMetrics {
  /** @type {{time: number, latency: number, key: boolean, reliability?: number}[]} */ #recent = [];
  #results = 0;
  #dropped = 0;
  #errors = 0;
  #tiles;

  /** @param {AbortSignal} signal ends the updates */
  constructor(signal) {
    this.#tiles = new MetricTiles(["Frames/s", "Latency p50", "Latency p95", "Key frames", "Reliability", "Results", "Dropped", "Errors"]);
    this.element = this.#tiles.element;
    const timer = setInterval(() => this.#show(), 500);
    signal.addEventListener("abort", () => clearInterval(timer));
  }

  /** Count a response. @param {FrameResponse} response @param {number} latency seconds from the frame to its response */
  push(response, latency) {
    if (response.type === "dropped") this.#dropped += 1;
    else if (response.type === "error") this.#errors += 1;
    else {
      this.#results += 1;
      this.#recent.push({ time: performance.now() / 1000, latency, key: response.kind === "key", reliability: response.reliability });
    }
  }

  clear() {
    this.#recent = [];
    this.#results = this.#dropped = this.#errors = 0;
    this.#show();
  }

  #show() {
    const now = performance.now() / 1000;
    this.#recent = this.#recent.filter(({ time }) => time > now - WINDOW);
    const span = Math.min(WINDOW, now - (this.#recent[0]?.time ?? now));
    const latencies = this.#recent.map(({ latency }) => latency);
    const keys = this.#recent.filter(({ key }) => key).length;
    this.#tiles.show("Frames/s", this.#recent.length > 1 ? rate(this.#recent.length / Math.max(span, 0.1)) : NONE);
    this.#tiles.show("Latency p50", ...latency(quantile(latencies, 0.5)));
    this.#tiles.show("Latency p95", ...latency(quantile(latencies, 0.95)));
    this.#tiles.show("Key frames", percent(this.#recent.length ? keys / this.#recent.length : null), "%");
    this.#tiles.show("Reliability", percent(mean(this.#recent.flatMap(({ reliability }) => reliability ?? []))), "%");
    this.#tiles.show("Results", number(this.#results));
    this.#tiles.show("Dropped", number(this.#dropped));
    this.#tiles.show("Errors", number(this.#errors));
  }
}
