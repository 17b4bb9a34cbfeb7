/** The view that maps where chest X-rays depart from healthy anatomy. */

import { whole } from "./api.js";
import { announce, el, plural, say } from "./dom.js";
import { base64 } from "./files.js";
import { JobForm } from "./form.js";
import { choose, fillModels } from "./models.js";
import { summary } from "./overlay.js";

const TASKS = ["text-to-image"];
const METHODS = {
  autopaint: "AutoPaint: find, paint, look again",
  patchwise: "Patch by patch",
  autoddpm: "AutoDDPM: mask, stitch, resample",
  thor: "THOR: guided by the picture",
  single_step: "A single step",
};
const SLOW = { patchwise: "8 times", autoddpm: "10 times", thor: "8 times" };
const RATES = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5];
const USUAL_RATE = 0.05;
const MAX_PICTURES = 16;
const MAX_BYTES = 16 * 2 ** 20; // of all together: what the service takes at once

export class AnomalyMaps {
  task = "anomaly-maps";
  label = "Anomaly map";
  unit = "step";

  constructor(api, onJob, tabs) {
    this.api = api;
    this.tabs = tabs;
    this.form = document.getElementById("anomaly-maps");
    this.fields = this.form.elements;
    const { method, images, model } = this.fields;
    method.replaceChildren(...Object.entries(METHODS).map(([id, name]) => el("option", { value: id }, name)));
    new JobForm(this.form, { api, task: this.task, read: () => this.read(), onJob });
    images.addEventListener("change", () => this.#checkFiles());
    method.addEventListener("change", () => this.#offer());
    model.addEventListener("change", () => this.#offer());
    this.#offer();
  }

  /** Fills the list of models; without one, says what is missing. */
  async load() {
    const { data } = await this.api.json("/v1/models");
    this.models = data.filter((model) => !model.task || TASKS.includes(model.task));
    fillModels(this.fields.model, this.models);
    this.form.querySelector(".unserved").hidden = this.models.length > 0;
    this.#offer();
  }

  /** The spec of a job, as the form says it, with its pictures in base64. */
  async read() {
    const { images, method, threshold, threshold_fpr, prompt, seed, model } = this.fields;
    return {
      images: await Promise.all([...images.files].map(base64)),
      method: method.value,
      previews: true,
      ...(threshold.disabled ? { threshold_fpr: Number(threshold_fpr.value) } : { threshold: threshold.valueAsNumber }),
      ...(prompt.value.trim() && { prompt: prompt.value.trim() }),
      ...(seed.value && { seed: whole(seed.value) }),
      ...(model.value && { model: model.value }),
    };
  }

  /** Fills the form from a spec or a record; pictures have to be chosen again. */
  fill(settings) {
    const all = { ...settings.settings, ...settings };
    choose(this.fields.model, all.model);
    choose(this.fields.method, all.method);
    this.#offer();
    this.fields.prompt.value = all.prompt ?? "";
    this.fields.seed.value = String(all.seed ?? "");
    if (all.threshold_fpr != null) choose(this.fields.threshold_fpr, String(all.threshold_fpr));
    if (all.threshold != null) this.fields.threshold.value = all.threshold;
    this.form.querySelector("details").open = true;
    this.tabs.show(this.task);
    this.form.scrollIntoView({ block: "start" });
    this.fields.images.focus();
    announce("The form has these settings now; choose the pictures again");
  }

  /** A job in a few words: its title, and the settings that matter. */
  describe(spec) {
    const limit = spec.threshold ?? null;
    const facts = [
      METHODS[spec.method] ?? spec.method,
      limit === null ? `${percent(spec.threshold_fpr ?? USUAL_RATE)} false alarms` : `above ${limit}`,
      spec.model,
    ];
    if (spec.study) return { title: `Anomaly maps of a study in ${spec.study.pacs}`, facts: facts.filter(Boolean) };
    const { length } = spec.images;
    return { title: length === 1 ? "Anomaly map" : `Anomaly maps of ${plural(length, "picture")}`, facts: facts.filter(Boolean) };
  }

  caption(record) {
    return summary(record);
  }

  /** Rates of false alarms where the model is calibrated for them, or else a plain threshold. */
  #offer() {
    const { method, model, threshold, threshold_fpr } = this.fields;
    const known = this.models?.find(({ id }) => id === model.value)?.anomaly_rates?.[method.value];
    const rates = known ? RATES.filter((rate) => rate >= known[0] && rate <= known[1]) : [];
    const chosen = threshold_fpr.value || String(USUAL_RATE);
    threshold_fpr.replaceChildren(...rates.map((rate) => el("option", { value: rate }, `${percent(rate)} of healthy pictures`)));
    if (rates.includes(Number(chosen))) threshold_fpr.value = chosen;
    for (const [control, shown] of [[threshold_fpr, rates.length > 0], [threshold, rates.length === 0]]) {
      control.disabled = !shown;
      control.closest(".field").hidden = !shown;
    }
    say(document.getElementById("maps-method-hint"), SLOW[method.value] && `Takes ${SLOW[method.value]} as long as AutoPaint`);
  }

  /** What the service would refuse is not sent: it may be many megabytes. */
  #checkFiles() {
    const { images } = this.fields;
    const files = [...images.files];
    const bytes = files.reduce((sum, { size }) => sum + size, 0);
    let wrong = "";
    if (files.length > MAX_PICTURES) wrong = `${files.length} pictures, but at most ${MAX_PICTURES} are mapped at once`;
    else if (bytes > MAX_BYTES) wrong = `${plural(files.length, "picture")} with more than ${MAX_BYTES / 2 ** 20} MB; choose fewer or smaller ones`;
    images.setCustomValidity(wrong);
  }
}

function percent(share) {
  return `${Math.round(1000 * share) / 10} %`;
}
