// What all parts of the dashboard use: elements, texts and times.

export const element = (id) => document.getElementById(id);

// A text of the page by its name, with {placeholders} filled in.
export function text(name, values = {}) {
  return fill(element("texts").getAttribute(`data-${name.replaceAll(" ", "-")}`) ?? "", values);
}

export function fill(template, values) {
  return template.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

// Ages come in seconds, so that the clocks of both sides need not agree.
export const since = (age) => performance.now() - age * 1000;
export const until = (remaining) => performance.now() + remaining * 1000;

export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  const rest = String(whole % 60).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

// A word that is seen and, politely, heard for a moment. Nothing personal belongs in it: it outlives a mask.
const TOLD_MS = 6000;
let told = 0;
export function tell(words) {
  clearTimeout(told);
  element("polite").textContent = words;
  told = setTimeout(() => { element("polite").textContent = ""; }, TOLD_MS);
}

// To the service, over the socket that the main module holds.
export function send(message) {
  document.dispatchEvent(new CustomEvent("idbellen:send", { detail: message }));
}

// What the agent has chosen for this browser; nothing personal.
export const settings = {
  get: (name) => localStorage.getItem(`idbellen-${name}`) !== "off",
  set: (name, on) => on ? localStorage.removeItem(`idbellen-${name}`) : localStorage.setItem(`idbellen-${name}`, "off"),
};
