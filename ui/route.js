// Where we are is the part of the address behind #: a screen, perhaps a name, and every filter. So each
// view has a link that can be sent to somebody else.
import { useEffect, useState } from "./preact.js";

export function read() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  return { screen: parts[0] || "overview", name: parts[1] ?? "", query: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

export function link(screen, name, query = {}) {
  const named = name ? `/${encodeURIComponent(name)}` : "";
  const kept = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  const asked = new URLSearchParams(kept).toString();
  return `#/${screen}${named}${asked ? `?${asked}` : ""}`;
}

export function go(screen, name, query) {
  location.hash = link(screen, name, query);
}

// Another filter in the same place: no new step to go back over while somebody types.
export function refine(query) {
  const { screen, name } = read();
  history.replaceState(null, "", link(screen, name, query));
  dispatchEvent(new HashChangeEvent("hashchange"));
}

export function useRoute() {
  const [route, setRoute] = useState(read());
  useEffect(() => {
    const changed = () => setRoute(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}
