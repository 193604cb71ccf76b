"use strict";
(() => {
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const darkness = matchMedia("(prefers-color-scheme: dark)");
  const config = { displaylogo: false, displayModeBar: false, responsive: true };
  const slider = document.getElementById("epoch");
  let dark = darkness.matches;

  // A copy of a figure in the colours of the theme. Only colours are touched: a class may be called "#0072B2".
  function themed(value, key) {
    if (key === "colorscale") return page.theme.scale[dark ? 1 : 0];
    if (Array.isArray(value)) return value.map((item) => themed(item));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, themed(item, name)]));
    }
    if (key === "color" && dark) return page.theme.dark[value] ?? (value === "#ffffff" ? "#15191c" : value);
    return value;
  }

  function draw(id, width) {
    const place = document.getElementById(id);
    if (!place) return;
    const figure = themed(page.figures[id]);
    const box = place.getBoundingClientRect();
    Object.assign(figure.layout, { dragmode: false, height: box.height, width: width ? box.width : undefined,
      autosize: !width });
    figure.layout.hoverlabel = { ...figure.layout.hoverlabel, bgcolor: dark ? "#2a3137" : "#ffffff",
      bordercolor: dark ? "#59646c" : "#a3aeb6", font: { color: dark ? "#e6eaed" : "#1d2327", size: 12 } };
    if (id.startsWith("grams-") && page.grams) figure.data[0].z = frame(page.grams.panels[id.slice(6)]);
    Plotly.react(place, figure.data, figure.layout, config);
  }

  const drawAll = (width) => Object.keys(page.figures).forEach((id) => draw(id, width));

  // A Gram matrix at the chosen epoch: 16-bit integers, row by row, of a symmetric one up to the diagonal. What is
  // predicted has one frame alone.
  function frame(frames) {
    const { scale, size } = page.grams;
    const index = Math.min(slider ? Number(slider.value) : frames.length, frames.length - 1);
    const bytes = Uint8Array.from(atob(frames[index]), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const whole = bytes.length === 2 * size * size;
    const place = (row, column) => whole ? row * size + column : row < column ? place(column, row) :
      row * (row + 1) / 2 + column;
    return Array.from({ length: size }, (_, row) =>
      Array.from({ length: size }, (_, column) => scale * view.getInt16(2 * place(row, column), true)));
  }

  slider?.addEventListener("input", () => {
    const epoch = page.grams.epochs[slider.value];
    document.getElementById("epoch-shown").textContent = epoch;
    slider.setAttribute("aria-valuetext", `epoch ${epoch}`);
    page.grams.panels.forEach((frames, panel) => { if (frames.length > 1) draw(`grams-${panel}`); });
  });
  slider?.setAttribute("aria-valuetext", `epoch ${page.grams.epochs[slider.value]}`);

  darkness.addEventListener("change", () => { dark = darkness.matches; drawAll(); });
  addEventListener("beforeprint", () => {
    document.body.classList.add("printing");
    dark = false;
    drawAll(true);
  });
  addEventListener("afterprint", () => {
    document.body.classList.remove("printing");
    dark = darkness.matches;
    drawAll();
  });
  drawAll();
})();
