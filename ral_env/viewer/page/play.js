// Play: pick codes as an agent does, and see what it would be paid; the prior plays on beside.

import { Latest, ask, clearFault, showFault } from "./ask.js";
import {
  button, choice, fileName, make, percent, save, seedField, signed, slider,
} from "./elements.js";
import { Picture, scoreColour } from "./picture.js";
import { set, state } from "./state.js";

const GAMES = 8; // completions by the prior that a canvas is compared with

export function show(root, source) {
  const play = new Play(root, source);
  play.begin(state.picked ? state.picked.split(".").map(Number) : []);
  return () => play.stop();
}

class Play {
  constructor(root, source) {
    this.root = root;
    this.source = source;
    this.rows = source.levels[0][0];
    this.empty = source.num_codes;
    if (state.given < 0 || state.given >= this.rows) set({ given: this.rows - 2 });
    if (!source.policies.some(({ name }) => name === state.policy)) set({ policy: "" });
    for (const name of ["starting", "drawing", "expecting", "valuing", "laying"]) this[name] = new Latest();
    this.picture = new Picture(source, "Your picture");
    this.picture.cells.remove(); // the next cell is the only one that can be written
    this.turn = make("p", { class: "turn", "aria-live": "polite" });
    this.worth = make("p", { class: "quiet" });
    this.palette = make("div", { class: "palette", role: "group", "aria-label": "All codes" });
    this.undo = button("Take back", () => this.back(), { disabled: true });
    this.rest = button("Let the prior finish", () => this.finish());
    const titles = source.policies.map(({ name, title }) => [name, title]);
    const again = (name) => (value) => { set({ [name]: value }); this.begin([]); };
    const settings = make(
      "div", { class: "settings", role: "group", "aria-label": "Settings" },
      slider("Real rows to begin with", {
        min: 0, max: this.rows - 1, value: state.given, show: (rows) => `${rows} of ${this.rows}`,
        change: again("given"),
      }),
      seedField(state.seed, again("seed")),
      titles.length > 1
        ? choice("Against", titles, state.policy || "mle", (policy) => { set({ policy }); this.#refresh(); })
        : null,
    );
    const moves = make("div", { class: "transport" }, this.undo, this.rest, button("Anew", () => this.begin([])));
    const side = make("div", { class: "side" }, this.turn, this.worth, moves, this.palette);
    root.replaceChildren(make("div", { class: "game" }, this.picture.element, side), settings);
    for (const kind of ["png", "npy"]) {
      const save_ = () => this.#save(kind);
      this.picture.files.append(button(kind.toUpperCase(), save_, { "aria-label": `Save as ${kind.toUpperCase()}` }));
    }
  }

  get policy() {
    return state.policy || "mle";
  }

  get next() {
    return this.codes.indexOf(this.empty);
  }

  // A new game, in which some codes have been picked already.
  async begin(picked) {
    this.paid = null;
    await this.starting.run(async (signal) => {
      const given = { source: this.source.source, rows: state.given, seed: state.seed };
      const { codes } = await ask("start", given, signal);
      this.start = codes;
      this.open = codes.flatMap((code, cell) => (code === this.empty ? [cell] : []));
      this.picked = picked.slice(0, this.open.length).filter((code) => code >= 0 && code < this.empty);
      // What the prior comes to from the same start is what one plays against.
      this.against = null;
      this.#refresh();
      if (this.source.policies.length) {
        const question = { source: this.source.source, policy: this.policy, codes, count: GAMES, seed: state.seed };
        this.against = (await ask("finish", question, signal)).rewards;
      }
      this.#worded();
    });
  }

  pick(code) {
    if (this.next < 0) return;
    this.picked.push(code);
    this.#refresh();
  }

  back() {
    this.picked.pop();
    this.#refresh();
  }

  async finish() {
    await this.starting.run(async (signal) => {
      const { codes, source } = this;
      const given = { source: source.source, policy: this.policy, codes, count: 1, seed: state.seed };
      const done = await ask("finish", given, signal);
      this.picked = this.open.map((cell) => done.codes[0][cell]);
      this.#refresh();
    });
  }

  #refresh() {
    this.codes = [...this.start];
    this.picked.forEach((code, i) => (this.codes[this.open[i]] = code));
    set({ picked: this.picked.join(".") });
    this.undo.disabled = !this.picked.length;
    this.rest.disabled = this.next < 0 || !this.source.policies.length;
    this.paid = this.value = this.expected = null;
    this.#draw();
    this.#expect();
    this.#value();
    this.#lay();
    this.#worded();
  }

  #draw() {
    const { source, codes } = this;
    this.drawing.run(async (signal) => {
      const bitmap = await createImageBitmap(await ask("picture", { source: source.source, codes }, signal));
      this.picture.context.drawImage(bitmap, 0, 0);
      bitmap.close();
      this.picture.clearTints();
      if (this.next >= 0) this.picture.outline(this.next);
      else {
        const scores = await ask("scores", { source: source.source, codes, rows: this.rows }, signal);
        const most = Math.max(0.02, ...scores.cells.map(Math.abs));
        this.picture.tintCells(scores.cells, source.levels.length - 1, scoreColour(most));
      }
      document.body.dataset.played = this.picked.length;
    });
  }

