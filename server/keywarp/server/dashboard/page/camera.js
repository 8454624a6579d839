/** The view that sends this device's camera, and draws what the server finds. */

import { h, icon } from "./dom.js";
import { Gauge } from "./gauge.js";
import { Insight } from "./insight.js";
import { Options, field, select } from "./options.js";
import { Overlay } from "./overlay.js";
import { ask, client, inWords, sleep } from "./server.js";
import { Stage } from "./stage.js";
import { ApiError, ConnectError, Feed, StreamError, chooseCodec, openCamera } from "./vendor/keywarp.js";

/** @typedef {import("./vendor/keywarp.js").Conversation} Conversation */

/** @param {AbortSignal} signal */
export function cameraView(signal) {
  const stage = new Stage("Your camera, with what was found on it");
  const insight = new Insight("Latency, there and back", signal);
  const gauge = new Gauge("Latency p50", signal);
  const options = new Options({ mode: "latest" });
  const device = select("camera-device", { "": "Default camera" });
  const codec = select("camera-codec", { "": "Automatic", h264: "H.264", image: "JPEG" });
  const width = select("camera-width", { 640: "640 pixels wide", 1280: "1280 pixels wide", 1920: "1920 pixels wide" });
  const failure = h("p", { class: "notice bad", role: "alert" });
  const below = h("div", { class: "under-stage", hidden: true }, stage.legend, insight.timeline);
  const figures = h("div", { class: "stack", hidden: true }, gauge.element, insight.charts);
  const sent = h("span", { class: "muted small number" });
  const start = h("button", { type: "submit", class: "primary" }, icon("play"), "Start");
  const stop = h("button", { type: "button", hidden: true, onclick: () => running?.abort() }, icon("stop"), "Stop");
  const form = h(
    "form",
    { class: "card padded stack aside" },
    h("div", { class: "fields" }, field("Camera", device), field("Size", width), field("Sent as", codec), ...options.elements),
    h("div", { class: "actions" }, start, stop),
  );
  /** @type {AbortController | null} */ let running = null;

  stage.note("The picture is sent to this server only, while the camera runs");
  options.load().catch((error) => (failure.textContent = inWords(error)));
  navigator.mediaDevices?.enumerateDevices().then((found) => fill(device, found));

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    running = new AbortController();
    const inner = AbortSignal.any([signal, running.signal]);
    const controls = [device, codec, width, options];
    for (const control of controls) control.disabled = true;
    start.hidden = true;
    stop.hidden = false;
    stop.focus();
    failure.textContent = "";
    below.hidden = figures.hidden = false;
    insight.clear();
    gauge.clear();
    stage.note("Opening the camera");
    /** @type {HTMLVideoElement | null} */ let camera = null;
    try {
      const ideal = Number(width.value);
      camera = await openCamera({ ...(device.value && { deviceId: { exact: device.value } }), width: { ideal } });
      fill(device, await navigator.mediaDevices.enumerateDevices());
      const chosen = codec.value || (await chooseCodec(camera.videoWidth, camera.videoHeight));
      const hello = { ...options.values, codec: /** @type {"h264" | "image"} */ (chosen) };
      const show = new Show(camera, stage, insight, gauge, ideal);
      sent.textContent = `${camera.videoWidth} × ${camera.videoHeight}, ${chosen === "h264" ? "H.264" : "JPEG"}`;
      await keepSending(hello, show, stage, inner);
    } catch (error) {
      if (!inner.aborted) failure.textContent = inWords(error);
    } finally {
      for (const track of /** @type {MediaStream | null} */ (camera?.srcObject)?.getTracks() ?? []) track.stop();
      for (const control of controls) control.disabled = false;
      start.hidden = false;
      stop.hidden = true;
      sent.textContent = "";
      stage.note("The camera is off");
      if (!signal.aborted) start.focus();
    }
  });

  return h(
    "div",
    { class: "stack" },
    h("div", { class: "head flat" }, h("div", { class: "head-title" }, h("h1", {}, "Camera"), sent)),
    failure,
    h(
      "div",
      { class: "view" },
      form,
      h(
        "div",
        { class: "stack" },
        h("section", { class: "card", "aria-label": "Picture" }, stage.element, below),
        figures,
      ),
    ),
  );
}

/** @param {HTMLSelectElement} list @param {MediaDeviceInfo[]} devices */
function fill(list, devices) {
  const cameras = devices.filter(({ kind, deviceId }) => kind === "videoinput" && deviceId);
  const chosen = list.value;
  const choices = cameras.map(({ deviceId, label }, i) => h("option", { value: deviceId }, label || `Camera ${i + 1}`));
  list.replaceChildren(h("option", { value: "" }, "Default camera"), ...choices);
  list.value = chosen;
}

