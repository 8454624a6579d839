/** The editor of places: zones and lines that are drawn over a picture with the mouse, a finger or the keyboard. */

import { svg } from "./dom.js";
import { percent } from "./format.js";
import { MAX_CORNERS, STANDARD, copyOf, dragged, isInside, middlesOf, rounded } from "./places.js";

/** @typedef {import("./places.js").Place} Place */
/** @typedef {import("./vendor/messages.js").Point} Point */

const CORNER = 6; // radius in CSS pixels, like the next ones
const MIDDLE = 4.5;
const TARGET = 13; // radius of what reacts to the pointer
const TEXT = 13;
const ARROW = 34; // length
const NEAR = 14; // a click this close to the first corner closes the zone; a shorter drag is a click
const STEP = 0.01; // share of the picture by which an arrow key moves a corner; a tenth of it with Shift
const ARROW_KEYS = /** @type {Record<string, Point>} */ ({ ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] });

/**
 * Draws places over a picture, and lets the user change them. It covers the element that shows the picture, scaled to
 * fit like that. Dispatches `change` when a place has changed, `select` when another one is selected, and `drawing` when
 * drawing begins or ends.
 */
export class PlaceEditor extends EventTarget {
  element = svg("svg", { class: "places", role: "group", "aria-label": "Zones and lines on the picture" });
  /** @type {Place[]} */ #places = [];
  /** @type {Place | null} */ #selected = null;
  /** @type {Drawing | null} */ #drawing = null;
  #size = [1600, 900]; // of the picture
  #unit = 1; // a CSS pixel in units of the picture

