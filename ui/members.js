// Who delivers for a source that several processes share: members, their partitions, and partitions without an owner.
import { html } from "./preact.js";
import * as api from "./api.js";
import { Badge, Data, Loaded, Rows, Time, useLoad } from "./parts.js";
import { t } from "./words.js";

export function Members() {
  const load = useLoad(() => api.get("/api/v1/members"), [], 5);
  // Most sources are not shared, and have no members to speak of.
  if (!load.data?.partitions) return null;
  return html`<section id="members"><h2>${t("Members")}</h2>
    <${Loaded} of=${load}>${({ partitions, members, unowned, at_source: held }) => html`
      ${unowned.length > 0 && html`<p class="problem">${t("Nobody delivers for partitions {0} of {1}: start a worker, with walhook run --role deliver", unowned.join(", "), partitions)}.</p>`}
      ${held.length > 0 && html`<p class="quiet">${t("With whoever has the slot: partitions {0} of {1}", held.join(", "), partitions)}.</p>`}
      ${unowned.length + held.length === 0 && html`<p class="well">${t("Each of the {0} partitions has an owner", partitions)}.</p>`}
      <${Rows} head=${[t("Member"), t("State"), t("Partitions"), t("Address"), t("Since"), t("Last seen")]} label=${t("Members")} empty=${t("Nobody delivers")}
        rows=${members.map((one) => ({ key: one.name, tone: one.is_alive ? "" : "bad", cells: [html`<${Data} of=${one.name} />`, html`<${Badge} of=${one.is_alive ? "alive" : "not seen"} tone=${one.is_alive ? "good" : "bad"} />`,
          one.partitions.join(", ") || t("none"), html`<${Data} of=${one.address} />`, html`<${Time} at=${one.started_at} />`, html`<${Time} at=${one.seen_at} />`] }))} />`}<//></section>`;
}
