// Who is calling: the verdict, the attributes and the control words, for as long as the secret is ours.

import { element, send, tell } from "/static/dashboard-page.js";

const DOTS = "•••••••••";
const REVEALED_MS = 30_000;
const PATIENCE_MS = 8000;

const live = element("live");
const list = element("attributes");
const again = element("again");
const lacking = element("lacking");

let now = null;
// What the attributes on the screen belong to: fetched again when any of it changes.
let wanted = "";
let concealing = [];

const identity = (call) => `${call.id} ${call.secret} ${call.results}`;

export function showData(call) {
  if (wanted === identity(call)) return;
  const late = wanted.startsWith(`${call.id} ${call.secret} `);
  if (late) {
    live.textContent = live.dataset.arrived;
  } else {
    clearData();
    verdict("loading");
    list.append(row(list.dataset.purpose, call.purpose));
    element("words").textContent = call.words.join(" – ");
  }
  now = call;
  wanted = identity(call);
  fetchData();
}

export function clearData() {
  now = null;
  wanted = "";
  emptyList();
  element("words").textContent = "";
  verdict("");
}

function emptyList() {
  concealing.forEach(clearTimeout);
  concealing = [];
  list.replaceChildren();
  lack("", false);
}

function verdict(status) {
  const shown = element("verdict");
  shown.dataset.status = status;
  shown.textContent = shown.getAttribute(`data-${status}`) ?? "";
  again.hidden = status !== "error";
}

async function post(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  if (!response.ok) throw new Error(String(response.status));
  return response.json();
}

async function fetchData() {
  const call = now;
  const purpose = row(list.dataset.purpose, call.purpose);
  // The call may have ended, a late result come, or the connection been lost, while the answer was under way.
  const stale = () => wanted !== identity(call);
  let answer;
  try {
    answer = await post("/attributes", { secret: call.secret });
  } catch {
    if (stale()) return;
    emptyList();
    list.append(purpose);
    verdict("error");
    return;
  }
  if (stale()) return;
  emptyList();
  list.append(purpose, ...answer.attributes.map(attributeRow));
  const missing = answer.missing ?? [];
  // Nobody is known by a login alone.
  const nothing = missing.length > 0 && answer.attributes.length === 0;
  verdict(nothing ? "nothing" : answer.status);
  if (answer.method && !nothing) element("verdict").textContent += ` ${element("verdict").dataset.with} ${answer.method}`;
  lack(nothing ? lacking.dataset.all : lacking.dataset.some.replace("{names}", missing.join(", ")), missing.length > 0);
  send({ type: "shown", call: call.id });
}

function lack(sentence, lacks) {
  lacking.hidden = !lacks;
  lacking.textContent = lacks ? sentence : "";
}

function row(label, value, ...buttons) {
  const whole = document.createElement("div");
  const term = document.createElement("dt");
  const shown = document.createElement("dd");
  const content = document.createElement("span");
  term.textContent = label;
  content.append(value);
  shown.append(content, ...buttons);
  whole.append(term, shown);
  return whole;
}

function smallButton(word, label) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button quiet small";
  rename(button, word, label);
  return button;
}

function rename(button, word, label) {
  button.textContent = word;
  button.setAttribute("aria-label", `${word}: ${label}`);
}

function attributeRow({ label, name, value, masked }, index) {
  const place = index + 1;
  return masked ? maskedRow(label, name, place) : row(label, value, copyButton(label, place, () => value));
}

// ``place`` is the key that copies it.
function copyButton(label, place, value) {
  const button = smallButton(list.dataset.copy, label);
  button.dataset.copy = place;
  // Without TLS browsers have no clipboard for us.
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(value());
      tell(list.dataset.copied);
    } catch {
      tell(list.dataset.notCopied);
    }
  });
  return button;
}

function maskedRow(label, name, place) {
  const toggle = smallButton(list.dataset.reveal, label);
  const copy = copyButton(label, place, () => content.textContent);
  const mayCopy = !copy.hidden;
  const whole = row(label, "", toggle, copy);
  const content = whole.querySelector("span");
  // What is shown or hidden here is heard here, and nowhere else stays behind.
  content.setAttribute("aria-live", "polite");
  let timer = 0;
  let shown = false;

  function mask() {
    clearTimeout(timer);
    shown = false;
    const dots = document.createElement("span");
    const said = document.createElement("span");
    dots.textContent = DOTS;
    dots.setAttribute("aria-hidden", "true");
    said.className = "visually-hidden";
    said.textContent = list.dataset.masked;
    content.replaceChildren(dots, said);
    rename(toggle, list.dataset.reveal, label);
    copy.hidden = true;
  }

  toggle.dataset.masked = "";
  toggle.addEventListener("click", async () => {
    if (shown) {
      mask();
      return;
    }
    let answer;
    try {
      answer = await post("/reveal", { secret: now.secret, name });
    } catch {
      tell(list.dataset.refused);
      return;
    }
    if (!whole.isConnected) return;
    clearTimeout(timer);
    shown = true;
    content.textContent = answer.value;
    rename(toggle, list.dataset.conceal, label);
    copy.hidden = !mayCopy;
    timer = setTimeout(mask, REVEALED_MS);
    concealing.push(timer);
  });
  mask();
  return whole;
}

again.addEventListener("click", () => {
  if (!now) return;
  verdict("loading");
  fetchData();
});
