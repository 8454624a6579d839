// The messages of `keywarp.v1` and the objects of the REST routes: see docs/protocol.md.

export type Codec = "image" | "h264" | "hevc" | "vp8" | "vp9" | "av1" | "mpegts" | "mp4" | "webm";

export interface StreamOptions {
  model?: string | null; // default: the server's
  interval?: number | null; // default: the model's
  schedule?: "fixed" | "adaptive" | null;
  max_interval?: number | null; // with `adaptive` only
  mode?: "lossless" | "latest" | null;
  masks?: "png" | "rle" | "none" | null;
  resolution?: "model" | "frame" | null;
  sinks?: string[]; // of the server, which also get the answers
}

export interface Hello extends StreamOptions {
  codec?: Codec;
  framing?: "packets" | "chunks";
}

export interface StreamRequest extends StreamOptions {
  id?: string | null;
  source?: string; // a URL that the server pulls
}

export interface Header {
  id?: string | number; // comes back with the result
  timestamp?: number; // likewise
}

export interface ClassInfo {
  id: number;
  name: string;
  color: [number, number, number]; // RGB
}

export interface Model {
  name: string;
  version: string;
  task: string;
  classes: ClassInfo[];
  key_interval: number;
  backend: string;
  device: string; // in `ready` the stream's
  devices: string[]; // in REST: all that its streams are spread over
  precision: string;
  chosen: string; // why that backend on that device
  motion: string;
  state: "ready" | "loading" | "failed" | "draining" | "unloaded";
  reason: string | null; // why it couldn't be loaded
  streams: number | null; // open ones
  draining: number | null; // those of them that go on with an older version
}

export interface Live {
  fps: number; // results per second, over the last ten
  latency_p50: number | null; // seconds, from a frame's arrival to its result
  latency_p95: number | null;
  key_share: number | null; // 0..1
}

export type State = "open" | "connecting" | "running" | "retrying" | "paused" | "ended" | "failed";

export interface StreamInfo {
  id: string;
  model: string;
  device: string; // that its frames are processed on
  interval: number;
  schedule: string;
  max_interval: number | null;
  mode: string;
  connected: boolean;
  age: number;
  idle: number;
  frames: number;
  key_frames: number;
  errors: number;
  dropped: number;
  source: string | null; // of a pulled stream, without credentials
  state: State;
  problem: string | null; // why it is retrying, ended or failed
  reconnects: number;
  live: Live | null;
  sinks: string[];
  watchers: number; // of its results and its pictures
}

export interface Problem {
  title: string;
  status: number;
  type?: string;
  detail?: string;
  retry_after?: number;
}

export interface Region {
  class_id: number;
  name: string;
  area: number; // 0..1 of the frame
  rle?: { size: [number, number]; counts: number[] };
}

export interface Segmentation {
  width: number;
  height: number;
  labels_png?: string; // base64; the pixels are class ids
  regions: Region[];
}

export interface Detection {
  class_id: number;
  name: string;
  confidence: number;
  xyxy: [number, number, number, number]; // pixels of the frame
}

export interface Result {
  type: "result";
  stream: string;
  frame: number;
  id?: string | number;
  timestamp?: number;
  width: number;
  height: number;
  kind: "key" | "propagated";
  key_age: number;
  reason?: string;
  change?: number;
  timings: { decode: number; queue: number; inference: number; postprocess: number };
  segmentation?: Segmentation;
  detections?: Detection[];
}

export interface FrameError {
  type: "error";
  problem: Problem;
  fatal: false;
  frame?: number;
  id?: string | number;
}

export interface Dropped {
  type: "dropped";
  frame: number;
  id?: string | number;
  reason: string;
}

export type Answer = Result | FrameError | Dropped;

/** What a watcher sees beside the answers. */
export type Watched = Answer | { type: "missed"; count: number } | { type: "gone"; reason: string };

export interface Ready {
  type: "ready";
  stream: string;
  model: Model;
  interval: number;
  schedule: string;
  max_interval?: number;
  mode: string;
  credit: number;
  max_message_bytes: number;
}

export interface Done {
  type: "done";
  frames: number;
  key_frames: number;
  errors: number;
  dropped: number;
}
