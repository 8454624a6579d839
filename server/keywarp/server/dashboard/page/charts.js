/** Charts of the last two minutes with one point per second. */

import { h, setText } from "./dom.js";
import { color, theme } from "./theme.js";
import { legendItem } from "./timeline.js";
import uPlot from "./vendor/uPlot.js";

export const SPAN = 120; // seconds shown
const LETTER = 7; // the greatest width of a letter of the labels, in pixels

/** @typedef {{name: string, color: string, fill?: boolean}} Line */

/** A line chart over time that shows the newest values beside its title. */
export class Chart {
  /** @type {uPlot} */ #plot;
  /** @type {HTMLElement[]} */ #newest;
  #box = h("div", { class: "chart", role: "img" });
  #title;
  #format;
  #minimumTop;
  #lines;
  #labelTime = 0; // milliseconds
  element;

  /**
   * @param {string} title
   * @param {Line[]} lines
   * @param {(value: number | null) => string} format formats a value with its unit
   * @param {number} minimumTop the chart's upper end is at least this value
   * @param {AbortSignal} signal
   */
  constructor(title, lines, format, minimumTop, signal) {
    this.#title = title;
    this.#box.setAttribute("aria-label", `${title}: no data yet`);
    this.#format = format;
    this.#minimumTop = minimumTop;
    this.#lines = lines;
    this.#newest = lines.map(() => h("b", { class: "number" }, format(null)));
    const names = lines.map((line, i) => {
      const name = legendItem(line.color, line.name);
      name.append(this.#newest[i]);
      return name;
    });
    this.element = h(
      "figure",
      { class: "card padded" },
      h("figcaption", { class: "chart-head" }, h("h2", {}, title), h("span", { class: "legend" }, ...names)),
      this.#box,
    );
    this.#plot = new uPlot(this.#options(), [[], ...lines.map(() => [])], this.#box);
    const resized = new ResizeObserver(() => this.#resize());
    resized.observe(this.#box);
    theme.addEventListener("change", () => this.#plot.redraw(false), { signal });
    signal.addEventListener("abort", () => {
      resized.disconnect();
      this.#plot.destroy();
    });
  }

  /**
   * @param {number[]} times seconds since 1970
   * @param {(number | null)[][]} values one list per line, as long as `times`
   */
  show(times, values) {
    this.#plot.setData([times, ...values]);
    const latest = values.map((line) => line.findLast((value) => value !== null) ?? null);
    this.#newest.forEach((element, i) => setText(element, this.#format(latest[i])));
    if (performance.now() - this.#labelTime < 5000) return; // Screen readers would read out every change.
    this.#labelTime = performance.now();
    const summary = this.#lines.map((line, i) => `${line.name} ${this.#format(latest[i])}`);
    this.#box.setAttribute("aria-label", `${this.#title} over the last two minutes; now: ${summary.join(", ")}`);
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.#box;
    if (width) this.#plot.setSize({ width, height });
  }

  /** @returns {uPlot.Options} */
  #options() {
    /** @type {uPlot.Axis} */
    const axis = {
      stroke: () => color("--ink-2"),
      font: "11.5px Inter, system-ui, sans-serif",
      grid: { stroke: () => color("--line"), width: 1 },
      ticks: { show: false },
    };
    const now = () => Date.now() / 1000;
    return {
      width: 400,
      height: 190,
      padding: [8, 14, 0, 0],
      legend: { show: false },
      cursor: { show: false },
      scales: {
        x: { time: false, range: () => [now() - SPAN, now()] },
        y: { range: (/** @type {any} */ _, /** @type {number} */ __, /** @type {number} */ highest) => [0, Math.max(1.15 * (highest || 0), this.#minimumTop)] },
      },
      axes: [
        {
          ...axis,
          size: 32,
          gap: 11, // clear of the lowest label of the other axis
          splits: () => [0, 30, 60, 90, 120].map((ago) => now() - ago),
          values: () => ["now", "30 s", "60 s", "90 s", "2 min"],
          grid: { show: false },
        },
        {
          ...axis,
          size: (/** @type {any} */ _, /** @type {string[] | null} */ labels) => Math.max(46, ...(labels ?? []).map((label) => LETTER * label.length + 8)),
          gap: 6,
          space: 36,
          values: (/** @type {any} */ _, /** @type {number[]} */ ticks) => ticks.map((tick) => this.#format(tick)),
        },
      ],
      series: [
        {},
        ...this.#lines.map((line) => ({
          stroke: () => color(line.color),
          width: 1.6,
          fill: line.fill ? () => translucent(color(line.color)) : undefined,
          points: { show: false },
          spanGaps: true, // Some seconds have no key frame.
        })),
      ],
    };
  }
}

/** Make a colour almost transparent. @param {string} rgb @returns {string} */
const translucent = (rgb) => rgb.replace(/^rgb\((.*)\)$/, "rgba($1, 0.12)");
