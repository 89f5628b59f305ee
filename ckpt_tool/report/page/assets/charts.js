// Charts over the layers, in the network's order; each has its numbers as a table too.
const CHART = { h: 236, left: 52, right: 8, top: 10, bottom: 78 };
const LABEL = { most: 15, width: 5.2, left: 4 }; // characters of a layer's name, and the room that one takes to the left, as it stands aslant
const ZERO = 0.14; // the part of a logarithmic chart's height below its least power of ten, where there are zeros

// As wide as it is drawn, so that its texts are as large as others.
function widthOf(isWide) {
  const all = byId("charts").clientWidth || 1000, columns = isWide ? 1 : Math.max(1, Math.floor((all + 30) / 530));
  return Math.max(280, (all - 30 * (columns - 1)) / columns);
}

function chart(title, labels, series, options = {}) {
  const box = el("figure", { class: `chart${options.isWide ? " wide" : ""}` });
  box.style.margin = "0";
  const legend = el("div", { class: "legend" }, ...(options.isBare ? [] : series).map((each) => el("span", { class: each.tone }, el("i"), each.name)));
  box.append(el("h3", {}, title), legend, picture(title, labels, series, options), asTable(labels, series));
  return box;
}

function picture(title, labels, series, options) {
  const { h, left, right, top, bottom } = CHART, w = widthOf(options.isWide);
  const scale = scaleOf(labels, series, options);
  const drawn = svg("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": `${title}, by layer; its numbers are in the table below` });
  for (const tick of scale.ticks) {
    const y = scale.y(tick);
    drawn.append(svg("line", { class: "grid", x1: left, x2: w - right, y1: y, y2: y }), svg("text", { x: left - 6, y: y + 3.5, "text-anchor": "end" }, (options.tick || tickText)(tick)));
  }
  const step = (w - left - right) / Math.max(1, labels.length);
  const every = Math.ceil(16 / step);
  labels.forEach((label, i) => {
    if (i % every) return;
    const x = left + (i + 0.5) * step;
    const most = Math.max(4, Math.min(LABEL.most, Math.floor((x - LABEL.left) / LABEL.width)));
    const short = label.length > most ? `…${label.slice(1 - most)}` : label;
    drawn.append(svg("text", { x, y: h - bottom + 14, "text-anchor": "end", transform: `rotate(-38 ${x} ${h - bottom + 14})` }, short));
  });
  drawn.append(svg("line", { class: "axis", x1: left, x2: w - right, y1: h - bottom, y2: h - bottom }));
  options.kind === "bars" ? bars(drawn, series, scale, step) : lines(drawn, series, scale, step);
  if (options.place >= 0) {
    const x = left + (options.place + 0.5) * step;
    drawn.append(svg("line", { class: "place", x1: x, x2: x, y1: top, y2: h - bottom }));
  }
  labels.forEach((label, i) => {
    const text = [label, ...series.map((each) => `${each.name}: ${each.texts ? each.texts[i] || "–" : (options.tip || number)(each.values[i])}`).filter((line, j) => series[j].values[i] !== null && (options.kind !== "bars" || series[j].values[i]))].join("\n");
    drawn.append(svg("rect", { class: "hit", x: left + i * step, y: top, width: step, height: h - top - bottom, "data-tip": text }));
  });
  return drawn;
}

// All digits that a tick has: on a narrow scale its neighbours differ in the last alone.
const tickText = (tick) => (Math.abs(tick) >= 1e-3 && Math.abs(tick) < 1e5 ? String(tick) : number(tick));

