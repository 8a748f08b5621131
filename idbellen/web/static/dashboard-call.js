// The call in hand: with whom the agent is together, and what can be done.

import { clearData, showData } from "/static/dashboard-attributes.js";
import { choose } from "/static/dashboard-chooser.js";
import { duration, element, fill, send, since, tell, text } from "/static/dashboard-page.js";

const live = element("live");

let call = null;
let began = null;

export function showCall(now, snapshot) {
  if (!now) {
    if (call) live.textContent = live.dataset.over;
    clearCall();
    return;
  }
  if (call?.id !== now.id) live.textContent = live.dataset.call;
  else if (call.part !== now.part) tell(text("yours"));
  call = now;
  began = since(now.age);
  element("call").hidden = false;
  showMode(now);
  showButtons(now);
  choose.update(snapshot);
  showWho(now);
}

const verbButton = (verb) => document.querySelector(`[data-verb="${verb}"]`);

function showButtons(now) {
  for (const button of document.querySelectorAll("[data-verb]")) {
    button.hidden = !now.allowed.includes(button.dataset.verb);
  }
  // Of two that are each other's opposite only one makes sense.
  verbButton(now.muted ? "mute" : "unmute").hidden = true;
  if (now.mode === "conference") verbButton("conference").hidden = true;
  if (now.shared || now.other?.kind === "number") verbButton("share").hidden = true;
  const resume = verbButton("resume");
  const mode = now.mode === "conference" ? "consulted" : now.mode;
  resume.querySelector("span").textContent = resume.getAttribute(`data-${mode}`) ?? "";
}

function showMode(now) {
  const values = { name: now.other?.title ?? "" };
  const consulted = now.part === "consulted";
  const told = [];
  if (consulted && now.mode === "consulted") told.push(text("asked", values));
  else if (now.mode === "held" && now.phone_holds) told.push(text("held-by-phone"));
  else if (now.mode !== "talking") told.push(text(now.mode, values));
  if (now.mode !== "held" && now.phone_holds) told.push(text("phone-holds"));
  if (!consulted && now.shared) told.push(text("shared", values));
  if (now.muted) told.push(text("muted"));
  say(element("mode"), told.join(" "));
  element("call").dataset.mode = now.mode;
  say(element("notice"), now.notice && (text(now.notice) || text("in-vain")));
  // To hang up is to transfer then, as on a desk phone, and nobody should find out by accident.
  const leaves = !consulted && ["consulting", "consulted", "conference"].includes(now.mode);
  say(element("leaving"), leaves ? fill(element("leaving").dataset.text, values) : "");
}

// A live region speaks when its text is set, so the same text is not set again.
function say(place, words) {
  if (place.textContent !== words) place.textContent = words;
  place.hidden = !words;
}

function showWho(now) {
  const asked = element("asked");
  element("verified").hidden = !now.secret;
  const asks = () => fill(asked.dataset.text, { name: now.other?.title, purpose: now.purpose });
  const without = () => now.part === "consulted" ? asks() : asked.dataset.unverified;
  say(asked, now.secret ? "" : without());
  if (now.secret) showData(now);
  else clearData();
}

export function clearCall() {
  call = began = null;
  element("call").hidden = true;
  for (const id of ["asked", "mode", "notice", "leaving"]) element(id).textContent = "";
  choose.close();
  clearData();
}

export function tickCall() {
  element("call-age").textContent = began === null ? "" : duration((performance.now() - began) / 1000);
}

for (const button of document.querySelectorAll("[data-verb]")) {
  button.addEventListener("click", (event) => {
    // The second half of a double click would press what has come in this button's place.
    if (event.detail > 1) return;
    const verb = button.dataset.verb;
    const ask = (target) => { if (call) send({ type: "command", call: call.id, verb, target }); };
    if ("choose" in button.dataset) choose.open(verb, ask);
    else ask(null);
  });
}
