// Watch: policies paint under the same noise, a real picture beside them.

import { Latest, ask, clearFault, say, showFault } from "./ask.js";
import {
  button, choice, fileName, iconButton, make, save, seedField, signed, slider, temperatureSlider,
} from "./elements.js";
import { Film } from "./film.js";
import { Picture, entropyColour, scoreColour } from "./picture.js";
import { set, state } from "./state.js";

const OVERLAYS = [
  ["none", "None"], ["scores", "Score map"], ["rewards", "Reward of each code"],
  ["entropy", "Entropy of the next code"],
];
const LEGENDS = {
  none: "",
  scores: "Patches of finished rows: green scores as real, red as fake.",
  rewards: "Codes of finished rows: green earns, red costs.",
  entropy: "The more orange, the less sure the prior was of the code that came next.",
};

export function show(root, source) {
  const watch = new Watch(root, source);
  watch.paint();
  return () => watch.stop();
}

// One policy's canvas, or the real one: its picture, film and scores.
class Panel {
  // `strongest()` is the score that the strongest tint stands for, `redraw()` draws all panels.
  constructor(source, policy, title, { chosen, strongest, redraw }) {
    Object.assign(this, { source, policy, strongest, redraw });
    this.picture = new Picture(source, title, chosen);
    this.scored = new Map(); // rows -> the answer of `scores`
    this.asking = new Latest();
    const name = (ending) =>
      fileName(source.source, policy, `seed${state.seed}`, `step${this.step}.${ending}`);
    const file = (words, question, given, ending) =>
      button(words, async () => {
        try {
          save(await ask(question, { source: source.source, ...given() }), name(ending));
          clearFault();
        } catch (error) {
          showFault(error);
        }
      }, { "aria-label": `Save ${title} as ${words}` });
    this.picture.files.append(
      file("PNG", "picture", () => ({ codes: this.written() }), "png"),
      file("GIF", "gif", () => ({ codes: this.painting.codes, fps: Math.min(50, state.speed) }), "gif"),
      file("NPY", "npy", () => ({ codes: [this.written()] }), "npy"),
    );
  }

  async load(signal, step) {
    const { source, policy } = this;
    const given = { source: source.source, policy, seed: state.seed, temperature: state.temperature };
    const painting = await ask("painting", given, signal);
    const film = new Film(source, painting.codes, signal);
    await film.load([step]);
    if (signal.aborted) return;
    this.film?.close();
    this.scored.clear();
    Object.assign(this, { painting, film });
    const nats = painting.nats?.reduce((sum, each) => sum + each, 0);
    const likelihood = nats === undefined ? "" : `, ${nats.toFixed(0)} nats`;
    this.picture.figures.textContent = `score ${signed(painting.reward)}${likelihood}`;
  }

  // The codes as far as they are written at this step; the value after the last code is empty.
  written() {
    return this.painting.codes.map((code, cell) => (cell < this.step ? code : this.source.num_codes));
  }

  draw(step) {
    this.step = step;
    if (!this.film) return;
    const drawn = this.film.draw(this.picture.context, step);
    this.picture.element.dataset.drawn = drawn;
    this.picture.clearTints();
    this.#tint(step);
    this.picture.outline(step);
  }

  #tint(step) {
    const { picture, source, painting } = this;
    if (state.overlay === "entropy" && painting.entropies) {
      const colour = entropyColour(Math.log(source.num_codes));
      for (let level = 0; level < source.levels.length; level += 1) {
        if (level === state.level) picture.tintCells(painting.entropies, level, colour, step + 1);
      }
    }
    if (state.overlay !== "scores" && state.overlay !== "rewards") return;
    const rows = finishedRows(source, step);
    if (rows < source.min_rows) return;
    const scores = this.scored.get(rows);
    if (!scores) {
      this.#score(rows);
      return;
    }
    const colour = scoreColour(this.strongest());
    if (state.overlay === "scores") picture.tintMap(scores.map, rows / source.levels[0][0], colour);
    else {
      const [height, width] = source.levels[state.level];
      const end = picture.firstCell(state.level) + (rows * height / source.levels[0][0]) * width;
      picture.tintCells(scores.cells, state.level, colour, end);
    }
  }

  #score(rows) {
    const { source, painting } = this;
    if (this.scoring === rows) return;
    this.scoring = rows;
    this.asking.run(async (signal) => {
      const given = { source: source.source, codes: painting.codes, rows };
      const scores = await ask("scores", given, signal);
      if (painting !== this.painting) return;
      this.scored.set(rows, scores);
      this.redraw();
    }).finally(() => (this.scoring = null));
  }

  stop() {
    this.asking.stop();
    this.film?.close();
  }
}

