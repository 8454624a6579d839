/** The view of all streams: how each does, figures moving. */

import { h, icon, setText, svg, toast } from "./dom.js";
import { NONE, latency, number, percent, rate } from "./format.js";
import { openPull } from "./pull.js";
import { client, poll } from "./server.js";

/** @typedef {import("./vendor/messages.js").StreamInfo} StreamInfo */

const HISTORY = 40; // figures in a spark line, one a second

/** By state: words and colour. @type {Record<string, [string, string]>} */
const STATES = {
  connecting: ["Connecting", "warn"],
  running: ["Running", "good"],
  retrying: ["Retrying", "warn"],
  paused: ["Paused", ""],
  ended: ["Ended", ""],
  failed: ["Failed", "bad"],
};

/** @param {StreamInfo} stream @returns {[string, string]} words and colour */
export function stateOf(stream) {
  if (stream.state in STATES) return STATES[stream.state];
  if (stream.live?.fps) return ["Running", "good"];
  return stream.connected ? ["Waiting for frames", "warn"] : ["Idle", ""];
}

/** @param {HTMLElement} badge @param {StreamInfo} stream */
export function showState(badge, stream) {
  const [words, kind] = stateOf(stream);
  setText(badge, words);
  badge.className = `badge ${kind}`;
  badge.title = stream.problem ?? "";
}

/** @param {AbortSignal} signal */
export function streamsView(signal) {
  const tiles = new Tiles();
  const table = new Table();
  const some = h("div", { class: "stack" }, tiles.element, h("div", { class: "card" }, table.element));
  const none = nothing();
  some.hidden = none.hidden = true;
  void poll(
    async (inner) => {
      const streams = await client.streams({ signal: inner });
      streams.sort((a, b) => b.age - a.age || a.id.localeCompare(b.id));
      some.hidden = !streams.length;
      none.hidden = !some.hidden;
      tiles.show(streams);
      table.show(streams);
    },
    1,
    signal,
  );
  return h(
    "div",
    {},
    h(
      "div",
      { class: "head" },
      h("h1", {}, "Streams"),
      h("div", { class: "actions" }, pullButton()),
    ),
    some,
    none,
  );
}

const pullButton = () => h("button", { type: "button", class: "primary", onclick: openPull }, icon("plus"), "Pull a URL");

/** What to do while there are no streams. */
function nothing() {
  const command = `keywarp stream street.mp4 --server ${location.origin}`;
  const shown = h("code", { tabindex: "0" }, command);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(command);
      toast("Copied");
    } catch {
      // Over plain http there is no clipboard, and it can be forbidden.
      getSelection()?.selectAllChildren(shown);
      toast("The browser doesn't let this page copy: the command is selected, copy it yourself");
    }
  };
  const bars = [28, 10, 16, 22, 27, 33, 38, 28, 10, 16, 22, 27].map((height, i) => {
    const key = i % 7 === 0;
    return svg("rect", { class: key ? "art-key" : "", x: i * 12, y: key ? 0 : 60 - height, width: 7, height: key ? 60 : height, rx: 2.5 });
  });
  return h(
    "section",
    { class: "card empty", "aria-labelledby": "nothing" },
    svg("svg", { class: "art", viewBox: "0 0 140 60", "aria-hidden": "true" }, ...bars),
    h("h2", { id: "nothing" }, "No streams yet"),
    h("p", { class: "muted" }, "Send a video or a camera from a terminal, and it appears here by itself:"),
    h(
      "div",
      { class: "command" },
      shown,
      h("button", { type: "button", class: "quiet icon-button", "aria-label": "Copy the command", onclick: copy }, icon("copy")),
    ),
    h(
      "div",
      { class: "actions" },
      h("a", { class: "button", href: "#/camera" }, icon("camera"), "Use the camera"),
      h("a", { class: "button", href: "#/video" }, icon("video"), "Upload a video"),
    ),
  );
}

/** Figures of all streams together. */
class Tiles {
  #figures = ["Streams", "Frames/s", "Key frames", "Slowest p95", "Dropped", "Errors"].map((name) => {
    const value = h("dd", {}, NONE);
    return { value, element: h("div", { class: "tile" }, h("dt", {}, name), value) };
  });
  element = h("dl", { class: "card tiles" }, ...this.#figures.map(({ element }) => element));

  /** @param {StreamInfo[]} streams */
  show(streams) {
    const live = streams.map((stream) => stream.live).filter((pulse) => pulse?.fps);
    const fps = live.reduce((sum, pulse) => sum + (pulse?.fps ?? 0), 0);
    const keys = live.reduce((sum, pulse) => sum + (pulse?.fps ?? 0) * (pulse?.key_share ?? 0), 0);
    const slowest = live.length ? Math.max(...live.map((pulse) => pulse?.latency_p95 ?? 0)) : null;
    const total = (/** @type {"dropped" | "errors"} */ name) => streams.reduce((sum, stream) => sum + stream[name], 0);
    const [count, frames, share, slow, dropped, errors] = this.#figures.map(({ value }) => value);
    showFigure(count, number(streams.length));
    showFigure(frames, rate(fps));
    showFigure(share, percent(fps ? keys / fps : null), "%");
    showFigure(slow, ...latency(slowest));
    showFigure(dropped, number(total("dropped")));
    showFigure(errors, number(total("errors")));
  }
}

