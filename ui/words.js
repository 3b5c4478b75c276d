// Words in the reader's language. The English text is the key; {0}, {1} are filled in.
import { zh } from "./zh.js";

const KEPT = "walhook.language";

function kept() {
  try {
    return localStorage.getItem(KEPT);
  } catch {
    return null; // a browser that keeps nothing
  }
}

const wanted = kept() ?? (navigator.languages ?? [navigator.language]).find((one) => /^(zh|en)/i.test(one)) ?? "en";

export const language = /^zh/i.test(wanted) ? "zh" : "en";
document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";

export function t(text, ...values) {
  const said = language === "zh" ? (zh[text] ?? text) : text;
  return said.replace(/\{(\d)\}/g, (_, place) => String(values[Number(place)] ?? ""));
}

// How an endpoint does comes in words, with a number in some of them.
export function condition(words) {
  const [, before, count, after] = /^(.*?)(\d+)(.*)$/.exec(words ?? "") ?? [];
  const key = `${before}{0}${after}`;
  return zh[key] ? t(key, count) : t(words);
}

export function switchLanguage() {
  try {
    localStorage.setItem(KEPT, language === "zh" ? "en" : "zh");
  } catch {
    return;
  }
  location.reload();
}

const numbers = new Intl.NumberFormat(language === "zh" ? "zh-CN" : "en");
export const number = (value) => (value == null ? "–" : numbers.format(value));

export function bytes(value) {
  if (value == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  let rest = value;
  while (rest >= 1024 && place < units.length - 1) {
    rest /= 1024;
    place += 1;
  }
  return `${place === 0 ? rest : rest.toFixed(1)} ${units[place]}`;
}

// A span of time in its largest unit that fits.
export function span(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "–";
  const abs = Math.abs(seconds);
  if (abs < 0.001) return `${(abs * 1e6).toFixed(0)} µs`;
  if (abs < 1) return `${(abs * 1000).toFixed(abs < 0.01 ? 1 : 0)} ms`;
  if (abs < 90) return `${abs.toFixed(abs < 10 ? 1 : 0)} s`;
  if (abs < 5400) return `${(abs / 60).toFixed(0)} min`;
  if (abs < 129600) return `${(abs / 3600).toFixed(1)} h`;
  return `${(abs / 86400).toFixed(1)} d`;
}
