// Keeps what is live on a page as it is: hears of changes (server-sent events), and fetches the page again for the parts that are marked.
// Nothing is replaced while it has the focus or is being selected, nor while nobody looks. And the keys.
"use strict";
const live = document.getElementById("live");
const parts = [...document.querySelectorAll("[data-live]")];
const BY_ITSELF = { "x-looks-by-itself": "1", accept: "text/html" };
let changed = false, fetching = false, paused = false, told = 0;

function say(words, lost) {
  live.firstElementChild.textContent = words;
  live.classList.toggle("lost", lost);
}

function isBusy(part) {
  const selection = getSelection();
  const selecting = selection && !selection.isCollapsed && part.contains(selection.anchorNode);
  return selecting || (document.activeElement && part.contains(document.activeElement));
}

async function refresh() {
  if (fetching || paused || document.hidden) return;
  if (parts.some(isBusy)) return say("changed", false);
  fetching = true;
  changed = false;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin", headers: BY_ITSELF, signal: AbortSignal.timeout(10000) });
    if (answer.status === 401) return location.reload();
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    // Signed out: what came is the way in.
    if (!page.getElementById("live")) return location.reload();
    for (const part of parts) {
      const now = page.getElementById(part.id);
      if (now && !isBusy(part) && now.innerHTML !== part.innerHTML) part.innerHTML = now.innerHTML;
    }
    say(`live, as of ${new Date().toISOString().slice(11, 19)}`, false);
  } catch {
    changed = true;
    say("no answer", true);
  } finally {
    fetching = false;
  }
}

function heard() {
  told = Date.now();
  changed = true;
  refresh();
}

function listen() {
  const events = new EventSource(`/events${parts[0].dataset.live}`);
  events.addEventListener("changed", heard);
  events.addEventListener("open", () => say("live", false));
  events.addEventListener("error", () => {
    say("no answer", true);
    // The browser comes back by itself, unless it was refused: then this does, and sees why.
    if (events.readyState === EventSource.CLOSED) {
      heard();
      setTimeout(listen, 10000);
    }
  });
}

if (parts.length > 0) {
  live.hidden = false;
  listen();
  // What came while it could not be shown, and what no event is about: who is attached, and how long ago things were.
  setInterval(() => (changed || Date.now() - told > 30000) && heard(), 3000);
  document.addEventListener("visibilitychange", () => changed && refresh());
  live.addEventListener("click", () => {
    paused = !paused;
    live.setAttribute("aria-pressed", String(paused));
    say(paused ? "paused" : "live", false);
    if (!paused) refresh();
  });
}

const places = { f: "/", d: "/devices", o: "/policies", c: "/certificates", l: "/ledger", p: "/people" };
let going = false;

function move(by) {
  const links = [...document.querySelectorAll("table.rows tbody tr, #fleet table tbody tr")].map((row) => row.querySelector("a")).filter(Boolean);
  const at = links.indexOf(document.activeElement);
  const next = links[Math.min(Math.max(at + by, 0), links.length - 1)];
  if (next) next.focus();
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const there = going && document.querySelector(`nav a[href="${places[event.key] || ""}"]`);
  going = event.key === "g";
  if (there) return there.click();
  if (event.key === "j") move(1);
  if (event.key === "k") move(-1);
  if (event.key === "?") document.getElementById("keys").showModal();
  const search = document.getElementById("search");
  if (event.key === "/" && search) {
    event.preventDefault();
    search.focus();
  }
});
