// The page: one filter over all items, the views that show what is left, and the details of one.
const state = { words: [], statuses: new Set(), dtype: "", rule: -1, view: "list", chosen: null };
const shown = new Uint8Array(ITEMS.length).fill(1);
const haystack = ITEMS.map((item) => [...item.a.map((key) => SIDES[0].keys[key]), ...(TWO ? item.b.map((key) => SIDES[1].keys[key]) : [])].join("\n").toLowerCase());
// What is tied counts once, where its other key stands.
const TIED = SIDES.map((side) => new Set(side.tied));
const bytesOf = (s, key) => { const form = formOf(s, key); return !form ? [0, 1] : TIED[s].has(key) ? [0, 0] : [form[2], form[3]]; };
const heavy = (item) => (item.b.length ? [1, item.b[0]] : [0, item.a[0]]);

const trees = SIDES.map((side, s) => {
  const tree = new Tree(side.keys, DATA.command === "trace");
  tree.sum((key) => bytesOf(s, key));
  return tree;
});
const itemOf = TWO ? (leaf) => leaf : (leaf) => SIDES[0].items[leaf][0];
let joint = null;
// Both sides' keys in one tree, made when it is first looked at.
function oneTree() {
  if (!TWO) return trees[0];
  if (!joint) {
    joint = new Tree(ITEMS.map(nameOf), DATA.command === "trace");
    joint.sum((i) => bytesOf(...heavy(ITEMS[i])));
  }
  return joint;
}
const inView = () => (TWO && state.view === "pairs" ? trees : [oneTree()]);

function statusOfKey(s, key) {
  const items = SIDES[s].items[key];
  for (let at = 0; at < items.length; at++) if (shown[items[at]]) return ITEMS[items[at]].status;
  return -1;
}

