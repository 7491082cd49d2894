// Keeps a page live and asks in a dialog. Everything works without it: forms are forms, links are links.
"use strict";

const STALE_MS = 3500;
const AGAIN_MS = 1000;

const link = document.getElementById("link");
let heardAt = Date.now();

// --- morph: make `old` look like `fresh` without replacing what stays, so that focus and open details survive --------

function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.id !== fresh.id) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  for (const { name, value } of [...fresh.attributes]) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  morphChildren(old, fresh);
}

// What has an id is found again by it and never moved, because moving takes the focus away; the rest goes by its place.
function morphChildren(old, fresh) {
  let at = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const known = wanted.id ? [...old.children].find((child) => child.id === wanted.id) : at?.id ? null : at;
    if (!known) {
      old.insertBefore(wanted, at);
      continue;
    }
    at = dropUntil(known, at);
    morph(known, wanted);
  }
  dropUntil(null, at);
}

// Remove from `at` on what stands before `known`; returns what comes after that.
function dropUntil(known, at) {
  while (at && at !== known) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
  return known ? known.nextSibling : null;
}

function show(zones) {
  for (const [name, html] of Object.entries(zones)) {
    const zone = document.getElementById(`zone-${name}`);
    if (!zone) continue;
    const fresh = document.createElement("template");
    fresh.innerHTML = html;
    morphChildren(zone, fresh.content);
  }
  const titled = document.querySelector("[data-title]");
  if (titled) document.title = titled.dataset.title;
}

// --- the stream ------------------------------------------------------------------------------------------------------

function heard() {
  heardAt = Date.now();
  say();
}

function say() {
  const silent = Date.now() - heardAt;
  const stale = silent > STALE_MS;
  link.classList.toggle("stale", stale);
  link.classList.toggle("live", !stale);
  link.textContent = stale ? `stale for ${Math.round(silent / 1000)} s` : "live";
}

function listen(where) {
  const source = new EventSource(where);
  source.addEventListener("zones", (event) => {
    heard();
    show(JSON.parse(event.data));
  });
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    source.close();
    setTimeout(() => reread(where), AGAIN_MS);
  });
}

// The stream was refused: read the page as a whole instead, which also finds out that one has to log in again.
async function reread(where) {
  try {
    const response = await fetch(location.pathname, { credentials: "same-origin" });
    if (response.redirected) {
      location.reload();
      return;
    }
    if (response.ok) {
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      for (const zone of document.querySelectorAll("[id^=zone-]")) {
        const fresh = page.getElementById(zone.id);
        if (fresh) morphChildren(zone, fresh);
      }
      heard();
    }
  } catch {
    say(); // no answer at all; the next try tells
  }
  listen(where);
}

// --- asking before an act --------------------------------------------------------------------------------------------

const dialog = document.createElement("dialog");
dialog.setAttribute("aria-labelledby", "ask-title");

async function ask(address) {
  try {
    const response = await fetch(address, { credentials: "same-origin" });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const question = page.getElementById("ask");
    if (!question) throw new Error("no question");
    dialog.replaceChildren(question);
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector("[autofocus]")?.focus();
  } catch {
    location.assign(address);
  }
}

document.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
  const asks = event.target.closest("a[data-ask]");
  const closes = event.target.closest("dialog a[data-close]");
  if (asks) {
    event.preventDefault();
    ask(asks.href);
  } else if (closes || event.target === dialog) {
    event.preventDefault();
    dialog.close();
  }
});

// --- start -----------------------------------------------------------------------------------------------------------

// A code that is good once comes behind the #, which browsers keep to themselves; it leaves the address bar at once.
const login = document.getElementById("login");
if (login && location.hash.length > 1) {
  login.elements.secret.value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
  login.requestSubmit();
}

if (new URLSearchParams(location.search).has("did")) history.replaceState(null, "", location.pathname);

if (document.body.dataset.live && link) {
  listen(document.body.dataset.live);
  setInterval(say, 1000);
}
