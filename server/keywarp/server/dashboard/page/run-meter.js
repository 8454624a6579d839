/** Measuring how a video runs through the server: frames per second, latencies and the share of key frames. */

import { quantile } from "./format.js";
import { serverLatency } from "./stream-charts.js";

/** @typedef {import("./vendor/messages.js").FrameResponse} FrameResponse */

const WARM_UP = 20; // first frames of a cold run that aren't counted: networks may still be compiled for their size
const WARM_UP_SHARE = 0.2; // of a short video

/**
 * @typedef {object} Figures what was measured; null where there was nothing to measure
 * @property {number} results
 * @property {number} failed frames that were dropped, or ended in an error
 * @property {number | null} fps results per second, from sending to receiving
 * @property {number | null} keyShare 0..1
 * @property {number | null} latency median on the server, with waiting, in seconds, like the next ones
 * @property {number | null} latency95 its 95th percentile
 * @property {number | null} keyTime median of what key frames took on the device
 * @property {number | null} propagatedTime median of what propagated frames took on the device
 * @property {number | null} seconds from the start to the last result
 */

/** Measures one run of a video, from when it is created. */
export class RunMeter {
  #start = performance.now() / 1000;
  #warm;
  /** @type {{time: number, latency: number, inference: number, key: boolean}[]} */ #results = [];
  #failed = 0;

  /** @param {{warm?: boolean}} options `warm`: whether the video has run before, so that every frame counts */
  constructor({ warm = false } = {}) {
    this.#warm = warm;
  }

  /** Count a response. @param {FrameResponse} response */
  push(response) {
    if (response.type !== "result") this.#failed += 1;
    else this.#results.push({ time: performance.now() / 1000, latency: serverLatency(response), inference: response.timings.inference, key: response.kind === "key" });
  }

  /** @returns {Figures} */
  get figures() {
    const all = this.#results;
    const skipped = this.#warm ? 0 : Math.min(WARM_UP, Math.floor(WARM_UP_SHARE * all.length));
    const counted = all.slice(skipped);
    const start = skipped ? all[skipped - 1].time : this.#start;
    const span = counted.length ? counted[counted.length - 1].time - start : 0;
    const latencies = counted.map(({ latency }) => latency);
    const inference = (/** @type {boolean} */ wanted) => counted.flatMap(({ key, inference }) => (key === wanted ? inference : []));
    return {
      results: all.length,
      failed: this.#failed,
      fps: span ? counted.length / span : null,
      keyShare: all.length ? all.filter(({ key }) => key).length / all.length : null,
      latency: quantile(latencies, 0.5),
      latency95: quantile(latencies, 0.95),
      keyTime: quantile(inference(true), 0.5),
      propagatedTime: quantile(inference(false), 0.5),
      seconds: all.length ? all[all.length - 1].time - this.#start : null,
    };
  }
}