const started = new WeakSet();
function applyFilter() {
  filterItems();
  refilter();
}
// What the trees in view show of the items; a search unfolds what it finds, and leaves the rest as it was.
function refilter() {
  const isNow = isNarrow();
  for (const tree of inView()) {
    if (isNow && !tree.isNarrow) for (const node of tree.modules) node.kept = node.open;
    if (!isNow && tree.isNarrow) for (const node of tree.modules) node.open = node.kept;
    tree.isNarrow = isNow;
    if (tree === joint) tree.filter((i) => (shown[i] ? ITEMS[i].status : -1));
    else { const s = trees.indexOf(tree); tree.filter((key) => statusOfKey(s, key)); }
    if (isNow) {
      const isFew = tree.root.shown <= 400;
      tree.openAll(isFew);
      if (!isFew) tree.openUpTo(40);
    } else if (!started.has(tree)) tree.openUpTo(40);
    started.add(tree);
    tree.flatten();
  }
  drawViews();
}
function filterItems() {
  const tests = state.words.map((word) => {
    if (!word.includes("*")) return (text) => text.includes(word);
    const pattern = new RegExp(word.split(/\*+/).map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&")).join("[^\\n]*"));
    return (text) => pattern.test(text);
  });
  let found = 0;
  const isOpen = STATUSES.map((_, status) => !state.statuses.size || state.statuses.has(status));
  for (let i = 0; i < ITEMS.length; i++) {
    const item = ITEMS[i];
    let fits = isOpen[item.status] && (state.rule < 0 || ruleOf[item.why] === state.rule) && (!state.dtype || isOfDtype(item));
    for (let at = 0; fits && at < tests.length; at++) fits = tests[at](haystack[i]);
    shown[i] = fits ? 1 : 0;
    found += shown[i];
  }
  byId("found").textContent = found === ITEMS.length ? "" : `${count(found)} of ${count(ITEMS.length)}`;
}
const isNarrow = () => state.words.length > 0 || state.rule >= 0;
const isOfDtype = (item) => [...item.a.map((key) => formOf(0, key)), ...item.b.map((key) => formOf(1, key))].some((form) => form && form[0] === state.dtype);

// Rules: reasons that differ in confidence alone are one.
const rules = new Map();
const ruleOf = WHYS.map((why) => {
  const name = JSON.stringify([why.by, why.rule, why.where, why.ops, why.rule ? "" : why.evidence]);
  if (!rules.has(name)) rules.set(name, { ...why, id: rules.size, keys: 0, least: why.confidence ?? null });
  const rule = rules.get(name);
  if (why.confidence !== undefined) rule.least = Math.min(rule.least ?? 1, why.confidence);
  return rule.id;
});
ruleOf[-1] = -1;
const RULES = [...rules.values()];
ITEMS.forEach((item) => { if (item.why >= 0) RULES[ruleOf[item.why]].keys += item.b.length || item.a.length; });

// Rows
function label(node) {
  const made = el("span", { class: "label", title: node.path });
  const word = state.words.find((each) => !each.includes("*") && node.name.toLowerCase().includes(each));
  if (!word) { made.append(node.name); return made; }
  const at = node.name.toLowerCase().indexOf(word);
  made.append(node.name.slice(0, at), el("mark", {}, node.name.slice(at, at + word.length)), node.name.slice(at + word.length));
  return made;
}
// The leaf of a row, or the call that a module's own row stands for; -1 for a module that has none.
const leafOf = (node) => (node.leaf >= 0 ? node.leaf : node.own);
function badges(node, only = -1, own = -1) {
  if (!node.counts) return [];
  return [...node.counts].map((n, status) => (status === own ? n - 1 : n)).flatMap((n, status) => (n && status !== only ? [el("span", { class: `badge ${toneOf(status)}`, title: `${count(n)} ${STATUSES[status].name}` }, count(n))] : []));
}
const formText = (form) => (form ? `${form[1]} ${form[0]}` : "");
function fillSideRow(row, node, s) {
  const leaf = leafOf(node), status = leaf < 0 ? -1 : statusOfKey(s, leaf);
  row.append(label(node), el("span", { class: "fill" }));
  if (node.leaf < 0) row.append(...badges(node, -1, status));
  if (leaf < 0) return;
  if (status >= 0) row.classList.add("call", toneOf(status));
  row.append(el("span", { class: "info" }, formText(formOf(s, leaf))), el("span", { class: "hidden" }, status >= 0 ? `, ${STATUSES[status].name}` : ""));
}
const SIGNS = { removed: "−", added: "+", same: " ", "values differ": "~", "dtypes differ": "~", "shapes differ": "~", renamed: ">", "not compared": "?" };
const shownMeasures = MEASURES.filter((measure) => ["cosine", "max |Δ|", "confidence", "inputs", "outputs"].includes(measure.name)).slice(0, 2);
const isOutside = (key) => DATA.command === "show" && STATUSES[ITEMS[SIDES[0].items[key][0]].status].name === "elsewhere";
const total = SIDES[0].keys.reduce((sum, _, key) => sum + (isOutside(key) ? 0 : bytesOf(0, key)[0]), 0) || 1;
function fillOneRow(row, node) {
  const isModule = node.leaf < 0, i = leafOf(node) < 0 ? -1 : itemOf(leafOf(node)), item = ITEMS[i];
  if (item) row.classList.add("call", toneOf(item.status));
  if (DATA.command === "diff") row.append(el("span", { class: "sign" }, isModule ? "" : SIGNS[STATUSES[item.status].name] || ""));
  row.append(label(node), el("span", { class: "fill" }));
  if (isModule) row.append(...badges(node, TWO ? -1 : 0, item && shown[i] ? item.status : -1));
  if (item) row.append(...about(item), el("span", { class: "hidden" }, `, ${STATUSES[item.status].name}`));
  for (const measure of shownMeasures) row.append(el("span", { class: "num" }, i < 0 ? worstIn(measure, node) : measure.of.has(i) ? number(measure.of.get(i)) : ""));
  if (DATA.command === "trace") return;
  const isTied = item && TIED[heavy(item)[0]].has(heavy(item)[1]);
  row.append(el("span", { class: "size" }, isTied ? "shared" : sizeText(node.bytes)));
  if (TWO) return;
  const bar = el("i"), share = Math.min(100, (100 * node.bytes) / total);
  bar.style.width = `${share}%`;
  row.append(el("span", { class: "percent" }, percent(Math.min(node.bytes, total), total)), el("span", { class: "share", "aria-hidden": "true" }, bar));
}
function worstIn(measure, node) {
  if (DATA.command === "trace") return ""; // numbers of calls; a list of modules isn't called
  const key = `worst ${measure.name}`;
  if (node[key] === undefined) {
    node[key] = worstText(measure, leavesOf(node).map((leaf) => measure.of.get(itemOf(leaf))));
  }
  return node[key];
}
const worst = (measure, values) => (measure.least ? min(values) : max(values));
// The worst of some values, of which null stands for what was not measured: NaN where one is, and a bound where one is unknown.
function worstOfAll(measure, values) {
  const numbers = values.filter((value) => typeof value === "number"), words = values.filter((value) => typeof value === "string" && value !== UNDEFINED);
  if (words.length) return words.includes("NaN") ? "NaN" : words[0];
  return numbers.length ? worst(measure, numbers) : values.includes(UNDEFINED) ? UNDEFINED : null;
}
function worstText(measure, values) {
  const known = values.filter((value) => value !== undefined);
  if (!known.length) return "";
  const found = worstOfAll(measure, known);
  return `${typeof found === "number" && known.includes(null) ? (measure.least ? "≤ " : "≥ ") : ""}${number(found)}`;
}
function about(item) {
  const a = item.a.length ? formOf(0, item.a[0]) : null, b = item.b.length ? formOf(1, item.b[0]) : null;
  const info = el("span", { class: "info" });
  if (DATA.command === "diff" && a && b && formText(a) !== formText(b)) info.append(el("del", {}, formText(a)), " → ", el("ins", {}, formText(b)));
  else if (DATA.command === "diff" && STATUSES[item.status].name === "renamed") info.append(`→ ${SIDES[1].keys[item.b[0]]}`);
  else if (DATA.command === "trace") info.append(SIDES[0].keys[item.a[0]] === SIDES[1].keys[item.b[0]] ? "" : `← ${SIDES[0].keys[item.a[0]]}`, item.note >= 0 ? ` (${DATA.notes[item.note]})` : "");
  else if (TWO && DATA.command !== "diff" && item.a.length && item.b.length) info.append(`← ${SIDES[0].keys[item.a[0]]}${item.a.length > 1 ? ` and ${item.a.length - 1} more` : ""}`);
  else info.append(formText(b || a));
  return [info];
}

// Views
const viewBox = byId("view");
let pairs = null, tree = null;
function drawViews() {
  const isPairs = TWO && state.view === "pairs";
  viewBox.className = `view ${isPairs ? "pairs" : "single"}`;
  if (isPairs) {
    if (!pairs) pairs = new Pairs(viewBox, trees, { fillRow: fillSideRow, onChoose: chooseKey, onFold: refold });
    else if (!viewBox.contains(pairs.gap)) viewBox.replaceChildren(...pairs.parts);
    pairs.parts ||= [...viewBox.children];
    fit(Math.max(...trees.map((each) => each.rows.length)));
    pairs.refresh((i) => shown[i]);
  } else {
    if (!tree) tree = new TreeList(oneTree(), "Keys", { fillRow: fillOneRow, onChoose: (node) => chooseItem(node), onFold: refold });
    if (!viewBox.contains(tree.element)) viewBox.replaceChildren(el("div", { class: "pane" }, head(), tree.element));
    fit(oneTree().rows.length);
    tree.refresh();
  }
}
function head() {
  const made = el("div", { class: "pane-head" }, el("span", {}, DATA.command === "trace" ? "call of a module" : "module or key"), el("span", { class: "fill" }));
  for (const measure of shownMeasures) made.append(el("span", { class: "num" }, measure.name));
  if (DATA.command !== "trace") made.append(el("span", { class: "size" }, "size"));
  if (!TWO) made.append(el("span", { class: "percent" }, "share"), el("span", { class: "share none" }));
  return made;
}
function fit(rows) {
  viewBox.style.height = `${Math.max(180, Math.min(640, rows * ROW + 44))}px`;
}
function refold() {
  for (const each of inView()) each.flatten();
  drawViews();
}

// Details
const details = byId("details");
function chooseKey(node, s) {
  leafOf(node) < 0 ? moduleDetails(node, s) : keyDetails(SIDES[s].items[leafOf(node)], node.path);
  pairs.align(node, s);
}
function chooseItem(node) {
  leafOf(node) < 0 ? moduleDetails(node, TWO ? -1 : 0) : keyDetails([itemOf(leafOf(node))], node.path);
}
function facts(rows) {
  return el("dl", {}, ...rows.filter((row) => row && row[1] !== "").flatMap(([name, value, mono]) => [el("dt", {}, name), el("dd", { class: mono ? "mono" : "" }, value)]));
}
// Facts of which names and values are too long to stand side by side.
const stacked = (rows) => { const made = facts(rows); made.className = "stacked"; return made; };
const pill = (status, text) => el("span", { class: `pill ${toneOf(status)}`, title: STATUSES[status].about }, text || STATUSES[status].name);
function moduleDetails(node, s) {
  const counts = node.counts ? [...node.counts].flatMap((n, status) => (n ? [pill(status, `${count(n)} ${STATUSES[status].name}`)] : [])) : [];
  const inside = leavesOf(node).flatMap((leaf) => (s < 0 ? [leaf] : SIDES[s].items[leaf])).filter((i) => shown[i]);
  const used = new Map();
  for (const i of inside) if (ITEMS[i].why >= 0) used.set(ruleOf[ITEMS[i].why], (used.get(ruleOf[ITEMS[i].why]) || 0) + 1);
  const most = [...used].sort((one, other) => other[1] - one[1]).slice(0, 5);
  details.replaceChildren(el("h3", {}, node.path), el("div", {}, ...counts),
    facts([[SIDES[0].noun + "s", count(node.total)], DATA.command !== "trace" && ["parameters", count(node.elements)], DATA.command !== "trace" && ["size", sizeText(node.bytes)], ...worstOf(inside)]),
    ...(most.length ? [el("h4", {}, "by"), ...most.map(([rule, n]) => ruleBox(RULES[rule], n))] : []));
}
function worstOf(items) {
  return shownMeasures.flatMap((measure) => {
    const text = worstText(measure, items.map((i) => measure.of.get(i)));
    return text ? [[`${measure.least ? "least" : "largest"} ${measure.name}`, text]] : [];
  });
}
function leavesOf(node) {
  const found = [], todo = [node];
  while (todo.length) { const at = todo.pop(); 
    if (at.leaf >= 0) found.push(at.leaf);
    else {
      if (at.own >= 0) found.push(at.own);
      for (const child of at.children) todo.push(child);
    }
  }
  return found;
}
function ruleBox(rule, n) {
  const text = [rule.rule || (rule.by ? `by ${rule.by}` : ""), rule.ops].filter(Boolean).join(": ") || "evidence";
  const button = el("button", { type: "button", class: "rule", title: "Show the keys of this rule alone", onclick: () => setRule(rule.id) }, text);
  button.style.cssText = "width:100%;text-align:left;margin-bottom:6px";
  button.append(el("span", { class: "note" }, `  ${count(n)}`));
  return button;
}
function keyDetails(items, path) {
  details.replaceChildren(el("h3", {}, path), ...items.slice(0, 8).flatMap(itemDetails));
}
function itemDetails(i) {
  const item = ITEMS[i], why = WHYS[item.why], made = [el("div", {}, pill(item.status))];
  const about = STATUSES[item.status].about;
  if (about) made.push(el("p", { class: "note" }, about));
  [item.a, item.b].forEach((keys, s) => {
    if (!keys.length) return;
    made.push(el("h4", {}, TWO ? `${SIDES[s].role} ${SIDES[s].name}` : "tensor"));
    const form = formOf(s, keys[0]);
    if (TWO) made.push(el("ul", { class: "keys" }, ...keys.slice(0, 12).map((key) => el("li", {}, el("button", { type: "button", title: "Show it", onclick: () => reveal(s, key) }, SIDES[s].keys[key])))));
    if (keys.length > 12) made.push(el("p", { class: "note" }, `and ${count(keys.length - 12)} more`));
    if (form) made.push(facts([["shape", form[1], true], ["dtype", form[0], true], ["size", sizeText(form[2])], !TWO && ["parameters", count(form[3])]]));
  });
  const measured = MEASURES.filter((measure) => measure.of.has(i));
  if (measured.length || item.note >= 0) {
    made.push(el("h4", {}, "values"), facts(measured.map((measure) => [measure.name, number(measure.of.get(i))])));
    if (item.note >= 0) made.push(el("p", { class: "note" }, DATA.notes[item.note]));
  }
  if (why) made.push(...whyDetails(why, item.status));
  for (const each of DATA.details[i] || []) made.push(el("h4", {}, each.title), stacked(each.rows));
  return made;
}
function whyDetails(why, status) {
  const made = [el("h4", {}, "why")];
  if (why.rule) made.push(el("code", { class: "rule" }, why.rule));
  made.push(facts([["by", why.by === "rule" ? `rule, ${why.where}` : why.by || ""], ["ops", why.ops || "", true], ["evidence", why.evidence || ""], ["confidence", why.confidence === undefined ? "" : why.confidence.toFixed(2)]]));
  if (why.confidence !== undefined) {
    const bar = el("i");
    bar.style.width = `${100 * why.confidence}%`;
    made.push(el("div", { class: `meter ${toneOf(status)}`, "aria-hidden": "true" }, bar));
  }
  return made;
}
function reveal(s, key) {
  if (state.view !== "pairs") return;
  const node = trees[s].leaves[key];
  if (!node.shown) clearFilters();
  trees[s].openTo(node);
  refold();
  const list = pairs.lists[s];
  list.cursor = node.row;
  list.selected = node;
  list.element.scrollTop = Math.max(0, node.row * ROW - list.element.clientHeight / 2);
  list.draw();
  pairs.align(node, s);
}

const CHOOSE = {
  show: "Choose a module or a key to see what it holds.",
  diff: "Choose a module or a key to see what each side has of it.",
  trace: "Choose a call to see how far its inputs and outputs differ.",
};
// Before anything is chosen: what the statuses mean, and the totals by dtype.
function overview() {
  const occurring = STATUSES.map((status, i) => [status, i]).filter(([, i]) => ITEMS.some((item) => item.status === i));
  const made = occurring.filter(([status]) => status.about).map(([status, i]) => [pill(i), el("span", { class: "note" }, status.about)]);
  const legend = el("div", { class: "meanings" }, ...made.splice(0).flat());
  if (legend.childElementCount) made.push(legend);
  SIDES.forEach((side, s) => {
    const totals = new Map();
    side.form.forEach((at, key) => {
      if (at < 0 || (!TWO && isOutside(key))) return;
      const [dtype, , bytes, elements] = DATA.forms[at], sum = totals.get(dtype) || [0, 0, 0], once = TIED[s].has(key) ? 0 : 1;
      totals.set(dtype, [sum[0] + 1, sum[1] + once * elements, sum[2] + once * bytes]);
    });
    if (!totals.size) return;
    const rows = [...totals].sort((one, other) => other[1][2] - one[1][2]);
    made.push(el("h4", {}, (TWO ? `${side.role} ${side.name}` : "by dtype") + (side.tied.length ? ", shared counted once" : "")), el("table", {},
      el("thead", {}, el("tr", {}, ...["dtype", "tensors", "parameters", "size"].map((name, i) => el("th", { scope: "col", class: i ? "right" : "" }, name)))),
      el("tbody", {}, ...rows.map(([dtype, [n, elements, bytes]]) => el("tr", {}, el("td", {}, dtype), ...[count(n), short(elements), sizeText(bytes)].map((text) => el("td", { class: "right" }, text)))))));
  });
  made.push(el("p", { class: "note" }, CHOOSE[DATA.command === "plan" && !WHYS.length ? "diff" : DATA.command] || "Choose a module or a key to see what becomes of it, and why."));
  details.replaceChildren(...made);
}

// Filters
const cards = [...document.querySelectorAll(".card")];
function setStatuses(statuses) {
  state.statuses = new Set(statuses);
  for (const card of cards) card.setAttribute("aria-pressed", String(state.statuses.has(+card.dataset.status)));
}
for (const card of cards) {
  card.addEventListener("click", () => {
    const status = +card.dataset.status;
    setStatuses(state.statuses.size === 1 && state.statuses.has(status) ? [] : [status]);
    applyFilter();
  });
}
let waiting = 0;
const query = byId("query");
query.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(search, ITEMS.length > 20000 ? 60 : 0);
});
function search() {
  const start = performance.now();
  state.words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
  applyFilter();
  performance.measure("search", { start });
}
function setRule(rule) {
  state.rule = rule;
  const chip = byId("rule-filter");
  chip.hidden = rule < 0;
  if (rule >= 0) chip.textContent = `${RULES[rule].rule || RULES[rule].evidence || `by ${RULES[rule].by}`} ✕`;
  applyFilter();
}
byId("rule-filter").addEventListener("click", () => { setRule(-1); query.focus(); });
function clearFilters() {
  query.value = "";
  state.words = [];
  state.dtype = byId("dtype").value = "";
  setStatuses([]);
  setRule(-1);
}
document.addEventListener("keydown", (event) => {
  const isText = /^(input|select|textarea)$/i.test(event.target.tagName);
  if (event.key === "/" && !isText && !event.ctrlKey && !event.metaKey) { event.preventDefault(); query.focus(); query.select(); }
  if (event.key === "Escape" && event.target === query) clearFilters();
});
byId("fold").addEventListener("click", () => { for (const each of inView()) each.openAll(false); refold(); });
byId("unfold").addEventListener("click", () => { for (const each of inView()) each.openAll(true); refold(); });
for (const name of ["pairs", "list"]) {
  byId(`view-${name}`).addEventListener("click", () => setView(name));
}
function setView(name) {
  state.view = name;
  for (const each of ["pairs", "list"]) byId(`view-${each}`).setAttribute("aria-pressed", String(each === name));
  refilter();
}
byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
});

