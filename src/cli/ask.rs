//! Asks a running walhook over its API, for the subcommands that look at it or give it orders.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use reqwest::Client;
use reqwest::Method;
use reqwest::StatusCode;
use reqwest::redirect::Policy;
use serde_json::Value;
use url::Url;

use crate::cli::GlobalOptions;
use crate::cli::exit::CommandError;
use crate::cli::runtime;
use crate::config::secret::Secret;
use crate::flow::exit_status::ExitStatus;

/// Longer than walhook takes for any answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Which walhook to ask.
#[derive(Args, Debug)]
pub(crate) struct ApiAddress {
    /// Where walhook answers [default: [http] listen of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The variable that holds its token [default: [http] token of the configuration]
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// One JSON document for scripts, as the API answers it
    #[arg(long)]
    pub json: bool,
}

/// A walhook to talk to.
pub(crate) struct ApiClient {
    base: Url,
    token: Option<Secret<String>>,
    limit: Duration,
}

impl ApiAddress {
    /// # Errors
    /// With exit code 2: neither arguments nor configuration say where walhook is.
    pub(crate) fn asker(&self, global: &GlobalOptions) -> Result<ApiClient, CommandError> {
        let mut asker = ApiClient::at(self.url.as_deref(), global)?;
        if let Some(name) = &self.token_env {
            let given = std::env::var(name).ok().filter(|value| !value.is_empty());
            let missing = || usage(format!("--token-env: the variable {name} is not set"));
            asker.token = Some(Secret::new(given.ok_or_else(missing)?));
        }
        Ok(asker)
    }
}

fn usage(text: String) -> CommandError {
    ExitStatus::Usage.because(anyhow!(text))
}

impl ApiClient {
    /// The walhook at `url`, or else where the configuration has it listen, with its token.
    fn at(url: Option<&str>, global: &GlobalOptions) -> Result<Self, CommandError> {
        let (base, token) = match url {
            Some(url) => {
                let parsed = Url::parse(url).ok();
                let is_http = |url: &Url| matches!(url.scheme(), "http" | "https");
                let base = parsed.filter(is_http).ok_or_else(|| {
                    usage(format!(
                        "--url {url:?} is no address: write it like http://127.0.0.1:9464"
                    ))
                })?;
                (base, None)
            }
            None => {
                let http = global.http()?;
                (address_of(http.listen)?, http.token)
            }
        };
        Ok(Self { base, token, limit: ANSWER_LIMIT })
    }

    /// For what everybody may ask: the token stays here.
    ///
    /// # Errors
    /// With exit code 2: neither `url` nor configuration say where walhook is.
    pub(crate) fn without_token(
        url: Option<&str>,
        global: &GlobalOptions,
    ) -> Result<Self, CommandError> {
        Ok(Self { token: None, ..Self::at(url, global)? })
    }

    /// Waits for an answer for so long.
    #[must_use]
    pub(crate) fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// # Errors
    /// That nobody answers, or what walhook answers instead; with exit code 2 if the question was
    /// wrong or the token is.
    pub(crate) fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, CommandError> {
        let mut url = self.place(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.ask(Method::GET, url, None)
    }

    /// The answer as it was written, for what a JSON value would round.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) fn get_text(&self, path: &str) -> Result<String, CommandError> {
        self.ask_text(Method::GET, self.place(path)?, None)
    }

    /// # Errors
    /// As [`Self::get`].
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, CommandError> {
        self.ask(Method::POST, self.place(path)?, Some(body))
    }

    /// # Errors
    /// As [`Self::get`].
    pub(crate) fn patch(&self, path: &str, body: &Value) -> Result<Value, CommandError> {
        self.ask(Method::PATCH, self.place(path)?, Some(body))
    }

    /// # Errors
    /// As [`Self::get`].
    pub(crate) fn delete(&self, path: &str) -> Result<Value, CommandError> {
        self.ask(Method::DELETE, self.place(path)?, None)
    }

    fn place(&self, path: &str) -> Result<Url, CommandError> {
        Ok(self.base.join(path)?)
    }

    fn ask(&self, method: Method, url: Url, body: Option<&Value>) -> Result<Value, CommandError> {
        Ok(serde_json::from_str(&self.ask_text(method, url, body)?)?)
    }

