/** Files that readers choose, on their way to the service. */

import { ApiError } from "./api.js";

/** A file's bytes as JSON can carry them. */
export function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new ApiError(0, `${file.name} cannot be read; choose it again.`));
    reader.readAsDataURL(file);
  });
}
