//! Plots: grouped bars, written as SVG by hand.

use serde_json::Value;
use serde_json::json;

use crate::report::shown;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
/// Left, right, top and bottom of the bars.
const FRAME: (f64, f64, f64, f64) = (20.0, 620.0, 60.0, 260.0);
const COLOURS: [&str; 5] = ["#2f6f9f", "#d98032", "#5a9a4b", "#a04a6a", "#777777"];

/// Bars in groups, one bar for each series in each group.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    /// Of the file.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) series: Vec<String>,
    pub(crate) groups: Vec<(String, Vec<f64>)>,
}

impl Chart {
    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.name, "title": self.title, "series": self.series,
            "groups": self.groups.iter().map(|(label, values)| json!({"label": label, "values": values})).collect::<Vec<_>>(),
        })
    }

    pub(crate) fn svg(&self) -> String {
        let (left, right, top, bottom) = FRAME;
        let highest =
            self.groups.iter().flat_map(|(_, values)| values).fold(0.0, |a: f64, &b| a.max(b));
        let highest = if highest > 0.0 { highest } else { 1.0 };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
             <text x=\"{left}\" y=\"20\" font-size=\"14\">{}</text>\n\
             <line x1=\"{left}\" y1=\"{bottom}\" x2=\"{right}\" y2=\"{bottom}\" stroke=\"#333\"/>\n",
            escaped(self.title)
        );
        for (at, (name, colour)) in self.series.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let x = left + 110.0 * at as f64;
            svg += &format!(
                "<rect x=\"{x}\" y=\"30\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
                 <text x=\"{}\" y=\"39\">{}</text>\n",
                x + 14.0,
                escaped(name)
            );
        }
        let group_width = (right - left) / self.groups.len().max(1) as f64;
        let bar_width = group_width * 0.8 / self.series.len().max(1) as f64;
        for (at, (label, values)) in self.groups.iter().enumerate() {
            let x = left + group_width * at as f64;
            svg += &format!(
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                x + group_width / 2.0,
                bottom + 16.0,
                escaped(label)
            );
            for (at, (&value, colour)) in values.iter().zip(COLOURS.iter().cycle()).enumerate() {
                let x = x + group_width * 0.1 + bar_width * at as f64;
                let height = (bottom - top - 14.0) * value / highest;
                svg += &format!(
                    "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>\
                     <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"10\">{}</text>\n",
                    bottom - height,
                    bar_width * 0.9,
                    x + bar_width * 0.45,
                    bottom - height - 3.0,
                    shown(value)
                );
            }
        }
        svg + "</svg>\n"
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
