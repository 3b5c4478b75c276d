// Lines over time, by uPlot. Nothing of it is a style in the document: it sets properties by script.
import { html, useEffect, useRef } from "./preact.js";
import { language, t } from "./words.js";

const DATES = language === "zh" ? "{MM}-{DD} {HH}:{mm}:{ss}" : "{DD} {MMM} {HH}:{mm}:{ss}";

const two = (value) => String(value).padStart(2, "0");
const hour = (at) => {
  const moment = new Date(at * 1000);
  return `${two(moment.getHours())}:${two(moment.getMinutes())}`;
};

// `series`: label, values, how a value is said, and the name of its colour in page.css.
export function Chart({ title, times, series }) {
  const box = useRef(null);
  const drawn = useRef(null);
  const data = [times.map((at) => at / 1000), ...series.map((one) => one.values.map((value) => value ?? null))];
  useEffect(() => {
    if (times.length < 2) return undefined;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const said = series[0].said ?? String;
    const probe = document.createElement("span");
    document.body.append(probe);
    // light-dark() has to be worked out before a canvas understands it.
    const plain = (name) => {
      probe.style.color = `var(--${name})`;
      return getComputedStyle(probe).color || colour(name);
    };
    const ink = plain("quiet");
    const line = plain("line");
    const options = {
      width: box.current.clientWidth || 320,
      height: 150,
      legend: { live: true },
      cursor: { y: false },
      scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.1 : 1] } },
      axes: [
        { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line }, values: (_, all) => all.map(hour) },
        { stroke: ink, size: 78, grid: { stroke: line, width: 1 }, ticks: { stroke: line }, values: (_, all) => all.map((value) => said(value)) },
      ],
      series: [
        { label: t("Time"), value: uPlot.fmtDate ? (_, at) => (at == null ? "–" : uPlot.fmtDate(DATES)(new Date(at * 1000))) : undefined },
        ...series.map((one) => ({
          label: one.label,
          stroke: plain(one.colour),
          width: 1.5,
          points: { show: false },
          value: (_, value) => (value == null ? "–" : (one.said ?? String)(value)),
        })),
      ],
    };
    probe.remove();
    const plot = new uPlot(options, data, box.current);
    drawn.current = plot;
    const watch = new ResizeObserver(() => plot.setSize({ width: box.current.clientWidth, height: 150 }));
    watch.observe(box.current);
    return () => {
      watch.disconnect();
      plot.destroy();
      drawn.current = null;
    };
  }, [series.length, times.length < 2]);
  useEffect(() => {
    drawn.current?.setData(data);
  });
  const last = series.map((one) => {
    const value = one.values.at(-1);
    return `${one.label} ${value == null ? "–" : (one.said ?? String)(value)}`;
  });
  return html`<figure class="chart" role="img" aria-label="${title}: ${last.join(", ")}">
    <figcaption>${title}</figcaption>
    ${times.length < 2 ? html`<p class="quiet empty">${t("The first points come in a few seconds")}</p>` : html`<div ref=${box} class="plot"></div>`}
  </figure>`;
}
