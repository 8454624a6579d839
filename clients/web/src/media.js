/**
 * Sending cameras and playing videos frame by frame, and video files chunk by chunk.
 *
 * Frames are encoded as H.264 if the browser can do that (WebCodecs), otherwise as JPEG. Browsers offer cameras and
 * WebCodecs to secure pages only: https or localhost.
 */

/** @typedef {import("./keywarp.js").Conversation} Conversation */
/** @typedef {import("./messages.js").Codec} Codec */
/** @typedef {import("./messages.js").Header} Header */
/** @typedef {HTMLVideoElement | OffscreenCanvas} Picture */
/**
 * @typedef {object} FeedOptions
 * @property {number} [width] maximum width in pixels; larger frames are scaled down (1280 by default)
 * @property {number} [fps] maximum frame rate (30 by default)
 * @property {number} [quality] JPEG quality, 0..1 (0.8 by default)
 * @property {number} [bitsPerPixel] bit rate of H.264, in bits per pixel and frame (0.1 by default)
 * @property {number} [keySeconds] seconds between H.264 key frames, from which decoding can restart (2 by default)
 * @property {(id: number, picture: Picture) => void} [onframe] called before a frame is sent; copy the picture to keep it
 */

const CHUNK_BYTES = 256 * 1024;

/** Levels of the H.264 baseline profile, with the most macroblocks per frame that each allows at 30 fps. */
const LEVELS = [
  { blocks: 3600, codec: "avc1.42e01f" }, // 1280x720
  { blocks: 8192, codec: "avc1.42e028" }, // 1920x1080
  { blocks: 36864, codec: "avc1.42e033" }, // 4096x2160
];

/**
 * Open a camera.
 *
 * @param {MediaTrackConstraints} constraints like `{deviceId: {exact: id}, width: 1280}`
 * @returns {Promise<HTMLVideoElement>} the playing camera; to close it, stop the tracks of its `srcObject`
 */
export async function openCamera(constraints = {}) {
  if (!navigator.mediaDevices) throw new Error("browsers offer cameras to secure pages only: open this page over https or on localhost");
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.srcObject = await navigator.mediaDevices.getUserMedia({ video: constraints, audio: false });
  await video.play();
  return video;
}

/**
 * Choose the codec for frames of a given size: H.264 if the browser can encode it, otherwise JPEG images.
 *
 * @param {number} width
 * @param {number} height
 * @returns {Promise<"h264" | "image">}
 */
export async function chooseCodec(width, height) {
  if (typeof VideoEncoder === "undefined") return "image";
  try {
    return (await VideoEncoder.isConfigSupported(h264Config(evenSize(width), evenSize(height), 0.1))).supported ? "h264" : "image";
  } catch {
    return "image";
  }
}

/**
 * Guess the codec of a video file from its name and media type.
 *
 * @param {{name: string, type: string}} file
 * @returns {Codec | null} the codec to connect with, or null if the server doesn't support the file
 */
export function containerOf({ name, type }) {
  const suffix = name.toLowerCase().match(/\.([a-z0-9]+)$/)?.[1] ?? "";
  if (["mp4", "m4v", "mov"].includes(suffix) || /mp4|quicktime/.test(type)) return "mp4";
  if (["webm", "mkv"].includes(suffix) || /webm|matroska/.test(type)) return "webm";
  if (["ts", "m2ts", "mts"].includes(suffix) || /mp2t/.test(type)) return "mpegts";
  if (["h264", "264"].includes(suffix)) return "h264";
  if (["h265", "265", "hevc"].includes(suffix)) return "hevc";
  return null;
}

/**
 * Send a whole file, then end the stream. Results arrive meanwhile.
 *
 * @param {Conversation} conversation opened with the codec `containerOf(file)`, and with `framing: "chunks"` for h264 and hevc
 * @param {Blob} file
 * @param {{onprogress?: (sent: number) => void}} options `onprogress` is called with the bytes sent so far
 * @returns the server's counters
 */
export async function sendFile(conversation, file, { onprogress } = {}) {
  const size = Math.min(CHUNK_BYTES, conversation.ready.max_message_bytes - 64);
  for (let offset = 0; offset < file.size; offset += size) {
    await conversation.send(file.slice(offset, offset + size));
    onprogress?.(Math.min(offset + size, file.size));
  }
  return conversation.end();
}

