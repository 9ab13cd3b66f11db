// The inbox and the requests that were not accepted: read once, then updated by the stream of events.

import { announce, attempt, byId, callApi, confirmAction, copyFrom, count, plural } from "./dom.js";
import { readFaults, readLimits, startControls } from "./controls.js";
import { attemptNode, messageNode, showState } from "./entries.js";

const PAGE_SIZE = 100;

// --- a list that shows its newest entries ---

let inboxTotal = 0; // messages in the inbox, without the filter

class EntryList {
  constructor({ name, path, key, nodeOf, idOf, matches }) {
    Object.assign(this, { path, key, nodeOf, idOf, matches });
    this.list = byId(name === "inbox" ? "messages" : "attempts");
    this.older = byId(`${name}-older`);
    this.summary = byId(`${name}-summary`);
    this.name = name;
    this.shown = PAGE_SIZE;
    this.total = 0;
    this.nodes = new Map();
    this.older.addEventListener("click", () => this.showOlder());
  }

  async read() {
    const answer = await callApi("GET", `${this.path()}&limit=${this.shown}`);
    const kept = new Map();
    const nodes = answer[this.key].reverse().map((item) => {
      const id = this.idOf(item);
      const node = (id !== undefined && this.nodes.get(id)) || this.nodeOf(item);
      if (id !== undefined) kept.set(id, node);
      if (node.dataset.channel) showState(node, item);
      return node;
    });
    // Do not move nodes that stay, so that focus and selection survive.
    const wanted = new Set(nodes);
    for (const node of [...this.list.children]) if (!wanted.has(node)) node.remove();
    nodes.forEach((node, index) => {
      if (this.list.children[index] !== node) this.list.insertBefore(node, this.list.children[index] ?? null);
    });
    this.nodes = kept;
    this.total = answer.total;
    if (answer.all !== undefined) inboxTotal = answer.all;
    this.update();
  }

  async showOlder() {
    const before = this.list.children.length;
    this.shown += PAGE_SIZE;
    await readAll();
    const first = this.list.children[before];
    if (first) {
      first.tabIndex = -1;
      first.focus({ preventScroll: true });
    }
    announce(`${plural(this.list.children.length, "entry", "entries")} shown`);
  }

