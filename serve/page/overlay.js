/** A map over its picture: fade the picture into the healthy one, and the map in and out. */

import { el, plural } from "./dom.js";
import { beside } from "./tile.js";

/** What readers may download, by its name in a result. */
export const FILES = {
  "image.png": "Picture (PNG)",
  "mask.png": "Mask (PNG)",
  "overlay.png": "Map over picture (PNG)",
  "healthy.png": "Healthy picture (PNG)",
  "map.npy": "Map (NumPy)",
  "record.json": "Boxes and record (JSON)",
  "mask.dcm": "Mask (DICOM SEG)",
  "overlay.dcm": "Map over picture (DICOM)",
};
const SVG = "http://www.w3.org/2000/svg";
const LAYERS = ["picture.png", "healthy.png", "heat.png"];

export class Overlay {
  /** root: an empty element that the map fills while it is open. */
  constructor(root) {
    this.root = root;
  }

  /** Shows a result by its signed link; its record may come later, with the boxes. */
  open(image, record) {
    const about = record ? summary(record) : "";
    this.said = el("p", { class: "scale" }, about);
    const failed = () => (this.said.textContent = "A part of it cannot be loaded; open it again.");
    const [picture, healthy, heat] = LAYERS.map((name) => el("img", { src: beside(image.url, `/files/${name}`), alt: "", onerror: failed }));
    const boxes = drawBoxes(record);
    const layers = el("div", { class: "layers", role: "img", "aria-label": `Anomaly map. ${about}` }, picture, healthy, heat, boxes);
    const faded = this.#slider("Healthy", 0, (share) => {
      healthy.style.opacity = share;
      return share === 0 ? "as it was sent" : share === 1 ? "healthy, synthetic" : `${Math.round(100 * share)} % healthy`;
    });
    const mapped = this.#slider("Map", 0.7, (share) => {
      heat.style.opacity = share;
      return `${Math.round(100 * share)} %`;
    });
    const toggle = el("input", { type: "checkbox", checked: true, onchange: () => boxes.toggleAttribute("hidden", !toggle.checked) });
    const controls = el("div", { class: "controls", role: "group", "aria-label": "What is shown" }, faded, mapped, el("label", { class: "tick" }, toggle, "Boxes"), this.said);
    this.root.replaceChildren(layers, controls);
    this.root.hidden = false;
  }

  close() {
    this.root.hidden = true;
    this.root.replaceChildren();
  }

  /** A slider from 0 to 1; act(share) returns what it stands for, in words. */
  #slider(name, start, act) {
    const words = el("span", { class: "words" });
    const input = el("input", { type: "range", min: 0, max: 1, step: 0.05, value: start, "aria-label": name });
    const apply = () => {
      words.textContent = act(input.valueAsNumber);
      input.setAttribute("aria-valuetext", words.textContent);
    };
    input.addEventListener("input", apply);
    apply();
    return el("label", { class: "fade" }, el("span", {}, name), input, words);
  }
}

/** Where the map exceeds its threshold, in pixels of the picture. */
function drawBoxes(record) {
  const { width = 1, height = 1, boxes = [] } = record ?? {};
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  for (const { x, y, w, h } of boxes) {
    const box = document.createElementNS(SVG, "rect");
    for (const [name, value] of Object.entries({ x, y, width: w, height: h })) box.setAttribute(name, value);
    svg.append(box);
  }
  return svg;
}

/** "Score 0.031, 2 regions above 0.025" */
export function summary({ score, threshold, boxes }) {
  const found = boxes.length ? `${plural(boxes.length, "region")} above` : "nothing above";
  return `Score ${score.toPrecision(2)}, ${found} ${threshold.toPrecision(2)}`;
}