// Rows of the coarsest grid that are done on all levels after so many codes.
function finishedRows(source, step) {
  const levels = source.levels;
  const before = levels.slice(0, -1).reduce((sum, [h, w]) => sum + h * w, 0);
  const [height, width] = levels.at(-1);
  const lines = Math.floor(Math.max(0, step - before) / width);
  return Math.floor(lines / (height / levels[0][0]));
}

class Watch {
  constructor(root, source) {
    this.root = root;
    this.source = source;
    this.length = source.levels.reduce((sum, [h, w]) => sum + h * w, 0);
    this.painting = new Latest();
    this.asking = new Latest();
    if (state.level >= source.levels.length) set({ level: 0 });
    if (state.cell >= this.length) set({ cell: -1 });
    const last = source.policies.at(-1)?.name;
    const known = source.policies.some(({ name }) => name === state.beside);
    this.beside = known ? state.beside : last;
    if (source.is_run) set({ beside: this.beside ?? "" }); // what is last now, is so no more later
    this.panels = this.#panels();
    this.pictures = make("div", { class: "pictures watched" }, ...this.panels.map((p) => p.picture.element));
    root.replaceChildren(this.pictures, this.#transport(), this.#settings());
    this.#level(state.level);
  }

  #panels() {
    const title = (name) => this.source.policies.find((policy) => policy.name === name).title;
    const names = this.source.policies.length ? [...new Set(["mle", this.beside])] : [];
    const of = {
      chosen: (cell) => this.focus(cell), strongest: () => this.strongest, redraw: () => this.redraw(),
    };
    return [
      ...names.map((name) => new Panel(this.source, name, title(name), of)),
      new Panel(this.source, "real", "Real", of),
    ];
  }

