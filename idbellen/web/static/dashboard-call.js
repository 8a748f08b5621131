// The call in hand: who it is, and what can be done with it.

import { choose } from "/static/dashboard-chooser.js";
import { duration, element, fill, send, since, text } from "/static/dashboard-page.js";

const MASK = "•••••••••";
const REVEALED_MS = 30_000;

const live = element("live");
const attributes = element("attributes");

let call = null;
// What the attributes on the screen belong to: fetched again when any of it changes.
let fetched = "";
let began = null;
let conceal = 0;

const identity = (one) => `${one.id} ${one.secret} ${one.results}`;

export function showCall(now, snapshot) {
  if (!now) {
    if (call) live.textContent = live.dataset.over;
    clearCall();
    return;
  }
  if (!call || call.id !== now.id) live.textContent = live.dataset.call;
  call = now;
  began = since(now.age);
  element("call").hidden = false;
  showMode(now);
  for (const button of document.querySelectorAll("[data-verb]")) {
    button.hidden = !now.allowed.includes(button.dataset.verb);
  }
  hideTwin(now);
  choose.update(snapshot);
  showWho(now);
}

// Of two that are each other's opposite only one makes sense.
function hideTwin(now) {
  verbButton(now.muted ? "mute" : "unmute").hidden = true;
  if (now.mode === "conference") verbButton("conference").hidden = true;
  if (now.shared || now.other?.kind === "number") verbButton("share").hidden = true;
  const resume = verbButton("resume");
  const mode = now.mode === "conference" ? "consulted" : now.mode;
  resume.querySelector("span").textContent = resume.getAttribute(`data-${mode}`) ?? "";
}

const verbButton = (verb) => document.querySelector(`[data-verb="${verb}"]`);

function showMode(now) {
  const values = { name: now.other?.title ?? "" };
  const told = [];
  if (now.part === "main" && now.mode !== "talking") told.push(text(now.mode, values));
  if (now.part === "main" && now.shared) told.push(text("shared", values));
  if (now.muted) told.push(text("muted"));
  const mode = element("mode");
  if (mode.textContent !== told.join(" ")) mode.textContent = told.join(" ");
  mode.hidden = !told.length;
  element("call").dataset.mode = now.mode;
  const notice = element("notice");
  notice.hidden = !now.notice;
  if (notice.textContent !== text(now.notice || "none")) notice.textContent = text(now.notice || "none");
}

function showWho(now) {
  const asked = element("asked");
  element("verified").hidden = !now.secret;
  asked.hidden = Boolean(now.secret);
  asked.textContent = now.secret ? "" : fill(asked.dataset.text, { name: now.other?.title, purpose: now.purpose });
  if (!now.secret) {
    clearData();
    return;
  }
  if (fetched === identity(now)) return;
  const late = fetched.startsWith(`${now.id} ${now.secret} `);
  clearData();
  fetched = identity(now);
  verdict("loading");
  addAttribute(attributes.dataset.purpose, now.purpose);
  element("words").textContent = now.words.join(" – ");
  if (late) live.textContent = live.dataset.arrived;
  fetchAttributes(now);
}

async function post(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(String(response.status));
  return response.json();
}

async function fetchAttributes(now) {
  let answer;
  try {
    answer = await post("/attributes", { secret: now.secret });
  } catch {
    if (fetched === identity(now)) verdict("error");
    return;
  }
  // The call may have ended, a late result come, or the connection been lost, while the answer was under way.
  if (fetched !== identity(now)) return;
  verdict(answer.status);
  if (answer.method) element("verdict").textContent += ` ${element("verdict").dataset.with} ${answer.method}`;
  for (const attribute of answer.attributes) {
    if (attribute.masked) addMasked(attribute, now);
    else addAttribute(attribute.label, attribute.value, { copy: true });
  }
  send({ type: "shown", call: now.id });
}

function verdict(status) {
  element("verdict").dataset.status = status;
  element("verdict").textContent = element("verdict").getAttribute(`data-${status}`);
}

function addAttribute(label, value, { copy = false } = {}) {
  const row = document.createElement("div");
  const term = document.createElement("dt");
  const shown = document.createElement("dd");
  const content = document.createElement("span");
  term.textContent = label;
  content.textContent = value;
  shown.append(content);
  row.append(term, shown);
  attributes.append(row);
  if (copy) shown.append(copyButton(label, content));
  return { shown, content };
}

function smallButton(name, label) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button quiet small";
  button.textContent = name;
  button.setAttribute("aria-label", `${name}: ${label}`);
  return button;
}

function copyButton(label, content) {
  const button = smallButton(attributes.dataset.copy, label);
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(content.textContent);
    element("polite").textContent = attributes.dataset.copied;
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1500);
  });
  return button;
}

function addMasked({ name, label }, now) {
  const { shown, content } = addAttribute(label, MASK);
  content.setAttribute("aria-label", attributes.dataset.masked);
  content.setAttribute("role", "img");
  const toggle = smallButton(attributes.dataset.reveal, label);
  toggle.dataset.masked = "";
  const copy = copyButton(label, content);
  copy.hidden = true;
  shown.append(toggle, copy);

  function mask() {
    clearTimeout(conceal);
    content.textContent = MASK;
    content.setAttribute("aria-label", attributes.dataset.masked);
    content.setAttribute("role", "img");
    rename(attributes.dataset.reveal);
    copy.hidden = true;
  }

  function rename(word) {
    toggle.textContent = word;
    toggle.setAttribute("aria-label", `${word}: ${label}`);
  }

  toggle.addEventListener("click", async () => {
    if (!copy.hidden) {
      mask();
      return;
    }
    let answer;
    try {
      answer = await post("/reveal", { secret: now.secret, name });
    } catch {
      element("polite").textContent = attributes.dataset.refused;
      return;
    }
    if (fetched !== identity(now)) return;
    content.removeAttribute("aria-label");
    content.removeAttribute("role");
    content.textContent = answer.value;
    element("polite").textContent = `${label}: ${answer.value}`;
    rename(attributes.dataset.conceal);
    copy.hidden = false;
    conceal = setTimeout(mask, REVEALED_MS);
  });
}

function clearData() {
  clearTimeout(conceal);
  fetched = "";
  attributes.replaceChildren();
  for (const id of ["words", "verdict", "polite"]) element(id).textContent = "";
  delete element("verdict").dataset.status;
}

export function clearCall() {
  call = began = null;
  element("call").hidden = true;
  element("asked").textContent = element("mode").textContent = element("notice").textContent = "";
  choose.close();
  clearData();
}

export function tickCall() {
  element("call-age").textContent = began === null ? "" : duration((performance.now() - began) / 1000);
}

for (const button of document.querySelectorAll("[data-verb]")) {
  button.addEventListener("click", () => {
    const verb = button.dataset.verb;
    const ask = (target) => { if (call) send({ type: "command", call: call.id, verb, target }); };
    if ("choose" in button.dataset) choose.open(verb, ask);
    else ask(null);
  });
}
