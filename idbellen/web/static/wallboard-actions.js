// What supervisors do: two dialogs, one about a caller and one about an agent. The server decides and answers.

import { fill, slot, text } from "/static/wallboard-page.js";

const ANSWER_MS = 60000;

export class Actions {
  #send;
  #dialogs = { callers: document.getElementById("caller-dialog"), agents: document.getElementById("agent-dialog") };
  #snapshot = { callers: [], agents: [] };
  #key = "";
  #asked = new Map();
  #next = 1;
  #lost = true;

  constructor(send) {
    this.#send = send;
    for (const [kind, dialog] of Object.entries(this.#dialogs)) {
      document.getElementById(kind).addEventListener("click", (event) => {
        const button = event.target.closest("button[data-key]");
        if (button) this.#open(kind, button.dataset.key);
      });
      dialog.addEventListener("click", (event) => {
        const button = event.target.closest("button");
        // The backdrop is the dialog itself to a click.
        if (event.target === dialog || button?.classList.contains("close")) dialog.close();
        else if (button) this.#wish(dialog, button.dataset);
      });
    }
  }

  reason(word) {
    const button = [...this.#dialogs.agents.querySelectorAll("[data-reason]")].find((one) => one.dataset.reason === word);
    return button?.dataset.title ?? word;
  }

  show(snapshot) {
    this.#snapshot = snapshot;
    for (const [kind, dialog] of Object.entries(this.#dialogs)) {
      if (dialog.open) this.#describe(kind);
    }
  }

  setLost(lost) {
    this.#lost = lost;
    // Nobody answers these any more; the next snapshot tells what came of them.
    if (lost) this.#asked.clear();
    this.#enable();
  }

  answered({ id, refused }) {
    const asked = this.#asked.get(id);
    if (!asked) return;
    this.#asked.delete(id);
    // Meanwhile somebody may have closed the dialog, or opened it about another.
    const open = asked.dialog.open && this.#key === asked.key;
    if (open) this.#describe(asked.dialog === this.#dialogs.callers ? "callers" : "agents");
    this.#enable();
    const sentence = text(`${refused ? "refused" : "done"}-${refused ?? asked.type}`).replace("{}", asked.key);
    if (refused && open && asked.dialog.open) {
      this.#refuse(asked.dialog, sentence);
      return;
    }
    if (open) asked.dialog.close();
    this.#tell(sentence);
  }

  #open(kind, key) {
    const dialog = this.#dialogs[kind];
    this.#key = key;
    this.#refuse(dialog, "");
    this.#tell("");
    dialog.showModal();
    this.#describe(kind);
    this.#enable();
  }

  #item(kind) {
    return this.#snapshot[kind].find((item) => (kind === "callers" ? item.call : item.name) === this.#key);
  }

  // Say whom the dialog is about as things are now; close it when that is nobody any more.
  #describe(kind) {
    const dialog = this.#dialogs[kind];
    const item = this.#item(kind);
    if (!item) {
      dialog.close();
      this.#tell(text(kind === "callers" ? "gone-caller" : "gone-agent"));
      return;
    }
    if (kind === "callers") {
      fill(dialog, { about: `${item.purpose} – ${text(item.verified ? "verified" : "unverified")}` });
      for (const button of dialog.querySelectorAll("[data-queue]")) button.hidden = button.dataset.queue === item.queue;
      return;
    }
    fill(dialog, { name: item.name, about: text(`state-${item.state}`) });
    const monitor = dialog.querySelector("[data-monitor]");
    if (!monitor) return;
    monitor.hidden = item.state !== "in_call" || item.name === text("self");
    const rings = [...this.#asked.values()].some(({ type, key }) => type === "monitor" && key === item.name);
    fill(dialog, { rings: rings ? text("asked-monitor").replace("{}", item.name) : "" });
  }

  #wish(dialog, { wish, reason, queue, mode }) {
    if (this.#busy(wish)) return;
    const about = dialog === this.#dialogs.callers ? { call: this.#key } : { agent: this.#key };
    const more = { available: {}, pause: { reason }, front: {}, move: { queue }, monitor: { mode } }[wish];
    const id = this.#next++;
    this.#asked.set(id, { dialog, type: wish, key: this.#key });
    this.#refuse(dialog, "");
    this.#send({ type: wish, id, ...about, ...more });
    this.#describe(dialog === this.#dialogs.callers ? "callers" : "agents");
    this.#enable();
    setTimeout(() => { if (this.#asked.has(id)) this.answered({ id, refused: "failed" }); }, ANSWER_MS);
  }

  // A phone may ring for long; all else goes on meanwhile.
  #busy(wish) {
    return this.#lost || [...this.#asked.values()].some(({ type }) => (type === "monitor") === (wish === "monitor"));
  }

  #enable() {
    for (const dialog of Object.values(this.#dialogs)) {
      for (const button of dialog.querySelectorAll("[data-wish]")) {
        // Not "disabled": that would take the focus out of the dialog while an answer is under way.
        button.setAttribute("aria-disabled", String(this.#busy(button.dataset.wish)));
      }
    }
  }

  #refuse(dialog, sentence) {
    slot(dialog, "refused").textContent = sentence;
    slot(dialog, "refused").hidden = !sentence;
  }

  #tell(sentence) {
    document.getElementById("done").textContent = sentence;
  }
}
