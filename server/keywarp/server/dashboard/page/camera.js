/** The view that streams this device's camera and draws the results on it. */

import { client, describeError, request, sleep } from "./api.js";
import { h, icon } from "./dom.js";
import { ResponseMetrics } from "./metrics.js";
import { Overlay } from "./overlay.js";
import { StreamCharts } from "./stream-charts.js";
import { StreamOptionFields, field, select } from "./stream-options.js";
import { ApiError, ConnectError, Feed, StreamError, chooseCodec, openCamera } from "./vendor/keywarp.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./vendor/keywarp.js").Conversation} Conversation */

/** @param {AbortSignal} signal */
export function cameraView(signal) {
  const viewer = new Viewer("Your camera with the results drawn on it");
  const charts = new StreamCharts("Round-trip latency", signal);
  const metrics = new ResponseMetrics(signal);
  const options = new StreamOptionFields({ mode: "latest" });
  const device = select("camera-device", { "": "Default camera" });
  const codec = select("camera-codec", { "": "Automatic", h264: "H.264", image: "JPEG" });
  const width = select("camera-width", { 640: "640 pixels wide", 1280: "1280 pixels wide", 1920: "1920 pixels wide" });
  const failure = h("p", { class: "notice bad", role: "alert" });
  const details = h("div", { class: "viewer-details", hidden: true }, viewer.legend, charts.timeline);
  const figures = h("div", { class: "stack", hidden: true }, metrics.element, charts.element);
  const format = h("span", { class: "muted small number" });
  const start = h("button", { type: "submit", class: "primary" }, icon("play"), "Start");
  const stop = h("button", { type: "button", hidden: true, onclick: () => running?.abort() }, icon("stop"), "Stop");
  const form = h(
    "form",
    { class: "card padded stack aside" },
    h("div", { class: "fields" }, field("Camera", device), field("Size", width), field("Sent as", codec), ...options.elements),
    h("div", { class: "actions" }, start, stop),
  );
  /** @type {AbortController | null} */ let running = null;

  viewer.showMessage("The picture is sent only to this server, and only while the camera is on");
  options.load().catch((error) => (failure.textContent = describeError(error)));
  navigator.mediaDevices?.enumerateDevices().then((found) => fillDevices(device, found));

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
    details.hidden = figures.hidden = false;
    charts.clear();
    metrics.clear();
    viewer.showMessage("Opening the camera");
    /** @type {HTMLVideoElement | null} */ let camera = null;
    try {
      const ideal = Number(width.value);
      camera = await openCamera({ ...(device.value && { deviceId: { exact: device.value } }), width: { ideal } });
      fillDevices(device, await navigator.mediaDevices.enumerateDevices());
      const chosen = codec.value || (await chooseCodec(camera.videoWidth, camera.videoHeight));
      const hello = { ...options.values, codec: /** @type {"h264" | "image"} */ (chosen) };
      const session = new CameraSession(camera, viewer, charts, metrics, ideal);
      format.textContent = `${camera.videoWidth} × ${camera.videoHeight}, ${chosen === "h264" ? "H.264" : "JPEG"}`;
      await keepStreaming(hello, session, viewer, inner);
    } catch (error) {
      if (!inner.aborted) failure.textContent = describeError(error);
    } finally {
      for (const track of /** @type {MediaStream | null} */ (camera?.srcObject)?.getTracks() ?? []) track.stop();
      for (const control of controls) control.disabled = false;
      start.hidden = false;
      stop.hidden = true;
      format.textContent = "";
      viewer.showMessage("The camera is off");
      if (!signal.aborted) start.focus();
    }
  });

  return h(
    "div",
    { class: "stack" },
    h("div", { class: "head flat" }, h("div", { class: "head-title" }, h("h1", {}, "Camera"), format)),
    failure,
    h(
      "div",
      { class: "view" },
      form,
      h(
        "div",
        { class: "stack" },
        h("section", { class: "card", "aria-label": "Picture" }, viewer.element, details),
        figures,
      ),
    ),
  );
}

/** Fill the list of cameras. @param {HTMLSelectElement} list @param {MediaDeviceInfo[]} devices */
function fillDevices(list, devices) {
  const cameras = devices.filter(({ kind, deviceId }) => kind === "videoinput" && deviceId);
  const chosen = list.value;
  const choices = cameras.map(({ deviceId, label }, i) => h("option", { value: deviceId }, label || `Camera ${i + 1}`));
  list.replaceChildren(h("option", { value: "" }, "Default camera"), ...choices);
  list.value = chosen;
}

const STREAM_GONE = 4410; // close code of a stream that was deleted or has expired

