/**
 * What a browser can send: a camera or a playing video, frame by frame, or a file, piece by piece.
 *
 * Frames are sent as H.264 where the browser encodes it (WebCodecs), otherwise as JPEG. Both the camera and WebCodecs
 * need a secure page: https, or localhost.
 */

/** @typedef {import("./keywarp.js").Conversation} Conversation */
/** @typedef {import("./messages.js").Codec} Codec */
/** @typedef {import("./messages.js").Header} Header */
/** @typedef {HTMLVideoElement | OffscreenCanvas} Picture */
/**
 * @typedef {object} FeedOptions
 * @property {number} [width] larger pictures are made as wide as this
 * @property {number} [fps] at most
 * @property {number} [quality] of JPEG, 0..1
 * @property {number} [bitsPerPixel] of H.264
 * @property {number} [keySeconds] between the key frames of H.264, from which decoding can start anew
 * @property {(id: number, picture: Picture) => void} [onframe] a frame is about to be sent; copy the picture to keep it
 */

const CHUNK_BYTES = 256 * 1024;

/** By the macroblocks of a frame: the lowest level of the baseline profile that takes it at 30 fps. */
const LEVELS = [
  { blocks: 3600, codec: "avc1.42e01f" }, // 1280x720
  { blocks: 8192, codec: "avc1.42e028" }, // 1920x1080
  { blocks: 36864, codec: "avc1.42e033" }, // 4096x2160
];

/**
 * Open a camera.
 *
 * @param {MediaTrackConstraints} constraints like `{deviceId: {exact: id}, width: 1280}`
 * @returns {Promise<HTMLVideoElement>} it plays; to close it, stop the tracks of its `srcObject`
 */
export async function openCamera(constraints = {}) {
  if (!navigator.mediaDevices) throw new Error("the browser gives cameras to secure pages only: use https or localhost");
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.srcObject = await navigator.mediaDevices.getUserMedia({ video: constraints, audio: false });
  await video.play();
  return video;
}

/**
 * Choose how to send frames of this size.
 *
 * @param {number} width
 * @param {number} height
 * @returns {Promise<"h264" | "image">}
 */
export async function chooseCodec(width, height) {
  if (typeof VideoEncoder === "undefined") return "image";
  try {
    return (await VideoEncoder.isConfigSupported(h264(even(width), even(height), 0.1))).supported ? "h264" : "image";
  } catch {
    return "image";
  }
}

/**
 * What kind of video a file is, as far as its name and type tell.
 *
 * @param {{name: string, type: string}} file
 * @returns {Codec | null} null: none that the server takes
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
 * Send a whole file and its end; the results come meanwhile.
 *
 * @param {Conversation} conversation with the codec `containerOf` the file (and `framing: "chunks"`)
 * @param {Blob} file
 * @param {{onprogress?: (sent: number) => void}} options
 * @returns the server's counts
 */
export async function sendFile(conversation, file, { onprogress } = {}) {
  const size = Math.min(CHUNK_BYTES, conversation.ready.max_message_bytes - 64);
  for (let at = 0; at < file.size; at += size) {
    await conversation.send(file.slice(at, at + size));
    onprogress?.(Math.min(at + size, file.size));
  }
  return conversation.end();
}

/** Sends the frames of a camera or a playing video. Those for which the server has no room are left out. */
export class Feed {
  #conversation;
  #video;
  #options;
  #canvas = new OffscreenCanvas(2, 2);
  #next = 0;
  #last = -Infinity;
  /** Frames that were left out. */
  skipped = 0;

  /**
   * @param {Conversation} conversation whose codec is `h264` or `image`
   * @param {HTMLVideoElement} video
   * @param {FeedOptions} options
   */
  constructor(conversation, video, options = {}) {
    this.#conversation = conversation;
    this.#video = video;
    this.#options = options;
  }

  /** Frames that were sent, or are about to be. */
  get frames() {
    return this.#next;
  }