// Tooltips
const tip = byId("tip");
document.addEventListener("pointermove", (event) => {
  const holder = event.target.closest && event.target.closest("[data-tip]");
  tip.hidden = !holder;
  if (!holder) return;
  tip.textContent = holder.dataset.tip;
  tip.style.left = `${Math.max(8, Math.min(innerWidth - tip.offsetWidth - 12, event.clientX + 14))}px`;
  tip.style.top = `${event.clientY + 18 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18}px`;
});

// Sizes
function drawSizes() {
  const parts = TWO ? SIDES.map((side, i) => [side.role, trees[i]]) : partsOfFile();
  const weighty = parts.map(([, each]) => each.root.bytes > 0);
  if (!weighty.some(Boolean)) return;
  byId("sizes").hidden = false;
  let s = TWO && weighty[1] ? 1 : weighty.indexOf(true);
  const map = new Treemap(byId("treemap"), {
    toneOf: (leaf) => toneOfSize(TWO ? s : 0, leaf),
    onChoose: (node) => { keyDetails(SIDES[TWO ? s : 0].items[node.leaf], node.path); byId("details").scrollIntoView({ block: "nearest" }); },
    onZoom: (node) => crumbs(map, s),
  });
  const choose = (side) => { s = side; map.show(parts[s][1]); crumbs(map, s); };
  if (weighty[0] && weighty[1]) {
    const box = byId("size-side");
    box.hidden = false;
    box.append(...parts.map(([name], i) => el("button", { type: "button", "aria-pressed": String(i === s), onclick: (event) => {
      for (const each of box.children) each.setAttribute("aria-pressed", String(each === event.target));
      choose(i);
    } }, name)));
  }
  choose(s);
}
// The state dict of a file, and the tensors elsewhere in it where there are any.
function partsOfFile() {
  const keys = SIDES[0].keys.map((_, key) => key), outside = keys.filter(isOutside);
  if (!outside.length) return [["file", trees[0]]];
  const part = (some) => {
    const made = new Tree(some.map((key) => SIDES[0].keys[key]));
    made.leaves.forEach((leaf, i) => { leaf.leaf = some[i]; });
    made.sum((i) => bytesOf(0, some[i]));
    return made;
  };
  return [["state dict", part(keys.filter((key) => !isOutside(key)))], ["elsewhere", part(outside)]];
}
const DTYPE_TONES = ["plain", "special", "good", "warn", "calm", "bad"];
const dtypeOrder = [];
function toneOfSize(s, leaf) {
  if (TWO) { const i = SIDES[s].items[leaf][0]; return i === undefined ? "tone-muted" : toneOf(ITEMS[i].status); }
  const dtype = formOf(s, leaf)[0];
  if (!dtypeOrder.includes(dtype)) dtypeOrder.push(dtype);
  return `tone-${DTYPE_TONES[dtypeOrder.indexOf(dtype) % DTYPE_TONES.length]}`;
}
function crumbs(map, s) {
  const path = [];
  for (let at = map.at; at; at = at.parent) path.unshift(at);
  byId("crumbs").replaceChildren(...path.map((node, i) => el("button", { type: "button", "aria-current": i === path.length - 1 ? "true" : null, onclick: () => map.zoom(node) }, i ? node.name : "all")));
  const box = document.querySelector(".as-table");
  const fill = () => byId("sizes-table").replaceChildren(box.open ? sizesTable(map.at) : "");
  box.ontoggle = fill;
  fill();
}
function sizesTable(node) {
  const rows = node.children.slice().sort((one, other) => other.bytes - one.bytes).slice(0, 500);
  const columns = [["name"], ["tensors", "right"], ["parameters", "right"], ["size", "right"], ["share", "right"]];
  const cells = (each) => [each.name, count(each.total), count(each.elements), sizeText(each.bytes), percent(each.bytes, node.bytes)];
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, ...columns.map(([name, side]) => el("th", { scope: "col", class: side }, name)))),
    el("tbody", {}, ...rows.map((each) => el("tr", {}, ...cells(each).map((cell, i) => el("td", { class: columns[i][1] }, cell)))))));
}