  /** @param {AbortSignal} signal ends the updates */
  constructor(signal) {
    super();
    const resized = new ResizeObserver(() => this.render());
    resized.observe(this.element);
    signal.addEventListener("abort", () => resized.disconnect());
    this.element.addEventListener("pointerdown", (event) => this.#press(/** @type {PointerEvent} */ (event)));
    this.element.addEventListener("pointermove", (event) => this.#hover(/** @type {PointerEvent} */ (event)));
    this.element.addEventListener("pointerup", (event) => this.#release(/** @type {PointerEvent} */ (event)));
    this.element.addEventListener("mousedown", (event) => event.preventDefault()); // It would take the focus from a corner.
    const keys = (/** @type {KeyboardEvent} */ event) => this.#drawByKey(event);
    document.addEventListener("keydown", keys, { signal });
  }

  /** The place that can be changed. */
  get selected() {
    return this.#selected;
  }

  /** What is being drawn, or null. */
  get drawing() {
    return this.#drawing?.place.kind ?? null;
  }

  /** Show places. @param {Place[]} places changed in place @param {Place | null} [selected] */
  show(places, selected = null) {
    this.#places = places;
    this.#drawing = null;
    this.select(selected);
  }

  /** Fit a picture of another size. @param {number} width @param {number} height */
  resize(width, height) {
    if (this.#size[0] === width && this.#size[1] === height) return;
    this.#size = [width, height];
    this.render();
  }

  /** @param {Place | null} place */
  select(place) {
    this.#selected = place;
    this.render();
    this.dispatchEvent(new Event("select"));
  }

  /** Begin to draw. @param {Place["kind"]} kind @param {string} name */
  draw(kind, name) {
    this.#drawing = new Drawing({ kind, name, points: [] });
    this.select(null);
    this.dispatchEvent(new Event("drawing"));
  }

  /** End drawing without a result. */
  cancel() {
    if (!this.#drawing) return;
    this.#drawing = null;
    this.render();
    this.dispatchEvent(new Event("drawing"));
  }

  /** Whether what was drawn so far is complete. */
  get canFinish() {
    return this.#drawing !== null && this.#drawing.place.points.length >= (this.drawing === "zone" ? 3 : 2);
  }

  /** Take what was drawn, or a standard shape. @param {boolean} standard */
  finish(standard = false) {
    if (!this.#drawing || !(standard || this.canFinish)) return;
    const { place } = this.#drawing;
    if (standard) place.points = copyOf(STANDARD[place.kind]);
    this.#drawing = null;
    this.#places.push(place);
    this.select(place);
    this.#changed();
    this.dispatchEvent(new Event("drawing"));
    this.focus(0);
  }

  /** Focus a corner of the selected place. @param {number} index */
  focus(index) {
    /** @type {SVGElement | null} */ (this.element.querySelector(`[data-corner="${index}"]`))?.focus();
  }

  /** Draw everything anew. The focused corner stays focused. */
  render() {
    const [width, height] = this.#size;
    this.element.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.element.classList.toggle("drawing", this.#drawing !== null);
    this.element.classList.toggle("editing", this.#selected !== null);
    const { clientWidth, clientHeight } = this.element;
    if (!clientWidth) return;
    this.#unit = 1 / Math.min(clientWidth / width, clientHeight / height);
    const focused = document.activeElement?.getAttribute("data-corner");
    const hadFocus = focused && this.element.contains(document.activeElement);
    const shapes = this.#places.map((place) => this.#shape(place));
    const handles = this.#selected ? this.#handles(this.#selected) : [];
    this.element.replaceChildren(...shapes, ...handles, ...(this.#drawing ? this.#unfinished(this.#drawing) : []));
    if (hadFocus) this.focus(Math.min(Number(focused), (this.#selected?.points.length ?? 1) - 1));
  }

  // -- shapes ---------------------------------------------------------------------------------------------------------

  /** @param {Place} place */
  #shape(place) {
    const group = svg("g", { class: place === this.#selected ? "place selected" : "place" });
    const points = this.#coordinates(place.points);
    if (place.kind === "zone") {
      group.append(svg("polygon", { class: "place-shape", points }));
    } else {
      group.append(svg("polyline", { class: "place-shape", points }), ...this.#arrow(place));
    }
    const highest = place.points.reduce((top, point) => (point[1] < top[1] ? point : top));
    group.append(this.#text(highest, place.name, 4, -8));
    return group;
  }

  /** An arrow to the right side of a line, as the server draws it. @param {Place} place */
  #arrow({ points: [first, last] }) {
    const [x1, y1] = this.#toPicture(first);
    const [x2, y2] = this.#toPicture(last);
    const length = Math.hypot(x2 - x1, y2 - y1) || 1;
    const [right, down] = [-(y2 - y1) / length, (x2 - x1) / length]; // to the right, of length 1
    const [x, y] = [(x1 + x2) / 2, (y1 + y2) / 2];
    const reach = ARROW * this.#unit;
    const [tipX, tipY] = [x + reach * right, y + reach * down];
    const head = 0.28 * reach;
    const wing = (/** @type {number} */ side) => `${tipX - head * right + side * head * down},${tipY - head * down - side * head * right}`;
    return [svg("polyline", { class: "place-arrow", points: `${x},${y} ${tipX},${tipY}` }), svg("polyline", { class: "place-arrow", points: `${wing(1)} ${tipX},${tipY} ${wing(-1)}` })];
  }

  /** @param {Place} place @returns {Element[]} */
  #handles(place) {
    const middles = middlesOf(place).map((middle) => {
      const [cx, cy] = this.#toPicture(middle);
      return svg("circle", { class: "place-middle", cx, cy, r: MIDDLE * this.#unit });
    });
    return [...middles, ...place.points.map((_, i) => this.#corner(place, i))];
  }

  /** @param {Place} place @param {number} index */
  #corner(place, index) {
    const { kind, name, points } = place;
    const [x, y] = points[index];
    const [cx, cy] = this.#toPicture(points[index]);
    const part = kind === "zone" ? `Corner ${index + 1} of ${points.length} of zone` : `${index ? "Last" : "First"} point of line`;
    const handle = svg(
      "g",
      {
        class: "place-corner",
        tabindex: 0,
        role: "button",
        "data-corner": index,
        "aria-label": `${part} ${name}: ${percent(x)} % from the left, ${percent(y)} % from the top`,
        "aria-describedby": "places-keys",
      },
      svg("circle", { class: "place-dot", cx, cy, r: CORNER * this.#unit }),
    );
    if (kind === "line") handle.append(this.#text(points[index], index ? "2" : "1", 10, 14));
    handle.addEventListener("keydown", (event) => this.#moveByKey(/** @type {KeyboardEvent} */ (event), place, index));
    return handle;
  }

  /** @param {Drawing} drawing */
  #unfinished({ place: { kind, points }, pointer, preview }) {
    const shown = preview ?? (pointer ? [...points, pointer] : points);
    const closed = kind === "zone" && shown.length > 2;
    const dots = points.map((point) => {
      const [cx, cy] = this.#toPicture(point);
      return svg("circle", { class: "place-dot", cx, cy, r: CORNER * this.#unit });
    });
    return [svg(closed ? "polygon" : "polyline", { class: "place-shape unfinished", points: this.#coordinates(shown) }), ...dots];
  }

  /** @param {Point} at @param {string} text @param {number} right in CSS pixels, like the next one @param {number} down */
  #text(at, text, right, down) {
    const [x, y] = this.#toPicture(at);
    const size = TEXT * this.#unit;
    return svg("text", { class: "place-name", x: x + right * this.#unit, y: Math.max(y + down * this.#unit, size), "font-size": size }, text);
  }

  /** @param {Point[]} points */
  #coordinates(points) {
    return points.map((point) => this.#toPicture(point).join(",")).join(" ");
  }

  // -- drawing --------------------------------------------------------------------------------------------------------

  /** @param {PointerEvent} event */
  #press(event) {
    this.element.setPointerCapture(event.pointerId);
    if (!this.#drawing) {
      this.#grab(event);
      return;
    }
    this.#drawing.pressed = this.#drawing.pointer = this.#toShare(event);
    this.render();
  }

  /** @param {PointerEvent} event */
  #hover(event) {
    if (!this.#drawing) {
      if (!event.buttons) this.element.setAttribute("data-over", this.#find(this.#toShare(event))?.part ?? "");
      return;
    }
    this.#drawing.pointer = this.#toShare(event);
    const { pressed, place } = this.#drawing;
    const isDrag = pressed && !place.points.length && this.#distance(pressed, this.#drawing.pointer) > NEAR;
    this.#drawing.preview = isDrag ? dragged(place.kind, pressed, this.#drawing.pointer) : null;
    this.render();
  }

  /** @param {PointerEvent} event */
  #release(event) {
    const drawing = this.#drawing;
    if (!drawing?.pressed) return;
    const { kind, points } = drawing.place;
    const [start, end] = [drawing.pressed, this.#toShare(event)];
    drawing.pressed = null;
    drawing.preview = null;
    if (!points.length && this.#distance(start, end) > NEAR) {
      points.push(...dragged(kind, start, end));
      this.finish();
    } else if (kind === "zone" && points.length >= 3 && this.#distance(points[0], end) < NEAR) {
      this.finish();
    } else {
      if (!points.length || this.#distance(/** @type {Point} */ (points.at(-1)), end) > 2) points.push(end); // not a double click
      if (kind === "line" && points.length === 2) this.finish();
      else if (points.length === MAX_CORNERS) this.finish();
      else {
        this.render();
        this.dispatchEvent(new Event("drawing"));
      }
    }
  }

  /** @param {KeyboardEvent} event */
  #drawByKey(event) {
    if (!this.#drawing) return;
    const onButton = event.target instanceof HTMLElement && event.target.matches("button, input, select, summary, a");
    if (event.key === "Escape") this.cancel();
    else if (event.key === "Enter" && !onButton) this.finish();
    else if (event.key === "Backspace" && !onButton) {
      this.#drawing.place.points.pop();
      this.render();
      this.dispatchEvent(new Event("drawing"));
    } else return;
    event.preventDefault();
  }

  // -- changing -------------------------------------------------------------------------------------------------------

  /**
   * Find what is at a point. Shapes take no events themselves: they are drawn anew while they are dragged, and a finger
   * whose target is gone moves nothing.
   *
   * @param {Point} point
   * @returns {{part: "corner" | "middle" | "shape", place: Place, index: number} | null}
   */
  #find(point) {
    const selected = this.#selected;
    const near = (/** @type {Point} */ other) => this.#distance(point, other) <= TARGET;
    if (selected) {
      const corner = selected.points.findIndex(near);
      if (corner >= 0) return { part: "corner", place: selected, index: corner };
      const middle = middlesOf(selected).findIndex(near);
      if (middle >= 0) return { part: "middle", place: selected, index: middle };
    }
    const place = [...this.#places, ...(selected ? [selected] : [])].findLast((one) => this.#covers(one, point));
    return place ? { part: "shape", place, index: 0 } : null;
  }

  /** @param {Place} place @param {Point} point @returns {boolean} whether a point is in a zone, or close to a line */
  #covers({ kind, points }, point) {
    if (kind === "zone") return isInside(points, point);
    const [[x1, y1], [x2, y2], [x, y]] = [points[0], points[1], point].map((one) => this.#toPicture(one));
    const [dx, dy] = [x2 - x1, y2 - y1];
    const along = Math.min(1, Math.max(0, ((x - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy || 1)));
    return Math.hypot(x - x1 - along * dx, y - y1 - along * dy) <= TARGET * this.#unit;
  }

  /** Begin to move what is under the pointer, or select it. @param {PointerEvent} event */
  #grab(event) {
    const start = this.#toShare(event);
    const found = this.#find(start);
    if (!found || found.place !== this.#selected) {
      this.select(found?.place ?? null);
      return;
    }
    const { part, place, index } = found;
    if (part === "shape") {
      const before = copyOf(place.points);
      const shift = (/** @type {Point} */ point, /** @type {0 | 1} */ axis) => {
        const values = before.map((one) => one[axis]);
        return Math.min(Math.max(point[axis] - start[axis], -Math.min(...values)), 1 - Math.max(...values));
      };
      this.#drag(start, (point) => {
        const [dx, dy] = [shift(point, 0), shift(point, 1)];
        place.points.forEach((_, i) => (place.points[i] = rounded(before[i][0] + dx, before[i][1] + dy)));
      });
      return;
    }
    const corner = part === "corner" ? index : index + 1;
    if (part === "middle") {
      place.points.splice(corner, 0, start);
      this.#changed();
    }
    this.focus(corner);
    this.#drag(start, (point) => (place.points[corner] = point));
  }

  /** Move something while the pointer is down. @param {Point} start @param {(point: Point) => void} move */
  #drag(start, move) {
    let moves = false; // A click isn't a drag.
    const follow = (/** @type {Event} */ event) => {
      const point = this.#toShare(/** @type {PointerEvent} */ (event));
      moves ||= this.#distance(start, point) > 2;
      if (!moves) return;
      move(point);
      this.#changed();
    };
    const over = new AbortController();
    const { signal } = over;
    this.element.addEventListener("pointermove", follow, { signal });
    for (const end of ["pointerup", "pointercancel"]) this.element.addEventListener(end, () => over.abort(), { signal });
  }

  /** @param {KeyboardEvent} event @param {Place} place @param {number} index */
  #moveByKey(event, { kind, points }, index) {
    const direction = ARROW_KEYS[event.key];
    if (direction) {
      const step = event.shiftKey ? STEP / 10 : STEP;
      points[index] = rounded(points[index][0] + step * direction[0], points[index][1] + step * direction[1]);
    } else if (event.key === "Delete" && kind === "zone" && points.length > 3) {
      points.splice(index, 1);
    } else if ((event.key === "Insert" || event.key === "+") && kind === "zone" && points.length < MAX_CORNERS) {
      const next = points[(index + 1) % points.length];
      points.splice(index + 1, 0, rounded((points[index][0] + next[0]) / 2, (points[index][1] + next[1]) / 2));
    } else return;
    event.preventDefault();
    this.#changed();
  }

  #changed() {
    this.render();
    this.dispatchEvent(new Event("change"));
  }

  // -- coordinates ----------------------------------------------------------------------------------------------------

  /** @param {Point} point @returns {Point} in pixels of the picture */
  #toPicture([x, y]) {
    return [x * this.#size[0], y * this.#size[1]];
  }

  /** @param {MouseEvent} event @returns {Point} */
  #toShare({ clientX, clientY }) {
    const matrix = /** @type {SVGSVGElement} */ (this.element).getScreenCTM();
    const { x, y } = new DOMPoint(clientX, clientY).matrixTransform(matrix?.inverse());
    return rounded(x / this.#size[0], y / this.#size[1]);
  }

  /** @param {Point} a @param {Point} b @returns {number} their distance in CSS pixels */
  #distance(a, b) {
    const [[x1, y1], [x2, y2]] = [this.#toPicture(a), this.#toPicture(b)];
    return Math.hypot(x2 - x1, y2 - y1) / this.#unit;
  }
}

/** A place while it is drawn. */
class Drawing {
  /** @type {Point | null} */ pointer = null;
  /** @type {Point | null} */ pressed = null; // where the pointer went down, while it is
  /** @type {Point[] | null} */ preview = null; // what a drag would draw

  /** @param {Place} place */
  constructor(place) {
    this.place = place;
  }
}
