// Sizes as areas: squarified (Bruls, Huizing and van Wijk, 2000), modules in modules.
const MAX_AREAS = 1500;

function squarify(nodes, box) {
  const total = nodes.reduce((sum, node) => sum + node.bytes, 0);
  const placed = [];
  if (!total || box.w <= 0 || box.h <= 0) return placed;
  const scale = (box.w * box.h) / total;
  let { x, y, w, h } = box, from = 0;
  const rest = nodes.slice().sort((one, other) => other.bytes - one.bytes);
  // What is smaller than a quarter of a pixel is not to be seen, nor what comes after it.
  while (from < rest.length && rest[from].bytes * scale > 0.25) {
    const side = Math.min(w, h);
    let row = [], sum = 0, worst = Infinity, taken = from;
    while (taken < rest.length) {
      const area = rest[taken].bytes * scale, next = sum + area;
      const big = (row.length ? row[0].bytes * scale : area), small = area;
      const ratio = Math.max((side * side * big) / (next * next), (next * next) / (side * side * Math.max(small, 1e-9)));
      if (row.length && ratio > worst) break;
      row.push(rest[taken]); sum = next; worst = ratio; taken++;
    }
    const thick = side > 0 ? sum / side : 0;
    let at = 0;
    for (const node of row) {
      const long = thick > 0 ? (node.bytes * scale) / thick : 0;
      placed.push(w >= h ? { node, x, y: y + at, w: thick, h: long } : { node, x: x + at, y, w: long, h: thick });
      at += long;
    }
    if (w >= h) { x += thick; w -= thick; } else { y += thick; h -= thick; }
    from = taken;
  }
  return placed;
}

// A module whose tensors are too small to be drawn has the colour of its largest one.
function largestLeaf(node) {
  while (node.leaf < 0) node = node.children.reduce((most, each) => (each.bytes > most.bytes ? each : most));
  return node.leaf;
}

class Treemap {
  constructor(element, options) {
    this.element = element;
    this.options = options; // toneOf(leaf number), onChoose(node)
    this.tree = null;
    this.at = null;
    new ResizeObserver(() => this.draw()).observe(element);
  }
  show(tree) {
    this.tree = tree;
    this.at = tree.root;
    this.draw();
  }
  zoom(node) {
    this.at = node;
    this.draw();
    this.options.onZoom(node);
  }
  draw() {
    const width = this.element.clientWidth;
    if (!this.tree || !width) return;
    const height = Math.max(260, Math.min(520, Math.round(width * 0.36)));
    this.areas = 0;
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group", "aria-label": `Sizes of the modules in ${this.at.path || "all of it"}; Enter looks into one` });
    // Level by level: what there is room for goes to the outer modules first, so that none of them is blank.
    const open = [{ group: picture, node: this.at, box: { x: 0, y: 0, w: width, h: height }, depth: 0 }];
    for (let i = 0; i < open.length; i++) {
      const { group, node, box, depth } = open[i];
      const made = this.inside(node, box, depth, open);
      group.append(...made);
      if (depth && !made.length) group.setAttribute("class", `module leaf ${this.options.toneOf(largestLeaf(node))}`);
    }
    this.element.replaceChildren(picture);
  }
  inside(node, box, depth, open) {
    const made = [];
    for (const { node: child, x, y, w, h } of squarify(node.children.filter((each) => each.bytes), box)) {
      if (w < 1.5 || h < 1.5 || this.areas > MAX_AREAS) continue;
      this.areas++;
      made.push(this.area(child, { x, y, w, h }, depth, open));
    }
    return made;
  }
  area(node, { x, y, w, h }, depth, open) {
    const isModule = node.leaf < 0;
    const text = `${node.path}\n${sizeText(node.bytes)}, ${percent(node.bytes, this.at.bytes)} of ${this.at.path || "all"}`;
    const group = svg("g", { class: isModule ? "module" : `leaf ${this.options.toneOf(node.leaf)}`, "data-tip": text });
    group.append(svg("rect", { x: x + 0.5, y: y + 0.5, width: Math.max(0, w - 1), height: Math.max(0, h - 1), rx: Math.min(4, w / 4, h / 4) }));
    if (depth === 0) {
      for (const [name, value] of [["tabindex", 0], ["role", "button"], ["aria-label", text.replace("\n", ", ")]]) group.setAttribute(name, value);
      const run = (event) => { event.stopPropagation(); isModule ? this.zoom(node) : this.options.onChoose(node); };
      group.addEventListener("click", run);
      group.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); run(event); } });
    }
    const head = isModule && h > 34 && w > 40 ? 17 : 0;
    const label = this.label(node, w - 8);
    if (label && (head || (!isModule && h > 15))) {
      group.append(svg("text", { x: x + 5, y: y + 13 }, label));
      if (!isModule && h > 32 && w > 56) group.append(svg("text", { x: x + 5, y: y + 27, "fill-opacity": 0.75 }, sizeText(node.bytes)));
    }
    if (isModule) open.push({ group, node, box: { x: x + 3, y: y + 3 + head, w: w - 6, h: h - 6 - head }, depth: depth + 1 });
    return group;
  }
  label(node, width) {
    const fits = Math.floor(width / 6.7);
    if (fits < 2) return "";
    return node.name.length <= fits ? node.name : fits > 3 ? `${node.name.slice(0, fits - 1)}…` : "";
  }
}
