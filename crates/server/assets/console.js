// Fetches the fleet again every two seconds while someone looks; says so when the server does not answer.
"use strict";
const fleet = document.getElementById("fleet");
const live = document.getElementById("live");

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/page/fleet" + location.search, { credentials: "same-origin", signal: AbortSignal.timeout(5000) });
    if (answer.status === 401) return location.reload();
    if (!answer.ok) throw new Error(answer.statusText);
    const html = await answer.text();
    const selecting = getSelection() && !getSelection().isCollapsed;
    const typing = document.activeElement && document.activeElement.closest("form.which");
    if (!selecting && !typing) fleet.innerHTML = html;
    live.textContent = "live";
    live.classList.remove("lost");
  } catch {
    live.textContent = "no answer";
    live.classList.add("lost");
  }
}

setInterval(refresh, 2000);
document.addEventListener("visibilitychange", refresh);