function scaleOf(labels, series, options) {
  const { h, top, bottom } = CHART;
  const all = options.kind === "bars"
    ? labels.map((_, i) => series.reduce((sum, each) => sum + (each.values[i] || 0), 0))
    : series.flatMap((each) => [...each.values, ...(each.dots || []).flat()]).filter((value) => typeof value === "number" && (!options.log || value > 0));
  let low = all.length ? min(all) : 0, high = all.length ? max(all) : 1;
  const height = h - top - bottom;
  if (options.log) {
    // What is 0 has no logarithm, and may be what the chart is about: it stands on the axis, apart.
    const zero = series.some((each) => each.values.includes(0));
    low = all.length ? Math.floor(Math.log10(low)) : -1; high = all.length ? Math.max(low + 1, Math.ceil(Math.log10(high))) : 0;
    const every = Math.ceil((high - low) / 5), ticks = zero ? [0] : [];
    for (let i = low; i <= high; i += every) ticks.push(10 ** i);
    const room = zero ? height * (1 - ZERO) : height;
    return { ticks, y: (value) => (value === 0 && zero ? top + height : top + room - (room * (Math.log10(value) - low)) / (high - low)) };
  }
  if (options.kind === "bars") low = 0;
  if (options.high !== undefined) high = options.high;
  if (high - low < 1e-12) { low -= Math.abs(low) * 0.05 || 1; high = options.high ?? high + (Math.abs(high) * 0.05 || 1); }
  const raw = (high - low) / 4, unit = 10 ** Math.floor(Math.log10(raw));
  const by = [1, 2, 5, 10].map((each) => each * unit).find((each) => each >= raw);
  low = Math.floor(low / by + 1e-9) * by;
  if (options.high === undefined) high = Math.ceil(high / by - 1e-9) * by;
  const ticks = [];
  for (let tick = low; tick <= high + by / 1000; tick += by) ticks.push(+tick.toPrecision(12));
  return { ticks, y: (value) => top + height - (height * (value - low)) / (high - low) };
}

function bars(drawn, series, scale, step) {
  const { h, left, bottom } = CHART;
  const width = Math.max(1, Math.min(30, step * 0.74));
  series[0].values.forEach((_, i) => {
    let under = 0;
    for (const each of series) {
      const value = each.values[i] || 0;
      if (!value) continue;
      const y = scale.y(under + value), bottomY = under ? scale.y(under) : h - bottom;
      drawn.append(svg("rect", { class: `bar ${each.tone}`, x: left + (i + 0.5) * step - width / 2, width, y, height: Math.max(0.6, bottomY - y), rx: Math.min(2, width / 3) }));
      under += value;
    }
  });
}

function lines(drawn, series, scale, step) {
  const { left } = CHART;
  for (const each of series) {
    (each.dots || []).forEach((values, i) => {
      const some = values.length > 24 ? values.filter((_, j) => j % Math.ceil(values.length / 24) === 0) : values;
      some.forEach((value, j) => {
        if (value === null || (scale.log && value <= 0)) return;
        const y = scale.y(value);
        if (isFinite(y)) drawn.append(svg("circle", { class: each.tone, r: 2.1, cx: left + (i + 0.25 + (0.5 * (j + 0.5)) / some.length) * step, cy: y }));
      });
    });
    let path = "";
    each.values.forEach((value, i) => {
      const y = typeof value === "number" ? scale.y(value) : NaN;
      path += isFinite(y) ? `${path && !path.endsWith(" ") ? "L" : "M"}${left + (i + 0.5) * step} ${y}` : path.endsWith(" ") || !path ? "" : " ";
    });
    drawn.append(svg("path", { class: `line ${each.tone}`, d: path }));
  }
  series.forEach((each, at) => marks(drawn, each, at, step));
}

// What a line can't show: a layer with NaN or Inf is crossed out, one with tensors that were not compared has a question mark,
// and one whose cosine is undefined, since a side is all zeros, a 0.
function marks(drawn, series, at, step) {
  const { left, top, bottom, h } = CHART;
  series.values.forEach((value, i) => {
    const x = left + (i + 0.5) * step, isOdd = typeof value === "string" && value !== UNDEFINED, text = series.texts ? series.texts[i] : "";
    if (isOdd) drawn.append(svg("line", { class: "odd", x1: x, x2: x, y1: top, y2: h - bottom }));
    if (isOdd || value === UNDEFINED || /^[≤≥–]/.test(text)) drawn.append(svg("text", { class: `mark ${series.tone}`, x, y: top + 9 + 11 * at, "text-anchor": "middle" }, isOdd ? "×" : value === UNDEFINED ? "0" : "?"));
  });
}

function asTable(labels, series) {
  const box = el("details", {}, el("summary", {}, "As a table"));
  box.addEventListener("toggle", () => {
    if (box.childElementCount > 1) return;
    const head = el("tr", {}, ...["layer", ...series.map((each) => each.name)].map((text, i) => el("th", { scope: "col", class: i ? "right" : "" }, text)));
    const rows = labels.map((label, i) => el("tr", {}, el("td", {}, label), ...series.map((each) => el("td", { class: "right" }, each.texts ? each.texts[i] || "–" : number(each.values[i])))));
    box.append(el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows))));
  });
  return box;
}