  // The five that the prior holds most probable, and the probability of each patch of the palette.
  #expect() {
    const { source, codes, next } = this;
    if (next < 0 || !source.policies.length) {
      this.expecting.stop();
      this.picture.showCandidates(null);
      this.#label(null);
      return;
    }
    this.expecting.run(async (signal) => {
      const given = { source: source.source, policy: this.policy, codes, cell: next };
      const found = await ask("candidates", given, signal);
      this.picture.showCandidates(found, (code) => this.pick(code));
      this.#label(found.probabilities);
    });
  }

  // What the canvas is worth: its reward once it is done, before that what the prior makes of it.
  #value() {
    const { source, codes } = this;
    if (this.next >= 0 && !source.policies.length) return;
    this.valuing.run(async (signal) => {
      const policy = source.policies.length ? this.policy : "real";
      const given = { source: source.source, policy, codes, count: GAMES, seed: state.seed };
      const { rewards } = await ask("finish", given, signal);
      if (this.next < 0) this.paid = rewards[0];
      else this.value = mean(rewards);
      this.#worded();
    });
  }

  #worded() {
    const left = this.open.length - this.picked.length;
    const against = this.against ? mean(this.against) : null;
    const theirs = against === null ? "" : ` The prior's ${GAMES} pictures from the same start earn ${signed(against)} on average`;
    if (left) {
      this.turn.textContent = `Pick a code for the outlined cell; ${left} to go.`;
      const now = this.value === null ? "" : ` If the prior went on from here: ${signed(this.value)}.`;
      this.worth.textContent = `${now}${theirs && `${theirs}.`}`.trim();
    } else {
      const beaten = this.against?.filter((reward) => reward < this.paid).length;
      this.turn.textContent = this.paid === null ? "Done." : `Done: you earn ${signed(this.paid)}.`;
      const words = theirs && this.paid !== null ? `${theirs}; you beat ${beaten} of ${GAMES}.` : "";
      this.worth.textContent = words.trim();
    }
  }

  // The palette of the level, and of the code above, that the next cell has.
  #lay() {
    const { levels, source: name, num_codes: count } = this.source;
    if (this.next < 0) return;
    let level = 0;
    while (this.next >= this.picture.firstCell(level + 1)) level += 1;
    let above = 0;
    if (level) {
      const at = this.next - this.picture.firstCell(level);
      const [rows, columns] = levels[level];
      const [upperRows, upperColumns] = levels[level - 1];
      const row = Math.floor(Math.floor(at / columns) / (rows / upperRows));
      const column = Math.floor((at % columns) / (columns / upperColumns));
      above = this.codes[this.picture.firstCell(level - 1) + row * upperColumns + column];
    }
    if (this.laid === `${level} ${above}`) return;
    this.laid = `${level} ${above}`;
    this.laying.run(async (signal) => {
      const bitmap = await createImageBitmap(await ask("palette", { source: name, level, above }, signal));
      const side = bitmap.width;
      const tiles = [];
      for (let code = 0; code < count; code += 1) {
        const canvas = make("canvas", { width: side, height: side, "aria-hidden": "true" });
        canvas.getContext("2d").drawImage(bitmap, 0, code * side, side, side, 0, 0, side, side);
        const tile = button("", () => this.pick(code), { "data-code": code });
        tile.append(canvas, make("span", {}));
        tiles.push(tile);
      }
      bitmap.close();
      this.palette.replaceChildren(...tiles);
      this.#label(this.expected);
    });
  }

  #label(probabilities) {
    this.expected = probabilities;
    for (const tile of this.palette.children) {
      const code = Number(tile.dataset.code);
      const chance = probabilities ? percent(probabilities[code]) : "";
      tile.lastChild.textContent = chance;
      tile.disabled = this.next < 0;
      tile.setAttribute("aria-label", chance ? `Code ${code}, ${chance}` : `Code ${code}`);
    }
  }

  async #save(kind) {
    const { source, codes } = this;
    const name = fileName(source.source, "played", `seed${state.seed}.${kind}`);
    try {
      const question = kind === "png" ? "picture" : "npy";
      save(await ask(question, { source: source.source, codes: kind === "png" ? codes : [codes] }), name);
      clearFault();
    } catch (error) {
      showFault(error);
    }
  }

  stop() {
    for (const name of ["starting", "drawing", "expecting", "valuing", "laying"]) this[name].stop();
  }
}

function mean(values) {
  return values.reduce((sum, each) => sum + each, 0) / values.length;
}
