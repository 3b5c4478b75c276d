//! What WeCom does: it signs and encrypts, and calls.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::net::SocketAddr;
use std::time::SystemTime;

use aes::Aes256;
use aes::cipher::BlockModeEncrypt;
use aes::cipher::KeyIvInit;
use aes::cipher::block_padding::NoPadding;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::TcpStream;

pub(crate) const TOKEN: &str = "walhookTok3n";
pub(crate) const AES_KEY: &str = "zYm4VO3jFrAqnhktBa9Kvy25k1sdreiZCuQ6ynGjPPf";
pub(crate) const CORP: &str = "ww0123456789abcdef";

/// Somebody who calls one path.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) path: &'static str,
    pub(crate) receive_id: &'static str,
    pub(crate) is_robot: bool,
}

/// The application's callbacks.
pub(crate) const APPLICATION: Caller =
    Caller { path: "/api/v1/webhooks/wechat/api", receive_id: CORP, is_robot: false };
/// The group robot's.
pub(crate) const ROBOT: Caller =
    Caller { path: "/api/v1/webhooks/wechat/bot", receive_id: "", is_robot: true };

/// A request, ready to be sent once or a thousand times.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) target: String,
    pub(crate) body: String,
}

#[expect(clippy::disallowed_methods, reason = "the sender's clock is not walhook's")]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// The envelope of a message, which says that it has `length` bytes.
pub(crate) fn envelope(message: &[u8], length: u32, receive_id: &str) -> Vec<u8> {
    let mut plain = b"0123456789abcdef".to_vec();
    plain.extend_from_slice(&length.to_be_bytes());
    plain.extend_from_slice(message);
    plain.extend_from_slice(receive_id.as_bytes());
    plain
}

/// PKCS#7 to 32 bytes.
pub(crate) fn padded(mut plain: Vec<u8>) -> Vec<u8> {
    let count = 32 - plain.len() % 32;
    plain.extend(std::iter::repeat_n(u8::try_from(count).unwrap(), count));
    plain
}

fn encrypt(message: &[u8], receive_id: &str) -> String {
    let length = u32::try_from(message.len()).unwrap();
    sealed(padded(envelope(message, length, receive_id)))
}

/// Whole blocks, under the key.
pub(crate) fn sealed(mut plain: Vec<u8>) -> String {
    let key = BASE64_STANDARD_LENIENT.decode(format!("{AES_KEY}=")).unwrap();
    let cipher = cbc::Encryptor::<Aes256>::new_from_slices(&key, key.get(..16).unwrap()).unwrap();
    let length = plain.len();
    let sealed = cipher.encrypt_padded::<NoPadding>(&mut plain, length).unwrap();
    BASE64_STANDARD.encode(sealed)
}

const BASE64_STANDARD_LENIENT: base64::engine::GeneralPurpose = base64::engine::GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

fn signature(timestamp: &str, nonce: &str, encrypted: &str) -> String {
    let mut parts = [TOKEN, timestamp, nonce, encrypted];
    parts.sort_unstable();
    let digest =
        ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, parts.concat().as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Caller {
    /// A callback with this message, signed at `timestamp`.
    pub(crate) fn callback_at(&self, message: &str, nonce: &str, timestamp: u64) -> Call {
        let encrypted = encrypt(message.as_bytes(), self.receive_id);
        self.carrying(&encrypted, nonce, &timestamp.to_string())
    }

    /// The same with any text in the place of a ciphertext, signed as it stands.
    pub(crate) fn carrying(&self, encrypted: &str, nonce: &str, timestamp: &str) -> Call {
        let signature = signature(timestamp, nonce, encrypted);
        let body = match self.is_robot {
            true => format!("{{\"encrypt\":\"{encrypted}\"}}"),
            false => format!(
                "<xml><ToUserName><![CDATA[{CORP}]]></ToUserName><AgentID><![CDATA[1]]></AgentID>\
                 <Encrypt><![CDATA[{encrypted}]]></Encrypt></xml>"
            ),
        };
        let path = self.path;
        let target =
            format!("{path}?msg_signature={signature}&timestamp={timestamp}&nonce={nonce}");
        Call { target, body }
    }

    pub(crate) fn callback(&self, message: &str, nonce: &str) -> Call {
        self.callback_at(message, nonce, now())
    }

    /// The check of the URL, at the path with `suffix`.
    pub(crate) fn verification(&self, echo: &str, suffix: &str) -> String {
        let (encrypted, timestamp) = (encrypt(echo.as_bytes(), self.receive_id), now());
        let signature = signature(&timestamp.to_string(), "v", &encrypted);
        let encoded = encrypted.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let path = self.path;
        format!(
            "{path}{suffix}?msg_signature={signature}&timestamp={timestamp}&nonce=v&echostr={encoded}"
        )
    }
}

/// One request on a connection of its own: status and body.
pub(crate) async fn send(
    address: SocketAddr,
    method: &str,
    target: &str,
    body: &str,
    headers: &str,
) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
}

/// A callback; its status.
pub(crate) async fn post(address: SocketAddr, call: &Call) -> std::io::Result<u16> {
    Ok(send(address, "POST", &call.target, &call.body, "").await?.0)
}

/// A connection that is kept, as a proxy does, and made anew when the other side has closed it.
#[derive(Debug)]
pub(crate) struct KeptConnection {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl KeptConnection {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// One request; the status and the body of its answer.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        target: &str,
        body: &[u8],
    ) -> std::io::Result<(u16, Vec<u8>)> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(TcpStream::connect(self.address).await?),
        };
        let length = body.len();
        let mut request =
            format!("{method} {target} HTTP/1.1\r\nhost: w\r\ncontent-length: {length}\r\n\r\n")
                .into_bytes();
        request.extend_from_slice(body);
        stream.write_all(&request).await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let (mut is_kept, mut length) = (true, 0);
        loop {
            line.clear();
            stream.read_line(&mut line).await?;
            let header = line.trim().to_ascii_lowercase();
            is_kept &= header != "connection: close";
            if let Some(text) = header.strip_prefix("content-length: ") {
                length = text.parse().unwrap();
            }
            if header.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).await?;
        self.stream = is_kept.then_some(stream);
        Ok((status, answer))
    }

    /// A callback; its status.
    pub(crate) async fn post(&mut self, call: &Call) -> std::io::Result<u16> {
        Ok(self.send("POST", &call.target, call.body.as_bytes()).await?.0)
    }
}
