/** How rare images shall be: a slider and a list of methods, for models that are calibrated for it. */

import { el, say } from "./dom.js";
import { choose } from "./models.js";

const NAMES = {
  boost_and_skip: "Boosted noise",
  classifier: "A classifier",
  self_guided: "The model itself",
  prompt: "A learnt word",
};
const OFF = 0.5; // the middle of what is real: nothing is asked for

export class Rarity {
  #levels = {};

  constructor(form) {
    this.parts = form.querySelectorAll(".rarity");
    this.hint = form.querySelector("#minority-hint");
    this.slider = form.elements.minority;
    this.method = form.elements.minority_method;
    this.slider.addEventListener("input", () => this.#describe());
    this.method.addEventListener("change", () => this.#limit());
  }

  /** Shows what a model can do; `levels` are, of each method, the lowest and highest it reaches. */
  offer(levels) {
    const rare = Object.entries(levels ?? {})
      .filter(([, [, highest]]) => highest >= OFF + 0.05)
      .sort(([, [, first]], [, [, second]]) => second - first);
    this.#levels = Object.fromEntries(rare);
    const chosen = this.method.value;
    this.method.replaceChildren(...rare.map(([id]) => el("option", { value: id }, NAMES[id] ?? id)));
    if (chosen in this.#levels) this.method.value = chosen;
    for (const part of this.parts) part.hidden = rare.length === 0;
    for (const control of [this.slider, this.method]) control.disabled = rare.length === 0;
    this.#limit();
  }

  /** The spec's fields: nothing if images are left to chance. */
  read() {
    const level = this.slider.valueAsNumber;
    if (this.slider.disabled || level <= OFF) return {};
    return { minority: level, minority_method: this.method.value };
  }

  /** From a spec or the settings of a record. */
  fill({ minority, minority_method }) {
    if (minority_method in this.#levels) choose(this.method, minority_method);
    this.#limit();
    this.slider.value = String(minority ?? OFF);
    this.#describe();
  }

  #limit() {
    const [, highest] = this.#levels[this.method.value] ?? [OFF, OFF];
    this.slider.max = String(Math.floor(100 * highest) / 100);
    this.#describe();
  }

  #describe() {
    const level = this.slider.valueAsNumber;
    const rare = `Rarer than ${Math.round(100 * level)} % of real ones of the kind`;
    say(this.hint, level <= OFF ? "As they come" : rare);
    this.slider.setAttribute("aria-valuetext", this.hint.textContent);
  }
}

/** A few words on what a spec asks for, or nothing. */
export function rarity({ minority }) {
  return minority != null && `rarer than ${Math.round(100 * minority)} %`;
}
