// Both sides as trees, and between them what goes where: a band for each pair of rows, folded as the rows are.
const GAP = 34;
const MAX_BANDS = 600;

class Pairs {
  constructor(element, trees, options) {
    this.element = element;
    this.trees = trees;
    this.options = options;
    this.bands = [];
    this.lists = trees.map((tree, s) => new TreeList(tree, `Keys of ${SIDES[s].name}`, {
      fillRow: (row, node) => options.fillRow(row, node, s),
      onChoose: (node) => options.onChoose(node, s),
      onFold: () => options.onFold(),
      onScroll: () => this.scrolled(s),
      onPoint: (node) => this.point(node, s),
      isHot: (node) => this.hot && this.hot[s].has(node.row),
    }));
    this.picture = svg("svg", { "aria-hidden": "true" });
    const pane = (s) => el("div", { class: "pane" },
      el("div", { class: "pane-head" }, el("span", {}, SIDES[s].role), el("b", { title: SIDES[s].name }, SIDES[s].name)), this.lists[s].element);
    this.gap = el("div", { class: "gap" }, el("div", { class: "pane-head" }), this.picture);
    element.replaceChildren(pane(0), this.gap, pane(1));
    new ResizeObserver(() => this.draw()).observe(this.gap);
  }
  // Which rows belong together, how many keys each pair of rows has, and how they are coloured.
  refresh(isShown) {
    const [left, right] = this.trees;
    const found = new Map();
    const width = right.rows.length + 1;
    let last = -1, band = null;
    const count = (pair, status) => {
      const id = pair * 16 + status;
      if (id !== last) {
        last = id;
        band = found.get(id);
        if (!band) found.set(id, band = { left: Math.floor(pair / width), right: pair % width, status, count: 0 });
      }
      band.count++;
    };
    left.findRows();
    right.findRows();
    ITEMS.forEach((item, i) => {
      if (!item.a.length || !item.b.length || !isShown(i)) return;
      if (item.a.length === 1 && item.b.length === 1) {
        const l = left.seen[item.a[0]], r = right.seen[item.b[0]];
        if (l >= 0 && r >= 0) count(l * width + r, item.status);
        return;
      }
      const pairs = new Set();
      for (const a of item.a.length > 64 ? item.a.slice(0, 64) : item.a) {
        for (const b of item.b.length > 64 ? item.b.slice(0, 64) : item.b) {
          const l = left.seen[a], r = right.seen[b];
          if (l >= 0 && r >= 0) pairs.add(l * width + r);
        }
      }
      for (const pair of pairs) count(pair, item.status);
    });
    this.bands = [...found.values()].sort((one, other) => one.left - other.left || one.right - other.right);
    this.light();
    // All sizes are read between what changes them: each reading after a change would lay out the page once more.
    this.lists.forEach((each) => each.clear());
    const ranges = this.lists.map((each) => each.range), sizes = this.sizes;
    this.lists.forEach((each, s) => each.draw(ranges[s]));
    this.draw(sizes);
  }
  get sizes() {
    return { width: this.gap.clientWidth, height: this.gap.clientHeight - GAP, tops: this.lists.map((each) => each.element.scrollTop) };
  }
  scrolled(s) {
    // The other side follows, so that what belongs together stays in sight.
    if (this.leading === 1 - s) { this.leading = null; this.draw(); return; }
    const list = this.lists[s], other = this.lists[1 - s];
    const top = Math.round(list.element.scrollTop / ROW) + 2;
    let best = null;
    for (const band of this.bands) {
      const row = s ? band.right : band.left;
      const far = row < top ? (top - row) * 3 : row - top;
      if (!best || far < best.far) best = { far, row, to: s ? band.left : band.right };
    }
    if (best && best.far < 60) {
      const wanted = Math.max(0, Math.min(other.height - other.element.clientHeight, best.to * ROW - (best.row * ROW - list.element.scrollTop)));
      if (Math.abs(other.element.scrollTop - wanted) > 1) {
        this.leading = s;
        other.element.scrollTop = wanted;
      }
    }
    this.draw();
  }
  point(node, s) {
    if (this.pointed === node) return;
    this.pointed = node;
    this.light(node, s);
    this.lists.forEach((each) => each.draw());
    this.draw();
  }
  // What belongs to the row that is pointed at stands out; without one, to the row that was chosen.
  light(node, s) {
    if (!node && this.chosen && this.chosen.node.row >= 0) ({ node, s } = this.chosen);
    const hot = [new Set(), new Set()];
    if (node) {
      hot[s].add(node.row);
      for (const band of this.bands) if ((s ? band.right : band.left) === node.row) hot[1 - s].add(s ? band.left : band.right);
    }
    this.hot = node ? hot : null;
    this.from = s;
  }
  isHot(band) {
    return this.hot && this.hot[this.from].has(this.from ? band.right : band.left);
  }
  // Shows a row's counterpart beside it.
  align(node, s) {
    this.chosen = { node, s };
    this.light();
    const band = this.bands.find((each) => (s ? each.right : each.left) === node.row);
    if (!band) return;
    const list = this.lists[s], other = this.lists[1 - s];
    this.leading = s;
    other.element.scrollTop = (s ? band.left : band.right) * ROW - (node.row * ROW - list.element.scrollTop);
    this.lists[1 - s].cursor = s ? band.left : band.right;
    this.lists[1 - s].draw();
    this.draw();
  }
  draw({ width, height, tops } = this.sizes) {
    if (width <= 0) return;
    const paths = [];
    const far = height + 400;
    for (const band of this.bands) {
      const y = band.left * ROW + ROW / 2 - tops[0], z = band.right * ROW + ROW / 2 - tops[1];
      if ((y < -ROW && z < -ROW) || (y > height + ROW && z > height + ROW) || (Math.abs(y) > far * 3 && Math.abs(z) > far * 3)) continue;
      const half = Math.min(11, 1 + 1.6 * Math.log2(1 + band.count)) / 2, middle = width / 2;
      const path = svg("path", {
        class: `${toneOf(band.status)}${this.isHot(band) ? " hot" : ""}`,
        d: `M0 ${y - half}C${middle} ${y - half} ${middle} ${z - half} ${width} ${z - half}V${z + half}C${middle} ${z + half} ${middle} ${y + half} 0 ${y + half}Z`,
      });
      paths.push(path);
      if (paths.length >= MAX_BANDS) break;
    }
    this.picture.setAttribute("class", this.hot ? "dim" : "");
    this.picture.replaceChildren(...paths);
  }
}
