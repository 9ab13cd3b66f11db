// The inbox and the refused attempts: read once, then kept up to date by the stream of events.

import { announce, ask, byId, confirmed, copyFrom, count, plural } from "./dom.js";
import { readFaults, readLimits, startControls } from "./controls.js";
import { attemptNode, messageNode, showReceipt } from "./entries.js";

const STEP = 100;

// --- a list of which the newest are shown ---

let everything = 0; // messages in the inbox, whatever the filter

class List {
  constructor({ name, path, key, nodeOf, idOf, matches }) {
    Object.assign(this, { path, key, nodeOf, idOf, matches });
    this.list = byId(name === "inbox" ? "messages" : "attempts");
    this.older = byId(`${name}-older`);
    this.summary = byId(`${name}-summary`);
    this.name = name;
    this.shown = STEP;
    this.total = 0;
    this.nodes = new Map();
    this.older.addEventListener("click", () => this.showOlder());
  }

  async read() {
    const answer = await ask("GET", `${this.path()}&limit=${this.shown}`);
    const kept = new Map();
    const nodes = answer[this.key].reverse().map((item) => {
      const id = this.idOf(item);
      const node = (id !== undefined && this.nodes.get(id)) || this.nodeOf(item);
      if (id !== undefined) kept.set(id, node);
      if (node.dataset.channel) showReceipt(node, item);
      return node;
    });
    // Nodes that stay are left in their places, so that focus and selections survive.
    const wanted = new Set(nodes);
    for (const node of [...this.list.children]) if (!wanted.has(node)) node.remove();
    nodes.forEach((node, index) => {
      if (this.list.children[index] !== node) this.list.insertBefore(node, this.list.children[index] ?? null);
    });
    this.nodes = kept;
    this.total = answer.total;
    if (answer.all !== undefined) everything = answer.all;
    this.update();
  }

  async showOlder() {
    const before = this.list.children.length;
    this.shown += STEP;
    await readAll();
    const first = this.list.children[before];
    if (first) {
      first.tabIndex = -1;
      first.focus({ preventScroll: true });
    }
    announce(`${plural(this.list.children.length, "entry", "entries")} shown`);
  }

  /** Put new items on top, oldest of them first; return those that are shown. */
  add(items, total) {
    const fresh = items.filter((item) => this.matches(item) && !this.nodes.has(this.idOf(item)));
    const nodes = fresh.slice(-this.shown).map((item) => {
      const node = this.nodeOf(item);
      node.classList.add("fresh");
      if (this.idOf(item) !== undefined) this.nodes.set(this.idOf(item), node);
      return node;
    });
    this.list.prepend(...nodes.reverse());
    while (this.list.children.length > this.shown && !this.list.lastChild.contains(document.activeElement)) {
      this.list.lastChild.remove();
    }
    if (this.nodes.size > 2 * this.shown) {
      for (const [id, node] of this.nodes) if (!node.isConnected) this.nodes.delete(id);
    }
    this.total = total ?? this.total + fresh.length;
    this.update();
    return fresh;
  }

  update() {
    const shown = this.list.children.length;
    this.total = Math.max(this.total, shown);
    this.older.hidden = shown >= this.total;
    this.summary.textContent = shown < this.total ? `The newest ${count(shown)} of ${count(this.total)}` : "";
    this.list.hidden = shown === 0;
    this.onUpdate(shown);
  }
}

const filter = byId("filter");
const bare = (number) => number.replace(/[ +\-.()/]/g, "");

const inbox = new List({
  name: "inbox",
  key: "messages",
  path: () => `messages?number=${encodeURIComponent(filter.value)}`,
  nodeOf: messageNode,
  idOf: (message) => message.messageId ?? message.callId,
  matches: (message) => message.to.includes(bare(filter.value)) || message.from.includes(bare(filter.value)),
});
inbox.onUpdate = (shown) => {
  byId("inbox-empty").hidden = everything > 0;
  byId("inbox-none").hidden = everything === 0 || shown > 0;
  byId("inbox-count").textContent = count(everything);
  byId("clear-inbox").disabled = everything === 0;
  if (bare(filter.value) && shown === inbox.total) inbox.summary.textContent = `${count(shown)} of ${plural(everything, "message")}`;
};

const refused = new List({
  name: "refused",
  key: "requests",
  path: () => "requests?refused",
  nodeOf: attemptNode,
  idOf: () => undefined,
  matches: () => true,
});
refused.onUpdate = (shown) => {
  byId("refused-empty").hidden = shown > 0;
  byId("refused-count").textContent = count(refused.total);
  byId("clear-refused").disabled = shown === 0;
};

// --- the stream of events ---

let source = null;
let waiting = [];
let flushing = 0;
let reading = null;
let again = false;

function say(state, text) {
  const status = byId("status");
  status.dataset.state = state;
  if (status.textContent !== text) status.textContent = text;
}

/** Read everything. Events that come meanwhile wait, and are applied afterwards, in order. */
function readAll() {
  again = true;
  reading ??= readWhileAsked();
  return reading;
}