// Layers
const MAX_LAYERS = 160;
function drawLayers() {
  const isTrace = DATA.command === "trace";
  const inside = ITEMS.map((_, i) => i).filter((i) => DATA.command !== "show" || !isOutside(ITEMS[i].a[0]));
  const order = inside.length ? inside : ITEMS.map((_, i) => i);
  const names = isTrace ? SIDES[1].keys : layersOf(order.map((i) => nameOf(ITEMS[i])));
  let labels = isTrace ? names : [...new Set(names)];
  if (labels.length < 2) return;
  const places = new Map(labels.map((name, at) => [name, at]));
  let groups = isTrace ? order : order.map((_, at) => places.get(names[at]));
  if (labels.length > MAX_LAYERS) {
    const per = Math.ceil(labels.length / MAX_LAYERS);
    groups = groups.map((at) => Math.floor(at / per));
    labels = labels.filter((_, at) => at % per === 0);
  }
  byId("layers").hidden = false; // what is drawn has a width then
  const made = [];
  const layers = (run) => { const sums = labels.map(() => 0); order.forEach((i, at) => { sums[groups[at]] += run(ITEMS[i], i); }); return sums; };
  if (!isTrace) {
    const occurring = STATUSES.map((_, status) => status).filter((status) => order.some((i) => ITEMS[i].status === status));
    const keys = (item) => item.b.length || item.a.length;
    const elements = (item) => (item.b.length ? item.b.map((key) => bytesOf(1, key)[1]) : item.a.map((key) => bytesOf(0, key)[1])).reduce((sum, n) => sum + n, 0);
    const isShow = DATA.command === "show"; // where all tensors have one status
    const by = (weigh, all) => occurring.map((status) => ({ name: isShow ? all : STATUSES[status].name, tone: toneOf(status), values: layers((item) => (item.status === status ? weigh(item) : 0)) }));
    made.push(chart("Tensors", labels, by(keys, "tensors"), { kind: "bars", isBare: isShow, tip: count }));
    made.push(chart("Parameters", labels, by(elements, "parameters"), { kind: "bars", isBare: isShow, tick: short, tip: count }));
  }
  const tones = ["tone-plain", "tone-warn"];
  const charts = new Map();
  for (const measure of MEASURES) charts.set(measure.chart, [...(charts.get(measure.chart) || []), measure]);
  const place = isTrace ? ITEMS.findIndex((item) => STATUSES[item.status].name === "diverge here") : -1;
  for (const [title, measures] of charts) {
    const isLog = measures.some((measure) => measure.log);
    const series = measures.map((measure, at) => {
      const all = labels.map(() => []);
      for (const [item, value] of measure.of) all[groups[item]].push(value);
      const dots = all.map((values) => values.filter((value) => typeof value === "number" && (!isLog || value >= 0)));
      const most = all.map((values) => worstOfAll(measure, values));
      const texts = isTrace ? null : all.map((values) => worstText(measure, values));
      return { texts, name: isTrace ? measure.name : `${measure.name}${measure.least ? ", the least of a layer" : ", the largest of a layer"}`, tone: tones[at % 2], values: most, dots };
    });
    if (!series.some((each) => each.values.some((value) => value !== null))) continue;
    const heading = title[0].toUpperCase() + title.slice(1);
    made.push(chart(title === "cosine" ? "Cosine by depth" : heading, labels, series, { log: isLog, isWide: isTrace, place: labels.length === ITEMS.length ? place : -1, high: measures[0].least ? 1 : undefined }));
  }
  byId("charts").replaceChildren(...made);
  byId("layers").hidden = !made.length;
  if (order.length < ITEMS.length) byId("layers-title").textContent = "By layer of the state dict";
}
const short = (n) => (n >= 1e9 ? `${+(n / 1e9).toPrecision(3)} B` : n >= 1e6 ? `${+(n / 1e6).toPrecision(3)} M` : n >= 1e3 ? `${+(n / 1e3).toPrecision(3)} k` : String(n));

