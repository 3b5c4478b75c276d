//! Ten thousand requests of somebody who knows the URL, and some of what is secret: refused, and forgotten.
#![expect(clippy::indexing_slicing, clippy::panic, reason = "a test may stop at once")]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::*;
use crate::support::service::metric;
use crate::support::wecom::Call;
use crate::support::wecom::KeptConnection;
use crate::support::wecom::envelope;
use crate::support::wecom::padded;
use crate::support::wecom::sealed;

const INPUTS: u64 = 10_000;
const SENDERS: u64 = 8;

/// One of so many has a large body.
const LARGE_EVERY: u64 = 50;

/// Bodies that drip.
const SLOW: usize = 100;

/// What 10,000 of them may leave behind: room for what an allocator keeps, and not for one large body in
/// ten that was not forgotten.
const GROWTH_MAX_KIB: u64 = 24 * 1024;

/// What may be taken at the highest: the bodies that may be in memory together, and the program.
const PEAK_MAX_KIB: u64 = 64 * 1024;

const LAUGHS: &str = "<!DOCTYPE lolz [<!ENTITY a \"lol\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;\">\
    <!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;\"><!ENTITY d \"&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;\">]><xml>&d;</xml>";

/// A request that must not become a row, the kind that it is of, and what it has to be answered.
#[expect(clippy::too_many_lines, reason = "a table, a line or two for each kind")]
fn hostile(random: &mut fastrand::Rng, number: u64) -> (&'static str, Call, u16) {
    let (nonce, time) = (format!("h{number}"), now().to_string());
    let good = APPLICATION.callback(&text(1), &nonce);
    if number.is_multiple_of(LARGE_EVERY) {
        let length = random.usize((256 << 10) + 1..=1 << 20);
        return ("a large body", Call { body: "<".repeat(length), ..good }, 413);
    }
    let signed = |encrypted: &str| APPLICATION.carrying(encrypted, &nonce, &time);
    let of_xml = |xml: &str| APPLICATION.callback(xml, &nonce);
    let of_plain = |plain: Vec<u8>| signed(&sealed(plain));
    let within = good.body.find("CDATA[").unwrap();
    let encrypted =
        good.body.rsplit("CDATA[").next().unwrap().split(']').next().unwrap().to_owned();
    let bytes = |random: &mut fastrand::Rng, length: usize| -> Vec<u8> {
        std::iter::repeat_with(|| random.u8(..)).take(length).collect()
    };
    let (name, call) = match random.u8(0..20) {
        0 => {
            let from = good.body.find(&encrypted).unwrap_or(within);
            let mut body = good.body.clone().into_bytes();
            let place = from + random.usize(..encrypted.len());
            body[place] ^= 1 << random.u8(..7);
            ("a flipped bit", Call { body: String::from_utf8(body).unwrap(), ..good })
        }
        1 => {
            let place = good.target.find("msg_signature=").unwrap() + 14 + random.usize(..40);
            let mut target = good.target.clone().into_bytes();
            target[place] = if target[place] == b'0' { b'1' } else { b'0' };
            ("another signature", Call { target: String::from_utf8(target).unwrap(), ..good })
        }
        2 => {
            let (short, _) = encrypted.split_at(random.usize(..encrypted.len()));
            ("truncated base64", Call { body: good.body.replace(&encrypted, short), ..good })
        }
        3 => {
            let (short, _) = encrypted.split_at(random.usize(..encrypted.len() - 4));
            ("truncated base64, signed", signed(short))
        }
        4 => {
            let length = random.usize(..200);
            ("any length, signed", signed(&BASE64_STANDARD.encode(bytes(random, length))))
        }
        5 => {
            let count: u8 = if random.bool() { 0 } else { random.u8(33..) };
            let mut plain = envelope(b"<xml></xml>", 11, CORP);
            plain.resize(plain.len().next_multiple_of(32), count);
            ("padding 0 or above 32", of_plain(plain))
        }
        6 => {
            let count = random.u8(2..=32);
            let mut plain = vec![7; 64 - usize::from(count)];
            plain.extend(std::iter::repeat_n(count, usize::from(count)));
            plain[64 - usize::from(count)] ^= 1;
            ("padding of two kinds", of_plain(plain))
        }
        7 => {
            let length = random.u32(200..);
            ("a length beyond the end", of_plain(padded(envelope(b"<xml/>", length, CORP))))
        }
        8 => ("a length within", of_plain(padded(envelope(b"<xml></xml>", 4, CORP)))),
        9 => ("another corporation", of_plain(padded(envelope(b"<xml/>", 6, "ww9")))),
        10 => ("a document type", of_xml("<!DOCTYPE x SYSTEM \"http://127.0.0.1/\"><xml/>")),
        11 => ("a billion laughs", of_xml(LAUGHS)),
        12 => ("an entity", of_xml("<xml><A>&nbsp;</A></xml>")),
        13 => ("deep", of_xml(&format!("{}{}", "<a>".repeat(500), "</a>".repeat(500)))),
        14 => ("many", of_xml(&format!("<x>{}</x>", "<a/>".repeat(5000)))),
        15 => {
            let mut plain = padded(envelope(&[0xff, 0xfe, 0xc0, 0x80], 4, CORP));
            plain[0] = random.u8(..);
            ("no text", of_plain(plain))
        }
        16 => {
            let times = ["", "-", "1e9", "0x1", "99999999999999999999", "-1700000000", " "];
            let time = random.choice(times).unwrap().replace(' ', "%20");
            ("no time", APPLICATION.carrying(&encrypted, &nonce, &time))
        }
        17 => {
            let away = random.u64(301..100_000);
            let time = if random.bool() { now() - away } else { now() + away };
            ("another time", APPLICATION.callback_at(&text(1), &nonce, time))
        }
        18 => {
            let target = good.target.split('&').next().unwrap().to_owned();
            ("without parameters", Call { target, ..good })
        }
        _ => {
            let length = random.usize(..2000);
            let body = String::from_utf8_lossy(&bytes(random, length)).into_owned();
            let caller = if random.bool() { &APPLICATION } else { &ROBOT };
            ("anything", Call { body, ..caller.callback("{}", &nonce) })
        }
    };
    (name, call, 401)
}

