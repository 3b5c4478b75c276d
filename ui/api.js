// Questions to walhook. What is refused comes as an Error with walhook's own words.

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

// What is to be done when the token is wanted.
let onToken = () => {};
export function whenTokenIsWanted(then) {
  onToken = then;
}

async function ask(method, path, body) {
  const headers = { accept: "application/json" };
  if (method !== "GET") headers["x-walhook"] = "page";
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Refused(0, "walhook does not answer");
  }
  const text = await answer.text();
  let read = null;
  try {
    read = text === "" ? null : JSON.parse(text);
  } catch {
    read = null;
  }
  if (answer.ok) return read;
  if (answer.status === 401 && path !== "/login") onToken();
  const errors = (read?.errors ?? []).map((one) => `${one.key}: ${one.detail}`);
  throw new Refused(answer.status, [read?.detail ?? `${answer.status} ${answer.statusText}`, ...errors].join("\n"));
}

function query(fields) {
  const kept = Object.entries(fields ?? {}).filter(([, value]) => value !== "" && value != null);
  const text = new URLSearchParams(kept).toString();
  return text === "" ? "" : `?${text}`;
}

export const get = (path, fields) => ask("GET", path + query(fields));
export const post = (path, body = {}) => ask("POST", path, body);
export const bare = (path) => ask("POST", path);
export const remove = (path) => ask("DELETE", path);
export const put = (path, body) => ask("PUT", path, body);
export const patch = (path, body) => ask("PATCH", path, body);
export const live = (fields) => new EventSource("/api/v1/live" + query(fields));
export const part = (name) => encodeURIComponent(name);
