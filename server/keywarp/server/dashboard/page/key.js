/** The API key: asked for in a dialog, kept as long as the tab, or, if so wished, on this device. */

import { byId, h } from "./dom.js";

const NAME = "keywarp.key";

/** @returns {string | null} */
export const storedKey = () => sessionStorage.getItem(NAME) ?? localStorage.getItem(NAME);

/** @type {Promise<string> | null} */
let asking = null;

/**
 * Ask for the key that the server wants; those who ask meanwhile get the same.
 *
 * @param {string} complaint why the last one wasn't taken
 * @returns {Promise<string>}
 */
export function askForKey(complaint = "") {
  asking ??= show(complaint, null).finally(() => (asking = null));
  return asking;
}

/** Let another key be entered, or not. @returns {Promise<string>} it never ends where none is */
export const changeKey = () => show("", h("button", { type: "button" }, "Cancel"));

/** @param {string} complaint @param {HTMLElement | null} cancel @returns {Promise<string>} */
function show(complaint, cancel) {
  return new Promise((resolve) => {
    const input = h("input", { id: "api-key", type: "password", autocomplete: "off", required: true, spellcheck: "false" });
    const keep = h("input", { id: "keep-key", type: "checkbox" });
    const form = h(
      "form",
      { method: "dialog" },
      h("div", {}, h("h2", { id: "key-title" }, "API key"), h("p", { class: "muted" }, cancel ? "It is sent with all that this page asks for." : "This server wants a key before it shows anything.")),
      complaint && h("p", { class: "notice bad flush", role: "alert" }, `${complaint}.`),
      h(
        "div",
        {},
        h("label", { for: "api-key" }, "Key"),
        input,
        h("p", { class: "hint" }, "Whoever runs the server makes one: ", h("code", {}, "keywarp keys add NAME --file keys.txt")),
      ),
      h("div", {}, keep, " ", h("label", { for: "keep-key", class: "inline" }, "Keep it on this device")),
      h("div", { class: "actions" }, cancel, h("button", { class: "primary" }, "Go on")),
    );
    const dialog = h("dialog", { "aria-labelledby": "key-title" }, form);
    let entered = false;
    form.addEventListener("submit", () => {
      const key = input.value.trim();
      sessionStorage.setItem(NAME, key);
      if (keep.checked) localStorage.setItem(NAME, key);
      else localStorage.removeItem(NAME);
      entered = true;
      resolve(key);
    });
    cancel?.addEventListener("click", () => dialog.close());
    dialog.addEventListener("cancel", (event) => cancel ?? event.preventDefault()); // without a key there is nothing to see
    dialog.addEventListener("close", () => {
      if (entered || cancel) dialog.remove();
      else dialog.showModal(); // who presses Escape again gets past `cancel`, and all that was asked for waits
    });
    byId("dialogs").append(dialog);
    dialog.showModal();
    input.focus();
  });
}
