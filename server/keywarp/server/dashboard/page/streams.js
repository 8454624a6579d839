/** The view of all streams: a table with their state and metrics, updated every second. */

import { fleetStreams, poll } from "./api.js";
import { reloadButton } from "./reload.js";
import { h, icon, setText, svg, toast } from "./dom.js";
import { NONE, duration, latency, number, percent, rate } from "./format.js";
import { MetricTiles } from "./metrics.js";
import { openPullDialog } from "./pull-dialog.js";

/** @typedef {import("./vendor/messages.js").StreamInfo} StreamInfo */

const SPARKLINE_POINTS = 40; // one per second

/** A badge's text and style by the stream's state. @type {Record<string, [string, string]>} */
const BADGES = {
  connecting: ["Connecting", "warn"],
  running: ["Running", "good"],
  retrying: ["Retrying", "warn"],
  unauthorized: ["Wrong password", "bad"],
  paused: ["Paused", ""],
  ended: ["Ended", ""],
  failed: ["Failed", "bad"],
};

const STUCK = 5; // seconds without a result after which a camera that is connected isn't shown as running

/** @param {StreamInfo} stream @returns {[string, string]} the badge's text and style */
function badgeOf(stream) {
  const { state, frame_age, age } = stream;
  const silence = frame_age ?? age; // seconds
  if (state === "running" && silence > STUCK) return [`No result for ${duration(silence)}`, "bad"];
  if (stream.state in BADGES) return BADGES[stream.state];
  if (stream.live?.fps) return ["Running", "good"];
  return stream.connected ? ["Waiting for frames", "warn"] : ["Idle", ""];
}

/** Show a stream's state in a badge. @param {HTMLElement} badge @param {StreamInfo | null} stream null: its server is silent */
export function showState(badge, stream) {
  const [text, style] = stream ? badgeOf(stream) : ["No answer", "bad"];
  setText(badge, text);
  badge.className = `badge ${style}`;
  badge.title = stream?.problem ?? "";
}

/** @param {AbortSignal} signal */
export function streamsView(signal) {
  const totals = new Totals();
  const table = new StreamTable();
  const list = h("div", { class: "stack" }, totals.element, h("div", { class: "card" }, table.element));
  const empty = emptyState();
  const reload = reloadButton();
  const notice = missingNotice();
  list.hidden = empty.hidden = true;
  void poll(
    async (inner) => {
      const { streams, missing } = await fleetStreams(inner);
      showMissing(notice, missing);
      streams.sort((a, b) => b.age - a.age || a.id.localeCompare(b.id));
      list.hidden = !streams.length;
      empty.hidden = !list.hidden;
      totals.show(streams);
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
      h("div", { class: "actions" }, reload.button, pullButton()),
    ),
    reload.report,
    notice,
    list,
    empty,
  );
}

/** Create the notice of servers that don't answer. */
export const missingNotice = () => h("p", { class: "notice bad", role: "status", hidden: true });

/** @param {HTMLElement} notice @param {string} missing which servers don't answer */
export function showMissing(notice, missing) {
  setText(notice, missing);
  notice.hidden = !missing;
}

/** Create the button that opens the dialog for a pulled stream. */
export const pullButton = () => h("button", { type: "button", class: "primary", onclick: openPullDialog }, icon("plus"), "Pull a URL");

/** Create the hints that are shown while there are no streams. */
function emptyState() {
  const command = `keywarp stream street.mp4 --server ${location.origin}`;
  const code = h("code", { tabindex: "0" }, command);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(command);
      toast("Copied");
    } catch {
      // Pages over plain http have no clipboard, and users can forbid it.
      getSelection()?.selectAllChildren(code);
      toast("The browser doesn't let this page copy, but the command is selected: copy it yourself");
    }
  };
  const bars = [28, 10, 16, 22, 27, 33, 38, 28, 10, 16, 22, 27].map((height, i) => {
    const key = i % 7 === 0;
    return svg("rect", { class: key ? "art-key" : "", x: i * 12, y: key ? 0 : 60 - height, width: 7, height: key ? 60 : height, rx: 2.5 });
  });
  return h(
    "section",
    { class: "card empty", "aria-labelledby": "no-streams" },
    svg("svg", { class: "art", viewBox: "0 0 140 60", "aria-hidden": "true" }, ...bars),
    h("h2", { id: "no-streams" }, "No streams yet"),
    h("p", { class: "muted" }, "Stream a video or a camera from a terminal, and it appears here:"),
    h(
      "div",
      { class: "command" },
      code,
      h("button", { type: "button", class: "quiet icon-button", "aria-label": "Copy the command", onclick: copy }, icon("copy")),
    ),
    h(
      "div",
      { class: "actions" },
      h("a", { class: "button primary", href: "#/video/sample" }, icon("play"), "Try the sample video"),
      h("a", { class: "button", href: "#/camera" }, icon("camera"), "Use the camera"),
      h("a", { class: "button", href: "#/video" }, icon("video"), "Upload a video"),
    ),
  );
}

