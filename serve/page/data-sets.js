/** The view that makes data sets of manifests in configured stores: a spec as JSON, and its jobs. */

import { ApiError, parse, stringify } from "./api.js";
import { announce, el } from "./dom.js";
import { JobForm } from "./form.js";

const EXAMPLES = {
  Variations: {
    task: "augment",
    manifest: { path: "lab:cxr", split: "train" },
    params: { operation: "vary" },
    n: 2,
    gates: { reference: "lab:cxr" },
  },
  "From prompts": { task: "generate", manifest: { path: "lab:prompts.csv" }, gates: { reference: "lab:cxr" } },
  "Anomaly maps": { task: "anomaly", manifest: { path: "lab:cxr", split: "test" } },
};
const VERBS = { augment: "Augmentation", generate: "Images", anomaly: "Anomaly maps" };

export class DataSets {
  task = "data-set";
  noun = "image";
  unit = "step";
  wholeOnly = true; // one image alone does not say how its job was asked for

  constructor(api, onJob, tabs) {
    this.tabs = tabs;
    this.form = document.getElementById("data-sets");
    this.spec = this.form.elements.spec;
    new JobForm(this.form, { api, task: this.task, read: () => this.read(), onJob });
    const examples = Object.entries(EXAMPLES).map(([name, spec]) =>
      el("button", { type: "button", class: "example", onclick: () => this.#write(spec) }, name),
    );
    this.form.querySelector(".examples").append(...examples);
    this.#write(EXAMPLES.Variations);
  }

  /** Nothing is needed of the service before a job is made. */
  async load() {}

  read() {
    try {
      return parse(this.spec.value);
    } catch (error) {
      throw new ApiError(422, `This is no JSON: ${error.message}`, { field: "spec" });
    }
  }

  /** Fills the form from the spec of a job. */
  fill(spec) {
    const known = Object.entries(spec).filter(([, value]) => value !== null && value !== false);
    this.#write(Object.fromEntries(known));
    this.tabs.show("data-sets");
    this.form.scrollIntoView({ block: "start" });
    this.spec.focus();
    announce("The form has these settings now");
  }

  /** A job in a few words: its title, and the settings that matter. */
  describe(spec) {
    const facts = [
      spec.params.operation ?? spec.params.method,
      spec.n > 1 && `${spec.n} of each row`,
      spec.gates && `gates by ${spec.gates.reference}`,
      spec.model,
    ];
    return { title: `${VERBS[spec.task]} over ${spec.manifest.path}`, facts: facts.filter(Boolean) };
  }

  /** Of the row of a sample, what is told of one image; null of one that was given up. */
  own(row) {
    if (!row.record) return null;
    const { id, source, labels, attempts } = row;
    return { row: id, source, labels: labels.join(", "), attempts, ...row.record };
  }

  /** What gates have let pass so far, in words; nothing without gates. */
  accepted({ quality }) {
    if (!quality) return "";
    const { items, given_up, first } = quality.overall;
    return `Gates kept ${items - given_up} of ${items}, ${Math.round(100 * first.value)} % at the first attempt`;
  }

  #write(spec) {
    this.spec.value = stringify(spec, 2);
    this.spec.dispatchEvent(new Event("input", { bubbles: true }));
  }
}
