// The forms that show and change the account's rate limit and the faults.

import { announce, attempt, byId, callApi, describeFault, make, plural, serially, untrusted } from "./dom.js";

const OPERATION_NAMES = { messaging: "Text messages", voice: "Calls", verify: "Verifications", token: "OAuth2 tokens" };
const MODEL_DESCRIPTIONS = {
  queue: (limit) => `queue of ${limit.queue_seconds} s`,
  token_bucket: (limit) => (limit.burst === null ? "bucket" : `bucket of ${limit.burst}`),
  fixed_window: () => "fixed window",
  sliding_log: () => "sliding log",
  per_number: (limit) => `for each ${limit.number === "to" ? "recipient" : "sender"}`,
};
// Bandwidth's defaults, for a channel without a limit.
const DEFAULTS = { messaging: { rate: 1, per: 1, queue_seconds: 900 }, voice: { rate: 5, per: 1, queue_seconds: 300 } };

/** Show only the fields that apply to the selected option. */
function showFields(form, selected) {
  for (const field of form.querySelectorAll("[data-for]")) {
    field.hidden = !field.dataset.for.split(" ").includes(selected);
  }
}

function showProblem(id, text) {
  byId(id).textContent = text;
}

function readNumber(id, name, { min = 0, exclusive = false, max = Infinity } = {}) {
  const field = byId(id);
  const value = field.value.trim() === "" ? NaN : Number(field.value);
  if (value > min || (!exclusive && value === min)) {
    if (value <= max) return value;
  }
  field.focus();
  const bound = max < Infinity ? `from ${min} to ${max}` : `${exclusive ? "above" : "at least"} ${min}`;
  throw new Error(`${name} must be a number ${bound}`);
}

// --- the account's rate ---

let limits = { messaging: null, voice: null };
let isEdited = false;

const describeLimit = (limit) => (limit === null ? "no limit" : `${limit.rate} per ${limit.per} s, ${MODEL_DESCRIPTIONS[limit.model](limit)}`);

function fillLimits() {
  const channel = byId("limit-channel").value;
  const limit = limits[channel];
  byId("limit-now").textContent = describeLimit(limit);
  if (isEdited) return;
  const shown = { burst: null, number: "from", retry_after: false, ...DEFAULTS[channel], ...limit };
  byId("limit-model").value = limit === null ? "off" : limit.model;
  byId("limit-rate").value = shown.rate;
  byId("limit-per").value = shown.per;
  byId("limit-queue").value = shown.queue_seconds;
  byId("limit-burst").value = shown.burst ?? "";
  byId("limit-number").value = shown.number;
  byId("limit-retry-after").checked = shown.retry_after;
  showFields(byId("limits-form"), byId("limit-model").value);
}

export const readLimits = serially(async () => {
  limits = await callApi("GET", "limits");
  fillLimits();
});

function readLimitForm() {
  const model = byId("limit-model").value;
  if (model === "off") return null;
  const limit = { ...limits[byId("limit-channel").value], model };
  limit.rate = readNumber("limit-rate", "messages", { exclusive: true });
  limit.per = readNumber("limit-per", "seconds", { exclusive: true });
  if (model === "queue") limit.queue_seconds = readNumber("limit-queue", "the queue", { exclusive: true });
  if (model === "token_bucket" || model === "per_number") {
    limit.burst = byId("limit-burst").value.trim() === "" ? null : readNumber("limit-burst", "the burst", { exclusive: true });
  }
  if (model === "per_number") limit.number = byId("limit-number").value;
  limit.retry_after = byId("limit-retry-after").checked;
  return limit;
}

async function applyLimit(event) {
  event.preventDefault();
  showProblem("limit-problem", "");
  const channel = byId("limit-channel").value;
  try {
    limits = await callApi("PUT", "limits", { [channel]: readLimitForm() });
    isEdited = false;
    fillLimits();
    announce(`${OPERATION_NAMES[channel]}: ${describeLimit(limits[channel])}`);
  } catch (error) {
    showProblem("limit-problem", error.message);
  }
}

// --- faults ---

/** Group consecutive equal rules. */
function groupRules(rules) {
  const groups = [];
  for (const { id, ...rule } of rules) {
    const key = JSON.stringify(rule);
    const last = groups.at(-1);
    if (last?.key === key && rule.share === null) last.ids.push(id);
    else groups.push({ key, rule, ids: [id] });
  }
  return groups;
}

