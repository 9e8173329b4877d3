"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);

  function make(tag, text, className) {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  }

  // Plots

  const CONFIG = {displaylogo: false, responsive: true, showTips: false, modeBarButtonsToRemove: ["lasso2d", "select2d"]};
  const PRINT_WIDTH = 660;
  const drawn = new Set();

  // plotly.js is unpacked at once, so that printing finds it. It takes about a second to load, which a reader of
  // tables does not have to wait for.
  let plotlySource = null;
  const unpacking = unpack(document.getElementById("plotly").textContent).then(
    (text) => { plotlySource = text; },
    () => {},  // drawNow says so
  );

  async function unpack(base64) {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  function loadPlotly() {
    if (window.Plotly) return;
    const script = make("script");
    script.textContent = plotlySource;
    document.head.append(script);
  }

  function themeOf(layout, isPrint) {
    const style = getComputedStyle(document.documentElement);
    const text = isPrint ? "#000000" : style.getPropertyValue("--text").trim();
    const update = {"font.color": text, "modebar.color": text};
    for (const axis of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
      update[`${axis}.linecolor`] = text;
    }
    return update;
  }

  function draw(node, plot) {
    node.setAttribute("data-drawn", "");
    if (plotlySource === null) unpacking.then(() => drawNow(node, plot));
    else drawNow(node, plot);
  }

  function drawNow(node, plot) {
    if (plotlySource === null) {
      node.textContent = "This browser is too old to show plots.";
      return;
    }
    loadPlotly();
    Plotly.newPlot(node, plot.data, plot.layout, CONFIG);
    Plotly.relayout(node, themeOf(plot.layout, false));
    drawn.add(node);
  }

  function drawFigure(node) {
    if (!node.hasAttribute("data-drawn")) draw(node, data.figures[Number(node.dataset.figure)]);
  }

  const figures = document.querySelectorAll(".plot[data-figure]");
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((each) => each.isIntersecting)) {
      observer.unobserve(entry.target);
      drawFigure(entry.target);
    }
  }, {rootMargin: "200px"});
  figures.forEach((node) => observer.observe(node));

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const node of drawn) Plotly.relayout(node, themeOf(node.layout, false));
  });
  addEventListener("beforeprint", () => {
    figures.forEach(drawFigure);
    for (const node of drawn) {
      Plotly.relayout(node, {...themeOf(node.layout, true), width: Math.min(PRINT_WIDTH, node.clientWidth)});
    }
  });
  addEventListener("afterprint", () => {
    for (const node of drawn) Plotly.relayout(node, {...themeOf(node.layout, false), width: null, autosize: true});
  });

  // Tables

  const collator = new Intl.Collator(undefined, {sensitivity: "base"});
  const NUMBER = /(\d+(?:\.\d+)?(?:e[+-]?\d+)?)/i;

  // Compares the numbers in texts by value: lr=1e-5 comes before lr=0.01.
  function compareTexts(a, b) {
    const [x, y] = [a.split(NUMBER), b.split(NUMBER)];  // every second part is a number
    for (let place = 0; place < Math.min(x.length, y.length); place++) {
      const order = place % 2 ? Number(x[place]) - Number(y[place]) : collator.compare(x[place], y[place]);
      if (order) return order;
    }
    return x.length - y.length;
  }

  function keyOf(cell) {
    const {value} = cell.dataset;
    return value === undefined ? cell.textContent.trim() : Number(value);
  }

  // Numbers come before text, such as the dash of an absent value, in either direction.
  function compare(a, b, direction) {
    const [x, y] = [a.key, b.key];
    const [isX, isY] = [typeof x === "number", typeof y === "number"];
    if (isX !== isY) return isX ? -1 : 1;
    return (direction * (isX ? x - y : compareTexts(x, y))) || (a.place - b.place);
  }

  function nextDirection(header) {
    return {none: "ascending", ascending: "descending", descending: "none"}[header.getAttribute("aria-sort")];
  }

  function order(items, direction) {
    if (direction === "none") return items.sort((a, b) => a.place - b.place);
    return items.sort((a, b) => compare(a, b, direction === "ascending" ? 1 : -1));
  }

  function rowsOf(table) {
    return table.dataset.sorts === "groups" ? [...table.tBodies] : [...table.tBodies[0].rows];
  }

  function sortRows(table, header, direction) {
    const column = header.cellIndex;
    const items = rowsOf(table).map((node) => {
      const row = node.rows ? node.rows[0] : node;
      return {node, key: keyOf(row.cells[column]), place: Number(node.dataset.place)};
    });
    const parent = items.length ? items[0].node.parentNode : null;
    if (parent) parent.append(...order(items, direction).map((item) => item.node));
  }

  function sortColumns(table, header, direction) {
    const cells = [...header.parentNode.cells].slice(1);
    const items = cells.map((cell, index) => ({index, key: keyOf(cell), place: Number(cell.dataset.place)}));
    const places = order(items, direction).map((item) => item.index);
    for (const row of table.rows) {
      const [first, ...others] = row.cells;
      row.replaceChildren(first, ...places.map((index) => others[index]));
    }
  }

  function addSorting(table) {
    const isByColumn = table.dataset.sorts === "columns";
    rowsOf(table).forEach((row, index) => { row.dataset.place = index; });
    if (isByColumn) {
      for (const row of table.rows) {
        [...row.cells].forEach((cell, index) => { cell.dataset.place = index; });
      }
    }
    table.addEventListener("click", (event) => {
      const header = event.target.closest("button") && event.target.closest("th[aria-sort]");
      if (!header) return;
      const direction = nextDirection(header);
      table.querySelectorAll("th[aria-sort]").forEach((each) => each.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", direction);
      (isByColumn ? sortColumns : sortRows)(table, header, direction);
      header.querySelector("button").focus();
    });
  }

  function addFilter(box) {
    const table = box.querySelector("table");
    const rows = rowsOf(table);
    const label = make("label", "Filter rows ");
    const input = make("input");
    const count = make("output");
    input.type = "search";
    input.placeholder = "text in a row";
    label.append(input);
    const line = make("div", undefined, "filter");
    line.append(label, count);
    box.prepend(line);
    let texts = null;
    input.addEventListener("input", () => {
      texts ??= rows.map((row) => (row.rows ? row.rows[0] : row).textContent.toLowerCase());
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, index) => {
        const matches = words.every((word) => texts[index].includes(word));
        if (row.hidden === matches) row.hidden = !matches;
        shown += matches;
      });
      count.textContent = words.length ? `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows` : "";
    });
  }

  document.querySelectorAll("table[data-sorts]").forEach(addSorting);
  document.querySelectorAll(".filterable").forEach(addFilter);

  // Details of cells

  function makeGroup([title, lines]) {
    const section = make("section");
    const list = make("dl");
    for (const [name, value] of lines) {
      const line = make("div");
      line.append(make("dt", name), make("dd", value));
      list.append(line);
    }
    section.append(make("h4", title), list);
    return section;
  }

  function stepsOf(trace) {
    if (typeof trace.steps !== "number") return trace.steps;
    const points = atob(trace.loss.bdata).length / 4;
    return Array.from({length: points}, (_, index) => Math.floor((index + 1) * trace.steps / points));
  }

  function tracePlot(trace) {
    const style = {mode: "lines", type: "scatter", x: stepsOf(trace), showlegend: false};
    const axis = (title, low, high) => ({
      title: {text: title}, domain: [low, high], gridcolor: "rgba(128,128,128,0.25)", zeroline: false, automargin: true,
    });
    return {
      data: [
        {...style, name: "loss", y: trace.loss, line: {color: "#0072B2", width: 1.5}},
        {...style, name: "step (ms)", y: trace.ms, yaxis: "y2", line: {color: "#E69F00", width: 1.5}},
        {...style, name: "peak memory (MB)", y: trace.mb, yaxis: "y3", line: {color: "#009E73", width: 1.5}},
      ],
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {family: "system-ui, sans-serif", size: 12},
        margin: {l: 60, r: 16, t: 16, b: 48}, modebar: {bgcolor: "rgba(0,0,0,0)"},
        xaxis: {title: {text: "step"}, anchor: "y3", gridcolor: "rgba(128,128,128,0.25)", zeroline: false},
        yaxis: axis("loss", 0.7, 1), yaxis2: axis("step (ms)", 0.35, 0.65), yaxis3: axis("memory (MB)", 0, 0.3),
      },
    };
  }

  function showDetails(details) {
    const cell = data.cells[details.closest("tbody").dataset.cell];
    const box = details.querySelector(".details");
    if (box.hasChildNodes()) return;
    const groups = make("div", undefined, "groups");
    groups.append(...cell.groups.map((index) => makeGroup(data.groups[index])));
    if (cell.log !== undefined) box.append(make("h4", "End of the log"), make("pre", cell.log));
    box.append(groups);
    if (cell.note) box.append(make("p", cell.note, "notes"));
    if (cell.trace) {
      const {stretch} = cell.trace;
      const what = stretch > 1 ? `Each point stands for ${stretch} steps or fewer: mean loss, mean time, highest memory.` : "One point for each step.";
      const plot = make("div", undefined, "plot trace");
      plot.setAttribute("role", "group");
      plot.setAttribute("aria-label", "Trace: loss, time and memory of the steps");
      box.append(make("h4", "Trace"), plot, make("p", what, "notes"));
      draw(plot, tracePlot(cell.trace));
    }
  }

  // A toggle event does not bubble.
  document.addEventListener("toggle", (event) => {
    if (event.target.matches(".cells details") && event.target.open) showDetails(event.target);
  }, true);

  document.querySelectorAll("table.cells").forEach((table) => {
    table.addEventListener("click", (event) => {
      const row = event.target.closest("tbody > tr:first-child");
      const details = row && row.parentNode.querySelector("details");
      if (details && getSelection().isCollapsed) details.open = !details.open;
    });
  });
})();