  #transport() {
    this.playing = button("Play", () => (this.isPlaying ? this.pause() : this.play()), { class: "main" });
    this.position = slider("Step", {
      min: 0, max: this.length, value: this.step, show: (step) => `${step} of ${this.length}`,
      change: (step) => { this.pause(); this.show(step); },
    });
    const move = (by) => () => { this.pause(); this.show(this.step + by); };
    return make(
      "div", { class: "transport", role: "group", "aria-label": "Playing" },
      iconButton("M5 5h2v14H5zM19 5v14L8 12z", "To the start", () => { this.pause(); this.show(0); }),
      iconButton("M16 5v14L6 12z", "One code back", move(-1)),
      this.playing,
      iconButton("M8 5v14l10-7z", "One code on", move(1)),
      iconButton("M17 5h2v14h-2zM5 5v14l11-7z", "To the end", () => { this.pause(); this.show(this.length); }),
      this.position,
    );
  }

  #settings() {
    const levels = this.source.levels.map(([h, w], level) => [String(level), `${h}×${w}`]);
    this.legend = make("p", { class: "quiet legend" });
    const others = this.source.policies.slice(1).map(({ name, title }) => [name, title]);
    return make(
      "div", { class: "settings", role: "group", "aria-label": "Settings" },
      seedField(state.seed, (seed) => { set({ seed }); this.paint(); }),
      temperatureSlider(state.temperature, (temperature) => { set({ temperature }); this.paint(150); }),
      slider("Speed", {
        min: 1, max: 120, value: state.speed, show: (speed) => `${speed} codes/s`,
        change: (speed) => set({ speed }),
      }),
      choice("Overlay", OVERLAYS, state.overlay, (overlay) => {
        set({ overlay });
        this.redraw();
      }),
      levels.length > 1 ? choice("Cells", levels, String(state.level), (level) => this.#level(Number(level))) : null,
      others.length > 1 ? choice("Beside", others, this.beside, (beside) => {
        set({ beside });
        this.stop();
        show(this.root, this.source);
      }) : null,
      this.legend,
    );
  }

  get step() {
    return state.step < 0 ? this.length : Math.min(state.step, this.length);
  }

  #level(level) {
    set({ level });
    for (const panel of this.panels) {
      panel.picture.setLevel(level);
      panel.picture.mark(state.cell);
    }
    this.redraw();
  }

  // Paints anew, with the settings as they are.
  async paint(before = 0) {
    const done = await this.painting.run(async (signal) => {
      await Promise.all(this.panels.map((panel) => panel.load(signal, this.step)));
      if (signal.aborted) return false;
      this.show(this.step);
      document.body.dataset.painted = `${this.source.source} ${state.seed}`;
      await Promise.all(this.panels.map((panel) => panel.film.loadAll(this.step)));
      return true;
    }, before);
    if (done) this.redraw();
  }

  show(step) {
    step = Math.min(Math.max(step, 0), this.length);
    set({ step: step === this.length ? -1 : step });
    this.position.set(step);
    this.redraw();
    if (this.isPlaying) return;
    this.#exact(step);
    this.#expect();
  }

  redraw() {
    // One scale for all pictures, so that they can be compared.
    const scores = this.panels.flatMap((panel) => [...panel.scored.values()].flatMap(({ map }) => map.flat()));
    this.strongest = Math.max(0.02, ...scores.map(Math.abs));
    const isScore = state.overlay === "scores" || state.overlay === "rewards";
    const scale = isScore && scores.length ? ` The strongest tint is ±${this.strongest.toFixed(2)}.` : "";
    this.legend.textContent = `${LEGENDS[state.overlay] ?? ""}${scale}`;
    for (const panel of this.panels) if (panel.painting) panel.draw(this.step);
  }

  // Loads the very frame of a step where only those of every few codes are there.
  async #exact(step) {
    const missing = this.panels.filter((panel) => panel.film && !panel.film.has(step));
    if (!missing.length) return;
    try {
      await Promise.all(missing.map((panel) => panel.film.load([step])));
      if (step === this.step) this.redraw();
    } catch (error) {
      if (error.name !== "AbortError") showFault(error);
    }
  }

  focus(cell) {
    set({ cell: cell === state.cell ? -1 : cell });
    for (const panel of this.panels) panel.picture.mark(state.cell);
    this.#expect();
  }

  // What may come in the cell that has the focus, or in the one that is next.
  #expect() {
    const cell = state.cell >= 0 ? state.cell : this.step;
    if (cell >= this.length || !this.source.policies.length) {
      for (const panel of this.panels) panel.picture.showCandidates(null);
      return;
    }
    this.asking.run(async (signal) => {
      const { temperature } = state;
      await Promise.all(this.panels.filter((panel) => panel.painting).map(async (panel) => {
        const { policy, painting } = panel;
        const given = { source: this.source.source, policy, temperature, cell, codes: painting.codes };
        const found = await ask("candidates", given, signal);
        if (!signal.aborted) panel.picture.showCandidates(found);
      }));
    }, 80);
  }

  play() {
    if (this.step >= this.length) this.show(0);
    this.isPlaying = true;
    this.playing.textContent = "Pause";
    this.asking.stop();
    for (const panel of this.panels) panel.picture.showCandidates(null);
    let [position, before] = [this.step, performance.now()];
    const tick = (now) => {
      if (!this.isPlaying) return;
      position += (Math.min(now - before, 1000) / 1000) * state.speed; // no leap after a hidden tab
      before = now;
      for (const { film } of this.panels) position = Math.min(position, film ? film.ready(this.step) : this.step);
      if (Math.floor(position) > this.step) this.show(Math.floor(position));
      if (this.step >= this.length) this.pause();
      else this.waiting = requestAnimationFrame(tick);
    };
    this.waiting = requestAnimationFrame(tick);
  }

  pause() {
    if (!this.isPlaying) return;
    this.isPlaying = false;
    cancelAnimationFrame(this.waiting);
    this.playing.textContent = "Play";
    say(`Step ${this.step} of ${this.length}`);
    this.show(this.step);
  }

  stop() {
    this.isPlaying = false;
    cancelAnimationFrame(this.waiting);
    this.painting.stop();
    this.asking.stop();
    for (const panel of this.panels) panel.stop();
  }
}
