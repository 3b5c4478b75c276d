//! Callbacks in: how long a sender waits for the answer that its callback is kept, at a steady rate.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::time::Duration;
use std::time::SystemTime;

use aes::Aes256;
use aes::cipher::BlockModeEncrypt;
use aes::cipher::KeyIvInit;
use aes::cipher::block_padding::NoPadding;
use anyhow::Context;
use base64::Engine;
use base64::alphabet;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;
use base64::prelude::BASE64_STANDARD;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use walhook::testing::inbound::wecom::signature::signature;

use crate::measure::Bench;
use crate::measure::SLOT;
use crate::program::CALLBACK_AES_KEY;
use crate::program::CALLBACK_CORP;
use crate::program::CALLBACK_PATH;
use crate::program::CALLBACK_TOKEN;
use crate::program::Job;
use crate::program::Walhook;
use crate::report::Goal;

const TABLES: &str = include_str!("../../../sql/wecom-callbacks.sql");

/// Callbacks a second.
const RATE: u64 = 5_000;

/// Connections that are kept, as a proxy keeps them. Each has one request at a time.
const CONNECTIONS: u64 = 64;

/// The longest answer: status line and headers.
const ANSWER_MAX_BYTES: usize = 1024;

impl Bench {
    pub(super) fn inbound(&mut self) -> anyhow::Result<()> {
        self.stage.run(TABLES)?;
        self.stage.run("ALTER PUBLICATION bench ADD TABLE wecom_callbacks")?;
        for (pushes, what) in [(false, "kept"), (true, "kept and pushed on")] {
            let mut p99 = Vec::new();
            let mut details = Vec::new();
            for _run in 0..self.plan.runs.min(3) {
                let (worst, detail) = self.callbacks(pushes)?;
                p99.push(worst);
                details.push(detail);
            }
            let goal = Goal::AtMost { must: 100.0, aim: 50.0 };
            let what = format!("{RATE} callbacks/s {what}, p99 of the answer");
            self.row(&what, " ms", p99, goal, details.join("; "));
        }
        self.stage.run("ALTER PUBLICATION bench DROP TABLE wecom_callbacks")
    }

    /// The 99th percentile in milliseconds, and what stands behind it.
    fn callbacks(&self, pushes: bool) -> anyhow::Result<(f64, String)> {
        self.stage.run("TRUNCATE wecom_callbacks, inbound_nonces")?;
        self.stage.mark(SLOT)?;
        let listen = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut walhook = Walhook::start(&self.stage, SLOT, &Job::Keep { listen, pushes })?;
        walhook.wait_until_ready()?;
        let seconds = self.plan.callbacks.as_secs_f64();
        let millis = u64::try_from(self.plan.callbacks.as_millis())?;
        let count = (RATE * millis / 1000).max(CONNECTIONS);
        let requests = (0..count).map(|number| request(number, listen));
        let requests = requests.collect::<anyhow::Result<_>>()?;
        let cpu = walhook.cpu()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut waits = runtime.block_on(send(listen, requests))?;
        let cpu = (walhook.cpu()? - cpu).div_f64(count as f64);
        let resident = walhook.resident()? / (1024 * 1024);
        let rows = self.stage.ask("SELECT count(*) FROM wecom_callbacks")?;
        anyhow::ensure!(
            rows.as_deref() == Some(&*count.to_string()),
            "{rows:?} of {count} are kept"
        );
        walhook.end(&self.stage)?;
        waits.sort_unstable();
        let at = |per_mille: usize| {
            let place = (waits.len() - 1) * per_mille / 1000;
            waits.get(place).copied().unwrap_or_default().as_secs_f64() * 1000.0
        };
        let detail = format!(
            "{count} in {seconds:.0} s, p50 {:.1} ms, p99.9 {:.1} ms, longest {:.1} ms; {} us of processor \
             time each, {resident} MiB",
            at(500),
            at(999),
            at(1000),
            cpu.as_micros()
        );
        Ok((at(990), detail))
    }
}

