/** One form at a time; which one is kept in the address, so that it can be linked to. */

export class Tabs {
  /** root: holds the tabs, each naming its panel in aria-controls, and these panels. */
  constructor(root) {
    this.tabs = [...root.querySelectorAll("[role=tab]")];
    for (const tab of this.tabs) {
      tab.addEventListener("click", () => this.#choose(tab));
      tab.addEventListener("keydown", (event) => this.#walk(event, tab));
    }
    this.show(location.hash.slice(1));
    addEventListener("hashchange", () => this.show(location.hash.slice(1)));
  }

  /** Shows the panel of that id; another word changes nothing. */
  show(id) {
    if (!this.tabs.some((tab) => panelOf(tab).id === id)) return;
    for (const tab of this.tabs) {
      const shown = panelOf(tab).id === id;
      tab.setAttribute("aria-selected", String(shown));
      tab.tabIndex = shown ? 0 : -1;
      panelOf(tab).hidden = !shown;
    }
  }

  #choose(tab) {
    this.show(panelOf(tab).id);
    history.replaceState(null, "", `#${panelOf(tab).id}`);
    tab.focus();
  }

  #walk(event, tab) {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way) return;
    event.preventDefault();
    const { length } = this.tabs;
    this.#choose(this.tabs[(this.tabs.indexOf(tab) + way + length) % length]);
  }
}

function panelOf(tab) {
  return document.getElementById(tab.getAttribute("aria-controls"));
}
