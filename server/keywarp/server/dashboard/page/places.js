/** Places on a camera's picture: zones and lines, and their geometry. Points are shares of the picture. */

/** @typedef {import("./vendor/messages.js").Point} Point */
/** @typedef {{kind: "zone" | "line", name: string, points: Point[]}} Place */

export const MAX_CORNERS = 64; // of a zone
const DECIMALS = 4; // of coordinates

/** A shape to begin with, for those who don't draw. @type {Record<Place["kind"], Point[]>} */
export const STANDARD = {
  zone: [
    [0.3, 0.4],
    [0.7, 0.4],
    [0.7, 0.8],
    [0.3, 0.8],
  ],
  line: [
    [0.3, 0.6],
    [0.7, 0.6],
  ],
};

/** @param {Point[]} points @returns {Point[]} */
export const copyOf = (points) => points.map(([x, y]) => [x, y]);

/** The middles of a zone's sides, of which each can become a corner. @param {Place} place @returns {Point[]} */
export function middlesOf({ kind, points }) {
  if (kind === "line" || points.length >= MAX_CORNERS) return [];
  return points.map(([x, y], i) => {
    const [nextX, nextY] = points[(i + 1) % points.length];
    return rounded((x + nextX) / 2, (y + nextY) / 2);
  });
}

/** What a drag from one point to another draws: a rectangle, or a line. @param {Place["kind"]} kind @param {Point} a @param {Point} b @returns {Point[]} */
export function dragged(kind, a, b) {
  if (kind === "line") return [a, b];
  return [
    [a[0], a[1]],
    [b[0], a[1]],
    [b[0], b[1]],
    [a[0], b[1]],
  ];
}

/** @param {number} x @param {number} y @returns {Point} within the picture */
export function rounded(x, y) {
  const round = (/** @type {number} */ value) => Number(Math.min(1, Math.max(0, value)).toFixed(DECIMALS));
  return [round(x), round(y)];
}

/** @param {Point[]} corners @param {Point} point @returns {boolean} whether a point is in a polygon, by the even-odd rule */
export function isInside(corners, [x, y]) {
  let inside = false;
  corners.forEach(([x1, y1], i) => {
    const [x2, y2] = corners[(i + 1) % corners.length];
    if (y1 > y !== y2 > y && x < x1 + ((y - y1) / (y2 - y1)) * (x2 - x1)) inside = !inside;
  });
  return inside;
}
