// Shortcuts, and the dialog that lists them. Single letters can be switched off (WCAG 2.1.4).

import { element, settings } from "/static/dashboard-page.js";

const dialog = element("settings-dialog");

// For each letter the buttons that it may mean; the one that is there now is pressed.
const KEYS = {
  b: ["#available"],
  p: ["#pause"],
  m: ['[data-verb="mute"]', '[data-verb="unmute"]'],
  w: ['[data-verb="hold"]', '[data-verb="resume"]'],
  o: ['[data-verb="consult"]'],
  d: ['[data-verb="transfer"]', '[data-verb="blind"]'],
  c: ['[data-verb="conference"]'],
  g: ['[data-verb="share"]'],
  x: ['[data-verb="hang_up"]'],
  s: ["#attributes button[data-masked]"],
  k: ["#wrap-up-end"],
  l: ["#wrap-up-extend"],
  "?": ["#settings"],
};

function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  if (document.querySelector("dialog[open]") || event.target.closest("input, select, textarea")) return;
  if (!settings.get("keys")) return;
  const key = event.key.toLowerCase();
  // A digit copies the attribute in that place.
  for (const selector of /^[1-9]$/.test(key) ? [`[data-copy="${key}"]`] : KEYS[key] ?? []) {
    const button = document.querySelector(selector);
    if (button?.checkVisibility() && !button.disabled) {
      event.preventDefault();
      button.click();
      return;
    }
  }
}

export function watchKeys() {
  document.addEventListener("keydown", pressed);
  element("settings").addEventListener("click", () => dialog.showModal());
  for (const name of ["sound", "keys"]) {
    const box = element(`use-${name}`);
    box.checked = settings.get(name);
    box.addEventListener("change", () => {
      settings.set(name, box.checked);
      showKeys();
    });
  }
  showKeys();
}

function showKeys() {
  const on = settings.get("keys");
  document.body.classList.toggle("no-keys", !on);
  for (const [key, selectors] of Object.entries(KEYS)) {
    for (const button of document.querySelectorAll(selectors)) {
      if (on) button.setAttribute("aria-keyshortcuts", key);
      else button.removeAttribute("aria-keyshortcuts");
    }
  }
}