/**
 * Stream the camera until the signal aborts. Reconnect if the server is away for a while, or if the stream expired while the
 * page was hidden, since browsers deliver no frames to hidden pages.
 *
 * @param {import("./vendor/messages.js").Hello} hello
 * @param {CameraSession} session
 * @param {Viewer} viewer
 * @param {AbortSignal} signal
 */
async function keepStreaming(hello, session, viewer, signal) {
  let wasHidden = false; // since the last connection
  const onVisibility = () => (wasHidden ||= document.hidden);
  document.addEventListener("visibilitychange", onVisibility);
  try {
    for (let wait = 1; !signal.aborted; wait = Math.min(8, 2 * wait)) {
      try {
        await untilVisible(signal);
        wasHidden = false;
        viewer.showMessage("Connecting");
        const conversation = await request(() => client.connect({ ...hello, signal }));
        wait = 1;
        await session.run(conversation, signal);
      } catch (error) {
        if (signal.aborted) return;
        const refused = error instanceof ApiError || error instanceof StreamError;
        if (error instanceof StreamError && error.code === STREAM_GONE && wasHidden) continue;
        if (!(refused ? error.temporary : error instanceof ConnectError)) throw error;
        const seconds = Math.max(wait, (refused && error.retryAfter) || 0);
        viewer.showMessage(`${describeError(error, { retry: false })} Trying again in ${seconds} s.`);
        await sleep(seconds, signal);
      }
    }
  } finally {
    document.removeEventListener("visibilitychange", onVisibility);
  }
}

/** Wait until the page is visible. @param {AbortSignal} signal ends the wait early */
async function untilVisible(signal) {
  while (document.hidden && !signal.aborted) await sleep(0.5, signal);
}

/** Streams a camera over one connection after the other, and shows each frame with its result. */
class CameraSession {
  #camera;
  #viewer;
  #charts;
  #metrics;
  #width;
  /** @type {Map<number, {picture: OffscreenCanvas, time: number}>} */ #pending = new Map(); // frames without a response, by id
  /** @type {OffscreenCanvas[]} */ #spareCanvases = [];

  /**
   * @param {HTMLVideoElement} camera
   * @param {Viewer} viewer
   * @param {StreamCharts} charts
   * @param {ResponseMetrics} metrics
   * @param {number} width maximum width of the frames that are sent, in pixels
   */
  constructor(camera, viewer, charts, metrics, width) {
    this.#camera = camera;
    this.#viewer = viewer;
    this.#charts = charts;
    this.#metrics = metrics;
    this.#width = width;
  }

  /** @param {Conversation} conversation @param {AbortSignal} signal */
  async run(conversation, signal) {
    const { classes, keypoints } = conversation.ready.model;
    const overlay = new Overlay(classes, keypoints);
    const feed = new Feed(conversation, this.#camera, { width: this.#width, onframe: (id, picture) => this.#keepFrame(id, picture) });
    const sending = feed.run(signal).then(
      () => conversation.end(), // The camera has ended, unless the conversation has.
      (error) => {
        conversation.close();
        throw error;
      },
    );
    sending.catch(() => {}); // It is awaited below.
    this.#pending.clear();
    this.#viewer.showMessage();
    for await (const response of conversation) {
      const id = Number(response.id);
      const frame = this.#pending.get(id);
      const latency = frame ? performance.now() / 1000 - frame.time : 0;
      this.#charts.push(response, latency);
      this.#metrics.push(response, latency);
      if (response.type === "result" && frame) {
        const prepared = await overlay.prepare(response);
        const { picture } = frame;
        this.#viewer.show(picture, picture.width, picture.height, (context) => overlay.draw(context, prepared));
        this.#viewer.showLegend(response, classes);
      }
      this.#releaseFrames(id);
    }
    await sending;
    if (conversation.done) throw new Error("the camera has ended: check that it is still connected");
  }

  /** Copy a frame, to show it once its result arrives. @param {number} id @param {HTMLVideoElement | OffscreenCanvas} picture */
  #keepFrame(id, picture) {
    const [width, height] = "videoWidth" in picture ? [picture.videoWidth, picture.videoHeight] : [picture.width, picture.height];
    const copy = this.#spareCanvases.pop() ?? new OffscreenCanvas(width, height);
    if (copy.width !== width) copy.width = width;
    if (copy.height !== height) copy.height = height;
    copy.getContext("2d", { alpha: false })?.drawImage(picture, 0, 0);
    this.#pending.set(id, { picture: copy, time: performance.now() / 1000 });
  }

  /** Free frames up to `newest`. Responses arrive in order, so no older one will. @param {number} newest frame id */
  #releaseFrames(newest) {
    for (const [id, { picture }] of this.#pending) {
      if (id > newest) break;
      this.#pending.delete(id);
      if (this.#spareCanvases.length < 4) this.#spareCanvases.push(picture);
    }
  }
}