  /**
   * Send until the video or the conversation ends, or `signal` says so.
   *
   * @param {AbortSignal} [signal]
   */
  async run(signal) {
    const { fps = 30, onframe } = this.#options;
    const encoder = this.#conversation.codec === "image" ? new Jpegs(this.#options) : new H264(this.#options);
    const send = (/** @type {Uint8Array | Blob} */ payload, /** @type {Header} */ header) =>
      this.#conversation.send(payload, header).catch(() => {}); // why it ended, the one who reads the answers hears
    try {
      while (!this.#conversation.closed && (await nextFrame(this.#video, signal))) {
        const now = performance.now() / 1000;
        if (now - this.#last < 0.9 / fps) continue; // the clocks of camera and page differ a little
        if (this.#conversation.room <= encoder.waiting) {
          this.skipped += 1;
          continue;
        }
        this.#last = now;
        const id = this.#next++;
        const picture = this.#picture(encoder.wantsCanvas);
        onframe?.(id, picture);
        encoder.encode(picture, { id, timestamp: Math.round(now * 1e6) / 1e6 }, send);
      }
    } finally {
      await encoder.close();
    }
  }

  /** @param {boolean} wantsCanvas @returns {Picture} the present frame, in a size that can be sent */
  #picture(wantsCanvas) {
    const { videoWidth, videoHeight } = this.#video;
    const scale = Math.min(1, (this.#options.width ?? 1280) / videoWidth);
    const [width, height] = [even(videoWidth * scale), even(videoHeight * scale)];
    if (!wantsCanvas && width === videoWidth && height === videoHeight) return this.#video;
    if (this.#canvas.width !== width) this.#canvas.width = width;
    if (this.#canvas.height !== height) this.#canvas.height = height;
    this.#canvas.getContext("2d", { alpha: false })?.drawImage(this.#video, 0, 0, width, height);
    return this.#canvas;
  }
}

/** Pictures as JPEG, one after the other. */
class Jpegs {
  wantsCanvas = true;
  waiting = 0;
  /** @type {Promise<unknown>} */ #work = Promise.resolve();
  #quality;

  /** @param {FeedOptions} options */
  constructor({ quality = 0.8 }) {
    this.#quality = quality;
  }

  /** @param {Picture} picture @param {Header} header @param {(payload: Blob, header: Header) => unknown} send */
  encode(picture, header, send) {
    const canvas = /** @type {OffscreenCanvas} */ (picture);
    const blob = canvas.convertToBlob({ type: "image/jpeg", quality: this.#quality }); // of what it shows now
    this.waiting += 1;
    this.#work = Promise.all([blob, this.#work]).then(([jpeg]) => {
      this.waiting -= 1;
      send(jpeg, header);
    });
  }

  async close() {
    await this.#work;
  }
}

/** Pictures as H.264 in Annex-B format, one access unit each. */
class H264 {
  wantsCanvas = false;
  #keySeconds;
  #bitsPerPixel;
  #encoder;
  #size = "";
  #lastKey = -Infinity;
  /** @type {Map<number, {header: Header, send: (payload: Uint8Array, header: Header) => unknown}>} */ #headers = new Map();
  /** @type {Error | null} */ #failure = null;

  /** @param {FeedOptions} options */
  constructor({ keySeconds = 2, bitsPerPixel = 0.1 }) {
    this.#keySeconds = keySeconds;
    this.#bitsPerPixel = bitsPerPixel;
    this.#encoder = new VideoEncoder({
      output: (chunk) => this.#give(chunk),
      error: (error) => (this.#failure = error),
    });
  }

  get waiting() {
    return this.#encoder.encodeQueueSize;
  }

  /** @param {Picture} picture @param {Header} header @param {(payload: Uint8Array, header: Header) => unknown} send */
  encode(picture, header, send) {
    if (this.#failure) throw this.#failure;
    const timestamp = Math.round((header.timestamp ?? 0) * 1e6); // microseconds
    const frame = new VideoFrame(picture, { timestamp });
    const size = `${frame.displayWidth}x${frame.displayHeight}`;
    if (size !== this.#size) {
      this.#encoder.configure(h264(frame.displayWidth, frame.displayHeight, this.#bitsPerPixel));
      this.#size = size;
      this.#lastKey = -Infinity;
    }
    const keyFrame = (header.timestamp ?? 0) - this.#lastKey >= this.#keySeconds;
    if (keyFrame) this.#lastKey = header.timestamp ?? 0;
    this.#headers.set(timestamp, { header, send });
    this.#encoder.encode(frame, { keyFrame });
    frame.close();
  }

  async close() {
    if (this.#encoder.state === "configured") await this.#encoder.flush().catch(() => {});
    if (this.#encoder.state !== "closed") this.#encoder.close();
  }

  /** @param {EncodedVideoChunk} chunk */
  #give(chunk) {
    const found = this.#headers.get(chunk.timestamp);
    // What is older was left out by the encoder to keep its rate.
    for (const timestamp of this.#headers.keys()) if (timestamp <= chunk.timestamp) this.#headers.delete(timestamp);
    const payload = new Uint8Array(chunk.byteLength);
    chunk.copyTo(payload);
    found?.send(payload, found.header);
  }
}

/** @param {number} width @param {number} height @param {number} bitsPerPixel @returns {VideoEncoderConfig} */
function h264(width, height, bitsPerPixel) {
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
 * Wait until a video shows another frame.
 *
 * @param {HTMLVideoElement} video
 * @param {AbortSignal} [signal]
 * @returns {Promise<boolean>} false: none follows
 */
function nextFrame(video, signal) {
  // A camera that is unplugged ends its track, and in Chromium not the video.
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

/** @param {number} size @returns {number} H.264 takes even sizes only */
const even = (size) => Math.max(2, 2 * Math.round(size / 2));
