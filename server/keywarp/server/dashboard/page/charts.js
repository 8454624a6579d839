/** Charts of the last two minutes, a point a second. */

import { h, setText } from "./dom.js";
import { item } from "./timeline.js";
import { color, theme } from "./theme.js";
import uPlot from "./vendor/uPlot.js";

export const SPAN = 120; // seconds

/** @typedef {{name: string, color: string, fill?: boolean}} Line */

/** A chart of some lines over time, its newest figures beside its title. */
export class Chart {
  /** @type {uPlot} */ #plot;
  /** @type {HTMLElement[]} */ #figures;
  #box = h("div", { class: "chart", role: "img" });
  #title;
  #format;
  #least;
  #lines;
  #described = 0;
  element;

  /**
   * @param {string} title
   * @param {Line[]} lines
   * @param {(value: number | null) => string} format with its unit
   * @param {number} least that the chart reaches up to
   * @param {AbortSignal} signal
   */
  constructor(title, lines, format, least, signal) {
    this.#title = title;
    this.#box.setAttribute("aria-label", `${title}: nothing yet`);
    this.#format = format;
    this.#least = least;
    this.#lines = lines;
    this.#figures = lines.map(() => h("b", { class: "number" }, format(null)));
    const names = lines.map((line, i) => {
      const name = item(line.color, line.name);
      name.append(this.#figures[i]);
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
   * @param {(number | null)[][]} values by line
   */
  show(times, values) {
    this.#plot.setData([times, ...values]);
    const newest = values.map((line) => line.findLast((value) => value !== null) ?? null);
    this.#figures.forEach((figure, i) => setText(figure, this.#format(newest[i])));
    if (performance.now() - this.#described < 5000) return;
    this.#described = performance.now();
    const said = this.#lines.map((line, i) => `${line.name} ${this.#format(newest[i])}`);
    this.#box.setAttribute("aria-label", `${this.#title} over the last two minutes; now: ${said.join(", ")}`);
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
        y: { range: (/** @type {any} */ _, /** @type {number} */ __, /** @type {number} */ most) => [0, Math.max(1.15 * (most || 0), this.#least)] },
      },
      axes: [
        {
          ...axis,
          size: 26,
          splits: () => [0, 30, 60, 90, 120].map((ago) => now() - ago),
          values: () => ["now", "30 s", "60 s", "90 s", "2 min"],
          grid: { show: false },
        },
        {
          ...axis,
          size: 46,
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
          fill: line.fill ? () => faint(color(line.color)) : undefined,
          points: { show: false },
          spanGaps: true, // not every second has a key frame
        })),
      ],
    };
  }
}

/** @param {string} rgb @returns {string} the same, hardly to be seen */
const faint = (rgb) => rgb.replace(/^rgb\((.*)\)$/, "rgba($1, 0.12)");
