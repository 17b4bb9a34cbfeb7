/** One image, large, with everything its record says. */

import { stringify } from "./api.js";
import { el, plural } from "./dom.js";
import { FILES, Overlay } from "./overlay.js";
import { Slide } from "./slide.js";
import { aboutItem, beside, isBundle, isSlide, pictureUrl } from "./tile.js";

const LABELS = {
  prompt: "Prompt",
  negative_prompt: "Stay away from",
  seed: "Seed",
  model: "Model",
  scheduler: "Scheduler",
  num_inference_steps: "Steps",
  guidance_scale: "Guidance",
  width: "Width",
  height: "Height",
  num_images: "Made together",
  software: "Software",
  torch_version: "PyTorch",
  source_sha256: "Picture, SHA-256",
  weight_sha256: "Weights, SHA-256",
};
const HIDDEN = new Set(["settings", "synthetic", "boxes", "files"]); // or shown otherwise
const SOON_MS = 60000;

export class Viewer {
  constructor(dialog) {
    const find = (selector) => dialog.querySelector(selector);
    this.dialog = dialog;
    this.picture = find(".stage img");
    this.title = find("h2");
    this.list = find("dl");
    this.said = find(".said");
    this.slide = new Slide(find(".slide"));
    this.overlay = new Overlay(find(".overlay"));
    this.notices = { synthetic: find(".notice.synthetic"), real: find(".notice.real") };
    this.files = find(".files");
    this.links = { png: find(".png"), dicom: find(".dicom"), tiff: find(".tiff") };
    this.turns = { "-1": find(".previous"), 1: find(".next") };
    this.reuse = find(".reuse");
    this.copy = find(".copy");
    this.close = find(".close");
    this.close.addEventListener("click", () => dialog.close());
    find(".previous").addEventListener("click", () => this.#turn(-1));
    find(".next").addEventListener("click", () => this.#turn(1));
    this.reuse.addEventListener("click", () => this.#reuse());
    this.copy.addEventListener("click", () => this.#copy());
    for (const link of Object.values(this.links)) link.addEventListener("click", (event) => this.#download(event, link));
    dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
    dialog.addEventListener("close", () => this.#clear());
    dialog.addEventListener("keydown", ({ key, target }) => {
      const moving = target.closest(".slide, .overlay") !== null; // what is shown, not to another
      if (!moving) this.#turn({ ArrowLeft: -1, ArrowRight: 1 }[key] ?? 0);
    });
  }

  async open(card, index) {
    this.card = card;
    this.dialog.showModal(); // first: a slide is laid out in the room it has
    this.#show(index);
    if (this.item.record && !this.#ending) return;
    await card.refresh().catch(() => {});
    if (this.card === card && this.index === index) this.#show(index);
  }

  get item() {
    return this.card.items[this.index];
  }

  /** Whether the signed links are about to end, or have ended. */
  get #ending() {
    return Date.parse(this.item.image.expires_at) < Date.now() + SOON_MS;
  }

  #show(index) {
    this.index = index;
    const { image, record, seed } = this.item;
    const { job, view } = this.card;
    this.title.textContent = `Image ${index + 1} of ${job.num_items}`;
    this.said.textContent = "";
    this.#showPicture(image, aboutItem(view, this.item));
    this.#offerFiles(image, record, `${job.id}-${index}`);
    const ways = { png: "&format=png", dicom: "&format=dicom", tiff: "" };
    for (const [format, ending] of [["png", "png"], ["dicom", "dcm"], ["tiff", "ome.tif"]]) {
      this.links[format].href = image.url + ways[format];
      this.links[format].download = `${job.id}-${index}.${ending}`; // as the service itself names it
      this.links[format].hidden = isBundle(image) || isSlide(image) !== (format === "tiff");
    }
    this.list.replaceChildren(...rows(record ?? { seed }, image));
    this.reuse.hidden = !view || Boolean(view.wholeOnly);
    this.reuse.disabled = this.copy.disabled = !record;
    for (const [way, button] of Object.entries(this.turns)) {
      const last = this.#neighbour(Number(way)) === null;
      if (last && document.activeElement === button) this.close.focus(); // or no key would be heard
      button.disabled = last;
    }
  }

  #showPicture(image, about) {
    this.#clear();
    const pair = this.item.record?.files?.includes("mask.png"); // a picture with its label
    const [slide, bundle] = [isSlide(image), isBundle(image) && !pair];
    this.picture.hidden = slide || bundle;
    this.notices.synthetic.hidden = bundle;
    this.notices.real.hidden = !bundle;
    if (slide) {
      this.slide.open(image, about).catch((error) => (this.said.textContent = error.message));
    } else if (bundle) {
      this.overlay.open(image, this.item.record);
    } else {
      this.picture.src = pictureUrl(image);
      this.picture.alt = about;
    }
  }

  #clear() {
    this.slide.close();
    this.overlay.close();
  }

  /** Links to what a result of several files has. */
  #offerFiles(image, record, stem) {
    const link = (text, href, name) => el("a", { class: "button", href, download: `${stem}${name}`, onclick: (event) => this.#download(event, event.target) }, text);
    const known = isBundle(image) ? (record?.files ?? []).filter((name) => name in FILES) : [];
    const links = known.map((name) => link(FILES[name], beside(image.url, `/files/${name}`), `-${name}`));
    if (isBundle(image)) links.push(link("All files (ZIP)", image.url, ".zip"));
    this.files.replaceChildren(...links);
  }

  /** The next image that there is, in one direction. */
  #neighbour(way) {
    const { items } = this.card;
    for (let i = this.index + way; i >= 0 && i < items.length; i += way) if (items[i]?.image) return i;
    return null;
  }

  #turn(way) {
    const index = way === 0 ? null : this.#neighbour(way);
    if (index !== null) this.#show(index);
  }

  #reuse() {
    this.dialog.close();
    this.card.view.fill({ ...this.item.record, n: 1 });
  }

  async #copy() {
    const text = stringify(this.item.record, 2);
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      this.#copyOldWay(text); // the clipboard is closed to pages without TLS
    }
    this.said.textContent = "Copied";
  }

  #copyOldWay(text) {
    const box = el("textarea", { class: "unseen" });
    box.value = text;
    this.dialog.append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
    this.copy.focus();
  }

  /** Follows a link only while it holds; otherwise fetches new ones and follows that. */
  async #download(event, link) {
    if (!this.#ending) return;
    event.preventDefault();
    try {
      await this.card.refresh();
      this.#show(this.index);
      const links = [...this.dialog.querySelectorAll("a[download]")]; // those of files are new ones
      if (!this.#ending) links.find(({ download }) => download === link.download)?.click();
    } catch (error) {
      this.said.textContent = error.message;
    }
  }
}

/** Terms and values of a record, the well-known ones first. */
function rows(record, image) {
  const known = Object.keys(LABELS).filter((key) => key in record);
  const others = Object.keys(record).filter((key) => !(key in LABELS || HIDDEN.has(key)));
  const entries = [...known, ...others].map((key) => [LABELS[key] ?? key.replaceAll("_", " "), record[key]]);
  const own = Object.entries(record.settings ?? {}).filter(([key]) => !(key in record));
  const settings = own.map(([key, value]) => [key.replaceAll("_", " "), value]);
  const file = [
    ["File, SHA-256", image.sha256],
    ["File size", plural(image.bytes, "byte")],
  ];
  return [...entries, ...settings, ...file]
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, String(value))]);
}