/** Remove the faults of one entry. One that was applied meanwhile is gone already. */
async function removeRule(ids, name) {
  // Not all at once, because the length of an address is limited.
  for (let first = 0; first < ids.length; first += 200) {
    const query = ids.slice(first, first + 200).map((id) => `id=${id}`);
    await callApi("DELETE", `faults?${query.join("&")}`).catch((error) => {
      if (error instanceof TypeError) throw error;
    });
  }
  await readFaults();
  byId("fault-kind").focus();
  announce(`Removed: ${name}`);
}

function ruleNode({ rule, ids }) {
  const times = ids.length;
  const frequency = rule.share === null ? (times === 1 ? "Next answer" : `Next ${times} answers`) : `${+(rule.share * 100).toFixed(3)} % of answers`;
  const scope = make("span", { class: "fine" }, rule.operation ? OPERATION_NAMES[rule.operation] : "All requests");
  if (rule.to !== null) scope.append(" to ", untrusted(rule.to));
  const name = `${frequency}: ${describeFault(rule.fault)}`;
  const remove = make("button", { type: "button", class: "quiet small" }, "Remove", make("span", { class: "hidden" }, ` ${name}`));
  remove.addEventListener("click", () => attempt(() => removeRule(ids, name)));
  return make("li", {}, make("strong", {}, frequency), remove, make("span", {}, describeFault(rule.fault)), scope);
}

let shownFaults = "";

export const readFaults = serially(async () => {
  const { faults } = await callApi("GET", "faults");
  const text = JSON.stringify(faults);
  if (text === shownFaults) return; // a button that is being pressed must stay
  shownFaults = text;
  const groups = groupRules(faults);
  byId("rules").replaceChildren(...groups.map(ruleNode));
  byId("rules-none").hidden = groups.length > 0;
  byId("clear-faults").hidden = groups.length === 0;
});

function readFaultForm() {
  const kind = byId("fault-kind").value;
  const fault = {};
  if (kind === "forever") return { delay: "forever", accepted: byId("fault-accepted").checked };
  if (kind === "status") fault.status = readNumber("fault-status", "the status", { min: 200, max: 599 });
  else if (kind !== "delay") fault.drop = kind;
  const delay = readNumber("fault-delay", "the delay");
  if (delay) fault.delay = delay;
  if (!byId("fault-accepted").closest("[data-for]").hidden) fault.accepted = byId("fault-accepted").checked;
  return fault;
}

async function addFault(event) {
  event.preventDefault();
  showProblem("fault-problem", "");
  try {
    const fault = readFaultForm();
    const rule = {};
    if (byId("fault-next").checked) {
      const times = readNumber("fault-count", "how many answers", { min: 1, max: 1000 });
      rule.script = Array.from({ length: Math.floor(times) }, () => fault);
    } else {
      rule.fault = fault;
      rule.share = readNumber("fault-share", "the share", { max: 100 }) / 100;
    }
    const to = byId("fault-to").value.replace(/[ \-.()/]/g, "");
    if (to) rule.to = to;
    if (byId("fault-operation").value) rule.operation = byId("fault-operation").value;
    await callApi("POST", "faults", rule);
    await readFaults();
    announce(`Fault added: ${describeFault(fault)}`);
  } catch (error) {
    showProblem("fault-problem", error.message);
  }
}

function onKindChange() {
  const kind = byId("fault-kind").value;
  showFields(byId("faults-form"), kind);
  byId("fault-accepted").checked = kind !== "status";
  const delay = byId("fault-delay");
  if (kind === "delay" && Number(delay.value) === 0) delay.value = 2;
  if (kind === "status" && Number(delay.value) === 2) delay.value = 0;
}

export function startControls() {
  byId("limit-channel").addEventListener("input", (event) => {
    event.stopPropagation();
    isEdited = false;
    showProblem("limit-problem", "");
    fillLimits();
  });
  byId("limits-form").addEventListener("input", () => {
    isEdited = true;
    showFields(byId("limits-form"), byId("limit-model").value);
  });
  byId("limits-form").addEventListener("submit", applyLimit);
  byId("fault-kind").addEventListener("input", onKindChange);
  byId("fault-count").addEventListener("focus", () => (byId("fault-next").checked = true));
  byId("fault-share").addEventListener("focus", () => (byId("fault-some").checked = true));
  byId("faults-form").addEventListener("submit", addFault);
  byId("clear-faults").addEventListener("click", () =>
    attempt(async () => {
      await callApi("DELETE", "faults");
      await readFaults();
      byId("fault-kind").focus();
      announce(plural(0, "fault"));
    }),
  );
  onKindChange();
  fillLimits();
}
