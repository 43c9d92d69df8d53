// Compares the dashboard with Grafana's types. The test writes the dashboard to dashboard.ts, as literals, so that the compiler also
// reports a property that Grafana does not know. The types do not cover queries (`targets`): a real Prometheus runs them.
import type { Dashboard, GraphFieldConfig, Panel, RowPanel } from "@grafana/schema";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

/** A type with the strings of JSON in place of the members of an enum. */
type Json<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
type Typed<Type extends string, Options, Custom> = Json<Omit<Panel, "type" | "options" | "fieldConfig">> & {
  type: Type;
  options: Json<Options>;
  fieldConfig: Json<{ defaults: Omit<NonNullable<Panel["fieldConfig"]>["defaults"], "custom"> & { custom?: Custom }; overrides: [] }>;
};
export type WithoutPanels = Json<Omit<Dashboard, "panels">>;
export type Row = Json<RowPanel>;
export type Stat = Typed<"stat", stat.Options, never>;
export type Series = Typed<"timeseries", timeseries.Options, GraphFieldConfig>;
