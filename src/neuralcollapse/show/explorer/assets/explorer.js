"use strict";
// What the pages need of the browser itself. Dash calls these functions by name; other scripts are refused.
(() => {
  const darkness = matchMedia("(prefers-color-scheme: dark)");

  function darkNow() {
    document.documentElement.classList.toggle("dark", darkness.matches);
    return darkness.matches;
  }

  darkness.addEventListener("change", () => dash_clientside.set_props("dark", { data: darkNow() }));

  window.dash_clientside = Object.assign({}, window.dash_clientside, { explorer: { dark: darkNow } });
})();
