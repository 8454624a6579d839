// The messages of the protocol `keywarp.v1` and the objects of the REST API, which docs/protocol.md describes.

export type Codec = "image" | "h264" | "hevc" | "vp8" | "vp9" | "av1" | "mpegts" | "mp4" | "webm";

export interface StreamOptions {
  model?: string | null; // the server's default if not given
  interval?: number | null; // the model's default if not given
  schedule?: "fixed" | "adaptive" | null;
  max_interval?: number | null; // only with the schedule `adaptive`
  max_age?: number | null; // seconds; if the key frame is older, the next frame is a key frame
  overlap?: number | null; // frames by which key frames overlap with others; the server's default if not given
  max_fps?: number | null; // the most frames per second that are processed; all if not given
  mode?: "lossless" | "latest" | null;
  masks?: "png" | "rle" | "none" | null;
  resolution?: "model" | "frame" | null;
  reliability?: "none" | "map" | null; // with `map`, results say where they can be trusted
  track?: boolean | null; // whether objects get a `track_id` that they keep from frame to frame
  upright?: boolean | null; // whether frames are turned as the image or video says; they are if not given
  video?: number | null; // which of a container's videos, from 0
  sinks?: string[]; // names of the server's sinks that also receive the responses
}

export interface CameraOptions extends StreamOptions {
  hidden?: [number, number][][] | null; // regions that are made black, as corners in shares of the frame
}

export interface WatchedOptions extends CameraOptions {
  watched_by?: Record<string, unknown> | null; // zones, lines and rules, as `PUT /v1/streams/{id}/rules` has them
}

export interface Hello extends WatchedOptions {
  codec?: Codec;
  framing?: "packets" | "chunks";
  orientation?: number | null; // how the frames of bare packets are turned, as EXIF numbers it
  resumed?: boolean | null; // whether a stream goes on after a break, with the `options` of `ready`
}

export interface StreamRequest extends CameraOptions {
  id?: string | null;
  source?: string; // URL that the server pulls the stream from
}

export interface Header {
  id?: string | number; // returned with the response
  timestamp?: number; // seconds; returned with the result, and used to measure key ages
}

export interface ClassInfo {
  id: number;
  name: string;
  color: [number, number, number]; // RGB
}

export interface Keypoints {
  names: string[];
  skeleton: [number, number][]; // indices of points that lines join
}

export interface Model {
  name: string;
  version: string;
  task: string;
  classes: ClassInfo[];
  background: boolean; // whether class 0 is the background, which is neither drawn nor counted
  keypoints?: Keypoints | null; // of its objects
  key_interval: number;
  backend: string;
  device: string; // in `ready`, the device of the stream
  devices: string[]; // in REST responses, all devices that run the model
  precision: string;
  chosen: string; // why this backend and device were chosen
  motion: string;
  state: "ready" | "loading" | "failed" | "draining" | "unloaded";
  reason: string | null; // why the model couldn't be loaded
  streams: number | null; // open streams
  draining: number | null; // open streams that still use an older version
}

export interface LiveStatistics {
  fps: number; // results per second, over the last 10 s
  latency_p50: number | null; // seconds, from a frame's arrival to its result
  latency_p95: number | null; // seconds
  key_share: number | null; // share of key frames, 0..1
  key_age_seconds: number | null; // the age of the oldest key frame that a result was propagated from
  reliability?: number | null; // 0..1, mean of the propagated results
}

export type State = "open" | "connecting" | "running" | "retrying" | "unauthorized" | "paused" | "ended" | "failed";

export interface StreamInfo {
  id: string;
  model: string;
  device: string; // device that processes its frames
  interval: number;
  schedule: string;
  max_interval: number | null;
  max_age: number | null; // seconds
  overlap?: number; // frames
  max_fps?: number | null; // frames per second
  mode: string;
  connected: boolean; // whether a client feeds it, or frames come from its source
  age: number; // seconds since the stream was created
  idle: number; // seconds since its last frame
  frame_age: number | null; // seconds since its last result
  frames: number;
  key_frames: number;
  errors: number;
  dropped: number;
  source: string | null; // URL of a pulled stream, without credentials
  state: State;
  problem: string | null; // why the stream is retrying, has ended or has failed
  reconnects: number;
  kept: boolean; // whether it is pulled again after a restart of the server
  notes?: string[]; // what one should know about its video
  live: LiveStatistics | null;
  sinks: string[];
  track?: boolean; // whether its objects have a `track_id`
  title?: string | null; // its camera's name for people
  rules?: string[]; // the names of the rules that it is watched by
  watchers: number; // subscribers to its results and its preview, and sinks
  server?: string | null; // host and port of its server, in the list of a fleet
}

export interface Problem {
  title: string;
  status: number;
  type?: string;
  detail?: string;
  retry_after?: number; // seconds
}

/** COCO's uncompressed run lengths, down the columns, alternately outside and inside the mask. */
export interface RunLengths {
  size: [number, number]; // height and width
  counts: number[];
}

export interface Region {
  class_id: number;
  name: string;
  area: number; // share of the frame, 0..1
  rle?: RunLengths;
}

export interface Segmentation {
  width: number;
  height: number;
  labels_png?: string; // PNG in base64 whose pixels are class ids
  regions: Region[];
}

