//! What each bad request to the API is told, word for word.

use super::*;

/// Requests, one a line, each followed by what it gets: the status and the detail, then each key
/// that is wrong. `$URL` stands for a URL that may be dialled.
const REFUSALS: &str = include_str!("refusals.txt");

const REST: &str = "[webhook_api]\n[[endpoint]]\nname = \"fixed\"\nurl = \"http://127.0.0.1:9/\"\n";

/// One request with headers of its own; what its answer says.
async fn told(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> String {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/problem+json"), "{path}: {answer}");
    let problem: Value = serde_json::from_str(body).unwrap();
    let mut told = format!("    {}: {}\n", problem["status"], problem["detail"].as_str().unwrap());
    for error in problem["errors"].as_array().into_iter().flatten() {
        let text = |name: &str| error[name].as_str().unwrap();
        told += &format!("    {}: {}\n", text("key"), text("detail"));
    }
    told
}

#[tokio::test]
async fn each_bad_request_is_told_what_is_wrong_and_what_to_do() {
    let (_database, sql, toml) = set_up(REST).await;
    let service = Service::start(&toml).await;
    let url = "http://127.0.0.1:9/hooks?key=opensesame";
    for name in ["there", "other"] {
        done(&service, "POST", "/api/v1/endpoints", &json!({ "name": name, "url": url })).await;
    }
    let mut seen = String::new();
    let json = "content-type: application/json\r\n";
    for line in REFUSALS.lines().filter(|line| !line.starts_with("    ")) {
        seen.push_str(line);
        seen.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut parts = line.splitn(3, ' ');
        let (method, path) = (parts.next().unwrap(), parts.next().unwrap());
        let body = parts.next().unwrap_or_default().replace("$URL", url);
        let told = told(service.http, method, path, json, &body).await;
        assert!(!told.contains("opensesame"), "a secret is shown: {told}");
        seen.push_str(&told);
    }
    for (seen, expected) in seen.lines().zip(REFUSALS.lines()) {
        assert_eq!(seen, expected);
    }
    assert_eq!(seen, REFUSALS);
    assert_eq!(sql.text("SELECT count(*) FROM walhook.endpoints").await, "2", "nothing was made");
    assert!(!log(&service).contains("opensesame"));
}

#[tokio::test]
async fn what_a_request_is_counts_before_what_it_says() {
    let (_database, _sql, toml) = set_up("").await;
    let service = Service::start(&toml).await;
    let path = "/api/v1/endpoints";
    let large = format!("{{\"name\": \"{}\"}}", "a".repeat(64 * 1024));
    let (json, elsewhere) =
        ("content-type: application/json\r\n", "origin: http://evil.example\r\n");
    let cases = [
        ("POST", path, "", "{}", "415: the body must be JSON: send Content-Type: application/json"),
        ("POST", path, json, &large, "413: the body is larger than 65536 bytes: send less"),
        ("GET", path, elsewhere, "", "403: a page of another site may not use this path"),
        (
            "POST",
            "/api/v1/replay",
            elsewhere,
            "{}",
            "403: a page of another site may not use this path",
        ),
        (
            "GET",
            "/api/v1/endpoints/%ff",
            "",
            "",
            "400: the path is not UTF-8: write it in percent encoding",
        ),
        ("POST", "/api/v1/endpoint", json, "{}", "404: there is nothing at /api/v1/endpoint"),
        ("PUT", path, json, "{}", "405: /api/v1/endpoints does not take PUT"),
    ];
    for (method, path, headers, body, expected) in cases {
        assert_eq!(told(service.http, method, path, headers, body).await.trim(), expected);
    }
}
