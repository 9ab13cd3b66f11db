// The list entries of a message and of a refused attempt.

import { copyFrom, describeFault, make, timeNode, untrusted } from "./dom.js";

const LONG_TEXT = 400;

// --- one message ---

const RECEIPTS = {
  none: "not requested",
  pending: "pending",
  retrying: "not accepted yet, retrying",
  sent: "posted",
  given_up: "given up",
  blocked: "blocked, address not on this machine",
};

function describeReceipt(message) {
  const outcome = { "message-delivered": "delivered", "message-failed": "failed" }[message.receiptType];
  const state = RECEIPTS[message.receipt] ?? message.receipt;
  return outcome ? `${state} (${outcome})` : state;
}

function fact(name, ...content) {
  return make("div", {}, make("dt", {}, name), make("dd", {}, ...content));
}

function codeButton(message) {
  const word = make("span", { class: "word" }, "Copy");
  const button = make(
    "button",
    { type: "button", class: "code" },
    make("span", { class: "digits" }, message.code),
    make("span", { class: "hidden" }, " "),
    word,
    make("span", { class: "hidden" }, " code sent to ", message.to),
  );
  button.addEventListener("click", () => copyFrom(button, word, message.code, `Code ${message.code}`));
  return button;
}

function bubble(message) {
  const text = untrusted(message.text, "p", { class: "text" });
  if (message.text.length <= LONG_TEXT) return [text];
  text.classList.add("cut");
  const button = make("button", { type: "button", class: "link", "aria-expanded": "false" }, "Show all of it");
  button.addEventListener("click", () => {
    const cut = text.classList.toggle("cut");
    button.setAttribute("aria-expanded", String(!cut));
    button.textContent = cut ? "Show all of it" : "Show less";
  });
  return [text, button];
}

function details(message) {
  const list = make("dl", {});
  list.append(fact(message.callId ? "Call ID" : "Message ID", untrusted(message.callId ?? message.messageId)));
  list.append(fact("Application ID", untrusted(message.applicationId)));
  if (message.callbackUrl) list.append(fact("Callback URL", untrusted(message.callbackUrl)));
  if (message.queued) list.append(fact("Queued", `${message.queued.toFixed(1)} s`));
  return make("details", {}, make("summary", {}, "Details", make("span", { class: "hidden" }, ` of code ${message.code}`)), list);
}

export function showReceipt(node, message) {
  const value = node.querySelector(".receipt");
  value.textContent = describeReceipt(message);
  value.dataset.state = message.receiptType === "message-failed" ? "failed" : message.receipt;
}

export function messageNode(message) {
  const voice = message.channel === "voice";
  const node = make(
    "li",
    { class: "message" },
    make(
      "div",
      { class: "said" },
      make(
        "p",
        { class: "people" },
        make("span", { class: "hidden" }, "To "),
        untrusted(message.to, "bdi", { class: "to" }),
        make("span", { class: "from" }, "from ", untrusted(message.from)),
        make("span", { class: "time" }, timeNode(message.time)),
      ),
      ...bubble(message),
    ),
    codeButton(message),
    make(
      "div",
      { class: "under" },
      make(
        "dl",
        { class: "facts" },
        fact("Channel", voice ? "Call" : "Text"),
        fact("Scope", untrusted(message.scope)),
        voice ? null : fact("Segments", String(message.segments)),
        fact("Receipt", make("span", { class: "receipt" })),
      ),
      details(message),
    ),
  );
  node.dataset.channel = message.channel;
  showReceipt(node, message);
  return node;
}

// --- one refused attempt ---

const OPERATIONS = { messaging: "Text message", voice: "Call", verify: "Verification", token: "OAuth2 token" };

export function attemptNode(record) {
  const cut = record.status === null;
  const fault = record.fault ? `Injected fault: ${describeFault(record.fault)}` : "";
  const reason = record.reason && record.reason !== "fault" ? record.reason : "";
  const kind = cut || record.status >= 500 ? "bad" : record.status >= 400 ? "warn" : "mild";
  const target = OPERATIONS[record.operation]
    ? [OPERATIONS[record.operation], record.to === null ? null : make("span", {}, " to ", untrusted(record.to))]
    : [untrusted(`${record.method} ${record.path}`)];
  return make(
    "li",
    { class: "attempt" },
    make("span", { class: `badge ${kind}` }, cut ? "cut" : String(record.status)),
    make(
      "div",
      {},
      make("p", { class: "target" }, ...target.filter((part) => part !== null)),
      untrusted([reason, fault].filter(Boolean).join(". ") || "No reason given", "p", { class: "reason" }),
    ),
    make("span", { class: "time" }, timeNode(record.time)),
  );
}
