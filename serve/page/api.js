/** The service's HTTP interface: keys, errors, exact numbers, and jobs followed live. */

const KEY = "medphantom-key";
// A browser opens six connections to one HTTP/1.1 host, over all tabs; streams must leave some.
const MAX_STREAMS = 2;
const POLL_MS = 3000;
const SHORTEST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15000;
// Longer than the service's keep-alive comments are apart: silence means a lost connection.
const SILENCE_MS = 45000;

/** An answer that is no success; status 0 is no answer at all. */
export class ApiError extends Error {
  constructor(status, message, { field = null, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.field = field;
    this.retryAfter = retryAfter; // seconds
  }

  /** Whether the same request may succeed later. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export class Api {
  #askKey;
  #asking = null;
  #declined = 0; // so often the reader had no key to give
  #streams = 0;

  /** askKey(refused: boolean) resolves to a key, or to null if the reader has none. */
  constructor(askKey) {
    this.#askKey = askKey;
  }

  get key() {
    return sessionStorage.getItem(KEY);
  }

  forgetKey() {
    sessionStorage.removeItem(KEY);
  }

  async json(path, options) {
    const response = await this.request(path, options);
    try {
      return parse(await response.text());
    } catch {
      cutOff();
    }
  }

  /** A successful response; asks for a key when one is needed, and throws ApiError otherwise. */
  async request(path, options = {}) {
    const declined = this.#declined;
    for (;;) {
      const key = this.key;
      const response = await send(path, key, options);
      if (response.ok) return response;
      const error = await readError(response);
      const renewed = this.key !== key; // another request has asked meanwhile
      const told = this.#declined !== declined; // they were asked while this was under way
      if (error.status !== 401 || told || !(renewed || (await this.#obtainKey(key)))) throw error;
    }
  }

  async #obtainKey(refused) {
    this.#asking ??= this.#askKey(refused !== null).finally(() => (this.#asking = null));
    const key = await this.#asking;
    if (key) sessionStorage.setItem(KEY, key);
    else this.#declined += 1;
    return Boolean(key);
  }

  /**
   * Follows a job to its end: streams its events, from where they broke off after a lost
   * connection, and looks at the job itself while no stream is to be had.
   *
   * onEvent({seq, kind, data}) gets each event once, in order. look() reads the job anew and
   * resolves to true once it is over. Throws ApiError if the job cannot be followed any more.
   */
  async follow(id, { onEvent, look, signal }) {
    let seq = 0;
    let wait = SHORTEST_WAIT_MS;
    while (!signal.aborted) {
      if (this.#streams >= MAX_STREAMS) {
        wait = POLL_MS;
      } else {
        this.#streams += 1;
        try {
          for await (const event of this.#events(id, seq, signal)) {
            if (event.seq <= seq) continue;
            seq = event.seq;
            wait = SHORTEST_WAIT_MS;
            onEvent(event);
            if (event.kind === "finished") return;
          }
        } catch (error) {
          wait = patience(error, wait, signal);
        } finally {
          this.#streams -= 1;
        }
      }
      try {
        if (await look()) return;
      } catch (error) {
        wait = patience(error, wait, signal);
      }
      // spread out, so that many pages do not return at once after a restart
      await sleep(wait * (0.5 + Math.random() / 2), signal);
      wait = Math.min(2 * wait, LONGEST_WAIT_MS);
    }
  }

  async *#events(id, after, signal) {
    const silence = new AbortController(); // also ends the request when the reader leaves
    const headers = { Accept: "text/event-stream", "Last-Event-ID": String(after) };
    const path = `/v1/jobs/${encodeURIComponent(id)}/events`;
    const either = AbortSignal.any([signal, silence.signal]);
    const response = await this.request(path, { headers, signal: either });
    const late = () => silence.abort(new ApiError(0, "The connection has gone quiet."));
    let timer = setTimeout(late, SILENCE_MS);
    try {
      for await (const events of readEvents(response.body)) {
        clearTimeout(timer);
        timer = setTimeout(late, SILENCE_MS);
        yield* events;
      }
    } finally {
      clearTimeout(timer);
      silence.abort();
    }
  }
}

async function send(path, key, { method = "GET", body, headers = {}, signal }) {
  const all = { Accept: "application/json", ...headers };
  if (key) all.Authorization = `Bearer ${key}`;
  if (body !== undefined) all["Content-Type"] = "application/json";
  const text = body === undefined ? undefined : stringify(body);
  try {
    return await fetch(path, { method, headers: all, body: text, signal, cache: "no-store" });
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw new ApiError(0, `The service cannot be reached (${error.message}).`);
  }
}

async function readError(response) {
  let said = {};
  try {
    said = parse(await response.text()).error ?? {};
  } catch {
    // no JSON: something between us and the service has answered
  }
  const message = said.message ?? `The service answered ${response.status} ${response.statusText}.`;
  const retryAfter = secondsUntil(response.headers.get("Retry-After"));
  return new ApiError(response.status, message, { field: said.field, retryAfter });
}

/** Retry-After is a number of seconds or a date. */
function secondsUntil(header) {
  if (!header) return null;
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : null;
}

/** How long to wait after an error, in ms; throws it again if waiting cannot help. */
function patience(error, wait, signal) {
  if (signal.aborted || !error.passing) throw error;
  return Math.max(wait, 1000 * (error.retryAfter ?? 0));
}

/** Server-sent events of a stream, those of one chunk together; an empty list is a keep-alive. */
async function* readEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let frame = {};
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(cutOff);
      if (done) return;
      // a \r at the end may be the first half of a \r\n
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      const events = [];
      for (const line of lines) {
        if (line === "") {
          if (frame.data) events.push(toEvent(frame));
          frame = {};
        } else if (!line.startsWith(":")) {
          const [, name, text] = /^([^:]*):? ?(.*)$/s.exec(line);
          frame[name] = name === "data" && frame.data ? `${frame.data}\n${text}` : text;
        }
      }
      yield events;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function cutOff() {
  throw new ApiError(0, "The connection was cut off.");
}

function toEvent(frame) {
  return { seq: Number(frame.id), kind: frame.event, data: parse(frame.data) };
}

/** Resolves after some time; rejects with the signal's reason when it is aborted before. */
export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal.addEventListener("abort", stop, { once: true });
  });
}

const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** JSON.parse, but whole numbers beyond 2^53 come as BigInt: a seed that is rounded is another. */
export function parse(text) {
  if (!/\d{16}/.test(text)) return JSON.parse(text);
  const marked = text.replace(TOKEN, (token) => (/^-?\d{16,}$/.test(token) ? `{"$whole":"${token}"}` : token));
  return JSON.parse(marked, (_, value) => (value?.$whole ? whole(value.$whole) : value));
}

/** JSON.stringify, with BigInt as the number it is. */
export function stringify(value, indent) {
  const mark = (_, each) => (typeof each === "bigint" ? `\u0001${each}\u0001` : each);
  return JSON.stringify(value, mark, indent).replace(/"\\u0001(-?\d+)\\u0001"/g, "$1");
}

/** A whole number from its digits, as a Number where that is exact. */
export function whole(digits) {
  const number = Number(digits);
  return Number.isSafeInteger(number) ? number : BigInt(digits);
}
