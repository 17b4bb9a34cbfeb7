/** Lists of models, and of anything else that a spec of old may name. */

import { el } from "./dom.js";

/** Fills a list with models; what was chosen stays so. */
export function fillModels(list, models) {
  if (models.length === 0) return;
  const chosen = list.value;
  list.replaceChildren(...models.map(({ id }) => el("option", { value: id }, id)));
  choose(list, chosen);
}

/** Chooses an option, which is added if the service no longer lists it. */
export function choose(list, value) {
  if (!value) return;
  if (![...list.options].some((option) => option.value === value)) list.append(el("option", { value }, value));
  list.value = value;
}