async function readWhileAsked() {
  try {
    while (again) {
      again = false;
      waiting = [];
      await Promise.all([inbox.read(), refused.read(), readLimits(), readFaults()]);
    }
    say("live", "Live");
  } catch {
    say("lost", "Out of reach, trying again");
    setTimeout(readAll, 2000);
  } finally {
    reading = null;
  }
  flush();
}

function flush() {
  flushing = 0;
  if (reading) return;
  const events = waiting;
  waiting = [];
  const messages = [];
  const attempts = [];
  const receipts = [];
  let total;
  for (const { type, data } of events) {
    if (type === "message") {
      messages.push(data.message);
      total = data.total;
    } else if (type === "receipt") receipts.push(data);
    else if (type === "request") attempts.push(data);
  }
  if (total !== undefined) everything = total;
  if (messages.length) {
    const fresh = inbox.add(messages, bare(filter.value) ? undefined : total);
    if (fresh.length === 1) announce(`New code ${fresh[0].code} to ${fresh[0].to}`);
    else if (fresh.length) announce(plural(fresh.length, "new message"));
  }
  for (const receipt of receipts) {
    const node = inbox.nodes.get(receipt.id);
    if (node) showReceipt(node, receipt);
  }
  if (attempts.length) refused.add(attempts);
  if (events.some(({ type }) => type === "limits")) readLimits();
  if (events.some(({ type }) => type === "faults")) readFaults();
}

function listen() {
  if (source || document.hidden) return;
  source = new EventSource("/_simulator/events");
  source.addEventListener("open", readAll);
  source.addEventListener("reload", readAll);
  for (const type of ["message", "receipt", "request", "limits", "faults"]) {
    source.addEventListener(type, (event) => {
      waiting.push({ type, data: JSON.parse(event.data) });
      flushing ||= setTimeout(flush, 20);
    });
  }
  source.addEventListener("error", () => {
    say("lost", "Out of reach, trying again");
    if (source?.readyState !== EventSource.CLOSED) return;
    unlisten();
    setTimeout(listen, 2000);
  });
}

function unlisten() {
  source?.close();
  source = null;
}

// Browsers allow six connections to one address: tabs nobody looks at give theirs back, and catch up when shown.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) unlisten();
  else listen();
});

// --- the rest of the page ---

const VIEWS = { inbox: "Inbox", refused: "Refused attempts", controls: "Controls" };

function showView(event) {
  const view = location.hash.slice(1) || "inbox";
  if (!VIEWS[view]) return; // the skip link
  document.body.dataset.view = view;
  document.title = `${VIEWS[view]} · MFA simulator`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (event) {
    window.scrollTo(0, 0);
    byId(`${view}-title`).focus({ preventScroll: true });
  }
}

const quoted = (text) => (/^[\w.:/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

async function showAddress() {
  const base = `${location.origin}/api/v1`;
  byId("base-url").textContent = base;
  const { accountId } = await ask("GET", "account");
  byId("env").textContent = [
    `export BW_MFA_URL=${base}`,
    `export BW_ACCOUNT_ID=${quoted(accountId)}`,
    "# and BW_USERNAME, BW_PASSWORD: shown where it was started",
  ].join("\n");
  const body = {
    to: "+19195551234",
    from: "+19195554321",
    applicationId: "93de2206-9669-4e07-948d-329f4b722ee2",
    scope: "login",
    message: "Your {NAME} {SCOPE} code is {CODE}",
    digits: 6,
  };
  byId("curl").textContent = [
    `curl${location.protocol === "https:" ? " --insecure" : ""} -u "$BW_USERNAME:$BW_PASSWORD" \\`,
    `  -H 'Content-Type: application/json' \\`,
    `  -d '${JSON.stringify(body)}' \\`,
    `  ${quoted(`${base}/accounts/${accountId}/code/messaging`)}`,
  ].join("\n");
}

let typing = 0;
function filterChanged() {
  clearTimeout(typing);
  typing = setTimeout(async () => {
    inbox.shown = STEP;
    await readAll();
    announce(bare(filter.value) ? `${plural(inbox.total, "message")} found` : "Every message is shown");
  }, 120);
}

function clearing(button, title, text, path) {
  byId(button).addEventListener("click", async () => {
    if (!(await confirmed(title, text(), "Clear"))) return;
    await ask("DELETE", path);
    await readAll();
    byId(`${document.body.dataset.view}-title`).focus();
    announce("Cleared");
  });
}

filter.addEventListener("input", filterChanged);
byId("filter-form").addEventListener("submit", (event) => event.preventDefault());
byId("filter-off").addEventListener("click", () => {
  filter.value = "";
  filterChanged();
  filter.focus();
});
for (const button of document.querySelectorAll("[data-copies]")) {
  const { copies, what } = button.dataset;
  button.addEventListener("click", () => copyFrom(button, button.querySelector(".word"), byId(copies).textContent, what));
}
clearing("clear-inbox", "Clear the inbox?", () => `${plural(everything, "message")} will be gone. The codes in them stay valid.`, "messages");
clearing("clear-refused", "Clear the attempts?", () => "The record of every request will be gone. Lock-outs stay.", "requests");
window.addEventListener("hashchange", showView);
showView();
startControls();
showAddress();
listen();
