/** The view that streams a video file and plays it with the results drawn on it. */

import { client, describeError, request } from "./api.js";
import { h, icon, setText } from "./dom.js";
import { clock, megabytes, number, percent } from "./format.js";
import { ResponseMetrics } from "./metrics.js";
import { Player, openVideo } from "./player.js";
import { StreamCharts, serverLatency } from "./stream-charts.js";
import { StreamOptionFields } from "./stream-options.js";
import { containerOf, sendFile } from "./vendor/keywarp.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./vendor/keywarp.js").Conversation} Conversation */

/** @param {AbortSignal} signal */
export function videoView(signal) {
  const viewer = new Viewer("The video with the results drawn on it");
  const charts = new StreamCharts("Latency on the server", signal);
  const metrics = new ResponseMetrics(signal);
  const options = new StreamOptionFields({ mode: null });
  const failure = h("p", { class: "notice bad", role: "alert" });
  const status = h("p", { class: "muted small number", role: "status" });
  const progress = h("progress", { class: "progress", max: 1, value: 0, hidden: true, "aria-label": "Sent" });
  const controls = new PlaybackControls();
  const details = h("div", { class: "viewer-details", hidden: true }, controls.element, viewer.legend, charts.timeline);
  const figures = h("div", { class: "stack", hidden: true }, metrics.element, charts.element);
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
  let running = new AbortController(); // aborts when the upload is stopped
  let playing = new AbortController(); // aborts when another video replaces this one

  viewer.showMessage("Every frame is processed, and the video plays as results arrive");
  options.load().catch((error) => (failure.textContent = describeError(error)));
  signal.addEventListener("abort", () => {
    running.abort();
    playing.abort();
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
      failure.textContent = file ? "This isn't a video format that the server supports: MP4, WebM, Matroska, MPEG-TS, H.264 or HEVC." : "Choose a video first.";
      return;
    }
    playing.abort();
    running = new AbortController();
    playing = new AbortController();
    start.hidden = true;
    stop.hidden = false;
    save.hidden = true;
    options.disabled = picker.disabled = true;
    details.hidden = figures.hidden = progress.hidden = false;
    charts.clear();
    metrics.clear();
    /** @type {string[]} */ const lines = [];
    try {
      const playable = await openVideo(file, playing.signal);
      const framing = codec === "h264" || codec === "hevc" ? { framing: /** @type {const} */ ("chunks") } : {};
      const hello = { ...options.values, ...framing, codec, signal: running.signal };
      const conversation = await request(() => client.connect(hello));
      const { model } = conversation.ready;
      const player = playable && new Player(playable, viewer, model, playing.signal);
      controls.use(player, playing.signal);
      viewer.showMessage(player ? "Waiting for the first results" : "The browser can't play this video, so the server's preview is shown");
      if (!player) void showPreview(conversation, viewer, running.signal);
      const sending = sendFile(conversation, file, {
        onprogress: (sent) => {
          progress.value = sent / file.size;
          setText(status, `${megabytes(sent)} of ${megabytes(file.size)} sent (${percent(sent / file.size)} %)`);
        },
      });
      sending.catch(() => {}); // It is awaited below, and the iteration throws the same error.
      for await (const response of conversation) {
        charts.push(response);
        metrics.push(response, response.type === "result" ? serverLatency(response) : 0);
        if (response.type === "result") player?.push(response);
        lines.push(`${JSON.stringify(response)}\n`);
      }
      const done = await sending;
      player?.complete();
      if (done) setText(status, `Done: ${number(done.frames)} results, ${number(done.key_frames)} of them key frames`);
    } catch (error) {
      if (running.signal.aborted) setText(status, "Stopped");
      else failure.textContent = describeError(error);
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
      h("div", { class: "stack" }, h("section", { class: "card", "aria-label": "Picture" }, viewer.element, details), figures),
    ),
  );
}

/** The play button, the position slider and the time. */
class PlaybackControls {
  /** @type {Player | null} */ #player = null;
  #playButton = h("button", { type: "button", class: "icon-button", "aria-label": "Play", onclick: () => this.#player?.toggle() }, icon("play"));
  #seek = h("input", { type: "range", min: 0, max: 0, step: 0.01, value: 0, "aria-label": "Position" });
  #time = h("span", { class: "muted small number" });
  element = h("div", { class: "play", hidden: true }, this.#playButton, this.#seek, this.#time);

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
    if (this.#playButton.getAttribute("aria-label") !== action) {
      this.#playButton.setAttribute("aria-label", action);
      this.#playButton.replaceChildren(icon(symbol));
    }
    this.#seek.max = String(player.duration);
    this.#seek.value = String(player.time);
    this.#seek.setAttribute("aria-valuetext", `${clock(player.time)} of ${clock(player.duration)}`);
    setText(this.#time, `${clock(player.time)} / ${clock(player.duration)}${player.waiting ? " · waiting for results" : ""}`);
  }
}

/** Show the server's preview. @param {Conversation} conversation @param {Viewer} viewer @param {AbortSignal} signal */
async function showPreview(conversation, viewer, signal) {
  try {
    for await (const jpeg of client.preview(conversation.ready.stream, { fps: 15, width: 960, signal })) {
      const picture = await createImageBitmap(jpeg);
      viewer.showMessage();
      viewer.show(picture, picture.width, picture.height);
      picture.close();
    }
  } catch {
    // Results still arrive without a preview.
  }
}

/** Save lines as a file. @param {string} name @param {string[]} lines */
function download(name, lines) {
  const url = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
