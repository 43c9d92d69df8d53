//! Checks deploy/grafana/hookhold.json.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::Value;

use crate::prometheus::Prometheus;
use crate::rules::root;

/// Asserts that each query of the dashboard has returned a number at some time of the test.
pub fn assert_each_query_returns_data(prometheus: &Prometheus) {
    let mut empty = Vec::new();
    let queries = queries();
    assert!(queries.len() > 25, "{} queries", queries.len());
    for (title, query) in queries {
        let filled = ["instance", "source", "topic"].iter().fold(query, |query, name| query.replace(&format!("${name}"), ".*"));
        let filled = filled.replace("$__rate_interval", "10s").replace("$__range", "10m");
        assert!(!filled.contains('$'), "{title}: a variable without a value: {filled}");
        let series = prometheus.query_range(&filled).unwrap_or_default();
        let values = series.iter().flat_map(|series| series["values"].as_array().into_iter().flatten());
        let is_number = |value: &Value| value[1].as_str().is_some_and(|text| text.parse::<f64>().is_ok_and(f64::is_finite));
        if !values.clone().any(is_number) {
            empty.push(format!("{title}: {filled}"));
        }
    }
    assert_eq!(empty, Vec::<String>::new(), "queries without data");
}

/// Compares the dashboard with the types of `@grafana/schema`: its own fields, its variables, its rows, and the options and field
/// options of each panel. A field that Grafana does not know is an error. The types say nothing about queries, which a real
/// Prometheus runs, and nothing about the layout and the references between the parts, which other tests check.
#[test]
fn the_dashboard_has_the_types_of_grafana() {
    let mut document = dashboard();
    let schema = root().join("tests/alerts/schema");
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/ can be written to");
    symlink(schema.join("node_modules"), dir.path().join("node_modules")).expect("target/ can be written to");
    fs::copy(schema.join("check.ts"), dir.path().join("check.ts")).expect("target/ can be written to");
    let compile = |document: &Value| {
        let mut rest = document.clone();
        let panels = rest.as_object_mut().and_then(|fields| fields.remove("panels")).expect("the dashboard has panels");
        let kind = |panel: &Value| match panel["type"].as_str() {
            Some("row") => "Row",
            Some("stat") => "Stat",
            _ => "Series",
        };
        let panels = panels.as_array().expect("a list").iter().enumerate();
        let constants = panels.map(|(number, panel)| format!("export const panel{number}: {} = {panel};\n", kind(panel)));
        let imports = "import type { WithoutPanels, Row, Series, Stat } from \"./check\";\n";
        let text = format!("{imports}export const rest: WithoutPanels = {rest};\n{}", constants.collect::<String>());
        fs::write(dir.path().join("dashboard.ts"), text).expect("target/ can be written to");
        let mut node = Command::new("node");
        node.current_dir(dir.path()).arg("node_modules/typescript/bin/tsc");
        node.args("--noEmit --strict --skipLibCheck --module esnext --moduleResolution bundler dashboard.ts".split(' '));
        let output = node.output().expect("node starts: tests/run installs it");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (is_valid, errors) = compile(&document);
    assert!(is_valid, "{errors}");
    document["panels"][1]["options"]["colorMode"] = "no such mode".into();
    document["panels"][12]["fieldConfig"]["defaults"]["custom"]["noSuchField"] = 1.into();
    document["noSuchField"] = 1.into();
    let (is_valid, errors) = compile(&document);
    assert!(!is_valid && errors.lines().filter(|line| line.contains("error TS")).count() == 3, "three planted errors: {errors}");
}

#[test]
fn each_panel_has_a_title_a_unit_and_a_place_of_its_own() {
    let (mut titles, mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let panels = panels();
    assert!(panels.len() > 30, "{} panels", panels.len());
    for panel in panels {
        let title = panel["title"].as_str().unwrap_or_default().to_owned();
        assert!(!title.is_empty() && titles.insert(title.clone()), "{title}: another panel has this title, or there is none");
        assert!(ids.insert(panel["id"].as_u64()), "{title}: another panel has this id");
        let [x, y, width, height] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a number"));
        assert!(x + width <= 24, "{title}: wider than the page");
        let area = (y..y + height).flat_map(|row| (x..x + width).map(move |column| (row, column)));
        area.for_each(|cell| assert!(cells.insert(cell), "{title}: covers another panel"));
        if panel["type"] == "row" {
            continue;
        }
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default();
        assert!(UNITS.contains(&unit), "{title}: unknown unit {unit:?}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let targets = panel["targets"].as_array().expect("a list");
        let labels: BTreeSet<_> = targets.iter().map(|target| target["refId"].as_str()).collect();
        assert!(!targets.is_empty() && labels.len() == targets.len(), "{title}");
        for target in targets {
            assert!(target["datasource"]["uid"] == "${datasource}", "{title}");
            let query = target["expr"].as_str().unwrap_or_default();
            assert!(query.contains("$instance"), "{title}: does not select the instance: {query}");
        }
    }
    let variables = dashboard()["templating"]["list"].as_array().cloned().expect("a list");
    let names: Vec<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["datasource", "instance", "source", "topic"]);
}

/// Returns each query with the title of its panel.
fn queries() -> Vec<(String, String)> {
    let panels = panels();
    let targets =
        panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten().map(move |target| (panel, target)));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    targets.map(|(panel, target)| (text(&panel["title"]), text(&target["expr"]))).collect()
}

fn panels() -> Vec<Value> {
    dashboard()["panels"].as_array().cloned().expect("a list")
}

fn dashboard() -> Value {
    let text = fs::read_to_string(root().join("deploy/grafana/hookhold.json")).expect("the dashboard is readable");
    serde_json::from_str(&text).expect("JSON")
}

/// Units of Grafana that the dashboard uses. Grafana shows an unknown unit as text behind the number, without an error.
const UNITS: &[&str] = &["short", "s", "bytes", "Bps", "percentunit", "reqps", "ops", "cps"];
