// The supervisors' wallboard: connection, figures and lists. What supervisors do is in wallboard-actions.js.

import { Actions } from "/static/wallboard-actions.js";
import { duration, fill, slot, text } from "/static/wallboard-page.js";

// A little less than the five seconds within which a lost connection is to be seen.
const SILENCE_MS = 4500;
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 8000;
const LOGIN_ENDED = 1008;
// This account has too many wallboards for all of them to be told at once, so they take turns.
const ELSEWHERE = 4001;
const TURN_MS = 60_000;
// The chart changes with each call; so often is enough. And now and then in any case, because a day ends.
const CHART_PAUSE_MS = 15000;
const CHART_LONGEST_MS = 300000;

const element = (id) => document.getElementById(id);
const board = element("board");

let socket = null;
let silence = 0;
let retryMs = FIRST_RETRY_MS;
let counted = "";
let chartDue = 0;
let chartAt = -Infinity;

const actions = new Actions((wish) => socket.send(JSON.stringify(wish)));

// Connection

function connect() {
  const url = new URL("/wallboard/live", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(url);
  watchSilence();
  socket.addEventListener("message", (event) => {
    watchSilence();
    const message = JSON.parse(event.data);
    if (message.type === "snapshot") {
      retryMs = FIRST_RETRY_MS;
      setLost(false);
      show(message);
    } else if (message.type === "answer") {
      actions.answered(message);
    }
  });
  socket.addEventListener("close", (event) => {
    clearTimeout(silence);
    setLost(true);
    if (event.code === LOGIN_ENDED) {
      // The server says there whether to log in or that this account is no supervisor's.
      location.assign("/wallboard");
      return;
    }
    setTimeout(connect, event.code === ELSEWHERE ? TURN_MS : retryMs * (0.5 + Math.random() / 2));
    retryMs = Math.min(LONGEST_RETRY_MS, retryMs * 2);
  });
}

function watchSilence() {
  clearTimeout(silence);
  const watched = socket;
  silence = setTimeout(() => {
    // Closing waits for the other side, who is silent: that is to be seen now.
    setLost(true);
    watched.close();
  }, SILENCE_MS);
}

function setLost(lost) {
  element("lost").hidden = !lost;
  board.toggleAttribute("data-lost", lost);
  actions.setLost(lost);
}

// Figures and lists

function show(snapshot) {
  const { total, queues, agents, callers } = snapshot;
  element("telephony").hidden = snapshot.telephony;
  showNow(element("total"), total, queues.some((queue) => late(queue)));
  fill(element("total"), {
    available: total.agents.available,
    in_call: total.agents.in_call,
    answered: total.today.answered,
    level: percent(total.today.service_level),
  });
  mark(element("total"), "level", queues.some((queue) => queue.today.on_target === false));
  keep(element("queues"), element("queue-template"), queues, (queue) => queue.name, showQueue);
  const targets = new Map(queues.map((queue) => [queue.name, queue.target.within]));
  list("callers", callers, (caller) => caller.call, (row, caller) => showCaller(row, caller, targets.get(caller.queue)));
  list("agents", agents, (agent) => agent.name, showAgent);
  actions.show(snapshot);
  const counts = JSON.stringify(queues.map((queue) => queue.today));
  if (counts !== counted) {
    counted = counts;
    planChart(Math.max(0, chartAt + CHART_PAUSE_MS - performance.now()));
  }
}

const percent = (level) => (level === null ? "–" : `${level}%`);
const late = (queue) => queue.longest_wait !== null && queue.longest_wait > queue.target.within;

function showNow(root, now, isLate) {
  fill(root, { waiting: now.waiting });
  const longest = slot(root, "longest");
  if (now.longest_wait === null) {
    delete longest.dataset.since;
    longest.textContent = "–";
  } else {
    since(longest, now.longest_wait);
  }
  mark(root, "longest", isLate);
}

function mark(root, tile, on) {
  const node = root.querySelector(`[data-tile="${tile}"]`);
  node.toggleAttribute("data-alarm", on);
  node.querySelector("[data-alarm-text]").hidden = !on;
}

function showQueue(card, queue) {
  showNow(card, queue, late(queue));
  const { today } = queue;
  fill(card, {
    ...queue.agents,
    title: queue.title,
    expected: expected(queue.expected_wait),
    level: percent(today.service_level),
    within: slot(card, "within").dataset.text.replace("{}", queue.target.within),
    offered: today.offered,
    answered: today.answered,
    abandoned: today.abandoned,
    sent_away: Object.values(today.sent_away).reduce((sum, count) => sum + count, 0),
    mean_wait: today.mean_wait === null ? "–" : duration(today.mean_wait),
  });
  for (const group of card.querySelectorAll(".staff [data-state]")) {
    group.toggleAttribute("data-none", queue.agents[group.dataset.state] === 0);
  }
  card.querySelector(".meter .fill").setAttribute("width", today.service_level ?? 0);
  mark(card, "level", today.on_target === false);
}

function expected(seconds) {
  if (seconds === null) return "–";
  return seconds === 0 ? text("atOnce") : text("minutes").replace("{}", Math.ceil(seconds / 60));
}

function showCaller(row, caller, within) {
  fill(row, {
    purpose: caller.purpose,
    queue: caller.queue_title,
    verified: text(caller.verified ? "verified" : "unverified"),
    offered: caller.offered_to.length ? text("offered").replace("{}", caller.offered_to.join(", ")) : "",
    subject: ` ${caller.purpose}`,
  });
  slot(row, "verified").dataset.verified = caller.verified;
  since(slot(row, "waited"), caller.seconds, within);
}

function showAgent(row, agent) {
  const reason = agent.reason ? actions.reason(agent.reason) : "";
  const call = agent.call ? agent.call.purpose : "";
  const then = agent.afterwards && agent.afterwards !== "available" ? text("afterwards").replace("{}", state(agent.afterwards)) : "";
  fill(row, {
    name: agent.name,
    state: state(agent.state),
    note: [reason, call, then].filter(Boolean).join(", "),
    phone: text(`phone-${agent.phone}`),
    queues: agent.queues.length ? agent.queues.join(", ") : text("allQueues"),
    subject: ` ${agent.name}`,
  });
  slot(row, "state").dataset.state = agent.state;
  slot(row, "phone").toggleAttribute("data-alarm", agent.phone === "unregistered");
  since(slot(row, "since"), agent.seconds);
}

const state = (name) => text(`state-${name}`);

// Lists whose rows stay, so that neither the focus nor what is read aloud is lost when others come and go.

function list(id, items, keyOf, showItem) {
  const table = element(id);
  keep(table.tBodies[0], element(`${id.slice(0, -1)}-template`), items, keyOf, (row, item) => {
    row.querySelector("button").dataset.key = keyOf(item);
    showItem(row, item);
  });
  table.hidden = items.length === 0;
  element(`no-${id}`).hidden = items.length > 0;
}

function keep(parent, template, items, keyOf, showItem) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  let before = null;
  for (const item of items) {
    const key = keyOf(item);
    const child = known.get(key) ?? template.content.firstElementChild.cloneNode(true);
    known.delete(key);
    child.dataset.key = key;
    showItem(child, item);
    const next = before ? before.nextElementSibling : parent.firstElementChild;
    if (next !== child) parent.insertBefore(child, next);
    before = child;
  }
  for (const child of known.values()) child.remove();
  // A row that was moved has lost it.
  if (focused?.isConnected) focused.focus({ preventScroll: true });
}