export interface Detection {
  class_id: number;
  name: string;
  confidence: number;
  xyxy: [number, number, number, number]; // x1 y1 x2 y2 in pixels of the frame
  reliability?: number; // 0..1, how well motion explains the frame in the box; not on key frames
  track_id?: number | null; // from 1, the same on all frames; with the option `track`, once an object was seen twice
  mask?: RunLengths | null; // unless the stream asked for the masks `none`
  keypoints?: [number, number, number][] | null; // x and y in pixels of the frame, and confidence from 0 to 1
}

/** A map of numbers that covers the frame, such as the depth. */
export interface Dense {
  width: number; // of the map, pixels
  height: number;
  quantity: string; // what the numbers are
  unit?: string;
  minimum: number; // of the numbers on this frame
  maximum: number;
  // 16-bit grey PNG in base64: minimum + pixel / 65535 * (maximum - minimum). A canvas keeps only 8 bits of it.
  values_png?: string;
}

export interface Result {
  type: "result";
  stream: string;
  frame: number;
  run?: string; // names a frame for ever together with `frame`, which begins again after a restart
  id?: string | number;
  timestamp?: number;
  time?: string; // when the frame reached the server, UTC
  width: number;
  height: number;
  kind: "key" | "propagated";
  key_age: number; // frames, dropped ones included
  key_age_seconds?: number;
  reason?: string;
  change?: number;
  motion?: string; // the motion source that was used; not on key frames
  reliability?: number; // 0..1, how well motion explains the frame where it matters; not on key frames
  reliability_png?: string; // PNG in base64, a pixel per cell, 255 for 1; with the option `reliability: "map"`
  timings: { decode: number; queue: number; inference: number; postprocess: number }; // seconds
  segmentation?: Segmentation;
  detections?: Detection[];
  dense?: Dense;
}

export interface FrameError {
  type: "error";
  problem: Problem;
  fatal: false;
  stream?: string;
  time?: string; // UTC
  frame?: number;
  id?: string | number;
}

export interface Dropped {
  type: "dropped";
  stream?: string;
  time?: string; // UTC
  frame: number;
  run?: string; // names a frame for ever together with `frame`, which begins again after a restart
  id?: string | number;
  reason: string;
}

/** The server's response to one frame. */
export type FrameResponse = Result | FrameError | Dropped;

/** A message to a subscriber. `missed` counts responses that were skipped because the subscriber was too slow. */
export type WatchMessage = FrameResponse | { type: "missed"; count: number } | { type: "gone"; reason: string };

/** What a rule of a stream reports. */
export interface StreamEvent {
  type: "event";
  id: string;
  state: "started" | "ended";
  stream: string;
  camera: string; // its name for people
  rule: string;
  start: string; // UTC, like `end`
  end?: string | null; // once it has ended
  frame: number; // on which it started
  classes: string[];
  zone?: string | null;
  line?: string | null;
  direction?: "left" | "right" | "both" | null; // of a crossing
  objects?: number[]; // track ids
  count?: number; // the most objects at the same time
  confidence?: number | null; // the highest
  area?: number | null; // the largest
  snapshot?: string | null; // path of a JPEG
  clip?: string | null; // path of an MP4
}

/** x and y as shares of the frame's width and height, from its top left corner. */
export type Point = [number, number];

/** What to report: objects or classes in a zone, or objects that cross a line. */
export interface Rule {
  classes?: string[]; // names; empty: all of the model's
  zone?: string | null; // where; anywhere on the frame if not given
  line?: string | null; // a line to cross, instead of a zone
  direction?: "both" | "left" | "right"; // to which side of the line, seen from its first point to its second
  min_confidence?: number; // of an object, 0..1
  min_area?: number; // of an object's box, as a share of the frame; of a segmentation's classes, as a share of the zone
  min_seconds?: number; // for how long an object, or the classes, must be there
  min_count?: number; // how many objects must be there at the same time
  cooldown?: number; // seconds after an event in which no other begins
  times?: string[]; // of the day, such as `22:00-06:00`; empty: always
  days?: Day[]; // on which a time begins; empty: all
}

export type Day = "mon" | "tue" | "wed" | "thu" | "fri" | "sat" | "sun";

/** The zones, lines and rules of one camera. */
export interface Rules {
  title?: string | null; // the camera's name for people
  timezone?: string; // of the rules' times
  zones?: Record<string, Point[]>; // corners
  lines?: Record<string, [Point, Point]>;
  rules?: Record<string, Rule>;
  clip_before?: number; // seconds
  clip_after?: number; // seconds; 0: no clips
  events?: string[]; // names of the server's sinks that get the events
}

/** The names of what a reload has changed. */
export interface Changes {
  added: string[];
  changed: string[];
  removed: string[];
}

/** What reading the operator's files again has changed. */
export interface Reloaded {
  streams: Changes; // of the site file
  sinks: Changes;
  keys: Changes;
  failed: Record<string, string>; // why streams couldn't be started or changed, by name
}

export interface Fleet {
  servers: { address: string; streams: number | null; problem: string | null }[]; // the one that was asked comes first
  streams: StreamInfo[]; // of the servers that answered
}

export interface Ready {
  type: "ready";
  stream: string;
  model: Model;
  interval: number;
  schedule: string;
  max_interval?: number;
  max_age?: number; // seconds
  overlap?: number; // frames
  mode: string;
  credit: number;
  max_message_bytes: number;
  options?: WatchedOptions; // what the stream was created with
}

export interface Done {
  type: "done";
  frames: number;
  key_frames: number;
  errors: number;
  dropped: number;
  notes?: string[]; // what one should know about the video
}
