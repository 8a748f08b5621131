// The citizen's page, live: the server sends the parts that change. Without this script the page says the same, as
// it was when it was opened.

const SILENCE_MS = 40_000;
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 8000;

const element = (id) => document.getElementById(id);
const kind = element("main").dataset.kind;
const form = element("new-code");
// A new code makes the one in this browser's other tabs worthless.
const tabs = new BroadcastChannel("idbellen");

let source = null;
let silence = 0;
let retry = 0;
let retryMs = FIRST_RETRY_MS;
let renewing = false;

function connect() {
  source?.close();
  clearTimeout(retry);
  source = new EventSource("/live");
  waitForSilence();
  source.addEventListener("message", (event) => {
    heard();
    show(JSON.parse(event.data));
  });
  source.addEventListener("beat", heard);
  source.addEventListener("elsewhere", rest);
  source.addEventListener("error", lost);
}

function heard() {
  waitForSilence();
  retryMs = FIRST_RETRY_MS;
  element("lost").hidden = true;
}

function waitForSilence() {
  clearTimeout(silence);
  silence = setTimeout(lost, SILENCE_MS);
}

function lost() {
  source.close();
  clearTimeout(silence);
  clearTimeout(retry);
  element("lost").hidden = false;
  retry = setTimeout(connect, retryMs * (0.5 + Math.random() / 2));
  retryMs = Math.min(LONGEST_RETRY_MS, retryMs * 2);
}

// So many tabs that this one is not told any more: it is when somebody looks at it.
function rest() {
  source.close();
  clearTimeout(silence);
  document.addEventListener("visibilitychange", () => (document.hidden ? rest() : connect()), { once: true });
}

function show(update) {
  if (update.kind !== kind) {
    location.reload();
    return;
  }
  if (!update.html) return;
  const parts = document.createElement("template");
  parts.innerHTML = update.html;
  fill(parts.content, ["stage", "words", "login", "validity"]);
  for (const part of document.querySelectorAll("[data-when]")) part.hidden = part.dataset.when !== update.stage;
  document.title = `${document.querySelector("h1").textContent} – ${element("site-name").textContent}`;
}

// What did not change stays as it is, so that nobody hears it again.
function fill(parts, ids) {
  for (const id of ids) {
    const shown = element(id);
    const part = parts.querySelector(`#${id}`);
    if (shown && shown.innerHTML !== part.innerHTML) shown.replaceChildren(...part.childNodes);
  }
}

async function renew(event) {
  event.preventDefault();
  if (renewing) return;
  renewing = true;
  let page;
  try {
    const response = await fetch(form.action, { method: "POST" });
    page = new DOMParser().parseFromString(await response.text(), "text/html");
    if (page.getElementById("main").dataset.kind !== kind) throw new Error("another page");
    fill(page, ["ways", "validity"]);
  } catch {
    // The browser tells better what is wrong.
    form.submit();
    return;
  }
  renewing = false;
  const groups = [...element("code").children].map((group) => [...group.textContent].join(" "));
  element("announcement").textContent = `${element("announcement").dataset.text} ${groups.join(", ")}`;
  tabs.postMessage("new code");
  connect();
}

form?.addEventListener("submit", renew);
tabs.addEventListener("message", () => location.reload());
addEventListener("offline", lost);
addEventListener("online", connect);
addEventListener("pagehide", () => source.close());
// A page that comes back from the browser's cache is old: begin anew.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
connect();