  /** Add new items, oldest first, at the top; return those that match the filter. */
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
const stripSeparators = (number) => number.replace(/[ +\-.()/]/g, "");

const inbox = new EntryList({
  name: "inbox",
  key: "messages",
  path: () => `messages?number=${encodeURIComponent(filter.value)}`,
  nodeOf: messageNode,
  idOf: (message) => message.messageId ?? message.callId,
  matches: (message) => message.to.includes(stripSeparators(filter.value)) || message.from.includes(stripSeparators(filter.value)),
});
inbox.onUpdate = (shown) => {
  showEmpty();
  byId("inbox-none").hidden = inboxTotal === 0 || shown > 0;
  byId("inbox-count").textContent = count(inboxTotal);
  byId("clear-inbox").disabled = inboxTotal === 0;
  if (stripSeparators(filter.value) && shown === inbox.total) inbox.summary.textContent = `${count(shown)} of ${plural(inboxTotal, "message")}`;
};

const refused = new EntryList({
  name: "refused",
  key: "requests",
  path: () => "requests?refused",
  nodeOf: attemptNode,
  idOf: () => undefined,
  matches: () => true,
});
refused.onUpdate = (shown) => {
  showEmpty();
  byId("refused-count").textContent = count(refused.total);
  byId("clear-refused").disabled = shown === 0;
};

// --- the stream of events ---

let source = null;
let pendingEvents = [];
let flushTimer = 0;
let activeRead = null;
let readAgain = false;

let isOffline = false;

/** Say why a list is empty: nothing has arrived, or the simulator does not answer. */
function showEmpty() {
  byId("inbox-empty").hidden = inboxTotal > 0 || isOffline;
  byId("inbox-offline").hidden = inboxTotal > 0 || !isOffline;
  byId("refused-empty").hidden = refused.total > 0 || isOffline;
}

function setStatus(state, text) {
  isOffline = state === "lost";
  showEmpty();
  const status = byId("status");
  status.dataset.state = state;
  if (status.textContent !== text) status.textContent = text;
}

/** Read everything. Events that arrive meanwhile are applied afterwards, in order. */
function readAll() {
  readAgain = true;
  activeRead ??= readUntilCurrent();
  return activeRead;
}

async function readUntilCurrent() {
  try {
    while (readAgain) {
      readAgain = false;
      pendingEvents = [];
      await Promise.all([inbox.read(), refused.read(), readLimits(), readFaults()]);
    }
    setStatus("live", "Live");
  } catch {
    setStatus("lost", "Offline, retrying");
    setTimeout(readAll, 2000);
  } finally {
    activeRead = null;
  }
  flush();
}

function flush() {
  flushTimer = 0;
  if (activeRead) return;
  const events = pendingEvents;
  pendingEvents = [];
  const messages = [];
  const attempts = [];
  const states = [];
  let total;
  for (const { type, data } of events) {
    if (type === "message") {
      messages.push(data.message);
      total = data.total;
    } else if (type === "state") states.push(data);
    else if (type === "request") attempts.push(data);
  }
  if (total !== undefined) inboxTotal = total;
  if (messages.length) {
    const fresh = inbox.add(messages, stripSeparators(filter.value) ? undefined : total);
    if (fresh.length === 1) announce(`New code ${fresh[0].code} to ${fresh[0].to}`);
    else if (fresh.length) announce(plural(fresh.length, "new message"));
  }
  for (const state of states) {
    const node = inbox.nodes.get(state.id);
    if (node) showState(node, state);
  }
  if (attempts.length) refused.add(attempts);
  if (events.some(({ type }) => type === "limits")) readLimits();
  if (events.some(({ type }) => type === "faults")) readFaults();
}

function listen() {
  if (source || document.hidden) return;
  source = new EventSource("_simulator/events");
  source.addEventListener("open", readAll);
  source.addEventListener("reload", readAll);
  for (const type of ["message", "state", "request", "limits", "faults"]) {
    source.addEventListener(type, (event) => {
      pendingEvents.push({ type, data: JSON.parse(event.data) });
      flushTimer ||= setTimeout(flush, 20);
    });
  }
  source.addEventListener("error", () => {
    setStatus("lost", "Offline, retrying");
    if (source?.readyState !== EventSource.CLOSED) return;
    unlisten();
    setTimeout(listen, 2000);
  });
}

function unlisten() {
  source?.close();
  source = null;
}

// Browsers allow six connections per address, so a hidden tab closes its own and reads again when it is shown.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) unlisten();
  else listen();
});

// --- the rest of the page ---

const VIEWS = { inbox: "Inbox", refused: "Not accepted", controls: "Controls" };

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

const shellQuote = (text) => (/^[\w.:/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

async function showAddress() {
  const base = new URL("api/v1", document.baseURI).href;
  byId("base-url").textContent = base;
  const { accountId } = await callApi("GET", "account");
  byId("env").textContent = [
    `export BW_MFA_URL=${base}`,
    `export BW_TOKEN_URL=${base}/oauth2/token`,
    `export BW_ACCOUNT_ID=${shellQuote(accountId)}`,
    "# and BW_USERNAME, BW_PASSWORD: printed where the simulator was started",
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
    `  ${shellQuote(`${base}/accounts/${accountId}/code/messaging`)}`,
  ].join("\n");
}

let filterTimer = 0;
function filterChanged() {
  clearTimeout(filterTimer);
  filterTimer = setTimeout(async () => {
    inbox.shown = PAGE_SIZE;
    await readAll();
    announce(stripSeparators(filter.value) ? `${plural(inbox.total, "message")} found` : "All messages are shown");
  }, 120);
}

function confirmBeforeClearing(button, title, text, path) {
  byId(button).addEventListener("click", () =>
    attempt(async () => {
      if (!(await confirmAction(title, text(), "Clear"))) return;
      await callApi("DELETE", path);
      await readAll();
      byId(`${document.body.dataset.view}-title`).focus();
      announce("Cleared");
    }),
  );
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
confirmBeforeClearing("clear-inbox", "Clear the inbox?", () => `${plural(inboxTotal, "message")} will be deleted. Their codes stay valid.`, "messages");
confirmBeforeClearing("clear-refused", "Clear the list?", () => "The records of all requests will be deleted. Lock-outs stay.", "requests");
window.addEventListener("hashchange", showView);
showView();
startControls();
attempt(showAddress);
listen();
