// Fetches what is live again every two seconds while someone looks, and says so when the server does not answer; and the keys.
"use strict";
const live = document.getElementById("live");
const part = document.querySelector("[data-live]");

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch(part.dataset.live + location.search, { credentials: "same-origin", signal: AbortSignal.timeout(5000) });
    if (answer.status === 401) return location.reload();
    if (!answer.ok) throw new Error(answer.statusText);
    const html = await answer.text();
    const selecting = getSelection() && !getSelection().isCollapsed;
    const busy = document.activeElement && part.contains(document.activeElement);
    if (!selecting && !busy) part.innerHTML = html;
    live.textContent = "live";
    live.classList.remove("lost");
  } catch {
    live.textContent = "no answer";
    live.classList.add("lost");
  }
}

if (part) {
  live.hidden = false;
  setInterval(refresh, 2000);
  document.addEventListener("visibilitychange", refresh);
}

const places = { f: "/", d: "/devices", o: "/policies", l: "/ledger", p: "/people" };
let going = false;

function move(by) {
  const links = [...document.querySelectorAll("table.rows tbody tr a, #fleet tbody td a")];
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
