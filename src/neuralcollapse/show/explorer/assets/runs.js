"use strict";
// The line at the epoch looked at, in every picture over epochs: moved in place, nothing is drawn anew.
(() => {
  function mark(position, epoch) {
    const thumb = document.querySelector("#run-epoch [role=slider]");
    thumb?.setAttribute("aria-label", "Measured epoch");
    thumb?.setAttribute("aria-valuetext", `epoch ${epoch}`);
    const line = { "shapes[0].x0": position, "shapes[0].x1": position };
    for (const plot of document.querySelectorAll("#run-curves .js-plotly-plot"))
      if (position !== null && plot.layout?.shapes?.length && plot.layout.shapes[0].x0 !== position)
        Plotly.relayout(plot, line);
    return position;
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, { runs: { mark } });
})();
