// Helpers: elements whose text never becomes markup, API requests, copying and announcements.

export const byId = (id) => document.getElementById(id);

/** Create an element. Children are elements or text; text never becomes markup. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Untrusted text, with its own direction, so that it cannot reorder the text around it. */
export const untrusted = (text, tag = "bdi", attributes = {}) => make(tag, { dir: "auto", ...attributes }, String(text));

export async function callApi(method, path, body) {
  const options = { method, cache: "no-store" };
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  // Relative to the page, which a reverse proxy may serve under a prefix.
  const response = await fetch(`_simulator/${path}`, options);
  const answer = response.status === 204 ? null : await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

/** Run an action of a button; if it fails, announce the reason instead of losing it. */
export async function attempt(action) {
  try {
    await action();
  } catch (error) {
    announce(error instanceof TypeError ? "The simulator does not answer" : error.message);
  }
}

/** Return a function that runs an action one at a time, and once more if it was called meanwhile: answers that arrive
 * in another order than the requests were sent would show an old state. */
export function serially(action) {
  let active = null;
  let again = false;
  const run = async () => {
    try {
      while (again) {
        again = false;
        await action();
      }
    } finally {
      active = null;
    }
  };
  return () => {
    again = true;
    active ??= run();
    return active;
  };
}

/** Announce text to screen readers. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Copy text. The clipboard API exists only on loopback and HTTPS; execCommand works everywhere. */
export async function copyText(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // The browser's settings forbid it: use execCommand.
    }
  }
  const focused = document.activeElement;
  const area = make("textarea", { class: "hidden", readonly: true, "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return copied;
}

const resets = new WeakMap();

/** Copy text, and show the result in the button's label. */
export async function copyFrom(button, word, text, what) {
  const before = word.dataset.word ?? word.textContent;
  word.dataset.word = before;
  const copied = await copyText(text);
  word.textContent = copied ? "Copied" : "Failed";
  button.classList.toggle("done", copied);
  announce(copied ? `${what} copied` : `${what} could not be copied; select it and copy it`);
  clearTimeout(resets.get(button));
  resets.set(
    button,
    setTimeout(() => {
      word.textContent = before;
      button.classList.remove("done");
    }, 2000),
  );
}

/** Ask before data is deleted. The focus starts on the button that cancels; Escape cancels too. */
export function confirmAction(title, text, label) {
  const dialog = byId("confirm");
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  byId("confirm-yes").textContent = label;
  return new Promise((resolve) => {
    byId("confirm-yes").onclick = () => dialog.close("yes");
    byId("confirm-no").onclick = () => dialog.close("no");
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
    dialog.returnValue = "no";
    dialog.showModal();
    byId("confirm-no").focus();
  });
}

export const count = (number) => number.toLocaleString("en");
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

const clockTime = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const dayAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** The local time, with the date if it is not today. */
export function timeNode(seconds) {
  const date = new Date(seconds * 1000);
  const format = date.toDateString() === new Date().toDateString() ? clockTime : dayAndTime;
  return make("time", { datetime: date.toISOString(), title: dayAndTime.format(date) }, format.format(date));
}

/** Describe what a fault does. */
export function describeFault(fault) {
  const parts = [];
  if (fault.status !== undefined) parts.push(`answer ${fault.status}`);
  if (fault.drop) {
    parts.push({ before_read: "drop before reading", after_read: "drop after reading" }[fault.drop] ?? "drop in the middle of the answer");
  }
  if (fault.truncate) parts.push("send half of the body");
  if (fault.seconds_per_byte) parts.push(`send a byte every ${fault.seconds_per_byte} s`);
  if (fault.body !== undefined) parts.push("with another body");
  if (fault.headers) parts.push(`with ${plural(Object.keys(fault.headers).length, "header")}`);
  if (fault.delay === "forever") parts.push("never answer");
  else if (fault.delay) parts.push(`after ${fault.delay} s`);
  if (parts.length === 0) parts.push("normal answer");
  const failing = fault.status >= 300 || fault.drop || fault.delay === "forever";
  if (fault.accepted && failing) parts.push("message sent anyway");
  return parts.join(", ");
}