// Rules
function drawRules() {
  const listed = RULES.filter((rule) => rule.keys);
  if (!listed.length) return;
  byId("rules").hidden = false;
  const columns = [["rule or evidence"], ["where"], ["ops"], ["confidence", "right"], ["tensors", "right"]].filter(([name]) => (name === "where" ? listed.some((rule) => rule.where) : name === "confidence" ? listed.some((rule) => rule.least !== null) : name === "ops" ? listed.some((rule) => rule.ops) : true));
  const cell = { "rule or evidence": (rule) => el("button", { type: "button", title: "Show its keys alone", onclick: () => { setRule(rule.id); byId("keys").scrollIntoView(); byId("keys").focus(); } }, rule.rule || rule.evidence || `by ${rule.by}`), where: (rule) => rule.where || "", ops: (rule) => rule.ops || "", confidence: (rule) => (rule.least === null ? "" : rule.least.toFixed(2)), tensors: (rule) => count(rule.keys) };
  byId("rules-table").append(
    el("thead", {}, el("tr", {}, ...columns.map(([name, side]) => el("th", { scope: "col", class: side }, name)))),
    el("tbody", {}, ...listed.slice(0, 400).map((rule) => el("tr", {}, ...columns.map(([name, side]) => el("td", { class: side || (name === "where" || name === "ops" ? "mono" : "") }, cell[name](rule)))))));
  if (listed.length > 400) byId("rules").append(el("p", { class: "note" }, `and ${count(listed.length - 400)} more`));
}