/** Tiles with the metrics of all streams together. */
class Totals {
  #tiles = new MetricTiles(["Streams", "Frames/s", "Key frames", "Slowest p95", "Dropped", "Errors"]);
  element = this.#tiles.element;

  /** @param {StreamInfo[]} streams */
  show(streams) {
    const live = streams.map((stream) => stream.live).filter((one) => one?.fps);
    const fps = live.reduce((sum, one) => sum + (one?.fps ?? 0), 0);
    const keys = live.reduce((sum, one) => sum + (one?.fps ?? 0) * (one?.key_share ?? 0), 0);
    const slowest = live.length ? Math.max(...live.map((one) => one?.latency_p95 ?? 0)) : null;
    const total = (/** @type {"dropped" | "errors"} */ name) => streams.reduce((sum, stream) => sum + stream[name], 0);
    this.#tiles.show("Streams", number(streams.length));
    this.#tiles.show("Frames/s", rate(fps));
    this.#tiles.show("Key frames", percent(fps ? keys / fps : null), "%");
    this.#tiles.show("Slowest p95", ...latency(slowest));
    this.#tiles.show("Dropped", number(total("dropped")));
    this.#tiles.show("Errors", number(total("errors")));
  }
}

/** A table with one row per stream. Updates keep the rows' elements, so that the focus stays where it is. */
class StreamTable {
  /** @type {Map<string, StreamRow>} */ #rows = new Map(); // by stream id
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
          ([name, isNumber]) => h("th", { role: "columnheader", scope: "col", class: isNumber && "number" }, name),
        ),
      ),
    ),
    this.#body,
  );

  /** @param {StreamInfo[]} streams */
  show(streams) {
    const many = new Set(streams.map(({ server }) => server)).size > 1;
    const ids = new Set(streams.map((stream) => stream.id));
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue;
      row.element.remove();
      this.#rows.delete(id);
    }
    for (const stream of streams) {
      let row = this.#rows.get(stream.id);
      if (!row) {
        row = new StreamRow(stream);
        this.#rows.set(stream.id, row);
        this.#body.append(row.element);
      }
      row.show(stream, many);
    }
  }
}

class StreamRow {
  /** @type {number[]} */ #history = []; // frames per second
  #badge = h("span", { class: "badge" });
  #details = h("span", { class: "under" });
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
    const sparkline = svg("svg", { class: "spark", viewBox: "0 0 64 20", "aria-hidden": "true" }, this.#area, this.#line);
    const bar = svg("svg", { viewBox: "0 0 44 4", "aria-hidden": "true" }, this.#bar);
    const href = `#/streams/${encodeURIComponent(stream.id)}`;
    this.element = h(
      "tr",
      { role: "row" },
      h("td", { role: "cell" }, h("a", { class: "name", href }, stream.id), this.#details),
      h("td", { role: "cell" }, this.#badge),
      cell("Frames/s", h("span", { class: "rate" }, sparkline, this.#rate)),
      cell("p50 / p95", this.#latency),
      cell("Key frames", h("span", { class: "meter" }, bar, this.#share)),
      cell("Dropped", this.#dropped),
      cell("Errors", this.#errors),
    );
  }

  /** @param {StreamInfo} stream @param {boolean} many whether there are several servers */
  show(stream, many) {
    const { live } = stream;
    showState(this.#badge, stream);
    const producer = stream.source ?? (stream.connected ? "fed by a client" : "no client");
    setText(this.#details, [stream.title, stream.model, producer, many && stream.server].filter(Boolean).join(" · "));
    this.#details.title = stream.source ?? "";
    setText(this.#rate, rate(live?.fps));
    this.#history = [...this.#history, live?.fps ?? 0].slice(-SPARKLINE_POINTS);
    const top = 1.3 * Math.max(1, ...this.#history);
    const x = (/** @type {number} */ i) => 64 - 1.6 * (this.#history.length - 1 - i);
    const points = this.#history.map((fps, i) => `${x(i)},${(19 - (18 * fps) / top).toFixed(1)}`).join(" ");
    this.#line.setAttribute("points", points);
    this.#area.setAttribute("points", `${x(0)},20 ${points} 64,20`);
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
