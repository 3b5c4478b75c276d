//! The comparison: what a bare client posts to the same receiver, with the same request.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use http::Request;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::process;
use crate::receiver::Sample;

/// What a bare client came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bare {
    pub(crate) per_second: f64,
    /// Processor time of the client alone.
    pub(crate) cpu_per_request: Duration,
}

/// Whether `wrk` is there.
pub(crate) fn has_wrk() -> bool {
    Command::new("wrk").arg("--version").output().is_ok()
}

/// Requests per second of `wrk` with this many connections.
pub(crate) fn wrk(
    url: &str,
    sample: &Sample,
    connections: usize,
    window: Duration,
) -> anyhow::Result<f64> {
    let mut script = String::from("wrk.method = \"POST\"\n");
    for (name, value) in &sample.headers {
        if name != header::HOST && name != header::CONTENT_LENGTH {
            writeln!(script, "wrk.headers[{:?}] = {:?}", name.as_str(), value.to_str()?)?;
        }
    }
    writeln!(script, "wrk.body = [==[{}]==]", String::from_utf8_lossy(&sample.body))?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("post.lua");
    fs::write(&path, script)?;
    let output = Command::new("wrk")
        .args(["--threads", "1", "--connections", &connections.to_string()])
        // wrk takes whole seconds.
        .args(["--duration", &format!("{}s", window.as_secs().max(1)), "--script"])
        .arg(&path)
        .arg(url)
        .output()
        .context("cannot run wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    rate.and_then(|rate| rate.trim().parse().ok()).with_context(|| format!("wrk said: {text}"))
}

/// A closed loop of hyper connections on one thread: each sends its next request when the last one
/// is answered. Nothing else: no pool, no deadline, no signature.
pub(crate) fn hyper(
    address: SocketAddr,
    path: &'static str,
    sample: &Sample,
    connections: usize,
    window: Duration,
) -> anyhow::Result<Bare> {
    let sample = sample.clone();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(closed_loop(address, path, sample, connections, window))
    });
    thread.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
}

async fn closed_loop(
    address: SocketAddr,
    path: &'static str,
    sample: Sample,
    connections: usize,
    window: Duration,
) -> anyhow::Result<Bare> {
    let mut drivers = JoinSet::new();
    let mut loops = JoinSet::new();
    let (begun, cpu) = (Instant::now(), process::own_thread_cpu());
    let end = begun + window;
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        drivers.spawn(driver);
        let sample = sample.clone();
        loops.spawn(async move {
            let mut done = 0u64;
            while Instant::now() < end {
                sender.ready().await?;
                let mut request = Request::post(path).body(Full::new(sample.body.clone()))?;
                *request.headers_mut() = sample.headers.clone();
                let mut body = pin!(sender.send_request(request).await?.into_body());
                while let Some(frame) = body.frame().await {
                    drop(frame?);
                }
                done += 1;
            }
            anyhow::Ok(done)
        });
    }
    let mut done = 0;
    while let Some(ended) = loops.join_next().await {
        done += ended??;
    }
    let took = begun.elapsed();
    let cpu = process::own_thread_cpu() - cpu;
    let per_request = u32::try_from(done.max(1)).map_or(Duration::ZERO, |done| cpu / done);
    Ok(Bare { per_second: done as f64 / took.as_secs_f64(), cpu_per_request: per_request })
}
