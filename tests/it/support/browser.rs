//! A real browser: Debian's chromium, found or fetched privately, driven by its own protocol over a pipe.
//!
//! One process for all tests; each page has a context of its own, so cookies are not shared. The browser
//! ends when its pipe does, so it cannot outlive the tests.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::panic, reason = "a test may stop at once, and then shows what the page says")]
#![expect(clippy::indexing_slicing, reason = "a missing field fails the test as it should")]

use std::collections::HashMap;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdin;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use base64::Engine;
use serde_json::Value;
use serde_json::json;
use tokio::sync::oneshot;

use super::service::AMPLE;

const FETCH: &str = include_str!("browser/fetch.sh");

/// A chromium that can be run, with where its libraries and fonts are if it was unpacked.
#[derive(Debug)]
struct FoundBrowser {
    program: PathBuf,
    unpacked: Option<PathBuf>,
}

/// The browser of all tests.
#[derive(Debug)]
pub(crate) struct Browser {
    commands: Mutex<ChildStdin>,
    shared: Arc<BrowserAnswers>,
    next: AtomicU64,
    _process: Child,
    _profile: tempfile::TempDir,
}

#[derive(Debug, Default)]
struct BrowserAnswers {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    /// What pages complained of, by session.
    complaints: Mutex<HashMap<String, Vec<String>>>,
}

/// The browser, or `None` where there is none and none can be had: then it says so. In CI that is a
/// failure.
#[expect(clippy::print_stdout, reason = "a skipped test must not look like a passed one")]
pub(crate) async fn browser(test: &str) -> Option<&'static Browser> {
    static STARTED: OnceLock<Result<Browser, String>> = OnceLock::new();
    let start = || STARTED.get_or_init(|| find().and_then(Browser::start));
    match tokio::task::spawn_blocking(start).await.unwrap() {
        Ok(browser) => Some(browser),
        Err(why) if std::env::var_os("CI").is_some() => panic!("{test} needs a browser: {why}"),
        Err(why) => {
            println!("SKIP {test}: needs a browser: {why}");
            None
        }
    }
}

fn find() -> Result<FoundBrowser, String> {
    if let Some(named) = std::env::var_os("WALHOOK_CHROMIUM") {
        return Ok(FoundBrowser { program: named.into(), unpacked: None });
    }
    let is_ignored = std::env::var_os("WALHOOK_IGNORE_INSTALLED").is_some();
    let path = std::env::var_os("PATH").unwrap_or_default();
    for name in ["chromium", "chromium-browser", "google-chrome"] {
        let places = std::env::split_paths(&path).map(|folder| folder.join(name));
        let found = places.into_iter().find(|place| place.is_file());
        if let (Some(program), false) = (found, is_ignored) {
            return Ok(FoundBrowser { program, unpacked: None });
        }
    }
    fetch()
}

/// Unpacks one into the cache that the private PostgreSQL is in, once.
fn fetch() -> Result<FoundBrowser, String> {
    let home = cache().join("chromium");
    let program = home.join("root/usr/lib/chromium/chromium");
    let found = || FoundBrowser { program: program.clone(), unpacked: Some(home.clone()) };
    if program.is_file() && home.join("fonts.conf").is_file() {
        return Ok(found());
    }
    if std::env::var_os("WALHOOK_OFFLINE").is_some() {
        return Err(String::from("WALHOOK_OFFLINE is set, and no chromium is installed"));
    }
    let unfinished = home.with_extension("unfinished");
    std::fs::remove_dir_all(&unfinished).ok();
    std::fs::create_dir_all(&unfinished).map_err(|error| error.to_string())?;
    // The paths of the fonts are those of its last place.
    std::fs::remove_dir_all(&home).ok();
    std::fs::rename(&unfinished, &home).map_err(|error| error.to_string())?;
    let ran = Command::new("sh").arg("-c").arg(FETCH).arg("fetch").arg(&home).output();
    let ran = ran.map_err(|error| error.to_string())?;
    match ran.status.success() {
        true => Ok(found()),
        false => {
            let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
            Err(format!("none is installed, and Debian's packages cannot be unpacked: {said}"))
        }
    }
}

fn cache() -> PathBuf {
    let named = std::env::var_os("WALHOOK_CACHE").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/walhook"));
    named.or(home).unwrap_or_else(|| std::env::temp_dir().join("walhook-browser"))
}