// Time

function since(node, seconds, within) {
  node.dataset.since = performance.now() - seconds * 1000;
  if (within === undefined) delete node.dataset.within;
  else node.dataset.within = within;
  tell(node);
}

function tell(node) {
  const seconds = (performance.now() - Number(node.dataset.since)) / 1000;
  node.textContent = duration(seconds);
  const isLate = node.dataset.within !== undefined && seconds > Number(node.dataset.within);
  node.toggleAttribute("data-alarm", isLate);
  if (isLate) {
    const hidden = document.createElement("span");
    hidden.className = "visually-hidden";
    hidden.textContent = ` ${text("late")}`;
    node.append(hidden);
  }
}

function tick() {
  // Whom we cannot hear may be served by now.
  if (!board.hasAttribute("data-lost")) document.querySelectorAll("[data-since]").forEach(tell);
}

// Chart

function planChart(ms) {
  clearTimeout(chartDue);
  chartDue = setTimeout(fetchChart, ms);
}

async function fetchChart() {
  const queue = element("chart-queue")?.value ?? "";
  chartAt = performance.now();
  planChart(CHART_LONGEST_MS);
  if (board.hasAttribute("data-lost")) return;
  let html;
  try {
    const response = await fetch(`/wallboard/chart?queue=${encodeURIComponent(queue)}`);
    if (!response.ok) return;
    html = await response.text();
  } catch {
    // The connection is lost, which the websocket tells too; the chart comes with the next change.
    counted = "";
    return;
  }
  const place = element("chart-place");
  const open = place.querySelector("details")?.open ?? false;
  const inside = place.querySelector("summary") === document.activeElement;
  const template = document.createElement("template");
  template.innerHTML = html;
  place.replaceChildren(template.content);
  const details = place.querySelector("details");
  if (details) {
    details.open = open;
    if (inside) details.querySelector("summary").focus();
  }
}

element("chart-queue")?.addEventListener("change", fetchChart);
// A page that comes back from the browser's cache is old: begin anew.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
setInterval(tick, 1000);
connect();
