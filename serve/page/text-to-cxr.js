/** The view that makes chest X-rays from a sentence. */

import { whole } from "./api.js";
import { announce, el, say } from "./dom.js";
import { JobForm } from "./form.js";
import { choose, fillModels } from "./models.js";
import { Rarity, rarity } from "./rarity.js";

const EXAMPLES = [
  "Normal chest X-ray of a young child",
  "Chest X-ray of a child with pneumonia",
  "PA chest X-ray of a man, no acute finding",
  "Chest X-ray of a woman with pleural effusion",
  "Chest X-ray, adult, COVID-19 pneumonia",
];
const TASKS = ["text-to-cxr", "text-to-image"];

export class TextToCXR {
  task = "text-to-cxr";
  noun = "chest X-ray";
  unit = "step"; // of which progress counts

  constructor(api, onJob, tabs) {
    this.api = api;
    this.tabs = tabs;
    this.form = document.getElementById("text-to-cxr");
    this.fields = this.form.elements;
    this.rarity = new Rarity(this.form);
    new JobForm(this.form, { api, task: this.task, read: () => this.read(), onJob });
    this.form.querySelector(".examples").append(...EXAMPLES.map((text) => this.#example(text)));
    this.fields.model.addEventListener("change", () => this.#describeModel());
  }

  /** Fills the list of models; without it the service chooses. */
  async load() {
    const { data } = await this.api.json("/v1/models");
    this.models = data.filter((model) => !model.task || TASKS.includes(model.task));
    fillModels(this.fields.model, this.models);
    this.#describeModel();
  }

  /** The spec of a job, as the form says it; what is left empty is left to the service. */
  read() {
    const { prompt, negative_prompt, n, num_inference_steps, guidance_scale, scheduler, seed, width, height, model } =
      this.fields;
    return {
      prompt: prompt.value.trim(),
      n: n.valueAsNumber,
      num_inference_steps: num_inference_steps.valueAsNumber,
      guidance_scale: guidance_scale.valueAsNumber,
      scheduler: scheduler.value,
      previews: true,
      ...(negative_prompt.value.trim() && { negative_prompt: negative_prompt.value.trim() }),
      ...(seed.value && { seed: whole(seed.value) }),
      ...(width.value && { width: width.valueAsNumber }),
      ...(height.value && { height: height.valueAsNumber }),
      ...(model.value && { model: model.value }),
      ...this.rarity.read(),
    };
  }

  /** Fills the form from a spec, or from the record of one image; of lists it holds the first. */
  fill(settings) {
    const first = (value) => (Array.isArray(value) ? value[0] : value) ?? "";
    for (const name of ["prompt", "negative_prompt", "seed", "width", "height"]) {
      this.fields[name].value = String(first(settings[name]));
    }
    for (const name of ["num_inference_steps", "guidance_scale"]) {
      this.fields[name].value = settings[name] ?? this.fields[name].defaultValue;
    }
    this.fields.n.value = Array.isArray(settings.seed) ? 1 : (settings.n ?? 1);
    choose(this.fields.scheduler, settings.scheduler);
    choose(this.fields.model, settings.model);
    this.#describeModel();
    this.rarity.fill({ ...settings.settings, ...settings });
    this.form.querySelector("details").open = true;
    this.tabs.show(this.task);
    this.form.scrollIntoView({ block: "start" });
    this.fields.prompt.focus();
    announce("The form has these settings now");
  }

  /** A job in a few words: its title, and the settings that matter. */
  describe(spec) {
    const prompts = [spec.prompt].flat();
    const facts = [
      spec.num_inference_steps && `${spec.num_inference_steps} steps`,
      spec.guidance_scale && `guidance ${spec.guidance_scale}`,
      spec.scheduler,
      rarity(spec),
      spec.model,
    ];
    return { title: prompts.join(" \u00b7 "), facts: facts.filter(Boolean) };
  }

  #example(text) {
    const use = () => {
      this.fields.prompt.value = text;
      this.fields.prompt.dispatchEvent(new Event("input", { bubbles: true }));
      this.fields.prompt.focus();
    };
    return el("button", { type: "button", class: "example", onclick: use }, text);
  }

  #describeModel() {
    const model = this.models?.find(({ id }) => id === this.fields.model.value);
    const [height, width] = [model?.image_size].flat(2);
    this.fields.height.placeholder = height ?? "model's own";
    this.fields.width.placeholder = width ?? height ?? "model's own";
    this.rarity.offer(model?.minority_levels);
    say(document.getElementById("model-hint"), model?.licence && `Licence: ${model.licence}`);
  }
}
