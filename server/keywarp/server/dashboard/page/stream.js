/** The view of one stream, whichever producer feeds it: its picture, key frames, metrics and settings. */

import { client, describeError, fleetStreams, keepReading, poll, request, sentence } from "./api.js";
import { openChangeDialog } from "./change-dialog.js";
import { byId, h, icon, setText, toast } from "./dom.js";
import { EventList } from "./events.js";
import { duration, latency, number, percent, rate, seconds } from "./format.js";
import { MetricTiles } from "./metrics.js";
import { StreamCharts } from "./stream-charts.js";
import { showState } from "./streams.js";
import { ApiError } from "./vendor/keywarp.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./vendor/messages.js").ClassInfo} ClassInfo */
/** @typedef {import("./vendor/messages.js").Result} Result */
/** @typedef {import("./vendor/messages.js").StreamInfo} StreamInfo */

const RESULTS = 64; // that are kept for the pictures of their frames
const EVENTS = 6; // the newest ones that are shown
const PREVIEW = { fps: 12, width: 960 };

/** @param {AbortSignal} outer @param {string} id */
export function streamView(outer, id) {
  const ended = new AbortController(); // aborts when the stream has ended
  let endedAt = 0; // milliseconds
  const signal = AbortSignal.any([outer, ended.signal]);
  const viewer = new Viewer(`Live picture of stream ${id} with the results drawn on it`);
  const charts = new StreamCharts("Latency on the server", outer);
  const tiles = new MetricTiles(["Frames/s", "Latency p50", "Latency p95", "Key frames", "Reliability", "Frames", "Dropped", "Errors"]);
  const badge = h("span", { class: "badge" }, "Loading");
  const facts = h("dl", { class: "facts" });
  const notice = h("p", { class: "notice", role: "status" });
  const actions = new StreamActions(id, outer);
  const legend = new StreamLegend(viewer);
  const events = new EventList(outer);
  const eventSection = h("section", { class: "stack", "aria-label": "Events of this stream" }, events.element);
  eventSection.hidden = true;

  const end = (/** @type {string} */ why) => {
    if (ended.signal.aborted) return;
    ended.abort();
    endedAt = performance.now();
    notice.textContent = why;
    badge.className = "badge";
    badge.textContent = "Gone";
    actions.element.replaceChildren();
    if (!viewer.pictures) viewer.showMessage("The picture is no longer available");
  };
  viewer.showMessage("Waiting for a frame");
  let lost = false; // whether the server at this address, one of several, hasn't the stream

  void poll(
    async (inner) => {
      const { streams, missing } = await fleetStreams(inner);
      const stream = streams.find((one) => one.id === id);
      if (!stream && missing) {
        showState(badge, null);
      } else if (!stream) {
        end("This stream no longer exists.");
      } else if (ended.signal.aborted) {
        const isNew = stream.age < (performance.now() - endedAt) / 1000;
        if (isNew) dispatchEvent(new Event("hashchange")); // A new stream has this id: show it from the start.
      } else {
        showState(badge, stream);
        showMetrics(tiles, stream);
        showFacts(facts, stream);
        if (stream.rules?.length) {
          const found = await client.events({ stream: id, limit: EVENTS, signal: inner });
          eventSection.hidden = !found.length;
          events.show(found);
        }
        actions.show(stream);
        setText(notice, stream.problem ? sentence(stream.problem) : "");
        if (stream.state === "paused") viewer.showMessage("Paused");
        else if (viewer.pictures) viewer.showMessage();
        else if (lost && stream.server) viewer.showMessage(`It is on ${stream.server}: open the dashboard there, or at the proxy's address`);
      }
    },
    1,
    outer,
  );
  void watchResults(id, legend, charts, signal, end);
  void keepReading(async (inner) => {
    try {
      for await (const { frame, jpeg } of client.pictures(id, { ...PREVIEW, signal: inner })) {
        const picture = await createImageBitmap(jpeg);
        viewer.show(picture, picture.width, picture.height);
        legend.showFrame(frame);
        if (viewer.pictures === 1) viewer.showMessage();
        picture.close();
      }
    } catch (error) {
      lost = error instanceof ApiError && error.status === 404;
      throw error;
    }
    return true;
  }, signal);

  const back = h("a", { class: "button quiet icon-button", href: "#/streams", "aria-label": "Back to all streams" }, icon("back"));
  return h(
    "div",
    { class: "stack" },
    h("div", { class: "head flat" }, h("div", { class: "head-title" }, back, h("h1", {}, id), badge), actions.element),
    notice,
    h(
      "div",
      { class: "view picture-first" },
      h(
        "div",
        { class: "stack" },
        h("section", { class: "card", "aria-label": "Picture" }, viewer.element, h("div", { class: "viewer-details" }, viewer.legend, charts.timeline)),
        tiles.element,
        charts.element,
        eventSection,
      ),
      h("section", { class: "card padded aside", "aria-label": "Settings" }, facts),
    ),
  );
}

