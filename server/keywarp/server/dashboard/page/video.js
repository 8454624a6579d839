/** The view that sends a video file, and plays it with what the server finds. */

import { h, icon, setText } from "./dom.js";
import { clock, megabytes, number, percent } from "./format.js";
import { Gauge } from "./gauge.js";
import { Insight, serverLatency } from "./insight.js";
import { Options } from "./options.js";
import { Player, openVideo } from "./player.js";
import { ask, client, inWords } from "./server.js";
import { Stage } from "./stage.js";
import { containerOf, sendFile } from "./vendor/keywarp.js";

/** @typedef {import("./vendor/keywarp.js").Conversation} Conversation */

/** @param {AbortSignal} signal */
export function videoView(signal) {
  const stage = new Stage("The video, with what was found on it");
  const insight = new Insight("Latency on the server", signal);
  const gauge = new Gauge("Latency p50", signal);
  const options = new Options({ mode: null });
  const failure = h("p", { class: "notice bad", role: "alert" });
  const status = h("p", { class: "muted small number", role: "status" });
  const progress = h("progress", { class: "progress", max: 1, value: 0, hidden: true, "aria-label": "Sent" });
  const controls = new Controls();
  const below = h("div", { class: "under-stage", hidden: true }, controls.element, stage.legend, insight.timeline);
  const figures = h("div", { class: "stack", hidden: true }, gauge.element, insight.charts);
  const picker = h("input", { type: "file", id: "video-file", accept: "video/*,.mkv,.ts,.h264,.h265,.264,.265,.hevc" });
  const start = h("button", { type: "submit", class: "primary" }, icon("video"), "Start");
  const stop = h("button", { type: "button", hidden: true, onclick: () => running.abort() }, icon("stop"), "Stop");
  const save = h("button", { type: "button", hidden: true }, icon("download"), "Results (NDJSON)");
  const drop = h("div", { class: "drop" }, h("label", { for: "video-file" }, "Choose a video, or drop it here"), picker);
  const form = h(
    "form",
    { class: "card padded stack aside" },
    drop,
    h("div", { class: "fields" }, ...options.elements),
    progress,
    status,
    h("div", { class: "actions" }, start, stop, save),
  );
  let running = new AbortController();
  let shown = new AbortController(); // the video on the stage

  stage.note("Each frame is processed; the video plays as the results come");
  options.load().catch((error) => (failure.textContent = inWords(error)));
  signal.addEventListener("abort", () => {
    running.abort();
    shown.abort();
  });
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragenter" || name === "dragover");
      const files = /** @type {DragEvent} */ (event).dataTransfer?.files;
      if (name === "drop" && files?.length) picker.files = files;
    });
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    failure.textContent = "";
    const file = picker.files?.[0];
    const codec = file && containerOf(file);
    if (!file || !codec) {
      failure.textContent = file ? "This isn't a video that the server takes: MP4, WebM, Matroska, MPEG-TS, H.264 or HEVC." : "Choose a video first.";
      return;
    }
    shown.abort();
    running = new AbortController();
    shown = new AbortController();
    start.hidden = true;
    stop.hidden = false;
    save.hidden = true;
    options.disabled = picker.disabled = true;
    below.hidden = figures.hidden = progress.hidden = false;
    insight.clear();
    gauge.clear();
    /** @type {string[]} */ const lines = [];
    try {
      const playable = await openVideo(file, shown.signal);
      const framing = codec === "h264" || codec === "hevc" ? { framing: /** @type {const} */ ("chunks") } : {};
      const hello = { ...options.values, ...framing, codec, signal: running.signal };
      const conversation = await ask(() => client.connect(hello));
      const { classes } = conversation.ready.model;
      const player = playable && new Player(playable, stage, classes, shown.signal);
      controls.use(player, shown.signal);
      stage.note(player ? "Waiting for the first results" : "The browser can't play this video: here is what the server sees");
      if (!player) void preview(conversation, stage, running.signal);
      const sending = sendFile(conversation, file, {
        onprogress: (sent) => {
          progress.value = sent / file.size;
          setText(status, `${megabytes(sent)} of ${megabytes(file.size)} sent (${percent(sent / file.size)} %)`);
        },
      });
      sending.catch(() => {}); // the answers tell it, too
      for await (const answer of conversation) {
        insight.push(answer);
        gauge.push(answer, answer.type === "result" ? serverLatency(answer) : 0);
        if (answer.type === "result") player?.push(answer);
        lines.push(`${JSON.stringify(answer)}\n`);
      }
      const done = await sending;
      player?.complete();
      if (done) setText(status, `Done: ${number(done.frames)} results, ${number(done.key_frames)} of them key frames`);
    } catch (error) {
      if (running.signal.aborted) setText(status, "Stopped");
      else failure.textContent = inWords(error);
    } finally {
      start.hidden = false;
      stop.hidden = true;
      options.disabled = picker.disabled = false;
      save.hidden = !lines.length;
      save.onclick = () => download(`${file.name}.ndjson`, lines);
    }
  });

  return h(
    "div",
    { class: "stack" },
    h("div", { class: "head flat" }, h("h1", {}, "Video")),
    failure,
    h(
      "div",
      { class: "view" },
      form,
      h("div", { class: "stack" }, h("section", { class: "card", "aria-label": "Picture" }, stage.element, below), figures),
    ),
  );
}

/** Play, pause, seek. */
class Controls {
  /** @type {Player | null} */ #player = null;
  #toggle = h("button", { type: "button", class: "icon-button", "aria-label": "Play", onclick: () => this.#player?.toggle() }, icon("play"));
  #seek = h("input", { type: "range", min: 0, max: 0, step: 0.01, value: 0, "aria-label": "Position" });
  #time = h("span", { class: "muted small number" });
  element = h("div", { class: "play", hidden: true }, this.#toggle, this.#seek, this.#time);

  constructor() {
    this.#seek.addEventListener("input", () => this.#player?.seek(this.#seek.valueAsNumber));
  }

  /** @param {Player | null} player @param {AbortSignal} signal */
  use(player, signal) {
    this.#player = player;
    this.element.hidden = !player;
    player?.addEventListener("change", () => this.#show(player), { signal });
  }

  /** @param {Player} player */
  #show(player) {
    const [action, symbol] = player.playing ? ["Pause", "pause"] : ["Play", "play"];
    if (this.#toggle.getAttribute("aria-label") !== action) {
      this.#toggle.setAttribute("aria-label", action);
      this.#toggle.replaceChildren(icon(symbol));
    }
    this.#seek.max = String(player.duration);
    this.#seek.value = String(player.time);
    this.#seek.setAttribute("aria-valuetext", `${clock(player.time)} of ${clock(player.duration)}`);
    setText(this.#time, `${clock(player.time)} / ${clock(player.duration)}${player.waiting ? " · waiting for results" : ""}`);
  }
}

/** @param {Conversation} conversation @param {Stage} stage @param {AbortSignal} signal */
async function preview(conversation, stage, signal) {
  try {
    for await (const jpeg of client.preview(conversation.ready.stream, { fps: 15, width: 960, signal })) {
      const picture = await createImageBitmap(jpeg);
      stage.note();
      stage.show(picture, picture.width, picture.height);
      picture.close();
    }
  } catch {
    // Without a picture the results still come.
  }
}

/** @param {string} name @param {string[]} lines */
function download(name, lines) {
  const url = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