    fn ask_text(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
    ) -> Result<String, CommandError> {
        runtime()?.block_on(async {
            let client = Client::builder()
                .no_proxy()
                .redirect(Policy::none())
                .timeout(self.limit)
                .build()?;
            let mut request = client.request(method, url);
            if let Some(token) = &self.token {
                request = request.bearer_auth(token.reveal());
            }
            if let Some(body) = body {
                let header = reqwest::header::CONTENT_TYPE;
                request = request.header(header, "application/json").body(body.to_string());
            }
            let silent = |error: reqwest::Error| {
                let text = format!(
                    "no walhook answers at {}: start it with `walhook run`, or give its address \
                     with --url",
                    self.base
                );
                anyhow::Error::new(error.without_url()).context(text)
            };
            let reply = request.send().await.map_err(silent)?;
            let status = reply.status();
            let text = reply.bytes().await.map_err(silent)?;
            understand(status, &text, &self.base)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        })
    }
}

fn understand(status: StatusCode, text: &[u8], base: &Url) -> Result<Value, CommandError> {
    let answer: Option<Value> = serde_json::from_slice(text).ok();
    if status.is_success() {
        let strange =
            || anyhow!("what answers at {base} is no walhook: give the address with --url");
        return Ok(answer.ok_or_else(strange)?);
    }
    let detail = answer.as_ref().and_then(|answer| answer.get("detail")?.as_str());
    let refused = match (status, detail) {
        (StatusCode::UNAUTHORIZED, _) => anyhow!(
            "walhook at {base} wants its token: give the variable that holds it with --token-env, \
             or --config with the configuration that it runs with"
        ),
        // The API's word for it is not the command's.
        (_, Some(detail)) => {
            anyhow!("{}{}", detail.replace("\"all\": true", "--all"), problems(answer.as_ref()))
        }
        (_, None) => anyhow!("what answers at {base} says {status}: is it a walhook?"),
    };
    let exit = match status {
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED => ExitStatus::Usage,
        _ => ExitStatus::Failed,
    };
    Err(exit.because(refused))
}

/// Each key that is wrong, on a line of its own.
fn problems(answer: Option<&Value>) -> String {
    let errors = answer.and_then(|answer| answer.get("errors")?.as_array());
    let line = |error: &Value| {
        let text = |name| error.get(name).and_then(Value::as_str).unwrap_or_default();
        format!("\n  {}: {}", text("key"), text("detail"))
    };
    errors.into_iter().flatten().map(line).collect()
}

fn address_of(listen: SocketAddr) -> Result<Url, CommandError> {
    if listen.port() == 0 {
        return Err(usage(String::from(
            "[http] listen leaves the port to the system: give the address with --url",
        )));
    }
    Ok(Url::parse(&format!("http://{}", reachable(listen)))?)
}

/// An address to dial for one that is listened on.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_walhook_says_is_the_error_and_decides_about_the_exit_code() {
        let base = Url::parse("http://127.0.0.1:9464").expect("a URL");
        let problem = br#"{"title": "x", "detail": "unknown field"}"#.as_slice();
        let cases = [
            (400, problem, ExitStatus::Usage, "unknown field"),
            (401, problem, ExitStatus::Usage, "wants its token"),
            (404, problem, ExitStatus::Failed, "unknown field"),
            (
                400,
                br#"{"detail": "or all with \"all\": true"}"#,
                ExitStatus::Usage,
                "or all with --all",
            ),
            (502, b"<html>", ExitStatus::Failed, "is it a walhook?"),
            (200, b"<html>", ExitStatus::Failed, "is no walhook"),
        ];
        for (status, text, exit, expected) in cases {
            let status = StatusCode::from_u16(status).expect("a status");
            let error = understand(status, text, &base).expect_err("a refusal");
            assert_eq!(error.exit(), exit, "case: {status}");
            assert!(error.to_string().contains(expected), "case: {status}: {error}");
        }
    }

    #[test]
    fn whoever_listens_everywhere_is_found_on_this_host() {
        let cases = [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:2", "[::1]:2"),
            ("127.0.0.1:3", "127.0.0.1:3"),
            ("192.0.2.1:4", "192.0.2.1:4"),
        ];
        for (listen, expected) in cases {
            let listen: SocketAddr = listen.parse().expect("an address");
            assert_eq!(reachable(listen).to_string(), expected);
        }
    }
}
