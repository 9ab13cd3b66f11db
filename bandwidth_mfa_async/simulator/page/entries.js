// The list entries of a message and of a request that was not accepted.

import { announce, attempt, callApi, copyFrom, describeFault, make, timeNode, untrusted } from "./dom.js";

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
  if (message.callbackUrl) {
    const again = make("button", { type: "button", class: "link resend" }, "Post the receipt again");
    again.addEventListener("click", () =>
      attempt(async () => {
        await callApi("POST", "receipts", { messageId: message.messageId });
        announce("The receipt is posted again");
      }),
    );
    list.append(fact("Callback URL", untrusted(message.callbackUrl), " ", again));
  }
  if (message.queued) list.append(fact("Queued", `${message.queued.toFixed(1)} s`));
  return make("details", {}, make("summary", {}, "Details", make("span", { class: "hidden" }, ` of code ${message.code}`)), list);
}

/** Show what can change after a message was sent: its receipt, its verification, and what its sender got. */
export function showState(node, message) {
  const receipt = node.querySelector(".receipt");
  receipt.textContent = describeReceipt(message);
  receipt.dataset.state = message.receiptType === "message-failed" ? "failed" : message.receipt;
  const verified = node.querySelector(".verified");
  verified.replaceChildren(message.verified === null ? "not yet" : timeNode(message.verified));
  verified.classList.toggle("done", message.verified !== null);
  const status = message.answerStatus;
  const answer = node.querySelector(".answer");
  answer.textContent = status === null ? "got no answer" : `got ${status}`;
  answer.closest("div").hidden = status === 200;
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
        fact("Verified", make("span", { class: "verified" })),
        fact("Receipt", make("span", { class: "receipt" })),
        fact("Sender", make("span", { class: "answer" })),
      ),
      details(message),
    ),
  );
  node.dataset.channel = message.channel;
  showState(node, message);
  return node;
}

// --- one request that was not accepted ---

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