/// A body of which a byte comes now and then, and never the last one; what it is answered.
async fn drip(at: SocketAddr) -> Vec<u8> {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let call = APPLICATION.callback(&text(1), "slow");
    let head =
        format!("POST {} HTTP/1.1\r\nhost: w\r\ncontent-length: 200000\r\n\r\n", call.target);
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let mut answer = [0; 1024];
    loop {
        tokio::select! {
            read = reading.read(&mut answer) => return answer[..read.unwrap_or_default()].to_vec(),
            () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {
                writing.write_all(&[b'x'; 100]).await.ok(); // it may have given up
            }
        }
    }
}

/// One line of `/proc/PID/status`, in KiB.
fn memory_kib(program: &Program, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn attack(at: SocketAddr, from: u64, to: u64) {
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        senders.spawn(async move {
            let mut connection = KeptConnection::new(at);
            let mut random = fastrand::Rng::with_seed(from + sender);
            for number in (from..to).filter(|number| number % SENDERS == sender) {
                let (name, call, expected) = hostile(&mut random, number);
                let answer = connection.send("POST", &call.target, call.body.as_bytes()).await;
                let answer = answer.unwrap_or_else(|error| panic!("{name}: {error}: {call:.200?}"));
                assert_eq!(answer, (expected, Vec::new()), "case: {name}: {}", call.target);
            }
        });
    }
    senders.join_all().await;
}

#[tokio::test]
async fn ten_thousand_hostile_inputs_are_refused_and_leave_nothing() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(SQL).await.unwrap();
    let business = Receiver::start(always(Answer::status(200)));
    let config = of_database(&database, &business.url(), &business.url());
    let mut service = Service::start(&config).await;
    let at = inbound(&mut service.program).await;
    attack(at, 0, INPUTS / 10).await;
    let before = memory_kib(&service.program, "RssAnon:");
    attack(at, INPUTS / 10, INPUTS).await;
    let mut slow = JoinSet::new();
    for _ in 0..SLOW {
        slow.spawn(drip(at));
    }
    // Meanwhile whoever is honest is answered.
    assert_eq!(post(at, &APPLICATION.callback(&text(1), "honest")).await.unwrap(), 200);
    for answer in slow.join_all().await {
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    }
    for garbage in [&b"\0\0\0\0\r\n\r\n"[..], b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(garbage).await.unwrap();
    }
    let (after, peak) =
        (memory_kib(&service.program, "RssAnon:"), memory_kib(&service.program, "VmHWM:"));
    let own = memory_kib(&service.program, "RssFile:");
    assert!(after < before + GROWTH_MAX_KIB, "{before} KiB before, {after} KiB after");
    assert!(peak < own + PEAK_MAX_KIB, "{peak} KiB at the highest, {own} of the program itself");
    assert_eq!(count(&sql).await, 1, "the honest one");
    let scrape = service.get("/metrics").await.body;
    let refused: f64 = scrape
        .lines()
        .filter(|line| line.starts_with("walhook_inbound_refused_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!(refused, (INPUTS + SLOW as u64) as f64, "each has its reason");
    let of = |reason: &str| {
        let labels = format!("reason=\"{reason}\",source=\"wechat-api\"");
        metric(&scrape, &format!("walhook_inbound_refused_total{{{labels}}}"))
    };
    let reasons = ["signature", "timestamp", "cipher", "receive_id", "content", "parameters"];
    assert!(reasons.iter().all(|reason| of(reason) > 100.0), "{scrape}");
    assert_eq!((of("size"), of("incomplete")), ((INPUTS / LARGE_EVERY) as f64, SLOW as f64));
    let log = service.program.output();
    assert!(log.iter().all(|line| !line.contains("panicked")));
    service.stop().await;
}
