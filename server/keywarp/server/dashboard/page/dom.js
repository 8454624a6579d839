/** Functions that build elements. Strings always become text, never markup. */

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * Create an HTML element.
 *
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, any>} [attributes] `on...` adds a listener, `true` sets an empty attribute, `false` and null set none
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...toNodes(children));
  return element;
}

/**
 * Create an SVG element.
 *
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {...Child} children
 */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...toNodes(children));
  return element;
}

/** Create an icon. @param {string} name a symbol of icons.svg */
export const icon = (name) =>
  svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `/dashboard/icons.svg#${name}` }));

/** @param {Child[]} children @returns {(Node | string)[]} */
const toNodes = (children) =>
  children.flatMap((child) => {
    if (child === null || child === undefined || child === false) return [];
    return [child instanceof Node ? child : String(child)];
  });

/** Change a text only if it differs, so that it isn't announced or painted again. @param {Node} node @param {string} text */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Show a failure in a form that may be longer than the screen. @param {HTMLElement} element @param {string} text */
export function showFailure(element, text) {
  element.textContent = text;
  element.scrollIntoView({ block: "nearest" });
}

/** @param {string} id @returns {HTMLElement} */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/** @type {ReturnType<typeof setTimeout>} */
let toastTimer;

/** Show a message for a few seconds. @param {string} text */
export function toast(text) {
  const element = byId("toast");
  element.textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (element.textContent = ""), 6000);
}
