/** The view of one stream, whoever feeds it: its picture, its key frames, how it does. */

import { byId, h, icon, setText, toast } from "./dom.js";
import { duration, latency, number, percent, rate } from "./format.js";
import { Figures } from "./gauge.js";
import { Insight } from "./insight.js";
import { ask, client, inWords, keepWatching, poll, sentence } from "./server.js";
import { Stage } from "./stage.js";
import { showState } from "./streams.js";

/** @typedef {import("./vendor/messages.js").ClassInfo} ClassInfo */
/** @typedef {import("./vendor/messages.js").StreamInfo} StreamInfo */

const PREVIEW = { fps: 12, width: 960 };

/** @param {AbortSignal} outer @param {string} id */
export function streamView(outer, id) {
  const ended = new AbortController(); // the stream has
  let endedAt = 0;
  const signal = AbortSignal.any([outer, ended.signal]);
  const stage = new Stage(`Live picture of stream ${id}, with what was found on it`);
  const insight = new Insight("Latency on the server", outer);
  const figures = new Figures(["Frames/s", "Latency p50", "Latency p95", "Key frames", "Frames", "Dropped", "Errors"]);
  const badge = h("span", { class: "badge" }, "Loading");
  const facts = h("dl", { class: "facts" });
  const notice = h("p", { class: "notice", role: "status" });
  const actions = new Actions(id, outer);

  const end = (/** @type {string} */ why) => {
    if (ended.signal.aborted) return;
    ended.abort();
    endedAt = performance.now();
    notice.textContent = why;
    badge.className = "badge";
    badge.textContent = "Gone";
    actions.element.replaceChildren();
    if (!stage.pictures) stage.note("There is no picture any more");
  };
  stage.note("Waiting for a frame");

  void poll(
    async (inner) => {
      const stream = (await client.streams({ signal: inner })).find((one) => one.id === id);
      if (!stream) {
        end("This stream is gone.");
      } else if (ended.signal.aborted) {
        const isNew = stream.age < (performance.now() - endedAt) / 1000;
        if (isNew) dispatchEvent(new Event("hashchange")); // another one of this name: begin anew
      } else {
        showState(badge, stream);
        showFigures(figures, stream);
        showFacts(facts, stream);
        actions.show(stream);
        setText(notice, stream.problem ? `${sentence(stream.problem)}.` : ""); // said once, not every second
        if (stream.state === "paused") stage.note("Paused");
        else if (stage.pictures) stage.note();
      }
    },
    1,
    outer,
  );
  void watchResults(id, stage, insight, signal, end);
  void keepWatching(async (inner) => {
    for await (const jpeg of client.preview(id, { ...PREVIEW, signal: inner })) {
      const picture = await createImageBitmap(jpeg);
      stage.show(picture, picture.width, picture.height);
      if (stage.pictures === 1) stage.note();
      picture.close();
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
      { class: "view" },
      h(
        "div",
        { class: "stack" },
        h("section", { class: "card", "aria-label": "Picture" }, stage.element, h("div", { class: "under-stage" }, stage.legend, insight.timeline)),
        figures.element,
        insight.charts,
      ),
      h("section", { class: "card padded aside", "aria-label": "Settings" }, facts),
    ),
  );
}

/**
 * @param {string} id
 * @param {Stage} stage
 * @param {Insight} insight
 * @param {AbortSignal} signal
 * @param {(why: string) => void} end
 */
async function watchResults(id, stage, insight, signal, end) {
  /** @type {ClassInfo[]} */ let classes = [];
  let named = 0;
  await keepWatching(async (inner) => {
    if (!classes.length) {
      const [stream, models] = await Promise.all([client.stream(id), client.models()]);
      classes = models.find((model) => model.name === stream.model)?.classes ?? [];
    }
    for await (const message of client.results(id, { signal: inner })) {
      if (message.type === "gone") {
        end(`This stream has ended: ${message.reason}.`);
        return false;
      }
      if (message.type === "missed") continue;
      insight.push(message);
      if (message.type === "result" && performance.now() - named > 400) {
        named = performance.now(); // names that change with every frame can't be read
        stage.name(message, classes);
      }
    }
    return true;
  }, signal);
}

/** @param {Figures} figures @param {StreamInfo} stream */
function showFigures(figures, { live, frames, dropped, errors }) {
  figures.show("Frames/s", rate(live?.fps));
  figures.show("Latency p50", ...latency(live?.latency_p50));
  figures.show("Latency p95", ...latency(live?.latency_p95));
  figures.show("Key frames", percent(live?.key_share), "%");
  figures.show("Frames", number(frames));
  figures.show("Dropped", number(dropped));
  figures.show("Errors", number(errors));
}

/** @param {HTMLElement} list @param {StreamInfo} stream */
function showFacts(list, stream) {
  const interval = stream.schedule === "adaptive" ? `${stream.interval} in the mean, at most ${stream.max_interval}` : stream.interval;
  /** @type {Record<string, string | number | null>} */
  const facts = {
    Model: stream.model,
    Device: stream.device,
    Schedule: stream.schedule,
    "Key interval": interval,
    "If busy": stream.mode === "latest" ? "newest wins" : "every frame",
    "Key frames so far": number(stream.key_frames),
    Source: stream.source,
    Reconnects: stream.source && number(stream.reconnects),
    Sinks: stream.sinks.length ? stream.sinks.join(", ") : null,
    Age: duration(stream.age),
    Watchers: number(stream.watchers),
  };
  const said = JSON.stringify(facts);
  if (list.dataset.said === said) return;
  list.dataset.said = said;
  const rows = Object.entries(facts).filter(([, value]) => value !== null && value !== undefined);
  list.replaceChildren(...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

/** What can be done with a stream. */
class Actions {
  #id;
  #paused = false;
  #pause;
  /** @type {HTMLDialogElement | null} */ #dialog = null;
  element;

  /** @param {string} id @param {AbortSignal} signal */
  constructor(id, signal) {
    this.#id = id;
    this.#pause = h("button", { type: "button", hidden: true, onclick: () => this.#toggle() });
    const remove = h("button", { type: "button", class: "danger", onclick: () => this.#confirm() }, icon("trash"), "Delete");
    this.element = h("div", { class: "actions" }, this.#pause, remove);
    signal.addEventListener("abort", () => this.#dialog?.remove());
  }

  /** @param {StreamInfo} stream */
  show({ source, state }) {
    this.#pause.hidden = !source || state === "ended" || state === "failed";
    if (this.#paused === (state === "paused") && this.#pause.hasChildNodes()) return;
    this.#paused = state === "paused";
    this.#pause.replaceChildren(icon(this.#paused ? "play" : "pause"), this.#paused ? "Resume" : "Pause");
  }

  async #toggle() {
    this.#pause.disabled = true;
    try {
      const stream = await ask(() => (this.#paused ? client.resume(this.#id) : client.pause(this.#id)));
      this.show(stream);
    } catch (error) {
      toast(inWords(error));
    } finally {
      this.#pause.disabled = false;
    }
  }

  #confirm() {
    const remove = async () => {
      dialog.close();
      try {
        await ask(() => client.deleteStream(this.#id));
        location.hash = "#/streams";
        toast(`Stream ${this.#id} is deleted`);
      } catch (error) {
        toast(inWords(error));
      }
    };
    const dialog = h(
      "dialog",
      { "aria-labelledby": "delete-title" },
      h(
        "div",
        { class: "stack" },
        h("h2", { id: "delete-title" }, `Delete ${this.#id}?`),
        h("p", { class: "muted" }, "Its key frame and its counts are gone, and whoever feeds it is disconnected."),
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