/** @param {HTMLElement} element @param {string} figure @param {string} [unit] */
export function showFigure(element, figure, unit) {
  const withUnit = unit && figure !== NONE;
  if (element.textContent === figure + (withUnit ? unit : "")) return;
  element.replaceChildren(figure, ...(withUnit ? [h("span", { class: "unit" }, unit)] : []));
}

/** One row a stream; rows stay the same elements, so that focus stays where it is. */
class Table {
  /** @type {Map<string, Row>} */ #rows = new Map();
  #body = h("tbody", { role: "rowgroup" });
  element = h(
    "table",
    { class: "table", role: "table", "aria-label": "Streams" },
    h(
      "thead",
      { role: "rowgroup" },
      h(
        "tr",
        { role: "row" },
        ...[["Stream"], ["State"], ["Frames/s", 1], ["Latency p50 / p95", 1], ["Key frames", 1], ["Dropped", 1], ["Errors", 1]].map(
          ([name, figure]) => h("th", { role: "columnheader", scope: "col", class: figure && "number" }, name),
        ),
      ),
    ),
    this.#body,
  );

  /** @param {StreamInfo[]} streams */
  show(streams) {
    const ids = new Set(streams.map((stream) => stream.id));
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue;
      row.element.remove();
      this.#rows.delete(id);
    }
    for (const stream of streams) {
      let row = this.#rows.get(stream.id);
      if (!row) {
        row = new Row(stream);
        this.#rows.set(stream.id, row);
        this.#body.append(row.element);
      }
      row.show(stream);
    }
  }
}

class Row {
  /** @type {number[]} */ #history = [];
  #state = h("span", { class: "badge" });
  #under = h("span", { class: "under" });
  #rate = h("span");
  #line = svg("polyline", {});
  #area = svg("polygon", {});
  #latency = h("span");
  #share = h("span");
  #bar = svg("rect", { height: 4, rx: 2 });
  #dropped = h("span", { class: "count" });
  #errors = h("span", { class: "count" });
  element;

  /** @param {StreamInfo} stream */
  constructor(stream) {
    const cell = (/** @type {string} */ label, /** @type {Node[]} */ ...children) =>
      h("td", { role: "cell", class: "number", "data-label": label }, ...children);
    const spark = svg("svg", { class: "spark", viewBox: "0 0 64 20", "aria-hidden": "true" }, this.#area, this.#line);
    const bar = svg("svg", { viewBox: "0 0 44 4", "aria-hidden": "true" }, this.#bar);
    const href = `#/streams/${encodeURIComponent(stream.id)}`;
    this.element = h(
      "tr",
      { role: "row" },
      h("td", { role: "cell" }, h("a", { class: "name", href }, stream.id), this.#under),
      h("td", { role: "cell" }, this.#state),
      cell("Frames/s", h("span", { class: "rate" }, spark, this.#rate)),
      cell("p50 / p95", this.#latency),
      cell("Key frames", h("span", { class: "meter" }, bar, this.#share)),
      cell("Dropped", this.#dropped),
      cell("Errors", this.#errors),
    );
  }

  /** @param {StreamInfo} stream */
  show(stream) {
    const { live } = stream;
    showState(this.#state, stream);
    const from = stream.source ?? (stream.connected ? "fed by a client" : "no client");
    setText(this.#under, `${stream.model} · ${from}`);
    this.#under.title = stream.source ?? "";
    setText(this.#rate, rate(live?.fps));
    this.#history = [...this.#history, live?.fps ?? 0].slice(-HISTORY);
    const most = 1.3 * Math.max(1, ...this.#history);
    const across = (/** @type {number} */ i) => 64 - 1.6 * (this.#history.length - 1 - i);
    const points = this.#history.map((fps, i) => `${across(i)},${(19 - (18 * fps) / most).toFixed(1)}`).join(" ");
    this.#line.setAttribute("points", points);
    this.#area.setAttribute("points", `${across(0)},20 ${points} 64,20`);
    const [p50, p95] = [live?.latency_p50, live?.latency_p95].map((seconds) => latency(seconds).join(" "));
    setText(this.#latency, live?.latency_p50 == null ? NONE : `${p50} / ${p95}`);
    setText(this.#share, live?.key_share == null ? NONE : `${percent(live.key_share)} %`);
    this.#bar.setAttribute("width", String(44 * (live?.key_share ?? 0)));
    setText(this.#dropped, number(stream.dropped));
    setText(this.#errors, number(stream.errors));
    this.#dropped.classList.toggle("some", stream.dropped > 0);
    this.#errors.classList.toggle("bad", stream.errors > 0);
  }
}
