"use strict";
// What the pages need of the browser itself. Dash calls these functions by name; other scripts are refused.
(() => {
  const darkness = matchMedia("(prefers-color-scheme: dark)");

  function darkNow() {
    document.documentElement.classList.toggle("dark", darkness.matches);
    return darkness.matches;
  }

  darkness.addEventListener("change", () => dash_clientside.set_props("dark", { data: darkNow() }));

  // The state of a page into the address bar, so that a reload shows the same; gives the link to copy.
  function address(query) {
    const link = location.pathname + (query ? `?${query}` : "");
    history.replaceState(history.state, "", link);
    return location.origin + link;
  }

  // Ask again a moment after an answer that was not complete: for curves, and for the geometry while it is solved.
  // Not by outputs of its own: Dash would call that a circle.
  let waiting;
  function again(answer) {
    clearTimeout(waiting);
    if (!answer?.more) return false;
    waiting = setTimeout(() => {
      if (!document.getElementById("theory-shown")) return;  // the page was left meanwhile
      const now = performance.now();
      dash_clientside.set_props("theory-again", { data: now });
      if (answer.solving) dash_clientside.set_props("theory-again-solving", { data: now });
    }, 350);
    return true;
  }

  // On a busy machine Chromium (seen in 156) may leave an input that React has hidden and shown again without a box,
  // although its display is block, until the element around it is laid out anew.
  let looking = 0;
  function layOutAgain() {
    looking = 0;
    for (const input of document.querySelectorAll(".field:not([hidden]) .dash-input-container > input")) {
      const around = input.parentElement;
      if (input.getClientRects().length || !around.getClientRects().length) continue;
      around.style.display = "none";
      around.getClientRects();
      around.style.display = "";
    }
  }
  new MutationObserver(() => { looking ||= requestAnimationFrame(layOutAgain); })
    .observe(document.documentElement, { subtree: true, childList: true, attributeFilter: ["style", "hidden", "value"] });

  // A button with data-copies copies the text of the element it names.
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copies]");
    if (!button) return;
    const text = document.getElementById(button.dataset.copies)?.textContent ?? "";
    let said = "Copied";
    try { await navigator.clipboard.writeText(text); } catch { said = "Not allowed"; }
    button.textContent = said;
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });

  // The controls are a form for screen readers; Enter must not send it.
  document.addEventListener("submit", (event) => event.preventDefault());

  window.dash_clientside = Object.assign({}, window.dash_clientside, { explorer: { dark: darkNow, address, again } });
})();
