// The frame of the page: what is opened, which tab is shown, the link.

import { Latest, ask, clearFault, say } from "./ask.js";
import { make } from "./elements.js";
import { address, reread, set, state, withSource } from "./state.js";
import * as watch from "./watch.js";

// Those beside the first are loaded when they are wanted.
const TABS = {
  watch: () => watch,
  complete: () => import("./complete.js"),
  compare: () => import("./compare.js"),
  play: () => import("./play.js"),
};
const NAMES = { environments: "Environments", bundles: "Bundles", runs: "Runs" };

const main = document.getElementById("main");
const select = document.getElementById("source");
const opening = new Latest();
let stop = () => {};
let opened = null; // the answer of the question `source`

async function show() {
  if (!(state.tab in TABS)) set({ tab: "watch" });
  stop();
  stop = () => {};
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.tab === state.tab) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  await opening.run(async (signal) => {
    if (opened?.source !== state.source) {
      main.replaceChildren();
      opened = await ask("source", { source: state.source }, signal);
    }
    const tab = await TABS[state.tab]();
    if (signal.aborted) return;
    describe(opened);
    stop = tab.show(main, opened);
    document.body.dataset.tab = state.tab;
  });
}

function describe(source) {
  const grids = source.levels.map(([h, w]) => `${h}×${w}`).join(" + ");
  const size = `${grids} codes of ${source.num_codes}, ${source.image_size} pixels a side`;
  document.getElementById("about").textContent = [`${source.dataset}; ${size}.`, source.note].join(" ");
  document.title = `${state.source}, ral view`;
  selected(source.source);
}

function selected(name) {
  if (![...select.options].some((option) => option.value === name)) {
    select.append(make("option", { value: name }, name));
  }
  select.value = name;
}

async function offer() {
  const offered = await ask("sources", {});
  const groups = Object.entries(offered).filter(([, entries]) => entries.length);
  select.replaceChildren(
    ...groups.map(([kind, entries]) => {
      const options = entries.map(({ name, about }) => make("option", { value: name, title: about }, name));
      return make("optgroup", { label: NAMES[kind] }, ...options);
    }),
  );
  selected(state.source);
}

select.addEventListener("change", () => {
  set(withSource(select.value));
  show();
});
for (const anchor of document.querySelectorAll("nav a")) {
  anchor.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // another tab of the browser
    event.preventDefault();
    set({ tab: anchor.dataset.tab });
    clearFault();
    show();
  });
  const refresh = () => (anchor.href = address({ tab: anchor.dataset.tab }));
  for (const kind of ["focus", "pointerenter"]) anchor.addEventListener(kind, refresh);
  refresh();
}
const link = document.getElementById("link");
link.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(new URL(address(), location).href);
    link.textContent = "Copied";
    say("The link is copied: it holds all that you see.");
  } catch {
    link.textContent = "Copy the address"; // only secure pages may: this machine's, not another's
    say("The address of this page is the link: it holds all that you see.");
  }
  setTimeout(() => (link.textContent = "Copy link"), 3000);
});
addEventListener("hashchange", () => {
  reread();
  show();
});

selected(state.source);
show();
offer().catch(() => {}); // what is wrong is said by show()
