"use strict";
// Draws the charts of report.html from the JSON in #data. The selects of #filters say which figure is shown over which two
// dimensions, and at which values of the others.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const dims = data.dimensions;
  const varied = dims.map((_, d) => d).filter((d) => dims[d].values.length > 1);
  const context = ["run", "topology", "workload", "load", "rate_scale"];
  // Told apart without colour too: by shape of points and dashes of lines.
  const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b"];
  const dashes = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
  const shapes = ["circle", "rect", "triangle", "crossRot", "rectRot", "star", "cross", "dash"];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const style = (k) => ({
    borderColor: colours[k % colours.length], backgroundColor: colours[k % colours.length],
    borderDash: dashes[Math.floor(k / colours.length) % dashes.length], pointStyle: shapes[k % shapes.length],
  });
  const state = { figure: "", x: -1, series: -1, at: dims.map(() => 0), latency: "ttft", slice: 1 };

  function preset() {
    const main = varied.filter((d) => !context.includes(dims[d].name));
    const order = main.concat(varied.filter((d) => !main.includes(d)));
    state.x = order.length > 0 ? order[0] : 0;
    state.series = order.length > 1 ? order[1] : -1;
    const wanted = data.figures.find((f) => f.key === "e2e_mean");
    state.figure = wanted ? wanted.key : data.figures[0].key;
  }

  function select(parent, text, options, value, onChange) {
    const label = document.createElement("label");
    label.append(text);
    const box = document.createElement("select");
    for (const [v, shown] of options) box.append(new Option(shown, v, false, String(v) === String(value)));
    box.addEventListener("change", () => { onChange(box.value); });
    label.append(box);
    parent.append(label);
    return box;
  }

  // The combination with these values of x and series, the others as chosen; undefined if there is none.
  function find(x, series, spreadX = true) {
    return data.combinations.find((c) => c.at.every((v, d) => {
      if (d === state.x && spreadX) return v === x;
      if (d === state.series) return v === series;
      return v === state.at[d];
    }));
  }

  const figureOf = (key) => data.figures.find((f) => f.key === key);
  const unitOf = (f) => f.label + (f.unit ? " (" + f.unit + ")" : "");
  function spread(c, f) {
    const v = (c ? c.figures[f.key] : []).filter((n) => n !== null).map((n) => n * f.scale);
    if (v.length === 0) return null;
    return { mean: v.reduce((a, b) => a + b, 0) / v.length, low: Math.min(...v), high: Math.max(...v), count: v.length };
  }
  const seriesValues = () => (state.series < 0 ? [0] : dims[state.series].values.map((_, k) => k));
  const seriesName = (k) => (state.series < 0 ? "all" : dims[state.series].name + " " + dims[state.series].values[k]);
  const where = (without) => varied.filter((d) => !without.includes(d))
    .map((d) => dims[d].name + " " + dims[d].values[state.at[d]]).join(", ");

  function table(parent, caption, header, rows, paint) {
    const t = document.createElement("table");
    t.createCaption().textContent = caption;
    const head = t.createTHead().insertRow();
    for (const h of header) {
      const th = document.createElement("th");
      th.scope = "col";
      th.textContent = h;
      head.append(th);
    }
    const body = t.createTBody();
    rows.forEach((row, r) => {
      const tr = body.insertRow();
      row.forEach((text, k) => {
        const cell = k === 0 ? document.createElement("th") : document.createElement("td");
        if (k === 0) cell.scope = "row";
        cell.textContent = text;
        if (paint && k > 0) paint(cell, r, k - 1);
        tr.append(cell);
      });
    });
    parent.replaceChildren(t);
  }

  // Lines from the lowest to the highest seed, over the bars.
  const whiskers = {
    id: "whiskers",
    afterDatasetsDraw(chart) {
      const { ctx, scales } = chart;
      ctx.save();
      ctx.strokeStyle = css("--text");
      chart.data.datasets.forEach((set, s) => chart.getDatasetMeta(s).data.forEach((bar, k) => {
        const range = (set.spread || [])[k];
        if (!range || range.count < 2) return;
        const low = scales.y.getPixelForValue(range.low), high = scales.y.getPixelForValue(range.high);
        const cap = Math.min(6, bar.width / 3);
        ctx.beginPath();
        for (const y of [low, high]) { ctx.moveTo(bar.x - cap, y); ctx.lineTo(bar.x + cap, y); }
        ctx.moveTo(bar.x, low);
        ctx.lineTo(bar.x, high);
        ctx.stroke();
      }));
      ctx.restore();
    },
  };

  const charts = {};
  function draw(id, config, caption, header, rows) {
    if (charts[id]) charts[id].destroy();
    config.options = Object.assign({ animation: false, maintainAspectRatio: false }, config.options);
    charts[id] = new Chart(byId(id), config);
    byId(id).setAttribute("aria-label", caption + ". The numbers are in the table below the chart.");
    table(byId("t-" + id), caption, header, rows);
  }
  const axis = (text, more) => Object.assign({ title: { display: true, text } }, more);

  function drawBars() {
    const f = figureOf(state.figure), xs = dims[state.x].values;
    const sets = seriesValues().map((s) => {
      const found = xs.map((_, x) => spread(find(x, s), f));
      return Object.assign(style(s), { label: seriesName(s), data: found.map((v) => v && v.mean), spread: found });
    });
    const shown = (v) => (v ? v.mean.toFixed(f.decimals) + (v.count > 1 ? " (" + v.low.toFixed(f.decimals) + " to " + v.high.toFixed(f.decimals) + ")" : "") : "-");
    const caption = [unitOf(f) + " by " + dims[state.x].name, where([state.x, state.series])].filter(Boolean).join("; ");
    draw("bars", {
      type: "bar", data: { labels: xs, datasets: sets }, plugins: [whiskers],
      options: { scales: { x: axis(dims[state.x].name), y: axis(unitOf(f), { beginAtZero: true }) } },
    }, caption, [dims[state.x].name, ...sets.map((s) => s.label)], xs.map((x, k) => [x, ...sets.map((s) => shown(s.spread[k]))]));
    drawHeat(f, xs, sets, caption);
  }

  function drawHeat(f, xs, sets, caption) {
    const all = sets.flatMap((s) => s.data).filter((v) => v !== null);
    const low = Math.min(...all), high = Math.max(...all);
    const paint = (cell, r, k) => {
      const v = sets[r].data[k];
      if (v === null || !(high > low)) return;
      let share = (v - low) / (high - low);
      if (f.better === "higher") share = 1 - share;
      cell.style.background = "rgba(213, 94, 0, " + (0.05 + 0.6 * share).toFixed(3) + ")";
    };
    const rows = sets.map((s) => [s.label, ...s.data.map((v) => (v === null ? "-" : v.toFixed(f.decimals)))]);
    table(byId("heat"), caption, [state.series < 0 ? "" : dims[state.series].name, ...xs], rows, paint);
  }

  const latencies = { ttft: ["TTFT (ms)", 1e3], tpot: ["TPOT (ms)", 1e3], e2e: ["E2E (s)", 1] };
  function drawCdf() {
    const [label, scale] = latencies[state.latency];
    const sets = [];
    for (const s of seriesValues()) {
      const c = find(0, s, false), curve = c ? c[state.latency] : [];
      if (curve.length > 0) sets.push(Object.assign(style(s), {
        label: seriesName(s), pointRadius: 0, borderWidth: 2, data: curve.map((v, q) => ({ x: v * scale, y: q })),
      }));
    }
    const rows = sets.map((s) => [s.label, ...[10, 50, 90, 95, 99].map((q) => s.data[q].x.toPrecision(4))]);
    draw("cdf", {
      type: "line", data: { datasets: sets },
      options: { parsing: false, scales: { x: axis(label + ", logarithmic", { type: "logarithmic" }), y: axis("requests (%)", { type: "linear", min: 0, max: 100 }) } },
    }, [label, where([state.series])].filter(Boolean).join("; "), ["", "p10", "p50", "p90", "p95", "p99"], rows);
  }

  const slices = {
    1: ["TTFT mean (ms)", 1e3], 2: ["E2E mean (s)", 1], 3: ["Bias of predicted E2E (%)", 100],
    4: ["Error of predicted E2E, mean over true mean (%)", 100], 5: ["Requests that mirrors misplace", 1],
    0: ["Requests arrived in a slice", 1],
  };
  function drawTime() {
    const [label, scale] = slices[state.slice];
    const sets = [];
    for (const s of seriesValues()) {
      const c = find(0, s, false);
      if (c) sets.push(Object.assign(style(s), {
        label: seriesName(s), pointRadius: 2, borderWidth: 2, spanGaps: true,
        data: c.slices.map((row, k) => ({ x: k * c.slice_s, y: row[state.slice] === null ? null : row[state.slice] * scale })),
      }));
    }
    const longest = sets.reduce((a, s) => (s.data.length > a.length ? s.data : a), []);
    const rows = longest.map((p, k) => [p.x + " s", ...sets.map((s) => (s.data[k] && s.data[k].y !== null ? s.data[k].y.toPrecision(4) : "-"))]);
    draw("time", {
      type: "line", data: { datasets: sets },
      options: { parsing: false, scales: { x: axis("time of arrival (s)", { type: "linear" }), y: axis(label) } },
    }, [label + " over time", where([state.series])].filter(Boolean).join("; "), ["from", ...sets.map((s) => s.label)], rows);
  }

  function drawScatter() {
    const sets = [];
    let most = 0;
    for (const s of seriesValues()) {
      const c = find(0, s, false), points = c ? c.scatter : [];
      if (points.length === 0) continue;
      for (const p of points) most = Math.max(most, p[0], p[1]);
      sets.push(Object.assign(style(s), { label: seriesName(s), pointRadius: 3, data: points.map(([p, t]) => ({ x: p, y: t })) }));
    }
    const rows = sets.map((s) => {
      const errors = s.data.filter((p) => p.y > 0).map((p) => Math.abs(p.x / p.y - 1)).sort((a, b) => a - b);
      const at = (q) => (errors.length ? (100 * errors[Math.floor(q * (errors.length - 1))]).toFixed(1) : "-");
      return [s.label, String(s.data.length), at(0.5), at(0.95)];
    });
    const line = { label: "prediction came true", type: "line", data: [{ x: 0, y: 0 }, { x: most, y: most }], pointRadius: 0, borderWidth: 1, borderColor: css("--text") };
    draw("scatter", {
      type: "scatter", data: { datasets: [...sets, line] },
      options: { scales: { x: axis("predicted E2E (s)", { min: 0 }), y: axis("true E2E (s)", { min: 0 }) } },
    }, ["Predicted and true E2E", where([state.series])].filter(Boolean).join("; "),
    ["", "requests drawn", "error p50 (%)", "error p95 (%)"], rows);
  }

  function drawAll() {
    Chart.defaults.color = css("--text");
    Chart.defaults.borderColor = css("--line");
    drawBars();
    drawCdf();
    drawTime();
    drawScatter();
    byId("said").textContent = "Charts show " + unitOf(figureOf(state.figure)) + " over " + dims[state.x].name +
      (state.series < 0 ? "" : " and " + dims[state.series].name) + ".";
  }

  // Only the filters of dimensions that a chart does not spread over have a say in it; x is fixed in all charts but the first two.
  function controls() {
    const form = byId("filters");
    form.replaceChildren();
    form.addEventListener("submit", (event) => event.preventDefault());
    const redraw = (refocus) => {
      drawAll();
      controls();
      const box = [...form.querySelectorAll("label")].find((l) => l.firstChild.textContent === refocus);
      if (box) box.querySelector("select").focus();
    };
    select(form, "Figure", data.figures.map((f) => [f.key, unitOf(f)]), state.figure, (v) => { state.figure = v; redraw("Figure"); });
    const names = varied.map((d) => [d, dims[d].name]);
    if (varied.length > 0) select(form, "Along", names, state.x, (v) => {
      if (Number(v) === state.series) state.series = state.x;
      state.x = Number(v);
      redraw("Along");
    });
    if (varied.length > 1) select(form, "Coloured by", names.filter(([d]) => d !== state.x), state.series, (v) => { state.series = Number(v); redraw("Coloured by"); });
    for (const d of varied) {
      if (d === state.series) continue;
      const text = dims[d].name + (d === state.x ? " (lower charts)" : "");
      select(form, text, dims[d].values.map((v, k) => [k, v]), state.at[d], (v) => { state.at[d] = Number(v); redraw(text); });
    }
  }

  preset();
  controls();
  select(byId("c-cdf"), "Latency", Object.entries(latencies).map(([k, v]) => [k, v[0]]), state.latency, (v) => { state.latency = v; drawCdf(); });
  select(byId("c-time"), "Shown", Object.entries(slices).map(([k, v]) => [k, v[0]]), state.slice, (v) => { state.slice = Number(v); drawTime(); });
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
