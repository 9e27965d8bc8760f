// Puts the page's newest state in the place of the old one; without scripts the page reloads itself instead.
"use strict";
const everyMs = 1000 * Number(document.getElementById("live").dataset.refreshS);

async function refresh() {
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error" });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
    const shown = document.getElementById("live");
    if (!fresh) {
      location.reload(); // signed out, or the console says something else
    } else if (!shown.contains(document.activeElement)) {
      shown.replaceWith(fresh); // nobody's place on the page is taken away
    }
  } catch {
    document.getElementById("live").classList.add("stale");
  }
  setTimeout(refresh, everyMs);
}

setTimeout(refresh, everyMs);
