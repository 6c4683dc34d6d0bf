// A picture with its cells: what is painted, what is tinted, which cell has the focus.

import { make, percent } from "./elements.js";

const REAL = "20, 190, 90"; // as in frames of the environments: green is real, red is fake
const FAKE = "230, 40, 40";
const UNSURE = "255, 150, 20";
const TINT_SIDE = 512; // pixels of the layer of tints

export class Picture {
  // `chosen(cell)` is called when the user moves the focus to a cell.
  constructor(source, title, chosen) {
    this.source = source;
    this.chosen = chosen;
    this.level = 0;
    this.canvas = make("canvas", { width: source.image_size, height: source.image_size, role: "img" });
    this.tints = make("canvas", { width: TINT_SIDE, height: TINT_SIDE, class: "tints", "aria-hidden": "true" });
    this.cells = make("div", { class: "cells", role: "grid", onkeydown: (event) => this.#key(event) });
    this.cells.addEventListener("click", (event) => {
      const cell = event.target.closest("[role=gridcell]");
      if (cell) this.#choose(Number(cell.dataset.cell), true);
    });
    this.title = make("span", { class: "title" }, title);
    this.figures = make("span", { class: "figures" });
    this.candidates = make("div", { class: "candidates" });
    this.files = make("div", { class: "files" });
    this.element = make(
      "figure", {},
      make("figcaption", {}, this.title, this.figures),
      make("div", { class: "frame" }, this.canvas, this.tints, this.cells),
      this.candidates,
      this.files,
    );
    this.setTitle(title);
    this.setLevel(0);
  }

  setTitle(title) {
    this.title.textContent = title;
    this.canvas.setAttribute("aria-label", title);
    this.cells.setAttribute("aria-label", `Cells of ${title}: arrow keys move`);
  }

  get context() {
    return this.canvas.getContext("2d");
  }

  // Cells of this level can be focused.
  setLevel(level) {
    this.level = level;
    const [rows, columns] = this.source.levels[level];
    const first = this.firstCell(level);
    const lines = [];
    for (let row = 0; row < rows; row += 1) {
      const line = make("div", { role: "row" });
      for (let column = 0; column < columns; column += 1) {
        const cell = first + row * columns + column;
        line.append(
          make("div", {
            role: "gridcell", tabindex: cell === first ? 0 : -1, "data-cell": cell,
            "aria-label": `row ${row + 1}, column ${column + 1}`,
          }),
        );
      }
      lines.push(line);
    }
    this.cells.style.setProperty("--rows", rows);
    this.cells.style.setProperty("--columns", columns);
    this.cells.replaceChildren(...lines);
    this.marked = null;
  }

  firstCell(level) {
    return this.source.levels.slice(0, level).reduce((sum, [h, w]) => sum + h * w, 0);
  }

  // Marks a cell of any level, without moving the focus; -1 marks none.
  mark(cell) {
    this.marked?.removeAttribute("aria-selected");
    this.marked = this.cells.querySelector(`[data-cell="${cell}"]`);
    if (!this.marked) return;
    this.cells.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    this.marked.setAttribute("tabindex", "0");
    this.marked.setAttribute("aria-selected", "true");
  }

  #choose(cell, focus) {
    this.mark(cell);
    if (focus) this.marked?.focus({ preventScroll: true });
    this.chosen?.(cell);
  }

  #key(event) {
    const [rows, columns] = this.source.levels[this.level];
    const first = this.firstCell(this.level);
    const at = Number(event.target.dataset.cell) - first;
    const [row, column] = [Math.floor(at / columns), at % columns];
    const to = {
      ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
      Home: [row, 0], End: [row, columns - 1], Enter: [row, column], " ": [row, column],
    }[event.key];
    if (!to) return;
    event.preventDefault();
    const inside = (value, count) => Math.min(Math.max(value, 0), count - 1);
    const cell = first + inside(to[0], rows) * columns + inside(to[1], columns);
    // At the edge nothing moves; Enter, like a tap, chooses a cell, and lets go of it again.
    if (cell !== first + at || ["Enter", " "].includes(event.key)) this.#choose(cell, true);
  }

  clearTints() {
    this.tints.getContext("2d").clearRect(0, 0, TINT_SIDE, TINT_SIDE);
  }

  // Tints the cells of a level by their values; `colour(value)` gives CSS or null.
  tintCells(values, level, colour, upto = Infinity) {
    const pen = this.tints.getContext("2d");
    const [rows, columns] = this.source.levels[level];
    const first = this.firstCell(level);
    const [height, width] = [TINT_SIDE / rows, TINT_SIDE / columns];
    for (let at = 0; at < rows * columns && first + at < upto; at += 1) {
      const fill = colour(values[first + at]);
      if (!fill) continue;
      pen.fillStyle = fill;
      pen.fillRect((at % columns) * width, Math.floor(at / columns) * height, width, height);
    }
  }

  // Tints the upper `share` of the picture by a score map; `colour(score)` gives CSS.
  tintMap(map, share, colour) {
    const pen = this.tints.getContext("2d");
    const [height, width] = [(TINT_SIDE * share) / map.length, TINT_SIDE / map[0].length];
    map.forEach((line, row) =>
      line.forEach((score, column) => {
        pen.fillStyle = colour(score);
        pen.fillRect(column * width, row * height, width + 1, height + 1);
      }),
    );
  }

  // Outlines the cell that is written next.
  outline(cell) {
    for (let level = 0; level < this.source.levels.length; level += 1) {
      const [rows, columns] = this.source.levels[level];
      const at = cell - this.firstCell(level);
      if (at < 0 || at >= rows * columns) continue;
      const pen = this.tints.getContext("2d");
      const [height, width] = [TINT_SIDE / rows, TINT_SIDE / columns];
      pen.lineWidth = Math.max(3, Math.min(8, width / 8));
      pen.strokeStyle = "rgb(255, 210, 60)";
      const inset = pen.lineWidth / 2;
      pen.strokeRect(
        (at % columns) * width + inset, Math.floor(at / columns) * height + inset,
        width - 2 * inset, height - 2 * inset,
      );
    }
  }

  // Shows what may come in a cell: the answer of the question `candidates`, or nothing.
  showCandidates(found, pick) {
    if (!found) {
      this.candidates.replaceChildren();
      return;
    }
    const { row, column, written, probabilities } = found;
    const chance = written === null ? "" : `, code ${written} written at ${percent(probabilities[written])}`;
    const place = make("p", {}, `Row ${row + 1}, column ${column + 1}${chance}`);
    const tiles = found.candidates.map(({ code, patch }) => {
      const share = percent(probabilities[code]);
      const inside = [
        make("img", { src: patch, alt: `code ${code}` }),
        make("span", {}, share),
        make("span", { class: "quiet" }, `${code}${code === written ? " ✓" : ""}`),
      ];
      const body = pick
        ? make("button", { type: "button", onclick: () => pick(code), "aria-label": `Code ${code}, ${share}` }, ...inside)
        : make("span", {}, ...inside);
      return make("li", { class: code === written ? "written" : "" }, body);
    });
    const list = make("ol", { "aria-label": "The five most probable codes" }, ...tiles);
    this.candidates.replaceChildren(place, list);
  }
}

// Colours of scores, of which `most` is given the strongest.
export function scoreColour(most) {
  return (score) => `rgba(${score >= 0 ? REAL : FAKE}, ${0.65 * Math.min(1, Math.abs(score) / most)})`;
}

export function entropyColour(most) {
  return (nats) => `rgba(${UNSURE}, ${0.85 * Math.min(1, Math.max(0, nats / most))})`;
}
