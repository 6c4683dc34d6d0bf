// Compare: what became of a run's policy, with its curves; and two sheets, blind.

import { Latest, ask } from "./ask.js";
import { button, choice, make, seedField, slider, temperatureSlider } from "./elements.js";
import { curve } from "./curve.js";
import { set, state } from "./state.js";

// Figures that are drawn, where a run has logged them; of all others there is TensorBoard.
const FIGURES = [
  "reward", "auc", "entropy", "nats_per_code", "kl", "forward_nll", "fd", "ess", "rollout/ep_rew_mean",
];

export function show(root, source) {
  const parts = [new Blind(source)];
  if (source.is_run) parts.unshift(new Training(source));
  const hint = make("p", { class: "quiet" }, "A run as the source also shows its checkpoints and curves here.");
  root.replaceChildren(...(source.is_run ? [] : [hint]), ...parts.map(({ element }) => element));
  for (const part of parts) part.ask();
  return () => parts.forEach((part) => part.asking.stop());
}

function sheets(source) {
  // Large pictures take long to paint: fewer of them.
  return source.image_size <= 64 ? 16 : 4;
}

class Sheet {
  constructor(source) {
    this.source = source;
    this.image = make("img", { class: "pixels" });
  }

  async ask(policy, words, seed, signal) {
    const given = {
      source: this.source.source, policy, count: sheets(this.source), seed, temperature: state.temperature,
    };
    const url = URL.createObjectURL(await ask("contact", given, signal));
    URL.revokeObjectURL(this.image.src);
    Object.assign(this.image, { src: url, alt: words });
  }
}

// A run's checkpoints on a slider.
class Training {
  constructor(source) {
    this.source = source;
    this.asking = new Latest();
    this.sheet = new Sheet(source);
    this.title = make("span", { class: "title" });
    this.curves = make("div", { class: "curves" });
    const last = source.policies.length - 1;
    // By name: a run that goes on keeps more policies, and drops some.
    const known = source.policies.findIndex(({ name }) => name === state.at);
    this.policy = source.policies[known < 0 ? last : known];
    set({ at: this.policy?.name ?? "" });
    this.at = slider("Checkpoint", {
      min: 0, max: last, value: known < 0 ? last : known, show: (at) => source.policies[at]?.title ?? "",
      change: (at) => { this.policy = source.policies[at]; set({ at: this.policy.name }); this.ask(80); },
    });
    const figure = make("figure", {}, make("figcaption", {}, this.title), this.sheet.image);
    this.element = make(
      "section", { "aria-labelledby": "training" },
      make("h2", { id: "training" }, "Through training"),
      make("div", { class: "settings" }, this.at,
        seedField(state.seed, (seed) => { set({ seed }); this.ask(); }),
        temperatureSlider(state.temperature, (temperature) => { set({ temperature }); this.ask(150); })),
      make("div", { class: "game" }, figure, this.curves),
    );
  }

  ask(before = 0) {
    const { policy } = this;
    this.asking.run(async (signal) => {
      if (policy) await this.sheet.ask(policy.name, `Pictures of ${policy.title}`, state.seed, signal);
      this.title.textContent = policy?.title ?? "No policy yet";
      this.figures ??= (await ask("curves", { source: this.source.source }, signal)).columns;
      this.#draw(policy?.name);
      document.body.dataset.compared = `${policy?.name} ${state.seed}`;
    }, before);
  }

  #draw(policy) {
    const [x] = Object.values(this.figures);
    if (!x?.length) {
      this.curves.replaceChildren(make("p", { class: "quiet" }, "The run has logged no figures yet."));
      return;
    }
    const number = Number(policy?.match(/^step-(\d+)$/)?.[1] ?? (policy === "final" ? x.at(-1) : x[0]));
    const shown = FIGURES.filter((name) => this.figures[name]?.some((value) => value !== null));
    this.curves.replaceChildren(...shown.map((name) => curve(name, x, this.figures[name], number)));
  }
}

// Two sheets whose painters are told only after the vote.
class Blind {
  constructor(source) {
    this.source = source;
    this.asking = new Latest();
    this.votes = [];
    this.painters = [...source.policies, { name: "real", title: "Real" }];
    const known = (name) => this.painters.some((painter) => painter.name === name);
    this.pair = [
      known(state.left) ? state.left : this.painters[0].name,
      known(state.right) ? state.right : this.painters.at(source.policies.length > 1 ? -2 : -1).name,
    ];
    if (source.is_run) set({ left: this.pair[0], right: this.pair[1] }); // what is last now, is so no more later
    this.sheets = [new Sheet(source), new Sheet(source)];
    this.titles = [make("span", { class: "title" }), make("span", { class: "title" })];
    this.verdict = make("p", { "aria-live": "polite" });
    this.buttons = ["Left", "Right"].map((side, index) =>
      button(`${side} looks more real`, () => this.#vote(index), { class: "vote" }));
    this.next = button("Next round", () => { set({ round: state.round + 1 }); this.ask(); });
    const options = this.painters.map(({ name, title }) => [name, title]);
    const choose = (index) => (name) => {
      this.pair[index] = name;
      set({ left: this.pair[0], right: this.pair[1] });
      this.votes = [];
      this.ask();
    };
    this.element = make(
      "section", { "aria-labelledby": "blind" },
      make("h2", { id: "blind" }, "Which is more real?"),
      make("p", { class: "quiet" }, "Two sheets in an order that chance decides. Vote, then you are told which was which."),
      make("div", { class: "settings" }, choice("Between", options, this.pair[0], choose(0)), choice("and", options, this.pair[1], choose(1))),
      make("div", { class: "pictures sheets" }, ...this.sheets.map((sheet, i) =>
        make("figure", {}, make("figcaption", {}, this.titles[i]), sheet.image))),
      make("div", { class: "transport" }, ...this.buttons, this.next),
      this.verdict,
    );
  }

  ask() {
    const swapped = crypto.getRandomValues(new Uint8Array(1))[0] % 2 === 1;
    this.order = swapped ? [...this.pair].reverse() : [...this.pair];
    this.next.disabled = true;
    for (const press of this.buttons) press.disabled = true;
    this.verdict.textContent = "";
    this.titles.forEach((title, i) => (title.textContent = ["Left", "Right"][i]));
    this.asking.run(async (signal) => {
      const words = ["Left sheet", "Right sheet"];
      await Promise.all(this.sheets.map((sheet, i) => sheet.ask(this.order[i], words[i], state.round, signal)));
      for (const press of this.buttons) press.disabled = false;
      document.body.dataset.round = state.round;
    });
  }

  #vote(index) {
    const title = (name) => this.painters.find((painter) => painter.name === name).title;
    this.votes.push(this.order[index]);
    for (const press of this.buttons) press.disabled = true;
    this.next.disabled = false;
    this.next.focus();
    this.titles.forEach((shown, i) => (shown.textContent = `${["Left", "Right"][i]}: ${title(this.order[i])}`));
    const tally = [...new Set(this.pair)].map((name) => {
      const count = this.votes.filter((vote) => vote === name).length;
      return `${title(name)} ${count}`;
    });
    this.verdict.textContent = `You chose ${title(this.order[index])}. Of ${this.votes.length} votes: ${tally.join(", ")}.`;
  }
}
