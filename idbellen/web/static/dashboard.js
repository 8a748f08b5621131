// The agent's dashboard. Whatever it shows of a citizen lives in the DOM only, and leaves it when the call ends,
// when the connection is lost and when the page is left.

const SILENCE_MS = 5000;
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 8000;
const LOGIN_ENDED = 1008;

const element = (id) => document.getElementById(id);
const state = element("state");
const live = element("live");

let socket = null;
let silence = 0;
let retryMs = FIRST_RETRY_MS;
let shownCall = null;
let shownResults = 0;
let offered = false;
let offeredAt = 0;
let calledAt = 0;

function connect() {
  const url = new URL("/live", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(url);
  watchSilence();
  socket.addEventListener("message", (event) => {
    watchSilence();
    const message = JSON.parse(event.data);
    if (message.type === "snapshot") {
      retryMs = FIRST_RETRY_MS;
      show(message);
    }
  });
  socket.addEventListener("close", (event) => lost(event.code === LOGIN_ENDED));
}

function watchSilence() {
  clearTimeout(silence);
  const watched = socket;
  silence = setTimeout(() => {
    // Closing waits for the other side, who is silent: what is shown goes now.
    hide();
    watched.close();
  }, SILENCE_MS);
}

function lost(loginEnded) {
  clearTimeout(silence);
  hide();
  if (loginEnded) {
    location.assign("/login");
    return;
  }
  setTimeout(connect, retryMs * (0.5 + Math.random() / 2));
  retryMs = Math.min(LONGEST_RETRY_MS, retryMs * 2);
}

function hide() {
  element("offline").hidden = false;
  state.textContent = "…";
  element("waiting").textContent = "–";
  element("available").disabled = element("away").disabled = true;
  element("offer").hidden = true;
  offered = false;
  clearCall();
}

function show(snapshot) {
  element("offline").hidden = true;
  state.textContent = state.getAttribute(`data-${snapshot.state}`);
  element("waiting").textContent = snapshot.waiting;
  const wish = snapshot.afterwards ?? snapshot.state;
  for (const name of ["available", "away"]) {
    element(name).disabled = false;
    element(name).setAttribute("aria-pressed", String(wish === name));
  }
  element("afterwards").hidden = snapshot.afterwards !== "away";
  showOffer(snapshot.offer);
  showCall(snapshot.call);
  tick();
}

function showOffer(offer) {
  element("offer").hidden = !offer;
  if (offer) {
    element("offer-purpose").textContent = offer.purpose;
    offeredAt = performance.now() - offer.waited * 1000;
    if (!offered) live.textContent = `${live.dataset.offer} ${offer.purpose}`;
  }
  offered = Boolean(offer);
}

function showCall(call) {
  if (!call) {
    if (shownCall) live.textContent = live.dataset.over;
    clearCall();
    return;
  }
  calledAt = performance.now() - call.age * 1000;
  if (call.id === shownCall && call.results === shownResults) return;
  const late = call.id === shownCall;
  clearCall();
  shownCall = call.id;
  shownResults = call.results;
  element("call").hidden = false;
  verdict("loading");
  addAttribute(element("attributes").dataset.purpose, call.purpose);
  element("words").textContent = call.words.join(" – ");
  live.textContent = late ? live.dataset.arrived : live.dataset.call;
  fetchAttributes(call);
}

async function fetchAttributes(call) {
  let answer;
  try {
    const response = await fetch("/attributes", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ secret: call.secret }),
    });
    if (!response.ok) throw new Error(String(response.status));
    answer = await response.json();
  } catch {
    if (shownCall === call.id && shownResults === call.results) verdict("error");
    return;
  }
  // The call may have ended, a late result come, or the connection been lost, while the answer was under way.
  if (shownCall !== call.id || shownResults !== call.results) return;
  verdict(answer.status);
  if (answer.method) element("verdict").textContent += ` ${element("verdict").dataset.with} ${answer.method}`;
  for (const attribute of answer.attributes) addAttribute(attribute.label, attribute.value);
  socket.send(JSON.stringify({ type: "shown", call: call.id }));
}

function verdict(status) {
  element("verdict").dataset.status = status;
  element("verdict").textContent = element("verdict").getAttribute(`data-${status}`);
}

function addAttribute(label, value) {
  const row = document.createElement("div");
  row.append(document.createElement("dt"), document.createElement("dd"));
  row.firstChild.textContent = label;
  row.lastChild.textContent = value;
  element("attributes").append(row);
}

function clearCall() {
  shownCall = null;
  element("call").hidden = true;
  element("attributes").replaceChildren();
  element("words").textContent = "";
  element("verdict").textContent = "";
  delete element("verdict").dataset.status;
}

function tick() {
  element("offer-waited").textContent = duration(offeredAt);
  element("call-age").textContent = duration(calledAt);
}

function duration(since) {
  const seconds = Math.max(0, Math.floor((performance.now() - since) / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

for (const name of ["available", "away"]) {
  element(name).addEventListener("click", () => socket.send(JSON.stringify({ type: "state", state: name })));
}
addEventListener("pagehide", hide);
// A page that comes back from the browser's cache is old: begin anew.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
setInterval(tick, 1000);
connect();
