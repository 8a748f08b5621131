// Small helpers for the wallboard's page: its texts, its slots, and how lengths are written.

const texts = document.getElementById("texts").dataset;

// Names as in the page: "atOnce" is data-at-once, "state-in_call" is data-state-in_call.
export function text(name) {
  return texts[name.replace(/-([a-z])/g, (_, letter) => letter.toUpperCase())] ?? "";
}

export const slot = (root, name) => root.querySelector(`[data-f="${name}"]`);

export function fill(root, values) {
  for (const [name, value] of Object.entries(values)) {
    const node = slot(root, name);
    // What stays the same is not touched: screen readers and selections live in it.
    if (node && node.textContent !== String(value)) node.textContent = value;
  }
}

export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}
