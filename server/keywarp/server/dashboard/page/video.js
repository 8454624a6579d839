/** The view that streams a video file and plays it with the results drawn on it. */

import { client, describeError, fleetStreams, request, sleep } from "./api.js";
import { h, icon, setText, toast } from "./dom.js";
import { megabytes, number, percent } from "./format.js";
import { ResponseMetrics } from "./metrics.js";
import { PlaybackControls } from "./playback-controls.js";
import { Player, openVideo } from "./player.js";
import { RunMeter } from "./run-meter.js";
import { StreamCharts, serverLatency } from "./stream-charts.js";
import { StreamOptionFields } from "./stream-options.js";
import { containerOf, sendFile } from "./vendor/keywarp.js";
import { VideoSummary } from "./video-summary.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./run-meter.js").Figures} Figures */
/** @typedef {import("./vendor/keywarp.js").Conversation} Conversation */
/** @typedef {import("./vendor/messages.js").Codec} Codec */
/** @typedef {import("./vendor/messages.js").FrameResponse} FrameResponse */
/** @typedef {import("./vendor/messages.js").Ready} Ready */
/** @typedef {import("./vendor/messages.js").StreamOptions} StreamOptions */
/** @typedef {{name: string, ready: Ready, keyed: Figures, everyFrame: Figures | null, notes: string[]}} Measured */

const SAMPLE = "/dashboard/sample.mp4";
const SAMPLE_NAME = "sample"; // of the address that starts the sample at once

/** @typedef {{file: File, codec: Codec, options: StreamOptions, isSample: boolean}} Job a video to process */

/** @param {AbortSignal} signal @param {string} [start] `sample` to start with the sample video */
export function videoView(signal, start) {
  const view = new VideoView(signal);
  if (start === SAMPLE_NAME) void view.startSample();
  return view.element;
}

/** The form, the picture, the figures while a video is processed, and the summary at its end. */
class VideoView {
  #signal;
  #viewer = new Viewer("The video with the results drawn on it");
  #charts;
  #metrics;
  #summary = new VideoSummary();
  #options = new StreamOptionFields({ mode: null });
  #failure = h("p", { class: "notice bad", role: "alert" });
  #status = h("p", { class: "muted small number", role: "status" });
  #progress = h("progress", { class: "progress", max: 1, value: 0, hidden: true, "aria-label": "Sent" });
  #controls = new PlaybackControls();
  #details;
  #figures;
  #picker = h("input", { type: "file", id: "video-file", accept: "video/*,.mkv,.ts,.h264,.h265,.264,.265,.hevc" });
  #start = h("button", { type: "submit", class: "primary" }, icon("video"), "Start");
  #stop = h("button", { type: "button", hidden: true, onclick: () => this.#running.abort() }, icon("stop"), "Stop");
  #sample = h("button", { type: "button", onclick: () => void this.startSample() }, icon("play"), "Try the sample video");
  #running = new AbortController(); // aborts when the user stops what runs
  #playing = new AbortController(); // aborts when another video replaces this one
  /** @type {Player | null} */ #player = null;
  #loaded;
  element;