// Start
const dtypes = [...new Set(DATA.forms.map((form) => form[0]))];
byId("dtype").append(...dtypes.map((dtype) => el("option", { value: dtype }, dtype)));
byId("dtype").addEventListener("change", (event) => { state.dtype = event.target.value; applyFilter(); });
const hasCommonNames = DATA.command === "diff" && ITEMS.some((item) => item.a.length && item.b.length && STATUSES[item.status].name !== "renamed");
state.view = TWO && !hasCommonNames && DATA.command !== "trace" ? "pairs" : "list";
const calm = new Set(STATUSES.flatMap((status, i) => (status.is_calm ? [i] : [])));
const eventful = [...new Set(ITEMS.map((item) => item.status))].filter((status) => !calm.has(status));
if (calm.size && eventful.length && eventful.length < new Set(ITEMS.map((item) => item.status)).size) setStatuses(eventful);
for (const name of ["pairs", "list"]) byId(`view-${name}`).setAttribute("aria-pressed", String(name === state.view));
overview();
applyFilter();
const here = DATA.command === "trace" ? ITEMS.findIndex((item) => STATUSES[item.status].name === "diverge here") : -1;
if (here >= 0) {
  oneTree().openTo(oneTree().leaves[here]);
  refold();
  tree.cursor = oneTree().leaves[here].row;
  tree.show(tree.cursor);
  tree.choose(oneTree().leaves[here]);
}
drawSizes();
drawLayers();
drawRules();
const has = { pairs: TWO, dtypes: dtypes.length > 1, sizes: !byId("sizes").hidden, layers: !byId("layers").hidden, rules: !byId("rules").hidden };
for (const each of document.querySelectorAll("[data-needs]")) if (!has[each.dataset.needs]) each.hidden = true;
