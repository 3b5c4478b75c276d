//! OpenTelemetry's variables, as its specification for SDKs and for OTLP exporters names them.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use url::Url;

use crate::config::secret::Secret;
use crate::config::settings::TraceSampling;
use crate::config::toml_file::toml_reader::TomlSection;

const SAMPLERS: &str =
    "always_on, always_off, traceidratio, or one of these with parentbased_ before it";

/// The environment, and where its problems are noted.
pub(super) struct OtelVariables<'s, 'a> {
    section: &'s TomlSection<'a>,
}

impl<'s, 'a> OtelVariables<'s, 'a> {
    pub(super) fn new(section: &'s TomlSection<'a>) -> Self {
        Self { section }
    }

    /// A variable's value; an empty one counts as none, as the specification wants it.
    fn text(&self, name: &str) -> Option<String> {
        let text = self.section.notes().env()(name)?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Notes what is wrong with a variable. Values can be secrets, so they are not shown.
    fn refuse<T>(&self, key: &str, variable: &str, message: &str) -> Option<T> {
        self.section.note(key, format!("${variable} {message}"));
        None
    }

    pub(super) fn is_disabled(&self) -> bool {
        self.text("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"))
    }

    /// Whether a signal is sent by OTLP, as it is where nobody says otherwise.
    pub(super) fn is_exported(&self, variable: &str) -> bool {
        match self.text(variable).as_deref() {
            None | Some("otlp") => true,
            Some("none") => false,
            Some(_) => {
                self.refuse::<()>(
                    "signals",
                    variable,
                    "is no exporter of walhook's: set otlp or none",
                );
                false
            }
        }
    }

    pub(super) fn check_protocol(&self) {
        let variable = "OTEL_EXPORTER_OTLP_PROTOCOL";
        if self.text(variable).is_some_and(|protocol| protocol != "http/protobuf") {
            let message = "is not spoken: set http/protobuf, and the collector's port for HTTP, which is 4318";
            self.refuse::<()>("endpoint", variable, message);
        }
    }

    pub(super) fn endpoint(&self) -> Option<Secret<Url>> {
        self.url("OTEL_EXPORTER_OTLP_ENDPOINT")
    }

    pub(super) fn traces_endpoint(&self) -> Option<Secret<Url>> {
        self.url("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    }

    pub(super) fn metrics_endpoint(&self) -> Option<Secret<Url>> {
        self.url("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
    }

    fn url(&self, variable: &str) -> Option<Secret<Url>> {
        let text = self.text(variable)?;
        let is_web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        match Url::parse(&text).ok().filter(is_web) {
            Some(url) => Some(Secret::new(url)),
            None => {
                let message = "is not a web address: write it like http://127.0.0.1:4318";
                self.refuse("endpoint", variable, message)
            }
        }
    }

    pub(super) fn headers(&self) -> HeaderMap {
        let variable = "OTEL_EXPORTER_OTLP_HEADERS";
        let mut headers = HeaderMap::new();
        for (name, value) in self.pairs("headers", variable) {
            let pair = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
            match pair {
                Some((name, mut value)) => {
                    value.set_sensitive(true);
                    headers.insert(name, value);
                }
                None => {
                    self.refuse::<()>("headers", variable, "holds what no header may carry");
                }
            }
        }
        headers
    }

    pub(super) fn attributes(&self) -> Vec<(String, String)> {
        self.pairs("service_name", "OTEL_RESOURCE_ATTRIBUTES")
    }

    /// `key=value,key=value`, values percent-encoded.
    fn pairs(&self, key: &str, variable: &str) -> Vec<(String, String)> {
        let text = self.text(variable).unwrap_or_default();
        let mut pairs = Vec::new();
        for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
            let decoded = pair.split_once('=').and_then(|(name, value)| {
                let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
                let name = name.trim();
                (!name.is_empty()).then(|| (name.to_owned(), value.into_owned()))
            });
            match decoded {
                Some(pair) => pairs.push(pair),
                None => {
                    let message = "is no list of key=value, with commas between and values \
                                   percent-encoded";
                    self.refuse::<()>(key, variable, message);
                }
            }
        }
        pairs
    }

    pub(super) fn service_name(&self) -> Option<String> {
        let attributes = || self.attributes().into_iter().find(|(key, _)| key == "service.name");
        self.text("OTEL_SERVICE_NAME").or_else(|| attributes().map(|(_, name)| name))
    }

    pub(super) fn timeout(&self, range: &RangeInclusive<Duration>) -> Option<Duration> {
        self.millis("timeout", "OTEL_EXPORTER_OTLP_TIMEOUT", range)
    }

    pub(super) fn metrics_interval(&self, range: &RangeInclusive<Duration>) -> Option<Duration> {
        self.millis("metrics_interval", "OTEL_METRIC_EXPORT_INTERVAL", range)
    }

    fn millis(
        &self,
        key: &str,
        variable: &str,
        range: &RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let given = self.text(variable)?.parse().ok().map(Duration::from_millis);
        let given = given.filter(|given| range.contains(given));
        given.or_else(|| {
            let message = format!(
                "is no number of milliseconds from {} to {}",
                range.start().as_millis(),
                range.end().as_millis()
            );
            self.refuse(key, variable, &message)
        })
    }

    /// `OTEL_TRACES_SAMPLER` and its argument.
    pub(super) fn sampling(&self) -> Option<TraceSampling> {
        let (variable, argument) = ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG");
        let name = self.text(variable)?;
        let (follows_writer, kind) = match name.strip_prefix("parentbased_") {
            Some(kind) => (true, kind),
            None => (false, name.as_str()),
        };
        let share = match kind {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => match self.text(argument).map(|text| text.parse::<f64>()) {
                None => 1.0,
                Some(Ok(share)) if (0.0..=1.0).contains(&share) => share,
                Some(_) => return self.refuse("sample", argument, "is no number from 0 to 1"),
            },
            _ => {
                let message = format!("is no sampler that walhook knows: set {SAMPLERS}");
                return self.refuse("sample", variable, &message);
            }
        };
        Some(TraceSampling { share, follows_writer })
    }
}