/** Sends the frames of a camera or a playing video. Frames are skipped while the server gives no credit for them. */
export class Feed {
  #conversation;
  #video;
  #options;
  #canvas = new OffscreenCanvas(2, 2);
  #nextId = 0;
  #lastTime = -Infinity; // seconds
  /** Number of frames that were skipped. */
  skipped = 0;

  /**
   * @param {Conversation} conversation opened with the codec `h264` or `image`
   * @param {HTMLVideoElement} video
   * @param {FeedOptions} options
   */
  constructor(conversation, video, options = {}) {
    this.#conversation = conversation;
    this.#video = video;
    this.#options = options;
  }

  /** Number of frames that were sent or are being encoded. */
  get frames() {
    return this.#nextId;
  }

  /**
   * Send frames until the video or the conversation ends.
   *
   * @param {AbortSignal} [signal] stops sending earlier
   */
  async run(signal) {
    const { fps = 30, onframe } = this.#options;
    const encoder = this.#conversation.codec === "image" ? new JpegEncoder(this.#options) : new H264Encoder(this.#options);
    const send = (/** @type {Uint8Array | Blob} */ payload, /** @type {Header} */ header) =>
      this.#conversation.send(payload, header).catch(() => {}); // Whoever reads the responses gets the same error.
    try {
      while (!this.#conversation.closed && (await nextFrame(this.#video, signal))) {
        const now = performance.now() / 1000;
        if (now - this.#lastTime < 0.9 / fps) continue; // not 1 / fps, since the camera's clock differs from the page's
        if (this.#conversation.room <= encoder.pending) {
          this.skipped += 1;
          continue;
        }
        this.#lastTime = now;
        const id = this.#nextId++;
        const picture = this.#picture(encoder.wantsCanvas);
        onframe?.(id, picture);
        encoder.encode(picture, { id, timestamp: Math.round(now * 1e6) / 1e6 }, send);
      }
    } finally {
      await encoder.close();
    }
  }

  /** @param {boolean} wantsCanvas @returns {Picture} the current frame, in a size that can be encoded */
  #picture(wantsCanvas) {
    const { videoWidth, videoHeight } = this.#video;
    const scale = Math.min(1, (this.#options.width ?? 1280) / videoWidth);
    const [width, height] = [evenSize(videoWidth * scale), evenSize(videoHeight * scale)];
    if (!wantsCanvas && width === videoWidth && height === videoHeight) return this.#video;
    if (this.#canvas.width !== width) this.#canvas.width = width;
    if (this.#canvas.height !== height) this.#canvas.height = height;
    this.#canvas.getContext("2d", { alpha: false })?.drawImage(this.#video, 0, 0, width, height);
    return this.#canvas;
  }
}

/** Encodes pictures as JPEG images and sends them in order. */
class JpegEncoder {
  wantsCanvas = true;
  pending = 0;
  /** @type {Promise<unknown>} */ #lastSend = Promise.resolve();
  #quality;

  /** @param {FeedOptions} options */
  constructor({ quality = 0.8 }) {
    this.#quality = quality;
  }

  /** @param {Picture} picture @param {Header} header @param {(payload: Blob, header: Header) => unknown} send */
  encode(picture, header, send) {
    const canvas = /** @type {OffscreenCanvas} */ (picture);
    const blob = canvas.convertToBlob({ type: "image/jpeg", quality: this.#quality }); // It encodes what the canvas shows now.
    this.pending += 1;
    this.#lastSend = Promise.all([blob, this.#lastSend]).then(([jpeg]) => {
      this.pending -= 1;
      send(jpeg, header);
    });
  }

  async close() {
    await this.#lastSend;
  }
}

/** Encodes pictures as H.264 in Annex B format, one access unit each. */
class H264Encoder {
  wantsCanvas = false;
  #keySeconds;
  #bitsPerPixel;
  #encoder;
  #size = "";
  #lastKeyTime = -Infinity; // seconds
  /** @type {Map<number, {header: Header, send: (payload: Uint8Array, header: Header) => unknown}>} */ #headers = new Map();
  /** @type {Error | null} */ #failure = null;

  /** @param {FeedOptions} options */
  constructor({ keySeconds = 2, bitsPerPixel = 0.1 }) {
    this.#keySeconds = keySeconds;
    this.#bitsPerPixel = bitsPerPixel;
    this.#encoder = new VideoEncoder({
      output: (chunk) => this.#send(chunk),
      error: (error) => (this.#failure = error),
    });
  }

  get pending() {
    return this.#encoder.encodeQueueSize;
  }

  /** @param {Picture} picture @param {Header} header @param {(payload: Uint8Array, header: Header) => unknown} send */
  encode(picture, header, send) {
    if (this.#failure) throw this.#failure;
    const timestamp = Math.round((header.timestamp ?? 0) * 1e6); // microseconds
    const frame = new VideoFrame(picture, { timestamp });
    const size = `${frame.displayWidth}x${frame.displayHeight}`;
    if (size !== this.#size) {
      this.#encoder.configure(h264Config(frame.displayWidth, frame.displayHeight, this.#bitsPerPixel));
      this.#size = size;
      this.#lastKeyTime = -Infinity;
    }
    const keyFrame = (header.timestamp ?? 0) - this.#lastKeyTime >= this.#keySeconds;
    if (keyFrame) this.#lastKeyTime = header.timestamp ?? 0;
    this.#headers.set(timestamp, { header, send });
    this.#encoder.encode(frame, { keyFrame });
    frame.close();
  }

  async close() {
    if (this.#encoder.state === "configured") await this.#encoder.flush().catch(() => {});
    if (this.#encoder.state !== "closed") this.#encoder.close();
  }

  /** @param {EncodedVideoChunk} chunk */
  #send(chunk) {
    const found = this.#headers.get(chunk.timestamp);
    // The encoder drops frames to keep its bit rate, so older headers may have no chunk.
    for (const timestamp of this.#headers.keys()) if (timestamp <= chunk.timestamp) this.#headers.delete(timestamp);
    const payload = new Uint8Array(chunk.byteLength);
    chunk.copyTo(payload);
    found?.send(payload, found.header);
  }
}

/** @param {number} width @param {number} height @param {number} bitsPerPixel @returns {VideoEncoderConfig} */
function h264Config(width, height, bitsPerPixel) {
  const blocks = Math.ceil(width / 16) * Math.ceil(height / 16);
  const level = LEVELS.find((one) => blocks <= one.blocks) ?? LEVELS[LEVELS.length - 1];
  return {
    codec: level.codec,
    width,
    height,
    bitrate: Math.round(Math.max(300_000, width * height * 30 * bitsPerPixel)),
    framerate: 30,
    latencyMode: "realtime",
    avc: { format: "annexb" },
  };
}

/**
 * Wait until a video shows its next frame.
 *
 * @param {HTMLVideoElement} video
 * @param {AbortSignal} [signal]
 * @returns {Promise<boolean>} false if no frame follows
 */
function nextFrame(video, signal) {
  // Unplugging a camera ends its track. In Chromium it doesn't end the video.
  const stream = video.srcObject instanceof MediaStream ? video.srcObject : null;
  /** @type {[EventTarget, string][]} */
  const ends = [[video, "ended"]];
  if (stream) ends.push([stream, "inactive"]);
  for (const track of stream?.getTracks() ?? []) ends.push([track, "ended"]);
  return new Promise((resolve) => {
    if (video.ended || (stream && !stream.active) || signal?.aborted) return resolve(false);
    const settle = (/** @type {boolean} */ more) => {
      video.cancelVideoFrameCallback(handle);
      for (const [target, event] of ends) target.removeEventListener(event, stop);
      signal?.removeEventListener("abort", stop);
      resolve(more);
    };
    const stop = () => settle(false);
    const handle = video.requestVideoFrameCallback(() => settle(true));
    for (const [target, event] of ends) target.addEventListener(event, stop);
    signal?.addEventListener("abort", stop);
  });
}

/** @param {number} size @returns {number} the nearest even size, since H.264 allows no other */
const evenSize = (size) => Math.max(2, 2 * Math.round(size / 2));
