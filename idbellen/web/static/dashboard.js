// The agent's dashboard: the connection, the agent's state, and what is handed on to the other modules. Whatever is
// shown of a citizen lives in the DOM only, and leaves it when the call ends, when the connection is lost and when the
// page is left.

import { clearCall, showCall, tickCall } from "/static/dashboard-call.js";
import { watchKeys } from "/static/dashboard-keys.js";
import { clearOffer, showOffer, tickOffer } from "/static/dashboard-offer.js";
import { duration, element, fill, since, tell, text, until } from "/static/dashboard-page.js";

const SILENCE_MS = 5000;
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 8000;
const LOGIN_ENDED = 1008;
// This agent has too many pages for all of them to be told at once, so they take turns.
const ELSEWHERE = 4001;
const TURN_MS = 60_000;
// A phone that was just put down is still busy for a moment, which is nothing to tell.
const SETTLED_MS = 1500;
const TWINS = { mute: "unmute", unmute: "mute", hold: "resume", resume: "hold" };

const state = element("state");
const wishes = document.querySelectorAll("#available, [data-reason]");

let socket = null;
let silence = 0;
let retryMs = FIRST_RETRY_MS;
let stateBegan = null;
let wrapUpEnds = null;
let phoneTold = null;
let phoneTimer = 0;

function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function connect() {
  const url = new URL("/live", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const opened = new WebSocket(url);
  socket = opened;
  watchSilence();
  // What one that was given up says late no longer counts.
  opened.addEventListener("message", (event) => { if (socket === opened) heard(JSON.parse(event.data)); });
  opened.addEventListener("close", (event) => { if (socket === opened) lost(event.code); });
}

function heard(message) {
  watchSilence();
  if (message.type === "snapshot") {
    retryMs = FIRST_RETRY_MS;
    keepingFocus(() => show(message));
  } else if (message.type === "refused") {
    tell(text(message.reason));
  }
}

// Who works with the keyboard does not lose the place when a button goes: its opposite gets the focus, or a heading.
function keepingFocus(change) {
  const focused = document.activeElement;
  change();
  if (focused === document.body || focused.checkVisibility()) return;
  const twin = document.querySelector(`[data-verb="${TWINS[focused.dataset.verb]}"]`);
  [twin, element("call-title"), element("state-title")].find((place) => place?.checkVisibility()).focus();
}

function watchSilence() {
  clearTimeout(silence);
  silence = setTimeout(() => {
    // Closing waits for the other side, who is silent, and over a dead line for long: it is not waited for.
    const silent = socket;
    lost();
    silent.close();
  }, SILENCE_MS);
}

function lost(code) {
  clearTimeout(silence);
  socket = null;
  hide();
  if (code === LOGIN_ENDED) {
    location.assign("/login");
    return;
  }
  setTimeout(connect, code === ELSEWHERE ? TURN_MS : retryMs * (0.5 + Math.random() / 2));
  retryMs = Math.min(LONGEST_RETRY_MS, retryMs * 2);
}

function hide() {
  element("offline").hidden = false;
  document.title = "idbellen";
  state.textContent = "…";
  element("state-card").dataset.state = "";
  element("waiting").textContent = "–";
  element("queues").replaceChildren();
  element("reason").textContent = "";
  stateBegan = wrapUpEnds = null;
  for (const button of wishes) button.disabled = true;
  showPhone(null);
  for (const id of ["not-answering", "afterwards", "wrap-up", "nothing"]) element(id).hidden = true;
  clearOffer();
  clearCall();
  tick();
}

function show(snapshot) {
  element("offline").hidden = true;
  showState(snapshot);
  showQueues(snapshot);
  const { calls, talked, missed } = snapshot.today;
  element("today-calls").textContent = calls;
  element("today-mean").textContent = calls ? duration(talked / calls) : "–";
  element("today-missed").textContent = missed;
  showOffer(snapshot.offer);
  showCall(snapshot.call, snapshot);
  wrapUpEnds = snapshot.wrap_up ? until(snapshot.wrap_up.remaining) : null;
  element("wrap-up").hidden = !snapshot.wrap_up;
  const nothing = !snapshot.offer && !snapshot.call && !snapshot.wrap_up;
  element("nothing").hidden = !nothing;
  const quiet = element("nothing-text");
  quiet.textContent = quiet.getAttribute(`data-${snapshot.state}`) ?? quiet.dataset.other;
  tick();
}

function showState(snapshot) {
  state.textContent = state.getAttribute(`data-${snapshot.state}`);
  element("state-card").dataset.state = snapshot.state;
  document.title = `${snapshot.offer ? text("notification") : state.textContent} – idbellen`;
  stateBegan = since(snapshot.age);
  const wish = snapshot.afterwards ?? snapshot.state;
  for (const button of wishes) {
    const reason = button.dataset.reason;
    const paused = wish === "paused" && reason === (snapshot.afterwards ? snapshot.afterwards_reason : snapshot.reason);
    button.disabled = false;
    button.setAttribute("aria-pressed", String(reason === undefined ? wish === "available" : paused));
  }
  const chosen = document.querySelector(`[data-reason="${CSS.escape(snapshot.reason)}"]:not([data-reason=""])`);
  element("reason").textContent = chosen ? chosen.textContent.trim() : "";
  const missed = element("not-answering");
  missed.hidden = snapshot.state !== "not_answering";
  missed.textContent = snapshot.missed === 1 ? missed.dataset.one : fill(missed.dataset.many, snapshot);
  const afterwards = element("afterwards");
  afterwards.textContent = afterwards.getAttribute(`data-${snapshot.afterwards}`) ?? "";
  afterwards.hidden = !afterwards.textContent;
  element("telephony").hidden = snapshot.telephony;
  // While we use the phone ourselves it is busy for a good reason.
  const told = snapshot.telephony && !snapshot.offer && !["in_call", "offline"].includes(snapshot.state);
  showPhone(told ? element("phone").getAttribute(`data-${snapshot.phone}`) : null);
}

function showPhone(about) {
  if (about === phoneTold) return;
  phoneTold = about;
  clearTimeout(phoneTimer);
  const phone = element("phone");
  if (!about) phone.hidden = true;
  else phoneTimer = setTimeout(() => { phone.textContent = about; phone.hidden = false; }, SETTLED_MS);
}

function showQueues(snapshot) {
  element("waiting").textContent = snapshot.waiting;
  const mine = snapshot.queues.filter((queue) => queue.waiting !== null);
  const rows = mine.map((queue) => {
    const row = document.createElement("li");
    const count = document.createElement("strong");
    row.append(queue.title, " ", count);
    count.textContent = queue.waiting;
    return row;
  });
  element("queues").replaceChildren(...rows);
}

function tick() {
  element("state-age").textContent = stateBegan === null ? "" : duration((performance.now() - stateBegan) / 1000);
  element("wrap-up-left").textContent = wrapUpEnds === null ? "" : duration((wrapUpEnds - performance.now()) / 1000);
  tickOffer();
  tickCall();
}

for (const button of wishes) {
  button.addEventListener("click", () => {
    const reason = button.dataset.reason;
    send(reason === undefined ? { type: "available" } : { type: "pause", reason });
  });
}
element("wrap-up-end").addEventListener("click", () => send({ type: "wrap_up", action: "end" }));
element("wrap-up-extend").addEventListener("click", () => send({ type: "wrap_up", action: "extend" }));
document.addEventListener("idbellen:send", (event) => send(event.detail));
watchKeys();
addEventListener("pagehide", hide);
// A page that comes back from the browser's cache is old: begin anew.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
setInterval(tick, 1000);
connect();