  /** @param {AbortSignal} signal */
  constructor(signal) {
    this.#signal = signal;
    this.#charts = new StreamCharts("Latency on the server", signal);
    this.#metrics = new ResponseMetrics(signal);
    this.#details = h("div", { class: "viewer-details", hidden: true }, this.#controls.element, this.#viewer.legend, this.#charts.timeline);
    this.#figures = h("div", { class: "stack", hidden: true }, this.#metrics.element, this.#charts.element);
    this.#viewer.showMessage("Every frame is processed, and the video plays as results arrive");
    this.#loaded = this.#options.load().catch((error) => this.#fail(error));
    signal.addEventListener("abort", () => {
      this.#running.abort();
      this.#playing.abort();
    });
    this.element = h(
      "div",
      { class: "stack" },
      h("div", { class: "head flat" }, h("h1", {}, "Video")),
      this.#failure,
      h(
        "div",
        { class: "view" },
        this.#form(),
        h(
          "div",
          { class: "stack" },
          h("section", { class: "card", "aria-label": "Picture" }, this.#viewer.element, this.#details),
          this.#summary.element,
          this.#figures,
        ),
      ),
    );
  }

  #form() {
    const drop = h("div", { class: "drop" }, h("label", { for: "video-file" }, "Choose a video, or drop it here"), this.#picker);
    for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
      drop.addEventListener(name, (event) => {
        event.preventDefault();
        drop.classList.toggle("over", name === "dragenter" || name === "dragover");
        const files = /** @type {DragEvent} */ (event).dataTransfer?.files;
        if (name === "drop" && files?.length) this.#picker.files = files;
      });
    }
    const form = h(
      "form",
      { class: "card padded stack aside" },
      drop,
      h("div", { class: "fields" }, ...this.#options.elements),
      this.#progress,
      this.#status,
      h("div", { class: "actions" }, this.#start, this.#sample, this.#stop),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#failure.textContent = "";
      const file = this.#picker.files?.[0];
      const codec = file && containerOf(file);
      if (file && codec) void this.#process({ file, codec, options: this.#options.values, isSample: false });
      else this.#failure.textContent = file ? "This isn't a video format that the server supports: MP4, WebM, Matroska, MPEG-TS, H.264 or HEVC." : "Choose a video first.";
    });
    return form;
  }

  /** Process the sample video, and compare the figures with those on every frame. */
  async startSample() {
    this.#failure.textContent = "";
    this.#sample.disabled = true;
    try {
      await this.#loaded;
      const file = await fetchSample(this.#signal);
      await this.#process({ file, codec: "mp4", options: this.#options.values, isSample: true });
    } catch (error) {
      if (!this.#signal.aborted) this.#fail(error);
    } finally {
      this.#sample.disabled = false;
    }
  }

  // -- the runs -------------------------------------------------------------------------------------------------------

  /** Process a video while it plays. @param {Job} job */
  async #process(job) {
    const { file, options } = job;
    this.#playing.abort();
    this.#playing = new AbortController();
    this.#summary.clear();
    this.#details.hidden = this.#figures.hidden = this.#metrics.element.hidden = false;
    this.#charts.clear();
    this.#metrics.clear();
    this.#viewer.element.scrollIntoView({ block: "nearest" }); // It is below the form on small screens.
    /** @type {string[]} */ const lines = [];
    await this.#whileRunning(async (running) => {
      const playable = await openVideo(file, this.#playing.signal);
      this.#player = null;
      const meter = new RunMeter();
      const { ready, done } = await this.#send(job, options, running, {
        onready: (conversation) => {
          const player = playable && new Player(playable, this.#viewer, conversation.ready.model, this.#playing.signal);
          this.#player = player;
          this.#controls.use(player, this.#playing.signal);
          this.#viewer.showMessage(player ? "Waiting for the first results" : "The browser can't play this video, so the server's preview is shown");
          if (!player) void showPreview(conversation, this.#viewer, running);
        },
        onresponse: (response) => {
          meter.push(response);
          this.#charts.push(response);
          this.#metrics.push(response, response.type === "result" ? serverLatency(response) : 0);
          if (response.type === "result") this.#player?.push(response);
          lines.push(`${JSON.stringify(response)}\n`);
        },
      });
      /** @type {Player | null} */ (this.#player)?.complete();
      if (!done) return;
      setText(this.#status, `Done: ${number(done.frames)} results, ${number(done.key_frames)} of them key frames`);
      this.#metrics.element.hidden = true; // The summary stays instead.
      const measured = { name: file.name, ready, keyed: meter.figures, everyFrame: null, notes: done.notes ?? [] };
      this.#summary.show(measured);
      this.#offer(job, measured, lines);
      if (job.isSample) await this.#compare(job, measured, running);
    });
    if (lines.length && this.#summary.element.hidden) this.#status.append(" ", saveButton("Results so far (NDJSON)", `${file.name}.ndjson`, () => Promise.resolve(new Blob(lines))));
  }

  /**
   * Offer what can be done after a video was processed.
   *
   * @param {Job} job
   * @param {Measured} measured
   * @param {string[]} lines the responses
   */
  #offer(job, measured, lines) {
    const { file } = job;
    const stem = file.name.replace(/\.[^.]*$/, "");
    const { signal } = this.#playing;
    /** @type {Promise<Blob> | null} */ let annotated = null; // kept until another video starts
    const annotate = () => {
      annotated ??= this.#annotate(job, measured, signal).catch((error) => {
        annotated = null;
        throw error;
      });
      return annotated;
    };
    const compare = h("button", { type: "button" }, "Compare with every frame");
    compare.addEventListener("click", () => void this.#whileRunning((running) => this.#compare(job, measured, running)));
    compare.hidden = job.isSample || measured.ready.interval === 1;
    this.#summary.actions.replaceChildren(
      saveButton("Annotated video (MP4)", `${stem}-annotated.mp4`, annotate),
      saveButton("Results (NDJSON)", `${file.name}.ndjson`, () => Promise.resolve(new Blob(lines, { type: "application/x-ndjson" }))),
      compare,
    );
  }

  /**
   * Measure the video again without playing it: with key frames and on every frame.
   *
   * @param {Job} job
   * @param {Measured} measured
   * @param {AbortSignal} running
   */
  async #compare(job, measured, running) {
    while (this.#player?.playing && !running.aborted) {
      setText(this.#status, "The comparison begins when the video has ended, or is paused");
      await sleep(0.2, running);
    }
    const { interval: _interval, schedule: _schedule, max_interval: _most, ...others } = job.options;
    const figures = [];
    for (const options of [job.options, { ...others, interval: 1, schedule: /** @type {const} */ ("fixed"), overlap: 0 }]) {
      const meter = new RunMeter({ warm: true });
      await this.#send(job, options, running, { onresponse: (response) => meter.push(response) });
      figures.push(meter.figures);
    }
    this.#summary.show({ ...measured, keyed: figures[0], everyFrame: figures[1] });
    setText(this.#status, "Done: measured with key frames and on every frame");
  }

  /** Let the server draw the results into the video. @param {Job} job @param {Measured} measured @param {AbortSignal} signal */
  async #annotate({ file, codec, options }, { keyed }, signal) {
    const id = `annotated-${crypto.getRandomValues(new Uint32Array(1))[0].toString(16)}`;
    const over = new AbortController();
    const follow = async () => {
      for (;;) {
        await sleep(0.5, over.signal);
        if (over.signal.aborted) return;
        const stream = (await fleetStreams(over.signal)).streams.find((one) => one.id === id);
        if (stream) setText(this.#status, `Drawing: ${number(stream.frames)} of ${number(keyed.results)} frames`);
      }
    };
    follow().catch(() => {}); // It only tells the progress.
    try {
      setText(this.#status, "Sending the video to be drawn on");
      const video = await request(() => client.annotate(file, { ...options, codec, id, signal }));
      setText(this.#status, `The annotated video has ${megabytes(video.size)}`);
      return video;
    } catch (error) {
      setText(this.#status, "");
      throw error;
    } finally {
      over.abort();
    }
  }

  /**
   * Send a video to the server as a new stream.
   *
   * @param {Job} job
   * @param {StreamOptions} options
   * @param {AbortSignal} running
   * @param {{onready?: (conversation: Conversation) => void, onresponse: (response: FrameResponse) => void}} callbacks
   */
  async #send({ file, codec }, options, running, { onready, onresponse }) {
    const framing = codec === "h264" || codec === "hevc" ? { framing: /** @type {const} */ ("chunks") } : {};
    const conversation = await request(() => client.connect({ ...options, ...framing, codec, signal: running }));
    onready?.(conversation);
    const sending = sendFile(conversation, file, {
      onprogress: (sent) => {
        this.#progress.value = sent / file.size;
        setText(this.#status, `${megabytes(sent)} of ${megabytes(file.size)} sent (${percent(sent / file.size)} %)`);
      },
    });
    sending.catch(() => {}); // It is awaited below, and the iteration throws the same error.
    for await (const response of conversation) onresponse(response);
    return { ready: conversation.ready, done: await sending };
  }

  /** Do something that the user can stop, with the form disabled. @param {(running: AbortSignal) => Promise<void>} action */
  async #whileRunning(action) {
    this.#running = new AbortController();
    const controls = [this.#options, this.#picker, this.#sample, ...this.#summary.actions.querySelectorAll("button")];
    this.#start.hidden = true;
    this.#stop.hidden = this.#progress.hidden = false;
    this.#failure.textContent = "";
    for (const control of controls) control.disabled = true;
    try {
      await action(this.#running.signal);
    } catch (error) {
      if (this.#running.signal.aborted) setText(this.#status, "Stopped");
      else this.#fail(error);
    } finally {
      this.#start.hidden = false;
      this.#stop.hidden = this.#progress.hidden = true;
      for (const control of controls) control.disabled = false;
    }
  }

  /** @param {unknown} error */
  #fail(error) {
    this.#failure.textContent = describeError(error);
  }
}

/** Get the server's sample video. @param {AbortSignal} signal @returns {Promise<File>} */
async function fetchSample(signal) {
  const response = await fetch(SAMPLE, { signal });
  if (!response.ok) throw new Error((await response.json()).detail);
  return new File([await response.blob()], "sample.mp4", { type: "video/mp4" });
}

/**
 * Create a button that saves a file, which is made when it is clicked.
 *
 * @param {string} label
 * @param {string} name the file's
 * @param {() => Promise<Blob>} make
 */
function saveButton(label, name, make) {
  const button = h("button", { type: "button" }, icon("download"), label);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const url = URL.createObjectURL(await make());
      h("a", { href: url, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      toast(describeError(error));
    } finally {
      button.disabled = false;
    }
  });
  return button;
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