/**
 * Show a stream's responses in the legend and the charts until the stream ends.
 *
 * @param {string} id
 * @param {StreamLegend} legend
 * @param {StreamCharts} charts
 * @param {AbortSignal} signal
 * @param {(why: string) => void} end
 */
async function watchResults(id, legend, charts, signal, end) {
  await keepReading(async (inner) => {
    if (!legend.classes.length) {
      const [stream, models] = await Promise.all([client.stream(id), client.models()]);
      legend.classes = models.find((model) => model.name === stream.model)?.classes ?? [];
    }
    for await (const message of client.results(id, { signal: inner })) {
      if (message.type === "gone") {
        end(`This stream has ended: ${message.reason}.`);
        return false;
      }
      if (message.type === "missed") continue;
      charts.push(message);
      if (message.type === "result") legend.push(message);
    }
    return true;
  }, signal);
}

/** The legend of a live picture: what the result of the very frame that is shown has found. */
class StreamLegend {
  /** @type {ClassInfo[]} */ classes = [];
  /** @type {Map<number, Result>} */ #results = new Map(); // the newest, by frame
  #frame = -1; // that is shown without its result, which may arrive after the picture
  #viewer;

  /** @param {Viewer} viewer */
  constructor(viewer) {
    this.#viewer = viewer;
  }

