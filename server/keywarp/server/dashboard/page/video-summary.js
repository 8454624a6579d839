/** The summary of a video that was processed: what was measured, with key frames and on every frame, and what can be saved. */

import { h } from "./dom.js";
import { NONE, latency, number, percent, rate } from "./format.js";

/** @typedef {import("./run-meter.js").Figures} Figures */
/** @typedef {import("./vendor/messages.js").Ready} Ready */

/** @type {[string, (figures: Figures) => string][]} */
const ROWS = [
  ["Frames a second", ({ fps }) => rate(fps)],
  ["Share of key frames", ({ keyShare }) => (keyShare === null ? NONE : `${percent(keyShare)} %`)],
  ["Latency, median", (figures) => text(figures.latency)],
  ["Latency, 95th percentile", ({ latency95 }) => text(latency95)],
  ["Computing a key frame, median", ({ keyTime }) => text(keyTime)],
  ["Computing a propagated frame", ({ propagatedTime }) => text(propagatedTime)],
  ["Results", ({ results }) => number(results)],
  ["Dropped or failed", ({ failed }) => number(failed)],
  ["Time", ({ seconds }) => text(seconds)],
];

/** @param {number | null} seconds */
const text = (seconds) => latency(seconds).join(" ").trim();

/** The summary of one video. It stays until another video starts. */
export class VideoSummary {
  #headline = h("h2", { id: "summary-title" }, "Summary");
  #table = h("table", { class: "figures-table" });
  #what = h("p", { class: "hint flush" });
  #notes = h("p", { class: "hint flush" });
  actions = h("div", { class: "actions" });
  element = h("section", { class: "card padded stack", "aria-labelledby": "summary-title", hidden: true }, this.#headline, this.#table, this.actions, this.#what, this.#notes);

  clear() {
    this.element.hidden = true;
  }

  /**
   * Show what was measured.
   *
   * @param {{name: string, ready: Ready, keyed: Figures, everyFrame: Figures | null, notes: string[]}} video
   */
  show({ name, ready, keyed, everyFrame, notes }) {
    const { model, interval, schedule } = ready;
    const speedUp = everyFrame?.fps && keyed.fps ? keyed.fps / everyFrame.fps : null;
    this.#headline.textContent = speedUp ? `${number(speedUp, 1)} times as fast as on every frame` : "Summary";
    const columns = [schedule === "adaptive" ? "Adaptive key frames" : interval === 1 ? "Every frame" : `A key frame every ${interval}`, ...(everyFrame ? ["Every frame"] : [])];
    const shown = everyFrame ? [keyed, everyFrame] : [keyed];
    this.#table.replaceChildren(
      h("caption", { class: "visually-hidden" }, "What was measured"),
      h("thead", {}, h("tr", {}, h("td"), ...columns.map((one) => h("th", { scope: "col" }, one)))),
      h("tbody", {}, ...ROWS.map(([label, format]) => h("tr", {}, h("th", { scope: "row" }, label), ...shown.map((one) => h("td", {}, format(one)))))),
    );
    const device = `${model.backend} ${model.precision} on ${model.device}`;
    const how = everyFrame
      ? "in two runs one after the other, without playing it"
      : "while it played, without the first frames, on which networks may still be compiled";
    this.#what.textContent =
      `${name}, ${model.name} ${model.version}, ${device}. Measured in this page, from sending the video to receiving its results, ${how}. ` +
      "The video is sent as fast as the server takes it, so latencies include waiting.";
    this.#notes.textContent = notes.join(" ");
    this.element.hidden = false;
  }
}