/// Sends each when it is due, and returns how long each waited from then on: a sender that could not
/// send, since the answer before it was late, has waited, too.
async fn send(at: SocketAddr, requests: Vec<Vec<u8>>) -> anyhow::Result<Vec<Duration>> {
    let mut senders: Vec<Vec<(u64, Vec<u8>)>> = (0..CONNECTIONS).map(|_| Vec::new()).collect();
    for (number, request) in (0..).zip(requests) {
        let place = usize::try_from(number % CONNECTIONS)?;
        senders.get_mut(place).context("a sender is missing")?.push((number, request));
    }
    let begun = Instant::now() + Duration::from_millis(200);
    let mut tasks = JoinSet::new();
    for requests in senders {
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(at).await?;
            stream.set_nodelay(true)?;
            let (mut waits, mut answer) =
                (Vec::with_capacity(requests.len()), [0; ANSWER_MAX_BYTES]);
            for (number, request) in requests {
                let due = begun + Duration::from_secs(1).mul_f64(number as f64 / RATE as f64);
                tokio::time::sleep_until(due).await;
                stream.write_all(&request).await?;
                let mut length = 0;
                loop {
                    let (_, rest) = answer.split_at_mut(length);
                    let read = stream.read(rest).await?;
                    anyhow::ensure!(read > 0, "the connection was closed");
                    length += read;
                    let (head, _) = answer.split_at(length);
                    if head.ends_with(b"\r\n\r\n") {
                        let shown = String::from_utf8_lossy(head);
                        anyhow::ensure!(head.starts_with(b"HTTP/1.1 200 "), "answered {shown}");
                        break;
                    }
                }
                waits.push(due.elapsed());
            }
            Ok(waits)
        });
    }
    let mut waits = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        waits.extend(ended??);
    }
    Ok(waits)
}

/// What WeCom sends for a text that somebody wrote.
fn request(number: u64, listen: SocketAddr) -> anyhow::Result<Vec<u8>> {
    let now = now();
    let message = format!(
        "<xml><ToUserName><![CDATA[{CALLBACK_CORP}]]></ToUserName><FromUserName><![CDATA[zhangsan]]>\
         </FromUserName><CreateTime>{now}</CreateTime><MsgType><![CDATA[text]]></MsgType><Content>\
         <![CDATA[the parcel has come, thank you]]></Content><MsgId>{number}</MsgId>\
         <AgentID>1000002</AgentID></xml>"
    );
    let encrypted = encrypt(&message)?;
    let (timestamp, nonce) = (now.to_string(), format!("n{number}"));
    let signature = signature(CALLBACK_TOKEN, &timestamp, &nonce, &encrypted);
    let body = format!(
        "<xml><ToUserName><![CDATA[{CALLBACK_CORP}]]></ToUserName><AgentID><![CDATA[1000002]]></AgentID>\
         <Encrypt><![CDATA[{encrypted}]]></Encrypt></xml>"
    );
    let request = format!(
        "POST {CALLBACK_PATH}?msg_signature={signature}&timestamp={timestamp}&nonce={nonce} HTTP/1.1\r\n\
         host: {listen}\r\ncontent-type: text/xml\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    Ok(request.into_bytes())
}

#[expect(clippy::disallowed_methods, reason = "the sender's clock is not walhook's")]
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn encrypt(message: &str) -> anyhow::Result<String> {
    // The last character of a key carries spare bits.
    let config = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    let lenient = GeneralPurpose::new(&alphabet::STANDARD, config);
    let key = lenient.decode(format!("{CALLBACK_AES_KEY}="))?;
    let mut plain = b"0123456789abcdef".to_vec();
    plain.extend_from_slice(&u32::try_from(message.len())?.to_be_bytes());
    plain.extend_from_slice(message.as_bytes());
    plain.extend_from_slice(CALLBACK_CORP.as_bytes());
    let count = 32 - plain.len() % 32;
    plain.extend(std::iter::repeat_n(u8::try_from(count)?, count));
    let iv = key.get(..16).context("the key is short")?;
    let cipher = cbc::Encryptor::<Aes256>::new_from_slices(&key, iv)?;
    let length = plain.len();
    let sealed = cipher.encrypt_padded::<NoPadding>(&mut plain, length);
    Ok(BASE64_STANDARD.encode(sealed.map_err(|_| anyhow::anyhow!("not whole blocks"))?))
}
