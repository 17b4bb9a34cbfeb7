/** The view that draws large images of tissue: from words, like a picture, or varied from some. */

import { whole } from "./api.js";
import { announce, el } from "./dom.js";
import { base64 } from "./files.js";
import { JobForm } from "./form.js";
import { choose, fillModels } from "./models.js";

const EXAMPLES = ["colorectal tumour epithelium, crowded nuclei", "normal colon mucosa", "stroma"];
const SIZES = [1024, 2048, 4096, 8192];
const MODEL_TASK = "embedding-to-image";
const MAX_VARIATIONS = 4;
const MAX_BYTES = { like: 16 * 2 ** 20, variation: 4 * 2 ** 20 };
const NUMBERS = ["width", "height", "num_inference_steps", "guidance_scale", "microns_per_pixel"];
const TITLES = { like: "Laid out like a picture", variation: "Varied from pictures" };

export class LargeImages {
  task = "large-images";
  noun = "image of tissue";
  unit = "window";

  constructor(api, onJob, tabs) {
    this.api = api;
    this.tabs = tabs;
    this.form = document.getElementById("large-images");
    this.fields = this.form.elements;
    new JobForm(this.form, { api, task: this.task, read: () => this.read(), onJob });
    for (const radio of this.fields.source) radio.addEventListener("change", () => this.#showSource());
    for (const name of ["like", "variation"]) {
      this.fields[name].addEventListener("change", () => this.#checkFiles(this.fields[name]));
    }
    const [examples, sizes] = this.form.querySelectorAll(".examples");
    examples.append(...EXAMPLES.map((text) => example(text, () => this.#set({ text }))));
    sizes.append(...SIZES.map((side) => example(`${side} \u00d7 ${side}`, () => this.#set({ width: side, height: side }))));
    this.#showSource(); // a browser may have kept another choice over a reload
  }

  /** Fills the list of models; without one, says what is missing. */
  async load() {
    const { data } = await this.api.json("/v1/models");
    const models = data.filter((model) => !model.task || model.task === MODEL_TASK);
    fillModels(this.fields.model, models);
    this.form.querySelector(".unserved").hidden = models.length > 0;
  }

  get source() {
    return this.fields.source.value;
  }

  /** The spec of a job, as the form says it, with its pictures in base64. */
  async read() {
    const { method, seed, model } = this.fields;
    return {
      [this.source]: await this.#shown(),
      ...Object.fromEntries(NUMBERS.map((name) => [name, this.fields[name].valueAsNumber])),
      method: method.value,
      previews: true,
      ...(seed.value && { seed: whole(seed.value) }),
      ...(model.value && { model: model.value }),
    };
  }

  async #shown() {
    if (this.source === "text") return this.fields.text.value.trim();
    const files = await Promise.all([...this.fields[this.source].files].map(base64));
    return this.source === "like" ? files[0] : files;
  }

  /** Fills the form from a spec or a record; pictures have to be chosen again. */
  fill(settings) {
    const given = settings.settings ?? {}; // of a record
    const source = given.source ?? ["like", "variation"].find((name) => settings[name]) ?? "text";
    this.fields.source.value = source;
    this.#showSource();
    this.fields.text.value = settings.text ?? settings.prompt ?? "";
    for (const name of NUMBERS) {
      this.fields[name].value = settings[name] ?? given[name] ?? this.fields[name].defaultValue;
    }
    this.fields.seed.value = String(settings.seed ?? "");
    choose(this.fields.method, settings.method ?? given.method);
    choose(this.fields.model, settings.model);
    this.form.querySelector("details").open = true;
    this.tabs.show(this.task);
    this.form.scrollIntoView({ block: "start" });
    this.fields[source].focus();
    announce(source === "text" ? "The form has these settings now" : "The form has these settings now; choose the pictures again");
  }

  /** A job in a few words: its title, and the settings that matter. */
  describe(spec) {
    const facts = [
      `${spec.width} \u00d7 ${spec.height}`,
      `${spec.num_inference_steps} steps`,
      `guidance ${spec.guidance_scale}`,
      spec.method === "overlap" && "overlapping windows",
      spec.model,
    ];
    const source = ["like", "variation"].find((name) => spec[name]);
    return { title: spec.text ?? TITLES[source], facts: facts.filter(Boolean) };
  }

  /** Only what is shown is asked for and checked. */
  #showSource() {
    for (const part of this.form.querySelectorAll(".source")) {
      part.hidden = part.dataset.source !== this.source;
      this.fields[part.dataset.source].disabled = part.hidden;
    }
  }

  /** What the service would refuse is not sent: it may be many megabytes. */
  #checkFiles(input) {
    const files = [...input.files];
    const most = MAX_BYTES[input.name];
    const heavy = files.find((file) => file.size > most);
    let wrong = "";
    if (files.length > MAX_VARIATIONS) wrong = `${files.length} pictures, but at most ${MAX_VARIATIONS} are varied`;
    else if (heavy) wrong = `${heavy.name} has more than ${most / 2 ** 20} MB; choose a smaller part of it`;
    input.setCustomValidity(wrong);
  }

  #set(values) {
    for (const [name, value] of Object.entries(values)) {
      this.fields[name].value = value;
      this.fields[name].dispatchEvent(new Event("input", { bubbles: true }));
    }
  }
}

function example(text, use) {
  return el("button", { type: "button", class: "example", onclick: use }, text);
}
