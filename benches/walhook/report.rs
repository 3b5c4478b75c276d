//! What was measured, as a table for people and as JSON for programs.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;
use serde_json::json;

use crate::plot::Chart;

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    /// One value for each run; none if it could not be measured.
    pub(crate) values: Vec<f64>,
    pub(crate) goal: Goal,
    /// The figures behind it, or why there are none.
    pub(crate) detail: String,
}

/// What the value has to reach, and what it aims at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtLeast {
        must: f64,
        aim: f64,
    },
    AtMost {
        must: f64,
        aim: f64,
    },
    /// It is there to be seen, or compared with.
    Open,
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) postgres: String,
    pub(crate) client: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) charts: Vec<Chart>,
}

impl Row {
    /// The middle one; the mean of the two middle ones of an even number.
    pub(crate) fn median(&self) -> Option<f64> {
        median(&self.values)
    }

    fn verdict(&self) -> &'static str {
        let Some(value) = self.median() else { return "not measured" };
        let (reaches_must, reaches_aim) = match self.goal {
            Goal::AtLeast { must, aim } => (value >= must, value >= aim),
            Goal::AtMost { must, aim } => (value <= must, value <= aim),
            Goal::Open => return "",
        };
        match (reaches_must, reaches_aim) {
            (_, true) => "aim",
            (true, false) => "must",
            (false, false) => "MISSED",
        }
    }

    /// How the value compares with what it must be, that, and what it aims at.
    fn bounds(&self) -> Option<(&'static str, f64, f64)> {
        match self.goal {
            Goal::AtLeast { must, aim } => Some((">=", must, aim)),
            Goal::AtMost { must, aim } => Some(("<=", must, aim)),
            Goal::Open => None,
        }
    }
}

impl Report {
    /// A table in Markdown, which reads well in a terminal too.
    pub(crate) fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or_default();
        let mut text = format!(
            "{}\n{}\ncomparison client: {}\n\n| {:width$} | value | must | aim | reached | behind it |\n| {:-<width$} | ---: | ---: | ---: | --- | --- |\n",
            self.machine, self.postgres, self.client, "measured", ""
        );
        for row in &self.rows {
            let bounds = row.bounds();
            let must = bounds.map_or_else(String::new, |(sign, must, _)| format!("{sign} {must}"));
            let aim = bounds.map_or_else(String::new, |(_, _, aim)| aim.to_string());
            let value = row.median().map_or_else(|| String::from("-"), shown);
            let (unit, verdict) = (row.unit, row.verdict());
            let line = format!(
                "| {:width$} | {value}{unit} | {must} | {aim} | {verdict} | {} |\n",
                row.what, row.detail
            );
            text.push_str(&line);
        }
        text
    }

    /// Writes `walhook.json` and the plots.
    pub(crate) fn save(&self, dir: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(dir)?;
        let rows: Vec<Value> = self.rows.iter().map(json_of).collect();
        let charts: Vec<Value> = self.charts.iter().map(Chart::json).collect();
        let whole = json!({
            "machine": self.machine,
            "postgres": self.postgres,
            "comparison_client": self.client,
            "rows": rows,
            "charts": charts,
        });
        fs::write(dir.join("walhook.json"), serde_json::to_string_pretty(&whole)? + "\n")?;
        for chart in &self.charts {
            fs::write(dir.join(format!("{}.svg", chart.name)), chart.svg())?;
        }
        Ok(())
    }
}

fn json_of(row: &Row) -> Value {
    let (must, aim) = row.bounds().map(|(_, must, aim)| (must, aim)).unzip();
    json!({
        "measured": row.what, "unit": row.unit.trim(), "median": row.median(), "values": row.values,
        "must": must, "aim": aim, "verdict": row.verdict(), "detail": row.detail,
    })
}

pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// Two decimals where they mean something.
pub(crate) fn shown(value: f64) -> String {
    let mut text = String::new();
    let written =
        if value.abs() >= 100.0 { write!(text, "{value:.0}") } else { write!(text, "{value:.2}") };
    debug_assert!(written.is_ok(), "a String takes everything");
    text
}