impl Browser {
    fn start(found: FoundBrowser) -> Result<Self, String> {
        let profile = tempfile::tempdir().map_err(|error| error.to_string())?;
        // It reads its commands from file 3 and answers on file 4; a shell can put pipes there.
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg("exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null")
            .arg(&found.program)
            .args(["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"])
            .args(["--disable-background-networking", "--disable-component-update"])
            .arg("--force-color-profile=srgb")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(home) = &found.unpacked {
            let folders =
                ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib/x86_64-linux-gnu"];
            let folders = folders.map(|folder| home.join("root").join(folder));
            // Some are in a folder of their own.
            let own = folders.iter().map(|folder| folder.join("pulseaudio"));
            let folders: Vec<PathBuf> = folders.iter().cloned().chain(own).collect();
            command.env("LD_LIBRARY_PATH", std::env::join_paths(folders).unwrap());
            command.env("FONTCONFIG_FILE", home.join("fonts.conf"));
        }
        let mut process = command.spawn().map_err(|error| error.to_string())?;
        let (commands, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let shared = Arc::<BrowserAnswers>::default();
        let heard = Arc::clone(&shared);
        let (first_in, first) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut first_in = Some(first_in);
            for message in BufReader::new(answers).split(0).map_while(Result::ok) {
                heard.take(&serde_json::from_slice(&message).unwrap_or_default());
                if let Some(first) = first_in.take() {
                    first.send(()).ok();
                }
            }
        });
        let browser = Self {
            commands: Mutex::new(commands),
            shared,
            next: AtomicU64::new(1),
            _process: process,
            _profile: profile,
        };
        browser.send(0, None, "Browser.getVersion", &json!({}));
        match first.recv_timeout(AMPLE) {
            Ok(()) => Ok(browser),
            Err(_) => Err(format!("{} does not start", found.program.display())),
        }
    }

    fn send(&self, id: u64, session: Option<&str>, method: &str, params: &Value) {
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.commands.lock().unwrap().write_all(&text).unwrap();
    }

    async fn call(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer_in, answer) = oneshot::channel();
        self.shared.waiting.lock().unwrap().insert(id, answer_in);
        self.send(id, session, method, &params);
        let answer = tokio::time::timeout(AMPLE, answer).await;
        let answer = answer.unwrap_or_else(|_| panic!("{method} is not answered")).unwrap();
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// A page in a context of its own, which speaks this language.
    pub(crate) async fn page(&'static self, language: &str) -> Page {
        let context = self.call(None, "Target.createBrowserContext", json!({})).await;
        let context = context["browserContextId"].as_str().unwrap().to_owned();
        let made = json!({ "url": "about:blank", "browserContextId": context });
        let target = self.call(None, "Target.createTarget", made).await["targetId"].clone();
        let attach = json!({ "targetId": target, "flatten": true });
        let session = self.call(None, "Target.attachToTarget", attach).await;
        let session = session["sessionId"].as_str().unwrap().to_owned();
        let page = Page { browser: self, session, clicks: AtomicU64::new(0) };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({})).await;
        }
        let agent = page.eval("navigator.userAgent").await;
        let language = json!({ "userAgent": agent, "acceptLanguage": language });
        page.call("Emulation.setUserAgentOverride", language).await;
        page.size(1200, 800).await;
        page
    }
}

impl BrowserAnswers {
    fn take(&self, message: &Value) {
        if let Some(id) = message["id"].as_u64() {
            let waiting = self.waiting.lock().unwrap().remove(&id);
            waiting.map(|waiting| waiting.send(message.clone()));
            return;
        }
        let params = &message["params"];
        let complaint = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => Some(params["exceptionDetails"].to_string()),
            // What the network says of itself is the test's doing.
            Some("Log.entryAdded") if params["entry"]["source"] != "network" => {
                Some(params["entry"].to_string())
            }
            Some("Runtime.consoleAPICalled") if params["type"] == "error" => {
                Some(params["args"].to_string())
            }
            _ => None,
        };
        if let (Some(complaint), Some(session)) = (complaint, message["sessionId"].as_str()) {
            let mut all = self.complaints.lock().unwrap();
            all.entry(session.to_owned()).or_default().push(complaint);
        }
    }
}

