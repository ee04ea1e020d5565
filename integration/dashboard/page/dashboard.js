// The page of a running system: draws what /events sends (docs/dashboard.md). It keeps the last minutes itself, asks nothing of the system,
// and writes what comes as text, never as markup.
"use strict";
(() => {
  const kCourse = 180, kScatter = 220, kDriftPoints = 160, kManyFrom = 33, kTimeline = 120;  // seconds, points, points, instances, seconds
  const byId = (id) => document.getElementById(id);
  const store = { get: (k) => { try { return localStorage.getItem(k); } catch { return null; } }, set: (k, v) => { try { localStorage.setItem(k, v); } catch { /* private mode */ } } };

  function el(tag, attributes, ...children) {
    const e = document.createElement(tag);
    for (const [k, v] of Object.entries(attributes || {})) {
      if (v === undefined || v === null) continue;
      if (k === "class") e.className = v; else if (k === "on") for (const [name, f] of Object.entries(v)) e.addEventListener(name, f); else e.setAttribute(k, v);
    }
    e.append(...children.filter((c) => c !== null && c !== undefined));
    return e;
  }
  const svg = (tag, attributes, ...children) => {
    const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [k, v] of Object.entries(attributes || {})) e.setAttribute(k, v);
    e.append(...children);
    return e;
  };
  const text = (e, s) => { if (e.textContent !== s) e.textContent = s; };
  const say = (s) => text(byId("announce"), s);

  // ---- Numbers as people read them.
  const known = (v) => typeof v === "number" && Number.isFinite(v);
  function time(s) {
    if (!known(s)) return "–";
    const a = Math.abs(s);
    if (a < 0.000_9995) return (s * 1e6).toFixed(0) + " µs";
    if (a < 0.009_995) return (s * 1e3).toFixed(1) + " ms";
    if (a < 0.9995) return (s * 1e3).toFixed(0) + " ms";
    if (a < 99.95) return s.toFixed(a < 9.995 ? 2 : 1) + " s";
    return s.toFixed(0) + " s";
  }
  const count = (v) => (!known(v) ? "–" : v < 9.95 && v % 1 !== 0 ? v.toFixed(1) : Math.round(v).toLocaleString("en"));
  const percent = (v) => (!known(v) ? "–" : (100 * v).toFixed(Math.abs(v) < 0.0995 && v !== 0 ? 1 : 0) + " %");
  const signed = (v) => (!known(v) ? "–" : (v >= 0 ? "+" : "−") + percent(Math.abs(v)));
  const ago = (s) => (s < 0.95 ? "now" : s < 90 ? Math.round(s) + " s ago" : Math.round(s / 60) + " min ago");

  const state = { source: "", paused: false, latest: null, course: [], pairs: [], paired: new Set(), drift: new Map(), errors: new Map(), judged: new Set(), selected: null, figure: "ttft", sources: [], stream: null, open: new Set() };

  // ---- Figures on top.
  const tiles = [
    ["rate", "Requests", (o) => o.window.arrivals_per_second, (v) => [count(v), "/s"], (o) => count(o.totals.open) + " open, " + count(o.totals.finished) + " done"],
    ["ttft", "TTFT, median", (o) => o.window.ttft.p50, (v) => split(time(v)), (o) => "p95 " + time(o.window.ttft.p95) + " · p99 " + time(o.window.ttft.p99)],
    ["e2e", "E2E, median", (o) => o.window.e2e.p50, (v) => split(time(v)), (o) => "p95 " + time(o.window.e2e.p95) + " · p99 " + time(o.window.e2e.p99)],
    ["slo", "In time", (o) => (o.window.ended > 0 ? o.window.slo_attainment : NaN), (v) => split(percent(v)), (o) => "TTFT " + time(o.system.slo_ttft) + " · TPOT " + time(o.system.slo_tpot), (v) => (!known(v) ? "" : v >= 0.99 ? "good" : v >= 0.9 ? "warn" : "bad")],
    ["tokens", "Output tokens", (o) => o.window.output_tokens_per_second, (v) => [count(v), "/s"], (o) => count(o.totals.output_tokens) + " so far"],
    ["error", "TTFT error, median", (o) => (o.window.ttft_error.count > 0 ? o.window.ttft_error.p50 : NaN), (v) => split(percent(v)), (o) => "bias " + signed(o.window.ttft_error.bias) + " · end to end " + percent(o.window.e2e_error.p50), (v) => (!known(v) ? "" : v < 0.15 ? "good" : v < 0.5 ? "warn" : "bad")],
    ["decision", "Decision, p99", (o) => (o.window.decision.count > 0 ? o.window.decision.p99 : NaN), (v) => split(time(v)), (o) => "median " + time(o.window.decision.p50)],
    ["lost", "Shed or failed", (o) => o.totals.shed + o.totals.failed + o.totals.rejected, (v) => [count(v), ""], (o) => count(o.totals.retried) + " tried again", (v) => (v > 0 ? "warn" : "")],
  ];
  function split(s) { const at = s.lastIndexOf(" "); return at < 0 ? [s, ""] : [s.slice(0, at), s.slice(at + 1)]; }
  function makeTiles() {
    byId("tiles").replaceChildren(...tiles.map(([id, name]) => el("div", { class: "tile", id: "tile-" + id }, el("span", { class: "name" }, name),
      el("span", { class: "value" }, el("output", { id: "v-" + id, "aria-label": name }, "–"), el("small", { id: "u-" + id }, "")), el("span", { class: "note", id: "n-" + id }, ""))));
  }
  function drawTiles(o) {
    for (const [id, , pick, form, note, rank] of tiles) {
      const v = pick(o), [number, unit] = form(v), out = byId("v-" + id);
      text(out, number);
      text(byId("u-" + id), unit);
      out.dataset.value = String(v);
      text(byId("n-" + id), note(o));
      byId("tile-" + id).className = "tile " + (rank ? rank(v) : "");
    }
  }
  function drawFacts(o) {
    const s = o.system, facts = [[s.host === "gateway" ? "gateway" : "cluster", s.name], ["policy", s.policy], ["predictor", s.predictor], ["sync", s.sync_level], ["nodes", o.nodes ? o.nodes.filter((n) => n.answers).length + " of " + o.nodes.length + o.nodes.filter((n) => !n.answers).map((n) => ", " + n.node + " is silent").join("") : ""], ["up", o.uptime < 90 ? Math.floor(o.uptime) + " s" : Math.floor(o.uptime / 60) + " min"]];
    const list = byId("facts"), shown = facts.filter(([, v]) => v);
    if (list.childElementCount !== shown.length) list.replaceChildren(...shown.map(() => el("li", {})));
    shown.forEach(([k, v], i) => { const li = list.children[i]; if (li.dataset.is !== k + v) { li.dataset.is = k + v; li.replaceChildren(k + " ", el("b", {}, v)); } });
  }

  // ---- Cluster map.
  function health(i) {
    if (i.faults && i.faults.down) return ["down", "✕ killed", "bad"];
    if (i.state === "dead" || !i.reachable || i.liveness === "unreachable") return ["down", "✕ unreachable", "bad"];
    if (i.liveness === "hung") return ["down", "✕ hung", "bad"];
    if (i.state !== "serving") return ["held", "‖ " + i.state, "warn"];
    if (i.liveness === "stale") return ["stale", "◐ stale", "warn"];
    if (i.faults) return ["stale", "⚡ " + [i.faults.delay > 0 ? "+" + time(i.faults.delay) : "", i.faults.reorder > 0 ? "reorder " + percent(i.faults.reorder) : "", i.faults.drop > 0 ? "drop " + percent(i.faults.drop) : ""].filter(Boolean).join(", "), "warn"];
    return ["fresh", i.mirrored ? "● " + i.answers : "● " + (i.simulator_on || ""), ""];
  }
  const load = (i) => (i.mirrored ? i.running + i.waiting : i.outstanding);
  function meter(name, kinds) {
    const fills = kinds.map((k) => el("span", { class: "fill " + k })), out = el("output", {});
    return { node: el("span", { class: "meter" }, el("span", {}, name), el("span", { class: "track" }, ...fills), out), set(shares, s) { shares.forEach((v, k) => { fills[k].style.width = (100 * Math.max(0, Math.min(1, v))).toFixed(1) + "%"; }); text(out, s); } };
  }
  let nodes = [], nodesOf = "";
  function makeMap(o, many) {
    nodes = o.instances.map((i, k) => {
      const button = el("button", { type: "button", class: "node", "aria-expanded": "false", on: { click: () => select(k) } });
      const n = { button };
      if (!many) {
        n.id = el("span", { class: "id" }, i.instance); n.mark = el("span", { class: "mark" }); n.load = meter("load", ["run", "wait"]); n.kv = meter("KV", ["kv"]);
        n.left = el("span", { class: "mark" }); n.right = el("span", { class: "mark" });
        button.append(el("span", { class: "line" }, n.id, n.mark), n.load.node, n.kv.node, el("span", { class: "line" }, n.left, n.right));
      }
      return n;
    });
    byId("map").classList.toggle("many", many);
    byId("map").replaceChildren(...nodes.map((n) => n.button));
    byId("colour-pick").hidden = !many;
  }
  const heats = { load: (i, most) => load(i) / Math.max(1, most), kv: (i) => i.kv_use || 0, error: (i) => Math.min(1, (i.ttft_error && i.ttft_error.count ? i.ttft_error.p50 : 0)), age: (i) => Math.min(1, (i.age || 0) / 0.5) };
  function drawMap(o) {
    const many = o.instances.length >= kManyFrom, key = o.instances.map((i) => i.instance).join("\n") + many;
    if (key !== nodesOf) { makeMap(o, many); nodesOf = key; }
    const most = Math.max(4, ...o.instances.map(load));
    let up = 0, running = 0, waiting = 0;
    o.instances.forEach((i, k) => {
      const n = nodes[k], [h, mark, tone] = health(i);
      up += h === "fresh" || h === "stale"; running += i.running || 0; waiting += i.waiting || 0;
      n.button.dataset.health = h;
      n.button.setAttribute("aria-expanded", String(state.selected === i.instance));
      if (many) {
        n.button.style.setProperty("--heat", (85 * heats[byId("colour").value](i, most)).toFixed(0));
        text(n.button, h === "fresh" ? "" : mark.slice(0, 1));
        const title = i.instance + ": " + mark + ", " + (i.mirrored ? i.running + " running, " + i.waiting + " waiting, KV " + percent(i.kv_use) : i.outstanding + " there");
        if (n.title !== title) { n.title = title; n.button.title = title; n.button.setAttribute("aria-label", title); }
        return;
      }
      text(n.mark, mark); n.mark.className = "mark " + tone;
      if (i.mirrored) {
        n.load.set([i.running / most, i.waiting / most], i.running + (i.waiting > 0 ? " + " + i.waiting : ""));
        n.kv.set([i.kv_use], percent(i.kv_use));
        text(n.left, (i.age > 0 ? "state " + time(i.age) + " old" : "state fresh") + " · epoch " + shortEpoch(i.epoch));
        text(n.right, i.ttft_error.count > 0 ? "TTFT ± " + percent(i.ttft_error.p50) : "");
      } else {
        n.load.set([i.outstanding / most, 0], String(i.outstanding)); n.kv.set([0], "–");
        text(n.left, i.simulator_on ? "mirrored on " + i.simulator_on + (i.term ? ", term " + i.term : "") : "no mirror here"); text(n.right, "");
      }
    });
    text(byId("map-summary"), up + " of " + o.instances.length + " in service · " + count(running) + " running · " + count(waiting) + " waiting");
    drawDetail(o);
  }
  // Of a process of its own an epoch is the time of its start: its last digits tell two of them apart.
  const shortEpoch = (e) => (e < 1e6 ? String(e) : "…" + String(e).slice(-5));
  function select(k) {
    const name = state.latest.instances[k].instance;
    state.selected = state.selected === name ? null : name;
    if (state.selected && byId("f-instance")) byId("f-instance").value = name;
    drawMap(state.latest);
    if (state.selected) say("Figures of " + name + " are shown below the map");
  }
  function drawDetail(o) {
    const i = o.instances.find((x) => x.instance === state.selected), box = byId("detail");
    box.hidden = !i;
    if (!i) return;
    const rows = [["Instance", i.instance + (i.kind ? " (" + i.kind + ")" : "")], ["State", i.state + (i.liveness ? ", " + i.liveness : "")], ["Assigned here", count(i.outstanding)]];
    if (i.term) rows.push(["Mirror", i.simulator_on + ", term " + i.term]);
    if (i.mirrored) rows.push(["Running, waiting", i.running + ", " + i.waiting + " (" + i.unconfirmed + " unconfirmed)"], ["KV cache", count(i.kv_blocks - i.kv_free_blocks) + " of " + count(i.kv_blocks) + " blocks"],
      ["State's age", i.age > 0 ? time(i.age) : "fresh"], ["Last heard", time(i.unheard) + " ago"], ["Epoch", String(i.epoch)], ["Predictor", i.predictor + (i.answers !== i.predictor ? ", now " + i.answers : "")],
      ["TTFT error p50, p95", percent(i.ttft_error.p50) + ", " + percent(i.ttft_error.p95)], ["E2E error p50, p95", percent(i.e2e_error.p50) + ", " + percent(i.e2e_error.p95)], ["Bias TTFT, E2E", signed(i.ttft_error.bias) + ", " + signed(i.e2e_error.bias)],
      ["Steps", count(i.steps_per_second) + "/s"], ["Drift per step", i.drift.running.toFixed(2) + " running, " + i.drift.waiting.toFixed(2) + " waiting"], ["Step time bias", signed(i.drift.step_bias)],
      ["Gaps, resyncs", i.sync.gap + ", " + i.sync.resync], ["Reordered, duplicate", i.sync.reordered + ", " + i.sync.duplicate], ["Lost reservations", count(i.lost_assignments)]);
    let list = box.querySelector("dl");
    if (!list || list.childElementCount !== rows.length) { list = el("dl", {}, ...rows.map(() => el("div", {}, el("dt", {}), el("dd", {})))); box.replaceChildren(list); }
    rows.forEach(([k, v], n) => { text(list.children[n].children[0], k); text(list.children[n].children[1], v); });
  }

  // ---- Charts.
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const faded = (name, share) => `color-mix(in srgb, ${colour(name)} ${share}%, transparent)`;
  const charts = {};
  const minutes = (v) => (v === 0 ? "now" : v % 60 === 0 ? -v / 60 + " min" : -v + " s");
  // Short enough for an axis.
  const mark = (s) => (s === 0 ? "0" : s < 0.001 ? Number((s * 1e6).toPrecision(2)) + " µs" : s < 1 ? Number((s * 1e3).toPrecision(3)) + " ms" : Number(s.toPrecision(3)) + " s");
  function lineChart(id, sets, yText, format, second) {
    const scales = {
      x: { type: "linear", min: -kCourse, max: 0, ticks: { stepSize: 60, callback: minutes, color: colour("--soft"), maxRotation: 0 }, grid: { color: colour("--grid") } },
      y: { beginAtZero: true, ticks: { callback: format === time ? mark : format, color: colour("--soft"), maxTicksLimit: 6 }, grid: { color: colour("--grid") } },
    };
    if (second) scales.y2 = { position: "right", beginAtZero: true, ticks: { callback: second, color: colour("--soft"), maxTicksLimit: 6 }, grid: { drawOnChartArea: false } };
    return new Chart(byId(id), {
      type: "line",
      data: { datasets: sets.map(([label, c, dash, axis, fill]) => ({ label, data: [], borderColor: colour(c), backgroundColor: faded(c, 14), borderWidth: 2, borderDash: dash || [], pointRadius: 0, tension: 0.25, yAxisID: axis || "y", fill: fill || false })) },
      options: { animation: false, maintainAspectRatio: false, parsing: false, normalized: true, interaction: { mode: "index", intersect: false }, scales,
        plugins: { legend: { align: "end", labels: { boxWidth: 14, boxHeight: 2, color: colour("--soft") } }, tooltip: { callbacks: { title: (t) => Math.round(-t[0].parsed.x) + " s ago", label: (t) => t.dataset.label + ": " + (t.dataset.yAxisID === "y2" ? second(t.parsed.y) : format(t.parsed.y)) } } } },
    });
  }
  function makeCharts() {
    for (const c of Object.values(charts)) c.destroy();
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    Chart.defaults.font.size = 11;
    charts.ttft = lineChart("c-ttft", [["median", "--s1"], ["p95", "--s2", [5, 3]]], "TTFT", time);
    charts.e2e = lineChart("c-e2e", [["median", "--s1"], ["p95", "--s2", [5, 3]]], "E2E", time);
    charts.rate = lineChart("c-rate", [["arriving /s", "--s1"], ["finished /s", "--s3", [5, 3]], ["tokens /s", "--s4", [2, 2], "y2"]], "", count, count);
    const line = (label, c, dash) => ({ type: "line", order: 1, label, data: [], borderColor: faded(c, 70), borderWidth: 1, borderDash: dash, pointRadius: 0, fill: false });
    const axis = (name) => ({ type: "logarithmic", title: { display: true, text: name, color: colour("--soft") }, ticks: { callback: (v) => (/^[125](\.0*)?e/.test(Number(v).toExponential(6).replace(/0+e/, "e")) ? mark(v) : null), color: colour("--soft"), maxTicksLimit: 40, maxRotation: 0, autoSkipPadding: 8 }, grid: { color: colour("--grid") } });
    charts.scatter = new Chart(byId("c-scatter"), {
      type: "scatter",
      data: { datasets: [{ label: "one request", data: [], backgroundColor: faded("--s1", 60), borderColor: "transparent", pointRadius: 3.2, order: 0 }, { ...line("within the error's p90", "--s4", [4, 3]), fill: "+1", backgroundColor: faded("--s4", 10) }, { ...line("", "--s4", [4, 3]) }, line("as predicted", "--soft", [])] },
      options: { animation: false, maintainAspectRatio: false, parsing: false, scales: { x: axis("predicted"), y: axis("actual") },
        plugins: { legend: { align: "end", labels: { boxWidth: 12, boxHeight: 3, color: colour("--soft"), filter: (i) => i.text !== "" } }, tooltip: { callbacks: { label: (t) => "predicted " + time(t.parsed.x) + ", actual " + time(t.parsed.y) } } } },
    });
  }
  function drawCharts(o) {
    const now = o.unix_ms, put = (chart, set, pick) => { charts[chart].data.datasets[set].data = state.course.map((p) => ({ x: (p[0] - now) / 1e3, y: pick(p) })); };
    put("ttft", 0, (p) => p[1]); put("ttft", 1, (p) => p[2]); put("e2e", 0, (p) => p[3]); put("e2e", 1, (p) => p[4]);
    put("rate", 0, (p) => p[5]); put("rate", 1, (p) => p[6]); put("rate", 2, (p) => p[7]);
    // As much of the past as there is, in steps.
    const past = state.course.length ? (now - state.course[0][0]) / 1e3 : 0, shown = [30, 60, 120].find((s) => past <= s) || kCourse;
    for (const c of ["ttft", "e2e", "rate"]) {
      charts[c].options.scales.x.min = -shown;
      charts[c].options.scales.x.ticks.stepSize = { 30: 10, 60: 20, 120: 30 }[shown] || 60;
      charts[c].update("none");
    }
    const w = o.window;
    text(byId("s-ttft"), "last " + Math.round(w.seconds) + " s: " + count(w.ttft.count) + " requests");
    text(byId("s-e2e"), count(w.e2e.count) + " ended");
    text(byId("s-rate"), count(w.decisions_per_second) + " decisions/s");
    drawScatter(o);
  }
  function drawScatter(o) {
    const f = state.figure, error = o.window[f + "_error"], e = error.count > 0 ? error.p90 : 0;
    const pairs = state.pairs.filter((p) => p[f]).map((p) => p[f]), values = pairs.flatMap((p) => [p.x, p.y]).filter((v) => v > 0);
    const low = Math.min(...values) * 0.8, high = Math.max(...values) * 1.25, sets = charts.scatter.data.datasets, scales = charts.scatter.options.scales;
    sets[0].data = pairs;
    // |predicted / actual - 1| <= e: actual between predicted / (1 + e) and predicted / (1 - e).
    const ends = values.length ? [low, high] : [];
    sets[1].data = ends.map((x) => ({ x, y: x / (1 + e) }));
    sets[2].data = ends.map((x) => ({ x, y: x / Math.max(0.05, 1 - e) }));
    sets[3].data = ends.map((x) => ({ x, y: x }));
    for (const s of [scales.x, scales.y]) { s.min = values.length ? low : undefined; s.max = values.length ? high : undefined; }
    charts.scatter.update("none");
    text(byId("s-scatter"), error.count > 0 ? "error p50 " + percent(error.p50) + ", p90 " + percent(error.p90) + " · bias " + signed(error.bias) + " · " + percent(error.below_p90) + " at or below the predicted p90" : "nothing judged in the last seconds");
  }

  // ---- Drift. Its bias is that of an instance's latest first tokens: the ledger's own, over 256 requests, moves too slowly to be watched.
  function keepErrors(o) {
    for (const d of [...o.decisions].reverse()) {
      if (!d.predicted || !(d.actual.ttft > 0) || state.judged.has(d.number)) continue;
      state.judged.add(d.number);
      if (state.judged.size > 4000) state.judged.delete(state.judged.values().next().value);
      let e = state.errors.get(d.instance);
      if (!e) state.errors.set(d.instance, (e = []));
      e.push(d.predicted.ttft / d.actual.ttft - 1);
      if (e.length > 12) e.shift();
    }
  }
  function recentBias(i) {
    const e = state.errors.get(i.instance);
    return e && e.length > 2 ? e.reduce((a, b) => a + b, 0) / e.length : i.ttft_error.count ? i.ttft_error.bias : 0;
  }
  function keepDrift(o) {
    for (const i of o.instances) {
      if (!i.mirrored) continue;
      let d = state.drift.get(i.instance);
      if (!d) state.drift.set(i.instance, (d = []));
      d.push({ t: o.unix_ms, bias: recentBias(i), off: i.drift.running + i.drift.waiting });
      if (d.length > kDriftPoints) d.shift();
    }
  }
  const driftRows = new Map();
  function drawDrift(o) {
    const box = byId("drift"), mirrored = o.instances.filter((i) => i.mirrored);
    const badness = (i) => Math.abs(recentBias(i)) + i.drift.running + i.drift.waiting;
    const shown = mirrored.length <= 12 ? mirrored : [...mirrored].sort((a, b) => badness(b) - badness(a)).slice(0, 12);
    if (shown.length === 0) { if (!box.querySelector(".empty")) box.replaceChildren(el("p", { class: "empty" }, "No mirror is in this process.")); return; }
    const rows = shown.map((i) => {
      let r = driftRows.get(i.instance);
      if (!r) {
        const off = svg("path", { class: "off" }), bias = svg("path", { class: "bias" });
        r = { off, bias, number: el("b", {}), unit: el("span", {}) };
        r.row = el("div", { class: "row" }, el("span", {}, i.instance), svg("svg", { viewBox: "0 0 160 30", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("line", { class: "zero", x1: 0, x2: 160, y1: 15, y2: 15 }), off, bias), el("span", { class: "num" }, r.number, r.unit));
        driftRows.set(i.instance, r);
      }
      const points = state.drift.get(i.instance) || [], x = (n) => (160 * (n + kDriftPoints - points.length)) / (kDriftPoints - 1);
      const clamp = (v) => Math.max(-1, Math.min(1, v));
      r.bias.setAttribute("d", points.map((p, n) => (n ? "L" : "M") + x(n).toFixed(1) + " " + (15 - 14 * clamp(2 * p.bias)).toFixed(1)).join(""));
      r.off.setAttribute("d", points.length ? "M" + x(0).toFixed(1) + " 30" + points.map((p, n) => "L" + x(n).toFixed(1) + " " + (30 - 28 * Math.min(1, p.off / 4)).toFixed(1)).join("") + "L160 30Z" : "");
      const bias = recentBias(i);
      text(r.number, signed(bias));
      r.number.className = Math.abs(bias) > 0.15 ? "bad" : "";
      text(r.unit, " · off " + (i.drift.running + i.drift.waiting).toFixed(1));
      return r.row;
    });
    if (box.childElementCount !== rows.length || rows.some((r, n) => box.children[n] !== r)) box.replaceChildren(...rows);
  }

  // ---- Sync events.
  // A gateway's engines send no sync messages: what it infers of them moves.
  const streamLanes = ["gap", "reordered", "duplicate", "resync", "disagreement", "epoch", "liveness"], inferredLanes = ["rescaled", "epoch", "liveness"];
  let syncKey = "";
  function drawSync(o) {
    const recent = o.events.filter((e) => e.seconds_ago <= kTimeline), total = recent.reduce((n, e) => n + e.count, 0);
    text(byId("s-sync"), recent.length === 0 ? "quiet for two minutes" : count(total) + " in two minutes");
    const x = (s) => 78 + 232 * (1 - s / kTimeline), used = o.system.host === "gateway" ? inferredLanes : streamLanes, height = 22 * used.length + 18;
    const picture = svg("svg", { viewBox: "0 0 320 " + height, role: "img", "aria-label": "Sync events of the last two minutes: " + (recent.length === 0 ? "none" : [...used, "demotion", "state"].map((l) => [l, recent.filter((e) => e.kind === l).reduce((n, e) => n + e.count, 0)]).filter(([, n]) => n > 0).map(([l, n]) => n + " " + l).join(", ")) });
    used.forEach((lane, n) => {
      const y = 12 + 22 * n, label = svg("text", { x: 0, y: y + 4 });
      label.textContent = lane;
      picture.append(label, svg("line", { class: "lane", x1: 78, x2: 310, y1: y, y2: y }));
    });
    for (const [s, name] of [[120, "2 min"], [60, "1 min"], [0, "now"]]) { const t = svg("text", { x: x(s), y: height - 2, "text-anchor": s === 120 ? "start" : s === 0 ? "end" : "middle" }); t.textContent = name; picture.append(t); }
    for (const e of recent) {
      const lane = used.indexOf(e.kind === "demotion" || e.kind === "state" ? "liveness" : e.kind);
      const dot = svg("circle", { class: e.kind, cx: x(e.seconds_ago).toFixed(1), cy: 12 + 22 * lane, r: Math.min(8, 2.4 + Math.log2(e.count)).toFixed(1), "fill-opacity": 0.8 }), title = svg("title", {});
      title.textContent = e.instance + ": " + e.count + " " + e.kind + (e.detail ? " (" + e.detail + ")" : "");
      dot.append(title);
      picture.append(dot);
    }
    byId("sync").replaceChildren(picture);
    const key = recent.slice(0, 40).map((e) => e.number + ":" + e.count).join();
    if (key === syncKey) return;
    syncKey = key;
    byId("sync-list").replaceChildren(...(recent.length ? recent.slice(0, 40).map((e) => el("li", {}, ago(e.seconds_ago) + ": " + e.instance + ", " + e.count + " " + e.kind + (e.detail ? " (" + e.detail + ")" : ""))) : [el("li", {}, "none")]));
  }

  // ---- Decisions.
  function keepPairs(o) {
    for (const d of [...o.decisions].reverse()) {
      if (!d.predicted || d.actual.e2e === undefined || state.paired.has(d.number)) continue;
      state.paired.add(d.number);
      if (state.paired.size > 4000) state.paired.delete(state.paired.values().next().value);
      if (d.outcome !== "finished") continue;
      const pair = (k) => (d.predicted[k] > 0 && d.actual[k] > 0 ? { x: d.predicted[k], y: d.actual[k] } : null);
      state.pairs.push({ ttft: pair("ttft"), e2e: pair("e2e") });
      if (state.pairs.length > kScatter) state.pairs.shift();
    }
  }
  function offBy(predicted, actual) {
    if (!known(predicted) || !known(actual) || actual <= 0) return null;
    const e = predicted / actual - 1;
    return el("span", { class: "off-by " + (Math.abs(e) < 0.25 ? "" : Math.abs(e) < 1 ? "warn" : "bad"), title: "predicted against actual" }, signed(e));
  }
  const cards = new Map();
  function fill(card, d) {
    const key = d.number + d.outcome + (d.actual.ttft || "") + (d.actual.e2e || "");
    text(card.when, ago(d.seconds_ago));
    if (card.key === key) return;
    card.key = key;
    const p = d.predicted || {}, pair = (name, k) => [el("i", {}, name), el("span", {}, (known(p[k]) ? time(p[k]) : "–") + " →"), known(d.actual[k]) ? el("b", {}, time(d.actual[k])) : el("span", {}, "…"), offBy(p[k], d.actual[k])].filter((x) => x !== null);
    card.ttft.replaceChildren(...pair("TTFT", "ttft"));
    card.e2e.replaceChildren(...pair("E2E", "e2e"));
    text(card.state, (d.outcome === "open" ? (d.actual.ttft === undefined ? "prefill" : "decoding") : d.outcome) + (d.attempt > 0 ? ", try " + (d.attempt + 1) : ""));
    card.state.className = "state" + (d.outcome === "failed" || d.outcome === "rejected" ? " bad" : "");
    if (card.box.open) inside(card, card.all ? { ...d, candidates: card.all } : d);
  }
  function inside(card, d) {
    const head = ["Candidate", "there", "TTFT", "p90", "E2E", "p90", "P(late)", "state's age", "score"];
    const rows = d.candidates.map((c) => el("tr", c.instance === d.instance ? { class: "won" } : {}, el("th", { scope: "row" }, (c.instance === d.instance ? "✓ " : "") + c.instance + (c.stale ? " (stale)" : "")),
      ...[String(c.requests), time(c.ttft), time(c.ttft_p90), time(c.e2e), time(c.e2e_p90), percent(c.slo_violation), known(c.age) ? (c.age > 0 ? time(c.age) : "fresh") : "–", c.score === null ? "left out" : c.score.toPrecision(4)].map((v) => el("td", {}, v))));
    const caption = count(d.prompt_tokens) + " prompt tokens · decided in " + d.decision_us.toFixed(0) + " µs · by " + (d.predicted ? d.predicted.predictor : "account") + (d.repicked ? " · chosen anew after another reservation came between" : "") + (d.candidates_total > d.candidates.length ? " · the best " + d.candidates.length + " of " + d.candidates_total : "");
    if (d.candidates_total > d.candidates.length && !card.asked) {  // the stream carries the best only
      card.asked = true;
      fetch("/decision.json?source=" + encodeURIComponent(state.source) + "&number=" + d.number).then((r) => (r.ok ? r.json() : null)).then((all) => { if (all) { card.all = all.candidates; inside(card, { ...d, candidates: all.candidates }); } }).catch(() => {});
    }
    card.inside.replaceChildren(el("table", {}, el("caption", {}, caption), el("thead", {}, el("tr", {}, ...head.map((h) => el("th", { scope: "col" }, h)))), el("tbody", {}, ...rows)));
  }
  function makeCard(number) {
    const c = { when: el("span", { class: "when" }), id: el("span", { class: "id" }), where: el("span", { class: "where" }), ttft: el("span", { class: "pair" }), e2e: el("span", { class: "pair" }), state: el("span", { class: "state" }), inside: el("div", { class: "inside", tabindex: "0", role: "region", "aria-label": "Candidates of decision " + number }) };
    c.box = el("details", { class: "decision", "data-number": number, on: { toggle: () => { if (c.box.open) { state.open.add(number); inside(c, c.d); } else state.open.delete(number); } } }, el("summary", {}, c.when, c.id, c.where, c.ttft, c.e2e, c.state), c.inside);
    return c;
  }
  function drawDecisions(o) {
    const box = byId("decisions");
    // The newest, and behind them those whose end is known.
    const newest = o.decisions.slice(0, 6), listed = [...newest, ...o.decisions.slice(6).filter((d) => d.outcome !== "open").slice(0, 8)], numbers = new Set(listed.map((d) => d.number));
    // What somebody reads or has the focus in stays where it is.
    const held = box.matches(":hover") || box.contains(document.activeElement) || state.open.size > 0;
    for (const d of o.decisions) {
      let c = cards.get(d.number);
      if (!c && (held || !numbers.has(d.number)) && cards.size > 0) continue;
      if (!c) { cards.set(d.number, (c = makeCard(d.number))); text(c.id, "#" + d.request); text(c.where, "→ " + d.instance); }
      c.d = d;
      fill(c, d);
    }
    if (held && box.childElementCount > 0) return;
    for (const n of [...cards.keys()]) if (!numbers.has(n)) cards.delete(n);
    const rows = listed.map((d) => cards.get(d.number).box);
    if (rows.length === 0) { box.replaceChildren(el("p", { class: "empty" }, "No decision yet: send a request, and it appears here.")); return; }
    if (box.childElementCount !== rows.length || rows.some((r, n) => box.children[n] !== r)) box.replaceChildren(...rows);
  }

  // ---- Fault switch.
  let faultNames = "";
  function drawFaults(o) {
    const panel = byId("fault-panel");
    panel.hidden = !o.system.faults_switchable;
    if (panel.hidden) return;
    const key = o.instances.map((i) => i.instance).join("\n");
    if (key === faultNames) return;
    faultNames = key;
    byId("f-instance").replaceChildren(el("option", { value: "*" }, "all of them"), ...o.instances.map((i) => el("option", { value: i.instance }, i.instance)));
    if (o.instances.length > 1) byId("f-instance").selectedIndex = 1;
  }
  async function order(body, said) {
    try {
      const answer = await fetch("/faults?source=" + encodeURIComponent(state.source), { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
      const result = await answer.json();
      text(byId("f-said"), answer.ok ? said : "Refused: " + result.error);
    } catch (e) { text(byId("f-said"), "The system does not answer."); }
  }
  function makeFaults() {
    const shows = [["f-delay", (v) => v + " ms"], ["f-reorder", (v) => v + " %"], ["f-drop", (v) => v + " %"]];
    for (const [id, form] of shows) byId(id).addEventListener("input", () => text(byId(id + "-out"), form(byId(id).value)));
    const who = () => byId("f-instance").value, name = () => (who() === "*" ? "all instances" : who());
    byId("fault").addEventListener("submit", (e) => {
      e.preventDefault();
      order({ instance: who(), delay: Number(byId("f-delay").value) / 1e3, reorder: Number(byId("f-reorder").value) / 100, drop: Number(byId("f-drop").value) / 100 }, "Applied to " + name() + ".");
    });
    byId("f-kill").addEventListener("click", () => order({ instance: who(), kill: 10 }, "Killed: " + name() + ". Back in 10 s, empty, under a new epoch."));
    byId("f-heal").addEventListener("click", () => {
      for (const [id, form] of shows) { byId(id).value = "0"; text(byId(id + "-out"), form("0")); }
      order({ instance: "*", heal: true }, "Healed. The mirrors resync by themselves.");
    });
  }

  // ---- The stream.
  function take(o) {
    state.latest = o;
    const last = state.course[state.course.length - 1], w = o.window;
    if (!last || o.unix_ms - last[0] >= 900) state.course.push([o.unix_ms, w.ttft.p50, w.ttft.p95, w.e2e.p50, w.e2e.p95, w.arrivals_per_second, w.finished_per_second, w.output_tokens_per_second, w.ttft_error.bias, w.e2e_error.bias, w.ttft_error.p50, w.decision.p99]);
    while (state.course.length && o.unix_ms - state.course[0][0] > kCourse * 1e3) state.course.shift();
    keepErrors(o);
    keepDrift(o);
    keepPairs(o);
    if (!state.paused) draw(o);
  }
  function draw(o) {
    drawFacts(o); drawTiles(o); drawMap(o); drawCharts(o); drawDrift(o); drawSync(o); drawDecisions(o); drawFaults(o);
    text(byId("seen"), "Observation " + o.observation + " · " + o.watch.pages + " page" + (o.watch.pages === 1 ? "" : "s") + " open ·");
    document.documentElement.dataset.observation = String(o.observation);
  }
  function live(on, s) { byId("live").className = "live " + (on === null ? "" : on ? "on" : "off"); text(byId("live"), s); }
  function listen() {
    if (state.stream) state.stream.close();
    Object.assign(state, { course: [], pairs: [], paired: new Set(), drift: new Map(), errors: new Map(), judged: new Set(), latest: null, selected: null, open: new Set() });
    cards.clear(); driftRows.clear(); nodesOf = faultNames = syncKey = "";
    byId("decisions").replaceChildren(); byId("drift").replaceChildren();
    const stream = (state.stream = new EventSource("/events?source=" + encodeURIComponent(state.source)));
    stream.addEventListener("course", (e) => { state.course = JSON.parse(e.data).points; });
    stream.addEventListener("observation", (e) => { live(true, state.paused ? "paused" : "live"); take(JSON.parse(e.data)); });
    stream.onerror = () => live(false, "no answer, trying again");
  }
  const themes = ["auto", "light", "dark"], themeNames = { auto: "Auto", light: "Light", dark: "Dark" };
  function setTheme(t) {
    document.documentElement.dataset.theme = t;
    text(byId("theme"), themeNames[t]);
    byId("theme").setAttribute("aria-label", "Colours: " + themeNames[t] + ". Change");
    store.set("foretoken-theme", t);
    if (charts.ttft) { makeCharts(); if (state.latest) drawCharts(state.latest); }
  }
  async function begin() {
    makeTiles();
    const wanted = new URLSearchParams(location.search);
    setTheme(themes.includes(wanted.get("theme")) ? wanted.get("theme") : themes.includes(store.get("foretoken-theme")) ? store.get("foretoken-theme") : "auto");
    makeCharts();
    makeFaults();
    byId("theme").addEventListener("click", () => setTheme(themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % 3]));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(document.documentElement.dataset.theme));
    byId("pause").addEventListener("click", () => {
      state.paused = !state.paused;
      byId("pause").setAttribute("aria-pressed", String(state.paused));
      live(true, state.paused ? "paused" : "live");
      if (!state.paused && state.latest) draw(state.latest);
    });
    byId("colour").addEventListener("change", () => state.latest && drawMap(state.latest));
    for (const b of document.querySelectorAll("[data-figure]")) b.addEventListener("click", () => {
      state.figure = b.dataset.figure;
      for (const c of document.querySelectorAll("[data-figure]")) c.setAttribute("aria-pressed", String(c === b));
      if (state.latest) drawScatter(state.latest);
    });
    state.sources = await (await fetch("/sources.json")).json();
    const names = state.sources.map((s) => s.name);
    state.source = names.includes(wanted.get("source")) ? wanted.get("source") : names[0];
    byId("source-pick").hidden = names.length < 2;
    byId("source").replaceChildren(...state.sources.map((s) => el("option", { value: s.name }, s.title)));
    byId("source").value = state.source;
    byId("source").addEventListener("change", () => { state.source = byId("source").value; listen(); });
    listen();
  }
  begin().catch(() => { live(false, "no answer"); setTimeout(() => location.reload(), 3000); });
})();
