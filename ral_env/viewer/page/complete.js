// Complete: the upper rows of a picture are kept, a policy writes the rest, several times.

import { Latest, ask, askAbout, clearFault, showFault } from "./ask.js";
import {
  blobOf, button, choice, fileName, make, save, seedField, signed, slider, temperatureSlider,
} from "./elements.js";
import { set, state } from "./state.js";

const PAD_SIDE = 256; // pixels of the pad that is drawn on

export function show(root, source) {
  const complete = new Complete(root, source);
  complete.ask();
  return () => complete.asking.stop();
}

class Complete {
  constructor(root, source) {
    this.source = source;
    this.asking = new Latest();
    this.rows = source.levels[0][0];
    if (state.rows < 1 || state.rows >= this.rows) set({ rows: Math.floor(this.rows / 2) });
    this.name = "the picture";
    this.given = make("div", { class: "given pictures" });
    this.results = make("div", { class: "completions" });
    this.files = make("div", { class: "files" });
    if (!source.policies.length) {
      root.replaceChildren(make("p", {}, "This bundle has no priors: nothing can be completed."));
      return;
    }
    root.replaceChildren(this.#input(), this.#settings(), this.given, this.results, this.files);
    root.ondragover = (event) => event.preventDefault();
    root.ondrop = (event) => {
      event.preventDefault();
      if (event.dataTransfer.files.length) this.#take(event.dataTransfer.files[0]);
    };
  }

  #input() {
    const file = make("input", {
      type: "file", accept: "image/*", id: "file", class: "hidden",
      onchange: () => { if (file.files.length) this.#take(file.files[0]); file.value = ""; },
    });
    this.pad = this.#pad();
    const draw = button("Draw one", () => {
      this.pad.hidden = !this.pad.hidden;
      draw.setAttribute("aria-expanded", String(!this.pad.hidden));
    }, { "aria-expanded": "false" });
    return make(
      "div", {},
      make(
        "div", { class: "settings" },
        make("label", { class: "button", for: "file" }, "Choose a picture"), file,
        draw,
        button("Another real one", () => {
          set({ picture: "", real: state.picture ? state.real : (state.real + 1) % this.source.real });
          this.ask();
        }),
        make("span", { class: "quiet" }, "A file may also be dropped here."),
      ),
      this.pad,
    );
  }

  // A pad to draw on, whose picture is completed after each stroke.
  #pad() {
    const canvas = make("canvas", {
      width: PAD_SIDE, height: PAD_SIDE, class: "pad", role: "img", "aria-label": "Pad to draw on",
    });
    const pen = canvas.getContext("2d");
    const colour = make("input", { type: "color", value: "#f4d8c0" });
    let width = 24;
    const fill = () => {
      pen.fillStyle = colour.value;
      pen.fillRect(0, 0, PAD_SIDE, PAD_SIDE);
      this.#drawn(canvas);
    };
    pen.fillStyle = "#000000";
    pen.fillRect(0, 0, PAD_SIDE, PAD_SIDE);
    pen.lineCap = pen.lineJoin = "round";
    let last = null;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) * PAD_SIDE / box.width, (event.clientY - box.top) * PAD_SIDE / box.height];
    };
    const stroke = (event) => {
      if (!last) return;
      const to = place(event);
      Object.assign(pen, { strokeStyle: colour.value, lineWidth: width });
      pen.beginPath();
      pen.moveTo(...last);
      pen.lineTo(...to);
      pen.stroke();
      last = to;
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      last = place(event);
      stroke(event);
    });
    canvas.addEventListener("pointermove", stroke);
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => {
        if (last) this.#drawn(canvas);
        last = null;
      });
    }
    return make(
      "div", { class: "drawing", hidden: true },
      canvas,
      make(
        "div", { class: "settings" },
        make("label", {}, make("span", {}, "Colour"), colour),
        slider("Width", { min: 2, max: 80, value: width, change: (to) => (width = to) }),
        button("Fill", fill),
      ),
    );
  }

  #drawn(canvas) {
    canvas.toBlob((blob) => {
      this.name = "the drawing";
      this.#use(blob);
    });
  }

  #take(file) {
    this.name = file.name;
    this.#use(file);
  }

  // Completes a picture; only once it could be read does it take the place of the last one.
  #use(blob) {
    this.ask(0, blob);
  }

  #settings() {
    const { policies } = this.source;
    const again = (name) => (value) => { set({ [name]: value }); this.ask(150); };
    const titles = policies.map(({ name, title }) => [name, title]);
    if (!policies.some(({ name }) => name === state.policy)) set({ policy: "" });
    return make(
      "div", { class: "settings", role: "group", "aria-label": "Settings" },
      slider("Rows kept", {
        min: 1, max: this.rows - 1, value: state.rows, show: (rows) => `${rows} of ${this.rows}`,
        change: again("rows"),
      }),
      slider("Completions", { min: 1, max: 12, value: state.count, change: again("count") }),
      seedField(state.seed, again("seed")),
      temperatureSlider(state.temperature, again("temperature")),
      titles.length > 1 ? choice("By", titles, this.policy, again("policy")) : null,
    );
  }

  // Of a fine-tuned bundle by default its own policy, which `ral complete` takes.
  get policy() {
    const isTuned = this.source.policies.some(({ name }) => name === "policy");
    return state.policy || (isTuned ? "policy" : "mle");
  }

  async #picture(signal) {
    if (state.picture) return blobOf(`data:image/png;base64,${state.picture}`);
    this.name = `real picture ${state.real}`;
    return ask("real_picture", { source: this.source.source, number: state.real }, signal);
  }

  ask(before = 0, fresh = null) {
    if (!this.source.policies.length) return;
    const { rows, count, seed, temperature } = state;
    this.asking.run(async (signal) => {
      const picture = fresh ?? (await this.#picture(signal));
      const given = {
        source: this.source.source, policy: this.policy, name: this.name, rows, count, seed, temperature,
      };
      const found = await askAbout(picture, "complete", given, signal);
      // As small as the bundle's images: the link holds it.
      if (fresh) set({ picture: found.pictures[0].url.split(",")[1] });
      this.#show(found);
    }, before);
  }

  #show(found) {
    const tile = ({ title, url }, figures = "") =>
      make(
        "figure", {},
        make("figcaption", {}, make("span", { class: "title" }, title), make("span", { class: "figures" }, figures)),
        make("img", { src: url, alt: title, class: "pixels" }),
      );
    const [original, reconstruction, kept, ...written] = found.pictures;
    this.given.replaceChildren(tile(original), tile(reconstruction), tile(kept, `${found.rows} of ${found.of} rows`));
    this.results.replaceChildren(...written.map((each, i) => tile(each, `score ${signed(found.rewards[i])}`)));
    const name = (ending) => fileName(this.source.source, "completion", `seed${state.seed}.${ending}`);
    const npy = async () => {
      try {
        save(await ask("npy", { source: this.source.source, codes: found.codes }), name("npy"));
        clearFault();
      } catch (error) {
        showFault(error);
      }
    };
    this.files.replaceChildren(
      button("PNG", () => save(found.sheet, name("png")), { "aria-label": "Save all as PNG" }),
      button("NPY", npy, { "aria-label": "Save the completions' codes as NPY" }),
    );
    document.body.dataset.completed = `${state.seed} ${found.rows} ${written.length}`;
  }
}
