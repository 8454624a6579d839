/** Plays a video file with the results drawn on it: never faster than they come. */

import { Overlay } from "./overlay.js";

/** @typedef {import("./vendor/messages.js").ClassInfo} ClassInfo */
/** @typedef {import("./vendor/messages.js").Result} Result */
/** @typedef {import("./stage.js").Stage} Stage */

const AHEAD = 0.8; // seconds of results, before it goes on after it had to wait

/**
 * Open a file for playing.
 *
 * @param {Blob} file
 * @param {AbortSignal} signal frees it
 * @returns {Promise<HTMLVideoElement | null>} null: the browser can't play it
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

/** A video and its results. Says `change` when it starts, stops, waits or moves. */
export class Player extends EventTarget {
  /** @type {Result[]} */ #results = []; // by time
  #video;
  #stage;
  #overlay;
  #classes;
  #complete = false;
  #wanted = true; // the user wants it to play
  #frame = new OffscreenCanvas(2, 2);
  #drawing = false;
  /** @type {number | null} */ #next = null; // time of a frame that came while another was drawn
  #named = 0;

  /**
   * @param {HTMLVideoElement} video
   * @param {Stage} stage
   * @param {ClassInfo[]} classes
   * @param {AbortSignal} signal
   */
  constructor(video, stage, classes, signal) {
    super();
    this.#video = video;
    this.#stage = stage;
    this.#classes = classes;
    this.#overlay = new Overlay(classes);
    const frame = (/** @type {number} */ _, /** @type {VideoFrameCallbackMetadata} */ { mediaTime }) => {
      if (signal.aborted) return;
      void this.#draw(mediaTime);
      this.#keepBehind();
      this.#changed();
      video.requestVideoFrameCallback(frame);
    };
    video.requestVideoFrameCallback(frame);
    video.addEventListener("ended", () => this.#changed(), { signal });
    const timer = setInterval(() => this.#keepBehind(), 100); // a busy page isn't told of every frame
    signal.addEventListener("abort", () => clearInterval(timer));
  }

  get playing() {
    return this.#wanted && !this.#video.ended;
  }

  /** Whether it would play, if there were results. */
  get waiting() {
    return this.playing && this.#video.paused;
  }

  get time() {
    return this.#video.currentTime;
  }

  get duration() {
    return this.#video.duration;
  }

  /** Up to where there are results, in seconds. */
  get known() {
    return this.#complete ? this.duration : (this.#results.at(-1)?.timestamp ?? 0);
  }

  /** @param {Result} result the next */
  push(result) {
    if (result.timestamp === undefined) return;
    this.#results.push(result);
    if (this.waiting && result.timestamp >= this.time + AHEAD) this.#go();
  }

  /** No result follows. */
  complete() {
    this.#complete = true;
    if (this.waiting) this.#go();
    this.#changed();
  }

  /** Play or pause; play anew after the end. */
  toggle() {
    if (this.#video.ended) this.#video.currentTime = 0;
    else if (this.#wanted) this.#wanted = false;
    else this.#wanted = true;
    if (this.#wanted) this.#go();
    else this.#video.pause();
    this.#changed();
  }

  /** @param {number} time seconds; no later than there are results */
  seek(time) {
    this.#video.currentTime = Math.min(time, this.known);
  }

  #go() {
    if (this.#complete || this.known > this.time + 0.1) this.#video.play().catch(() => {}); // the tab may forbid it
  }

  #keepBehind() {
    if (!this.#complete && !this.#video.paused && this.time > this.known - 0.1) this.#video.pause();
  }

  /** @param {number} time of the frame that the video shows now, seconds */
  async #draw(time) {
    this.#next = time;
    if (this.#drawing) return;
    this.#drawing = true;
    while (this.#next !== null) {
      const at = this.#next;
      this.#next = null;
      const { videoWidth: width, videoHeight: height } = this.#video;
      if (this.#frame.width !== width) this.#frame.width = width;
      if (this.#frame.height !== height) this.#frame.height = height;
      this.#frame.getContext("2d", { alpha: false })?.drawImage(this.#video, 0, 0); // before it shows the next one
      const result = this.#at(at);
      const found = result && (await this.#overlay.prepare(result));
      this.#stage.note();
      this.#stage.show(this.#frame, width, height, (pen) => found && this.#overlay.draw(pen, found));
      if (result && performance.now() - this.#named > 400) {
        this.#named = performance.now();
        this.#stage.name(result, this.#classes);
      }
    }
    this.#drawing = false;
  }

  /** @param {number} time seconds @returns {Result | null} of the frame shown then */
  #at(time) {
    if (time > this.known + 0.2) return null;
    let [low, high] = [0, this.#results.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      // Browser and server round a frame's time differently.
      if ((this.#results[middle].timestamp ?? 0) <= time + 0.004) low = middle + 1;
      else high = middle;
    }
    return low ? this.#results[low - 1] : null;
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