/// A page that is open.
#[derive(Debug)]
pub(crate) struct Page {
    browser: &'static Browser,
    session: String,
    clicks: AtomicU64,
}

impl Page {
    pub(crate) async fn call(&self, method: &str, params: Value) -> Value {
        self.browser.call(Some(&self.session), method, params).await
    }

    pub(crate) async fn size(&self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
    }

    pub(crate) async fn dark(&self, is_dark: bool) {
        let value = if is_dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    pub(crate) async fn offline(&self, is_offline: bool) {
        let network = json!({ "offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 });
        self.call("Network.emulateNetworkConditions", network).await;
    }

    pub(crate) async fn open(&self, url: &str) {
        self.call("Page.navigate", json!({ "url": url })).await;
        self.wait_for("document.readyState === 'complete'").await;
    }

    /// The value of an expression.
    pub(crate) async fn eval(&self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", asked).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) async fn wait_for(&self, expression: &str) {
        let deadline = Instant::now() + AMPLE;
        let asked =
            json!({ "expression": format!("Boolean({expression})"), "returnByValue": true });
        loop {
            let answer = self.call("Runtime.evaluate", asked.clone()).await;
            if answer["result"]["value"] == true {
                return;
            }
            if Instant::now() > deadline {
                let text = self.eval("document.body.innerText").await;
                let complaints = self.complaints();
                panic!(
                    "never: {expression}\n{}\n{complaints:?}",
                    text.as_str().unwrap_or_default()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the page shows this text.
    pub(crate) async fn shows(&self, text: &str) {
        self.wait_for(&format!("document.body.innerText.includes({})", json!(text))).await;
    }

    /// Clicks, with a mouse, what a selector finds.
    pub(crate) async fn click(&self, selector: &str) {
        let found = format!("document.querySelector({})", json!(selector));
        self.click_on(&found).await;
    }

    /// Clicks the button or link with this text, in the dialog if one is open.
    pub(crate) async fn press(&self, text: &str) {
        let found = format!(
            "[...(document.querySelector('dialog[open]') ?? document).querySelectorAll('button, a')]\
             .find((one) => one.textContent.trim() === {} && !one.disabled)",
            json!(text)
        );
        self.click_on(&found).await;
    }

    /// How often something was clicked since this was asked last.
    pub(crate) fn take_clicks(&self) -> u64 {
        self.clicks.swap(0, Ordering::Relaxed)
    }

    async fn click_on(&self, found: &str) {
        self.clicks.fetch_add(1, Ordering::Relaxed);
        // What is in the document need not be there to be clicked yet.
        self.wait_for(&format!("({found})?.getClientRects().length")).await;
        let place = format!(
            "(() => {{ const found = {found}; found.scrollIntoView({{ block: 'center' }}); \
             const box = found.getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let place = self.eval(&place).await;
        for kind in ["mousePressed", "mouseReleased"] {
            let mouse = json!({
                "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", mouse).await;
        }
    }

    /// Types into a field, which loses what it had, and leaves it.
    pub(crate) async fn fill(&self, selector: &str, text: &str) {
        self.click(selector).await;
        let clear = format!("document.querySelector({}).select?.()", json!(selector));
        self.eval(&clear).await;
        self.write(text).await;
        self.key("Tab").await;
    }

    /// Types where the focus is.
    pub(crate) async fn write(&self, text: &str) {
        self.call("Input.insertText", json!({ "text": text })).await;
    }

    /// Presses a key.
    pub(crate) async fn key(&self, key: &str) {
        let text = if key.chars().count() == 1 { key } else { "" };
        let code = match key {
            "Tab" => 9,
            "Escape" => 27,
            "Enter" => 13,
            "ArrowDown" => 40,
            _ => 0,
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let pressed = json!({
                "type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code,
            });
            self.call("Input.dispatchKeyEvent", pressed).await;
        }
    }

    /// A picture of what is to be seen, among the artefacts of the run.
    pub(crate) async fn picture(&self, name: &str) {
        let taken = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        let data = base64::prelude::BASE64_STANDARD.decode(taken["data"].as_str().unwrap());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), data.unwrap()).unwrap();
    }

    /// Exceptions, errors on the console, and what the policy has blocked.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let all = self.browser.shared.complaints.lock().unwrap();
        all.get(&self.session).cloned().unwrap_or_default()
    }
}
