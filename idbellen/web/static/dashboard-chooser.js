// Whom to consult or to transfer to: a colleague, a queue or a phone number.

import { element, text } from "/static/dashboard-page.js";

const dialog = element("chooser");
const number = element("number");

let snapshot = null;
let chosen = null;

function choice(title, note, target) {
  const button = document.createElement("button");
  const small = document.createElement("small");
  button.type = "button";
  button.className = "button quiet choice";
  small.textContent = note;
  button.append(title, " ", small);
  button.addEventListener("click", () => take(target));
  return button;
}

function take(target) {
  dialog.close();
  chosen?.(target);
  chosen = null;
}

function fillIn() {
  const agents = snapshot.colleagues.map((other) => {
    const state = element("state").getAttribute(`data-colleague-${other.state}`) ?? "";
    const note = other.free ? text("free") : [text("not-free-now"), state].filter(Boolean).join(": ");
    const button = choice(other.name, note, { kind: "agent", name: other.name });
    button.disabled = !other.free;
    return button;
  });
  const queues = snapshot.queues.map((queue) => {
    const note = queue.waiting === null ? "" : text("waiting", { count: queue.waiting });
    return choice(queue.title, note, { kind: "queue", name: queue.name });
  });
  replace("chooser-agents", agents);
  replace("chooser-queues", queues);
  element("chooser-outside").hidden = !snapshot.numbers;
  element("chooser-nobody").hidden = agents.length + queues.length > 0 || snapshot.numbers;
}

function replace(id, buttons) {
  const place = element(id);
  place.closest("fieldset").hidden = !buttons.length;
  // The same people as before keep their buttons, and with them the focus.
  if (place.textContent === buttons.map((button) => button.textContent).join("")) return;
  place.replaceChildren(...buttons);
}

export const choose = {
  update(now) {
    snapshot = now;
    if (dialog.open) fillIn();
  },
  open(verb, then) {
    chosen = then;
    const title = element("chooser-title");
    title.textContent = title.getAttribute(`data-${verb}`);
    number.value = "";
    fillIn();
    dialog.showModal();
  },
  close() {
    chosen = null;
    if (dialog.open) dialog.close();
  },
};

function callNumber() {
  number.value = number.value.replace(/[\s()-]/g, "");
  if (number.value && number.reportValidity()) take({ kind: "number", name: number.value });
}
element("number-go").addEventListener("click", callNumber);
number.addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  callNumber();
});
