/** The API key: entered in a dialog, kept until the tab closes or, if the user wishes, on this device. */

import { byId, h } from "./dom.js";

const STORAGE_NAME = "keywarp.key";

/** @returns {string | null} */
export const storedKey = () => sessionStorage.getItem(STORAGE_NAME) ?? localStorage.getItem(STORAGE_NAME);

/** @type {Promise<string> | null} */
let pending = null; // the open dialog's key

/**
 * Ask the user for the key that the server needs. Concurrent calls share one dialog.
 *
 * @param {string} complaint why the server refused the previous key, if there was one
 * @returns {Promise<string>}
 */
export function askForKey(complaint = "") {
  pending ??= showDialog(complaint, null).finally(() => (pending = null));
  return pending;
}

/** Let the user enter another key. @returns {Promise<string>} the key; it stays pending if the user cancels */
export const changeKey = () => showDialog("", h("button", { type: "button" }, "Cancel"));

/** @param {string} complaint @param {HTMLElement | null} cancel @returns {Promise<string>} */
function showDialog(complaint, cancel) {
  return new Promise((resolve) => {
    const input = h("input", { id: "api-key", type: "password", autocomplete: "off", required: true, spellcheck: "false" });
    const keep = h("input", { id: "keep-key", type: "checkbox" });
    const form = h(
      "form",
      { method: "dialog" },
      h("div", {}, h("h2", { id: "key-title" }, "API key"), h("p", { class: "muted" }, cancel ? "This page sends it with every request." : "This server needs an API key.")),
      complaint && h("p", { class: "notice bad flush", role: "alert" }, `${complaint}.`),
      h(
        "div",
        {},
        h("label", { for: "api-key" }, "Key"),
        input,
        h("p", { class: "hint" }, "The server's operator can create one: ", h("code", {}, "keywarp keys add NAME --file keys.txt")),
      ),
      h("div", {}, keep, " ", h("label", { for: "keep-key", class: "inline" }, "Remember it on this device")),
      h("div", { class: "actions" }, cancel, h("button", { class: "primary" }, "Continue")),
    );
    const dialog = h("dialog", { "aria-labelledby": "key-title" }, form);
    let entered = false;
    form.addEventListener("submit", () => {
      const key = input.value.trim();
      sessionStorage.setItem(STORAGE_NAME, key);
      if (keep.checked) localStorage.setItem(STORAGE_NAME, key);
      else localStorage.removeItem(STORAGE_NAME);
      entered = true;
      resolve(key);
    });
    cancel?.addEventListener("click", () => dialog.close());
    dialog.addEventListener("cancel", (event) => cancel ?? event.preventDefault()); // Without a key there is nothing to show.
    dialog.addEventListener("close", () => {
      if (entered || cancel) dialog.remove();
      else dialog.showModal(); // Pressing Escape twice closes it despite `cancel`, but requests still wait for a key.
    });
    byId("dialogs").append(dialog);
    dialog.showModal();
    input.focus();
  });
}