const GONE = 4410; // the close code of a stream that was deleted or has expired

/**
 * Send until the signal says stop; connect again where the server goes away for a while, or has given up the stream while
 * the page was out of sight, when browsers give no frames.
 *
 * @param {import("./vendor/messages.js").Hello} hello
 * @param {Show} show
 * @param {Stage} stage
 * @param {AbortSignal} signal
 */
async function keepSending(hello, show, stage, signal) {
  let unseen = false; // for a while
  const look = () => (unseen ||= document.hidden);
  document.addEventListener("visibilitychange", look);
  try {
    for (let wait = 1; !signal.aborted; wait = Math.min(8, 2 * wait)) {
      try {
        await inSight(signal);
        unseen = false;
        stage.note("Connecting");
        const conversation = await ask(() => client.connect({ ...hello, signal }));
        wait = 1;
        await show.run(conversation, signal);
      } catch (error) {
        if (signal.aborted) return;
        const refused = error instanceof ApiError || error instanceof StreamError;
        if (error instanceof StreamError && error.code === GONE && unseen) continue;
        if (!(refused ? error.temporary : error instanceof ConnectError)) throw error;
        const seconds = Math.max(wait, (refused && error.retryAfter) || 0);
        stage.note(`${inWords(error, { again: false })} Trying again in ${seconds} s.`);
        await sleep(seconds, signal);
      }
    }
  } finally {
    document.removeEventListener("visibilitychange", look);
  }
}

/** Wait until the page is in sight. @param {AbortSignal} signal ends it early */
async function inSight(signal) {
  while (document.hidden && !signal.aborted) await sleep(0.5, signal);
}

/** Sends a camera and shows each frame with its result. */
class Show {
  #camera;
  #stage;
  #insight;
  #gauge;
  #width;
  /** @type {Map<number, {picture: OffscreenCanvas, time: number}>} */ #waiting = new Map(); // for their results
  /** @type {OffscreenCanvas[]} */ #spare = [];

  /**
   * @param {HTMLVideoElement} camera
   * @param {Stage} stage
   * @param {Insight} insight
   * @param {Gauge} gauge
   * @param {number} width at most
   */
  constructor(camera, stage, insight, gauge, width) {
    this.#camera = camera;
    this.#stage = stage;
    this.#insight = insight;
    this.#gauge = gauge;
    this.#width = width;
  }

  /** @param {Conversation} conversation @param {AbortSignal} signal */
  async run(conversation, signal) {
    const { classes } = conversation.ready.model;
    const overlay = new Overlay(classes);
    const feed = new Feed(conversation, this.#camera, { width: this.#width, onframe: (id, picture) => this.#keep(id, picture) });
    const sending = feed.run(signal).then(
      () => conversation.end(), // where the camera has ended; elsewhere it has
      (error) => {
        conversation.close();
        throw error;
      },
    );
    sending.catch(() => {}); // heard of below
    let named = 0;
    this.#waiting.clear();
    this.#stage.note();
    for await (const answer of conversation) {
      const id = Number(answer.id);
      const frame = this.#waiting.get(id);
      const latency = frame ? performance.now() / 1000 - frame.time : 0;
      this.#insight.push(answer, latency);
      this.#gauge.push(answer, latency);
      if (answer.type === "result" && frame) {
        const found = await overlay.prepare(answer);
        const { picture } = frame;
        this.#stage.show(picture, picture.width, picture.height, (pen) => overlay.draw(pen, found));
        if (performance.now() - named > 400) {
          named = performance.now();
          this.#stage.name(answer, classes);
        }
      }
      this.#release(id);
    }
    await sending;
    if (conversation.done) throw new Error("the camera has ended: is it still connected?");
  }

  /** Copy a frame, to show it when its result is there. @param {number} id @param {HTMLVideoElement | OffscreenCanvas} picture */
  #keep(id, picture) {
    const [width, height] = "videoWidth" in picture ? [picture.videoWidth, picture.videoHeight] : [picture.width, picture.height];
    const copy = this.#spare.pop() ?? new OffscreenCanvas(width, height);
    if (copy.width !== width) copy.width = width;
    if (copy.height !== height) copy.height = height;
    copy.getContext("2d", { alpha: false })?.drawImage(picture, 0, 0);
    this.#waiting.set(id, { picture: copy, time: performance.now() / 1000 });
  }

  /** Answers come in order: what is older than this won't come any more. @param {number} newest */
  #release(newest) {
    for (const [id, { picture }] of this.#waiting) {
      if (id > newest) break;
      this.#waiting.delete(id);
      if (this.#spare.length < 4) this.#spare.push(picture);
    }
  }
}
