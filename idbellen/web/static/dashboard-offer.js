// The offer of a caller: countdown, sound and notification. Nothing personal is known yet.

import { duration, element, fill, settings, since, text, until } from "/static/dashboard-page.js";

const RINGS = [0, 0.45, 3, 3.45];
const RING_SECONDS = 0.35;
const RING_HERTZ = [660, 880];

let offered = null;
let waitingSince = null;
let ends = null;
let whole = 1;
let sound = null;
let notification = null;

export function showOffer(offer) {
  element("offer").hidden = !offer;
  if (!offer) {
    stop();
    return;
  }
  const asker = element("offer-asker");
  asker.hidden = !offer.asker;
  asker.textContent = fill(asker.dataset.text, { name: offer.asker });
  element("offer-title").hidden = Boolean(offer.asker);
  element("offer-purpose").textContent = offer.purpose;
  element("offer-queue").textContent = offer.queue;
  waitingSince = since(offer.waited);
  ends = until(offer.remaining);
  if (offered === offer.id) return;
  offered = offer.id;
  whole = Math.max(1, offer.remaining);
  const live = element("live");
  live.textContent = offer.asker ? asker.textContent : `${live.dataset.offer} ${offer.purpose}`;
  // Before the agent has touched the page the browser plays nothing, and complains.
  if (settings.get("sound") && navigator.userActivation.hasBeenActive) ring();
  tell(offer.purpose);
}

export function clearOffer() {
  element("offer").hidden = true;
  stop();
}

export function tickOffer() {
  element("offer-waited").textContent = waitingSince === null ? "" : duration((performance.now() - waitingSince) / 1000);
  const left = ends === null ? 0 : Math.max(0, (ends - performance.now()) / 1000);
  element("offer-remaining").textContent = ends === null ? "" : Math.ceil(left);
  element("offer-ring").setAttribute("stroke-dasharray", `${(100 * left) / whole} 100`);
}

function stop() {
  offered = waitingSince = ends = null;
  sound?.close();
  notification?.close();
  sound = notification = null;
}

function ring() {
  sound = new AudioContext();
  for (const at of RINGS) {
    const gain = sound.createGain();
    gain.connect(sound.destination);
    const start = sound.currentTime + at;
    gain.gain.setValueAtTime(0, start);
    gain.gain.linearRampToValueAtTime(0.12, start + 0.03);
    gain.gain.linearRampToValueAtTime(0, start + RING_SECONDS);
    for (const hertz of RING_HERTZ) {
      const tone = sound.createOscillator();
      tone.frequency.value = hertz;
      tone.connect(gain);
      tone.start(start);
      tone.stop(start + RING_SECONDS);
    }
  }
}

function tell(purpose) {
  if (!document.hidden || !("Notification" in window) || Notification.permission !== "granted") return;
  try {
    notification = new Notification(text("notification"), { body: purpose, tag: "idbellen-offer" });
  } catch {
    // Browsers on phones have the name and the permission, but show none from a page.
    return;
  }
  notification.addEventListener("click", () => window.focus());
}

const button = element("notify");
function showPermission() {
  const permission = "Notification" in window ? Notification.permission : "denied";
  if (permission === "default") return;
  button.disabled = true;
  button.textContent = permission === "granted" ? button.dataset.on : button.dataset.off;
}
button.addEventListener("click", async () => {
  await Notification.requestPermission();
  showPermission();
});
showPermission();
