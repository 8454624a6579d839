/** Making elements. Text only ever becomes text, never markup. */

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * Make an element: `on...` are listeners, `true` is an attribute without a value, `false` and null leave it out.
 *
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, any>} [attributes]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...present(children));
  return element;
}

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {...Child} children
 */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...present(children));
  return element;
}

/** @param {string} name of a symbol in icons.svg */
export const icon = (name) =>
  svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `/dashboard/icons.svg#${name}` }));

/** @param {Child[]} children @returns {(Node | string)[]} */
const present = (children) =>
  children.flatMap((child) => {
    if (child === null || child === undefined || child === false) return [];
    return [child instanceof Node ? child : String(child)];
  });

/** Change a text only if it differs, so that nothing is announced or painted in vain. @param {Node} node @param {string} text */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @param {string} id @returns {HTMLElement} */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/** @type {ReturnType<typeof setTimeout>} */
let forgetting;

/** Say something briefly. @param {string} text */
export function toast(text) {
  const element = byId("toast");
  element.textContent = text;
  clearTimeout(forgetting);
  forgetting = setTimeout(() => (element.textContent = ""), 6000);
}
