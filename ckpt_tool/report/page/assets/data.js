// The block of data in columns, unpacked into what the views use.
const DATA = JSON.parse(document.getElementById("data").textContent);
const STATUSES = DATA.statuses;
const WHYS = DATA.whys;

function unpack({ shared, rest }) {
  let before = "";
  return rest.map((text, i) => (before = before.slice(0, shared[i]) + text));
}

const SIDES = DATA.sides.map((side) => ({
  ...side,
  keys: unpack(side.keys),
  items: null, // for each key, the numbers of its items
}));
const TWO = SIDES.length === 2;
const list = (value) => (typeof value === "number" ? [value] : value);
const ITEMS = DATA.items.status.map((status, i) => ({
  a: list(DATA.items.a[i]),
  b: list(DATA.items.b[i]),
  status,
  why: DATA.items.why[i],
  note: DATA.items.note[i],
}));
SIDES.forEach((side, s) => {
  side.items = side.keys.map(() => []);
  ITEMS.forEach((item, i) => (s ? item.b : item.a).forEach((key) => side.items[key].push(i)));
});
const MEASURES = DATA.measures.map((measure) => ({
  ...measure,
  of: new Map(measure.at.map((item, i) => [item, measure.values[i]])), // and of all that are the same, where that says it
}));

for (const measure of MEASURES) {
  if (measure.same === null) continue;
  ITEMS.forEach((item, i) => { if (STATUSES[item.status].name === "same" && !measure.of.has(i)) measure.of.set(i, measure.same); });
}

const formOf = (s, key) => DATA.forms[SIDES[s].form[key]] || null;
const nameOf = (item) =>
  item.b.length && (DATA.command !== "diff" || !item.a.length)
    ? SIDES[1].keys[item.b[0]]
    : SIDES[0].keys[item.a[0]];
// Never none where there is some, nor all where some is missing.
function percent(part, whole) {
  const share = whole ? (100 * part) / whole : 0;
  if (share > 0 && share < 0.05) return "<0.1 %";
  return share >= 99.95 && share < 100 ? ">99.9 %" : `${share.toFixed(1)} %`;
}
const UNDEFINED = "undefined"; // the cosine of a tensor that is all zeros on a side
const toneOf = (status) => "tone-" + STATUSES[status].tone;

function sizeText(bytes) {
  let value = bytes, unit = "B";
  for (unit of ["B", "kB", "MB", "GB", "TB", "PB"]) {
    if (value < 999.95 || unit === "PB") break;
    value /= 1000;
  }
  return unit === "B" ? `${bytes} B` : `${value.toFixed(1)} ${unit}`;
}

const min = (values) => values.reduce((least, value) => Math.min(least, value), Infinity);
const max = (values) => -min(values.map((value) => -value));
const count = (n) => n.toLocaleString("en-US");
const plural = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;
function number(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value; // NaN and Inf, which JSON has no numbers for
  const size = Math.abs(value);
  if (value === 0) return "0";
  return size >= 1e5 || size < 1e-3 ? value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e") : String(+value.toPrecision(5));
}

// Elements are made, never written as HTML: whatever a name holds is text.
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  return filled(made, attributes, children);
}
function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  return filled(made, attributes, children);
}
function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}
const byId = (id) => document.getElementById(id);