  /** @param {Result} result */
  push(result) {
    this.#results.set(result.frame, result);
    for (const frame of this.#results.keys()) {
      if (this.#results.size <= RESULTS) break;
      this.#results.delete(frame);
    }
    if (result.frame === this.#frame) this.showFrame(result.frame);
  }

  /** Show the legend of a frame. @param {number} frame */
  showFrame(frame) {
    const result = this.#results.get(frame);
    this.#frame = result ? -1 : frame;
    if (result) this.#viewer.showLegend(result, this.classes);
  }
}

/** @param {MetricTiles} tiles @param {StreamInfo} stream */
function showMetrics(tiles, { live, frames, dropped, errors }) {
  tiles.show("Frames/s", rate(live?.fps));
  tiles.show("Latency p50", ...latency(live?.latency_p50));
  tiles.show("Latency p95", ...latency(live?.latency_p95));
  tiles.show("Key frames", percent(live?.key_share), "%");
  tiles.show("Reliability", percent(live?.reliability), "%");
  tiles.show("Frames", number(frames));
  tiles.show("Dropped", number(dropped));
  tiles.show("Errors", number(errors));
}

/** Where a camera is configured. @param {StreamInfo} stream */
function configured({ configured, kept }) {
  if (configured === "site") return "in the site file";
  return kept ? "here, and kept" : "here, not kept";
}

/** @param {HTMLElement} list @param {StreamInfo} stream */
function showFacts(list, stream) {
  const interval = stream.schedule === "adaptive" ? `${stream.interval} on average, at most ${stream.max_interval}` : stream.interval;
  const oldest = stream.live?.key_age_seconds;
  /** @type {Record<string, string | number | null>} */
  const facts = {
    Camera: stream.title ?? null,
    Rules: stream.rules?.length ? stream.rules.join(", ") : null,
    Objects: stream.track ? "are followed" : null,
    Model: stream.model,
    Device: stream.device,
    Schedule: stream.schedule,
    "Key interval": interval,
    "Greatest key age": stream.max_age === null ? null : `${stream.max_age} s`,
    "Oldest key frame": oldest == null ? null : seconds(oldest),
    "Most frames/s": stream.max_fps ?? null,
    "Hidden regions": stream.hidden?.length ? number(stream.hidden.length) : null,
    "If busy": stream.mode === "latest" ? "skips frames" : "keeps all frames",
    "Key frames so far": number(stream.key_frames),
    Source: stream.source,
    Configured: stream.source && configured(stream),
    Reconnects: stream.source && number(stream.reconnects),
    Sinks: stream.sinks.length ? stream.sinks.join(", ") : null,
    Age: duration(stream.age),
    Subscribers: number(stream.watchers),
  };
  const json = JSON.stringify(facts);
  if (list.dataset.facts === json) return;
  list.dataset.facts = json;
  const rows = Object.entries(facts).filter(([, value]) => value !== null && value !== undefined);
  list.replaceChildren(...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", { class: name === "Source" && "address" }, value)]));
}

/** The buttons that change, pause, resume and delete a stream. */
class StreamActions {
  #id;
  #paused = false;
  /** @type {StreamInfo | null} */ #stream = null;
  #pauseButton;
  #connectButton;
  #changeButton;
  /** @type {HTMLDialogElement | null} */ #dialog = null;
  element;

  /** @param {string} id @param {AbortSignal} signal */
  constructor(id, signal) {
    this.#id = id;
    this.#pauseButton = h("button", { type: "button", hidden: true, onclick: () => this.#togglePause() });
    const remove = h("button", { type: "button", class: "danger", onclick: () => this.#confirmDelete() }, icon("trash"), "Delete");
    const rules = h("a", { class: "button", href: `#/streams/${encodeURIComponent(id)}/rules` }, icon("zone"), "Zones and rules");
    const change = () => this.#stream && openChangeDialog(this.#stream);
    this.#changeButton = h("button", { type: "button", disabled: true, onclick: change }, icon("settings"), "Change");
    this.#connectButton = h("button", { type: "button", class: "primary", hidden: true, onclick: () => this.#connect() }, "Connect now");
    this.element = h("div", { class: "actions" }, this.#connectButton, rules, this.#changeButton, this.#pauseButton, remove);
    signal.addEventListener("abort", () => this.#dialog?.remove());
  }

  /** @param {StreamInfo} stream */
  show(stream) {
    const { source, state } = stream;
    this.#stream = stream;
    this.#changeButton.disabled = false;
    this.#connectButton.hidden = state !== "retrying" && state !== "unauthorized";
    this.#pauseButton.hidden = !source || state === "ended" || state === "failed";
    if (this.#paused === (state === "paused") && this.#pauseButton.hasChildNodes()) return;
    this.#paused = state === "paused";
    this.#pauseButton.replaceChildren(icon(this.#paused ? "play" : "pause"), this.#paused ? "Resume" : "Pause");
  }

  /** Try again at once, instead of after the wait. */
  async #connect() {
    this.#connectButton.disabled = true;
    try {
      this.show(await request(() => client.resume(this.#id)));
    } catch (error) {
      toast(describeError(error));
    } finally {
      this.#connectButton.disabled = false;
    }
  }

  async #togglePause() {
    this.#pauseButton.disabled = true;
    try {
      const stream = await request(() => (this.#paused ? client.resume(this.#id) : client.pause(this.#id)));
      this.show(stream);
    } catch (error) {
      toast(describeError(error));
    } finally {
      this.#pauseButton.disabled = false;
    }
  }

  #confirmDelete() {
    const remove = async () => {
      dialog.close();
      try {
        await request(() => client.deleteStream(this.#id));
        location.hash = "#/streams";
        toast(`Stream ${this.#id} was deleted`);
      } catch (error) {
        toast(describeError(error));
      }
    };
    const dialog = h(
      "dialog",
      { "aria-labelledby": "delete-title" },
      h(
        "div",
        { class: "stack" },
        h("h2", { id: "delete-title" }, `Delete ${this.#id}?`),
        h("p", { class: "muted" }, "This discards its key frame and its counters, and disconnects the client that feeds it."),
        h(
          "div",
          { class: "actions" },
          h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
          h("button", { type: "button", class: "danger", onclick: remove }, "Delete"),
        ),
      ),
    );
    this.#dialog = dialog;
    dialog.addEventListener("close", () => dialog.remove());
    byId("dialogs").append(dialog);
    dialog.showModal();
  }
}
