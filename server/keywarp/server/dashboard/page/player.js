/** Plays a video file with the results drawn on it, and waits where there are no results yet. */

import { Overlay } from "./overlay.js";

/** @typedef {import("./vendor/messages.js").Model} Model */
/** @typedef {import("./vendor/messages.js").Result} Result */
/** @typedef {import("./viewer.js").Viewer} Viewer */

const RESUME_LEAD = 0.8; // seconds of results needed before a video that waits resumes

/**
 * Open a video file in the browser.
 *
 * @param {Blob} file
 * @param {AbortSignal} signal frees the file
 * @returns {Promise<HTMLVideoElement | null>} the paused video, or null if the browser can't play it
 */
export function openVideo(file, signal) {
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.preload = "auto";
  const url = URL.createObjectURL(file);
  signal.addEventListener("abort", () => {
    video.pause();
    video.removeAttribute("src");
    video.load();
    URL.revokeObjectURL(url);
  });
  return new Promise((resolve) => {
    video.addEventListener("loadeddata", () => resolve(video.videoWidth ? video : null), { once: true });
    video.addEventListener("error", () => resolve(null), { once: true });
    video.src = url;
  });
}

/** A video with its results. Dispatches `change` when it starts, stops, waits or moves. */
export class Player extends EventTarget {
  /** @type {Result[]} */ #results = []; // in order of their timestamps
  #video;
  #viewer;
  #overlay;
  #classes;
  #complete = false;
  #wantsToPlay = true; // the user's choice
  #frame = new OffscreenCanvas(2, 2);
  #drawing = false;
  /** @type {number | null} */ #nextTime = null; // of the newest frame to draw, seconds

  /**
   * @param {HTMLVideoElement} video
   * @param {Viewer} viewer
   * @param {Model} model
   * @param {AbortSignal} signal
   */
  constructor(video, viewer, model, signal) {
    super();
    this.#video = video;
    this.#viewer = viewer;
    this.#classes = model.classes;
    this.#overlay = new Overlay(model.classes, model.keypoints);
    const frame = (/** @type {number} */ _, /** @type {VideoFrameCallbackMetadata} */ { mediaTime }) => {
      if (signal.aborted) return;
      void this.#draw(mediaTime);
      this.#pauseWithoutResults();
      this.#dispatchChange();
      video.requestVideoFrameCallback(frame);
    };
    video.requestVideoFrameCallback(frame);
    video.addEventListener("ended", () => this.#dispatchChange(), { signal });
    const timer = setInterval(() => this.#pauseWithoutResults(), 100); // A busy page misses frame callbacks.
    signal.addEventListener("abort", () => clearInterval(timer));
  }

  get playing() {
    return this.#wantsToPlay && !this.#video.ended;
  }

  /** Whether it pauses only because results are missing. */
  get waiting() {
    return this.playing && this.#video.paused;
  }

  get time() {
    return this.#video.currentTime;
  }

  get duration() {
    return this.#video.duration;
  }

  /** Seconds up to which there are results. */
  get resultsEnd() {
    return this.#complete ? this.duration : (this.#results.at(-1)?.timestamp ?? 0);
  }

  /** Add a result. @param {Result} result the next in order */
  push(result) {
    if (result.timestamp === undefined) return;
    this.#results.push(result);
    if (this.waiting && result.timestamp >= this.time + RESUME_LEAD) this.#play();
  }

  /** Mark the results as complete. */
  complete() {
    this.#complete = true;
    if (this.waiting) this.#play();
    this.#dispatchChange();
  }

  /** Play or pause. After the end, play from the start. */
  toggle() {
    if (this.#video.ended) this.#video.currentTime = 0;
    else this.#wantsToPlay = !this.#wantsToPlay;
    if (this.#wantsToPlay) this.#play();
    else this.#video.pause();
    this.#dispatchChange();
  }

  /** Seek, at most to the newest result. @param {number} time seconds */
  seek(time) {
    this.#video.currentTime = Math.min(time, this.resultsEnd);
  }

  #play() {
    if (this.#complete || this.resultsEnd > this.time + 0.1) this.#video.play().catch(() => {}); // The browser may forbid it.
  }

  #pauseWithoutResults() {
    if (!this.#complete && !this.#video.paused && this.time > this.resultsEnd - 0.1) this.#video.pause();
  }

  /** Draw the current frame. @param {number} time the frame's time in seconds */
  async #draw(time) {
    this.#nextTime = time;
    if (this.#drawing) return;
    this.#drawing = true;
    while (this.#nextTime !== null) {
      const current = this.#nextTime;
      this.#nextTime = null;
      const { videoWidth: width, videoHeight: height } = this.#video;
      if (this.#frame.width !== width) this.#frame.width = width;
      if (this.#frame.height !== height) this.#frame.height = height;
      this.#frame.getContext("2d", { alpha: false })?.drawImage(this.#video, 0, 0); // Copied before the video shows the next frame.
      const result = this.#resultAt(current);
      const prepared = result && (await this.#overlay.prepare(result));
      this.#viewer.showMessage();
      this.#viewer.show(this.#frame, width, height, (context) => prepared && this.#overlay.draw(context, prepared));
      if (result) this.#viewer.showLegend(result, this.#classes);
    }
    this.#drawing = false;
  }

  /** Find the result of the frame at a time. @param {number} time seconds @returns {Result | null} */
  #resultAt(time) {
    if (time > this.resultsEnd + 0.2) return null;
    let [low, high] = [0, this.#results.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      // The browser and the server round a frame's time differently.
      if ((this.#results[middle].timestamp ?? 0) <= time + 0.004) low = middle + 1;
      else high = middle;
    }
    return low ? this.#results[low - 1] : null;
  }

  #dispatchChange() {
    this.dispatchEvent(new Event("change"));
  }
}
