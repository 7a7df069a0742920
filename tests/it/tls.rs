//! TLS by clients that others wrote: mosquitto, paho, openssl, curl; and by single bytes where no
//! client does what is to be shown.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sextant_mqtt::{Connect, Packet, QoS, Version};
use sextant_tests::{
    Authority, DEADLINE, Daemon, Mqtt, Options, Script, Sub, command, free_addr, publish,
    try_publish, until,
};

/// A daemon with a certificate of an authority, and where it serves TLS alone.
struct Served {
    daemon: Daemon,
    authority: Authority,
    tls: SocketAddr,
}

impl Served {
    /// With more settings: before any section, under `[mqtt]`, under `[tls]`, and after.
    fn start(first: &str, mqtt: &str, tls: &str, after: &str) -> Served {
        Served::start_with(Authority::new(), first, mqtt, tls, after)
    }

    fn start_with(authority: Authority, first: &str, mqtt: &str, tls: &str, after: &str) -> Served {
        let addr = free_addr();
        let (certificate, key) = (authority.path("server.pem"), authority.path("server.key"));
        let config = format!(
            "{first}\n[mqtt]\ntls_listen = [\"{addr}\"]\n{mqtt}\n[tls]\n\
             certificate = \"{certificate}\"\nkey = \"{key}\"\n{tls}\n{after}\n"
        );
        let mut daemon = Daemon::prepare(Options::config(&config));
        authority.issue("server", &[daemon.mqtt().ip(), addr.ip()]);
        daemon.start_again();
        Served { daemon, authority, tls: addr }
    }

    /// How often something was counted.
    fn counted(&self, series: &str) -> u64 {
        let text = self.daemon.api().get("/metrics").text;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {series} in\n{text}"))
    }

    fn failed(&self, reason: &str) -> u64 {
        self.counted(&format!("sextant_push_tls_handshakes_failed_total{{reason=\"{reason}\"}}"))
    }
}

/// A client of rustls that has sent `first` before its handshake, and trusts `ca`.
fn secure(addr: SocketAddr, ca: &str, first: &[u8]) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let mut stream = TcpStream::connect_timeout(&addr, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(first).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
}

fn packet(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(Version::V5, &mut bytes).unwrap();
    bytes
}

/// The next packet, whole.
fn receive(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = vec![0; 2];
    stream.read_exact(&mut bytes).unwrap();
    assert!(bytes[1] < 128, "a short packet");
    let mut rest = vec![0; usize::from(bytes[1])];
    stream.read_exact(&mut rest).unwrap();
    bytes.extend(rest);
    bytes
}

/// The answer to bytes that are sent alone, until the end.
fn answer(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect_timeout(&addr, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// All that `openssl s_client` says, until the server ends the connection.
fn openssl(addr: SocketAddr, ca: &str, more: &[&str]) -> String {
    let mut openssl = command("openssl");
    openssl.args(["s_client", "-ign_eof", "-connect", &addr.to_string(), "-CAfile", ca]);
    let output = openssl.args(more).stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn mosquitto_speaks_tls_on_the_port_of_its_own_and_on_that_of_all() {
    let served = Served::start("cores = 2", "", "", "");
    let ca = served.authority.ca();
    let (plain, tls) = (served.daemon.mqtt(), served.tls);
    for (n, version) in ["mqttv311", "mqttv5"].into_iter().enumerate() {
        let topic = format!("tls/{version}");
        let flags = ["-q", "2", "-t", &topic, "-V", version];
        let over_tls = [&flags[..], &["--cafile", &ca]].concat();
        let mut subs =
            [Sub::start(plain, &flags), Sub::start(plain, &over_tls), Sub::start(tls, &over_tls)];
        let version = ["--tls-version", ["tlsv1.2", "tlsv1.3"][n]];
        let long = "x".repeat(100_000);
        publish(plain, &[&flags[..], &["-m", "from TCP"]].concat());
        publish(plain, &[&over_tls[..], &version, &["-m", "from TLS"]].concat());
        publish(tls, &[&over_tls[..], &version, &["-m", &long]].concat());
        for sub in &mut subs {
            assert_eq!(sub.payloads(3), ["from TCP", "from TLS", &long]);
        }
    }
    let (done, _) = try_publish(tls, &["-t", "x", "-m", "no TLS"]);
    assert!(!done, "TLS is required there");
    assert_eq!(served.failed("not_tls"), 1);
    let log = served.daemon.log();
    assert!(log.contains("not TLS, which is required here"), "{log}");
    assert!(served.counted("sextant_push_tls_handshakes_total{kind=\"full\"}") >= 8);
}

#[test]
fn paho_speaks_tls_with_and_without_websocket() {
    let served = Served::start("cores = 2", "", "", "");
    let ca = served.authority.ca();
    for (transport, version, qos) in [("tcp", "5", "2"), ("websockets", "4", "1")] {
        let topic = format!("paho/{transport}");
        let args = ["--transport", transport, "--version", version, "--qos", qos];
        let args = [&args[..], &["--topic", &topic, "--cafile", &ca]].concat();
        let mut subscriber = Script::start("subscriber", served.tls, &args);
        subscriber.lines.line_with("subscribed");
        let mut tcp = Sub::start(served.daemon.mqtt(), &["-q", qos, "-t", &topic]);
        let args = [&args[..], &["--count", "200"]].concat();
        let mut publisher = Script::start("publisher", served.daemon.mqtt(), &args);
        publisher.lines.line_with("done");
        for n in 0..200 {
            assert_eq!(tcp.message().payload, n.to_string());
            subscriber.lines.find("the messages in order", |line| {
                let got = line.strip_prefix("got ")?;
                assert_eq!(got, n.to_string());
                Some(())
            });
        }
    }
}

#[test]
fn curl_is_told_over_https_what_this_port_is() {
    let served = Served::start("", "", "", "");
    let mut curl = command("curl");
    curl.args(["-sS", "--noproxy", "*", "-w", "\n%{http_code} %{http_version}", "-m", "20"]);
    curl.args(["--cacert", &served.authority.ca(), &format!("https://{}/mqtt", served.tls)]);
    let output = curl.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("/mqtt with the subprotocol mqtt"), "{said}");
    assert!(said.ends_with("426 1.1"), "{said}");
}

#[test]
fn openssl_resumes_a_session_in_either_version_on_any_core() {
    let served = Served::start("cores = 2", "connect_timeout = \"500ms\"", "", "");
    let ca = served.authority.ca();
    let session = served.authority.path("session");
    for version in ["-tls1_2", "-tls1_3"] {
        let first = openssl(served.tls, &ca, &[version, "-sess_out", &session]);
        assert!(first.contains("Verify return code: 0 (ok)"), "{first}");
        assert!(first.contains("New, TLSv1"), "{first}");
        for _ in 0..4 {
            let again = openssl(served.tls, &ca, &[version, "-sess_in", &session]);
            assert!(again.contains("Reused, TLSv1"), "{again}");
        }
        // It is told that nothing more comes.
        assert!(!first.contains("unexpected eof"), "{first}");
    }
    assert_eq!(served.counted("sextant_push_tls_handshakes_total{kind=\"resumed\"}"), 8);
    let said = openssl(served.tls, &ca, &["-alpn", "mqtt"]);
    assert!(said.contains("ALPN protocol: mqtt"), "{said}");
    let said = openssl(served.tls, &ca, &["-alpn", "other"]);
    assert!(said.contains("no application protocol"), "{said}");
    let said = openssl(served.tls, &ca, &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]);
    assert!(said.contains("SSL alert number"), "{said}");
    assert_eq!(served.failed("incompatible"), 2);
}

#[test]
fn what_is_no_handshake_ends_with_an_alert_and_one_that_stops_ends_in_time() {
    let served =
        Served::start("cores = 1", "connect_timeout = \"300ms\"", "handshakes_max = 2", "");
    for addr in [served.tls, served.daemon.mqtt()] {
        let alert = answer(addr, b"\x16\x03\x01\x00\x05hello");
        assert_eq!((alert.len(), &alert[..3]), (7, &b"\x15\x03\x03"[..]), "{alert:02x?}");
        assert_eq!(answer(addr, b"\x16\x03\x01\x02\x00\x01"), b"", "it is never whole");
        assert_eq!(answer(addr, b""), b"");
    }
    assert_eq!((served.failed("protocol"), served.failed("unfinished")), (2, 2));
    let log = served.daemon.log();
    assert!(log.contains("a TLS handshake failed"), "{log}");
    // As many as may be are under way: the next is told, and a later one is served.
    let begin = || {
        let mut stream = TcpStream::connect_timeout(&served.tls, DEADLINE).unwrap();
        stream.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
        stream
    };
    let held = [begin(), begin()];
    until("a handshake too many is told", || {
        let alert = answer(served.tls, b"\x16\x03\x01\x02\x00\x01");
        (alert == b"\x15\x03\x03\x00\x02\x02\x50").then_some(())
    });
    drop(held);
    assert!(served.failed("busy") >= 1);
    let ca = served.authority.ca();
    until("others are served again", || {
        let (done, _) = try_publish(served.tls, &["--cafile", &ca, "-t", "x", "-m", "x"]);
        done.then_some(())
    });
    until("no handshake is under way", || {
        (served.counted("sextant_push_tls_handshakes") == 0).then_some(())
    });
}

#[test]
fn a_connection_of_tls_takes_its_state_to_the_core_of_its_session() {
    const PROXIED: [u8; 28] =
        *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x12\x34\x07\x5b";
    let proxied = free_addr();
    let mqtt = format!("proxy_listen = [\"{proxied}\"]");
    let served = Served::start("cores = 2", &mqtt, "", "");
    let ca = served.authority.ca();
    let mut held = Vec::new();
    for n in 0..8 {
        let id = format!("moves-{n}");
        for (addr, first) in [(served.tls, &b""[..]), (proxied, &PROXIED)] {
            let mut stream = secure(addr, &ca, first);
            // What is right behind the CONNECT moves along.
            let connect = packet(&Packet::Connect(Connect::new(Version::V5, &id)));
            stream.write_all(&[&connect[..], &packet(&Packet::PingReq)].concat()).unwrap();
            assert_eq!(receive(&mut stream)[0], 0x20, "CONNACK");
            assert_eq!(receive(&mut stream), [0xd0, 0]);
            stream.write_all(&packet(&Packet::PingReq)).unwrap();
            assert_eq!(receive(&mut stream), [0xd0, 0]);
            held.push(stream);
        }
        let told = served.daemon.api().get(&format!("/v1/clients/{id}"));
        assert_eq!(told.json["peer"].as_str(), Some("192.0.2.7:4660"), "{told:?}");
    }
    // Each second one took its session over, and the first was told.
    let mut first = held.remove(0);
    assert_eq!(receive(&mut first)[..3], [0xe0, 1, 0x8e]);
    let mut end = Vec::new();
    assert_eq!(first.read_to_end(&mut end).unwrap(), 0, "a clean end");
    until("eight are left, and all that they take is known", || {
        let bytes = served.counted("sextant_push_tls_bytes");
        let connections = served.counted("sextant_push_tls_connections");
        (connections == 8 && bytes > 0 && bytes <= 8 * 10_000).then_some(())
    });
    // Half of one is closed: the rest of it ends, too. (Behind the end of the socket itself the
    // daemon may have no time left to say so.)
    let mut half = held.pop().unwrap();
    half.conn.send_close_notify();
    half.flush().unwrap();
    assert_eq!(half.read_to_end(&mut end).unwrap(), 0, "a clean end");
}

#[test]
fn a_fan_out_reaches_tls_whole_and_in_order() {
    const MESSAGES: u32 = 2000;
    let served = Served::start("cores = 2", "send_queue_bytes_max = \"64MiB\"", "", "");
    let ca = served.authority.ca();
    let mut subs = Vec::new();
    for (n, version) in ["mqttv311", "mqttv5"].into_iter().cycle().take(6).enumerate() {
        let qos = if n < 4 { "0" } else { "1" };
        let flags = ["-q", qos, "-t", "fan/#", "-V", version, "--cafile", &ca];
        subs.push(Sub::start(served.tls, &flags));
    }
    let mut publisher = Mqtt::clean(served.daemon.mqtt(), "publisher");
    let text = |n: u32| format!("{n} {}", "x".repeat((n * 37 % 2500) as usize));
    for n in 0..MESSAGES {
        // Both at once: those of QoS 0 alone are bursts.
        let qos = if n % 100 == 0 { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        publisher.publish("fan/out", text(n).as_bytes(), qos);
    }
    for sub in &mut subs {
        (0..MESSAGES).for_each(|n| assert_eq!(sub.message().payload, text(n)));
    }
}

#[test]
fn a_new_certificate_is_taken_without_a_connection_lost() {
    let served = Served::start("cores = 2", "", "", "");
    let (old, new) = (served.authority.ca(), Authority::new());
    let mut held = Sub::start(served.tls, &["-t", "held", "--cafile", &old]);
    let renew = |pem: &Path, key: &Path| {
        std::fs::copy(pem, served.authority.path("server.pem")).unwrap();
        std::fs::copy(key, served.authority.path("server.key")).unwrap();
        served.daemon.signal(Signal::HUP);
    };
    new.issue_until("server", &[served.tls.ip()], 2040);
    renew(&new.dir().join("server.pem"), &new.dir().join("server.key"));
    until("the new certificate is in service", || {
        let args = ["--cafile", &new.ca(), "-t", "held", "-m", "by the new one"];
        try_publish(served.tls, &args).0.then_some(())
    });
    assert_eq!(held.message().payload, "by the new one");
    let (done, _) = try_publish(served.tls, &["--cafile", &old, "-t", "held", "-m", "no"]);
    assert!(!done, "the old one is gone");
    assert_eq!(served.counted("sextant_push_tls_certificate_expires_seconds"), 2_208_988_800);
    // One that cannot be loaded changes nothing.
    std::fs::write(new.dir().join("half.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    renew(&new.dir().join("half.pem"), &new.dir().join("server.key"));
    until("the log says so", || {
        let log = served.daemon.log();
        (log.contains("server.pem does not hold a certificate in PEM")
            && log.contains("the old one stays in force"))
        .then_some(())
    });
    publish(served.tls, &["--cafile", &new.ca(), "-t", "held", "-m", "as before"]);
    assert_eq!(held.message().payload, "as before");
}

#[test]
fn openssl_is_shown_the_certificate_of_the_name_that_it_asks_for() {
    let authority = Authority::new();
    authority.issue_for("lamps", &["lamps.example", "*.lamps.example"]);
    let pair = |name: &str| {
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        let (certificate, key) = (authority.path(&certificate), authority.path(&key));
        format!("[[tls.certificates]]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n")
    };
    let more = pair("lamps");
    let served =
        Served::start_with(authority, "cores = 2", "connect_timeout = \"200ms\"", "", &more);
    let ca = served.authority.ca();
    let shown = |asked: &str| {
        let said = openssl(served.tls, &ca, &["-servername", asked, "-verify_hostname", asked]);
        let subject = said.lines().find_map(|line| line.strip_prefix("subject=")).unwrap_or("");
        let name = subject.replace(' ', "").replace("CN=", "");
        (name, said.contains("Verify return code: 0 (ok)"))
    };
    let of = |name: &str, verified| (name.to_owned(), verified);
    assert_eq!(shown("localhost"), of("server", true));
    assert_eq!(shown("lamps.example"), of("lamps", true));
    assert_eq!(shown("a.lamps.example"), of("lamps", true));
    assert_eq!(shown("elsewhere.example"), of("server", false));
    // A reload covers all of them, and one that cannot be loaded changes none.
    std::fs::copy(served.authority.path("server.key"), served.authority.path("lamps.key")).unwrap();
    served.daemon.signal(Signal::HUP);
    until("the log says so", || {
        served.daemon.log().contains("lamps.key cannot be used together").then_some(())
    });
    assert_eq!(shown("lamps.example"), of("lamps", true));
    served.authority.issue_for("doors", &["doors.example"]);
    for file in ["pem", "key"] {
        let path = |name: &str| served.authority.path(&format!("{name}.{file}"));
        std::fs::copy(path("doors"), path("lamps")).unwrap();
    }
    served.daemon.signal(Signal::HUP);
    until("the new one is in service", || {
        (shown("doors.example") == of("doors", true)).then_some(())
    });
    assert_eq!(shown("lamps.example"), of("server", false));
}

#[test]
fn a_certificate_of_a_client_is_its_device() {
    let authority = Authority::new();
    let stranger = Authority::new();
    for name in ["lamp", "door"] {
        authority.issue(name, &[]);
    }
    authority.issue_until("old", &[], 2020);
    stranger.issue("lamp", &[]);
    let tls = format!("client_ca = \"{}\"\nclient_certificate = \"required\"", authority.ca());
    let served =
        Served::start_with(authority, "cores = 2", "", &tls, "[auth]\nanonymous = false\n");
    let ca = served.authority.ca();
    let with = |authority: &Authority, name: &str| {
        let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
        let files = [authority.path(&cert), authority.path(&key)];
        let flags = ["--cafile", &ca, "--cert", &files[0], "--key", &files[1]];
        flags.map(str::to_owned)
    };
    let flags = |own: &[String; 6], more: &[&str]| -> Vec<String> {
        own.iter().cloned().chain(more.iter().map(|one| (*one).to_owned())).collect()
    };
    let texts = |flags: &[String]| -> Vec<&'static str> {
        flags.iter().map(|flag| &*Box::leak(flag.clone().into_boxed_str())).collect()
    };
    let lamp = with(&served.authority, "lamp");
    let own = texts(&flags(&lamp, &["-V", "5", "-i", "lamp", "-q", "1", "-t", "d/lamp/#"]));
    let mut sub = Sub::start(served.tls, &own);
    let sent = served.daemon.api().post(
        "/v1/messages",
        &serde_json::json!({ "device": "lamp", "payload": "for its certificate" }),
    );
    assert_eq!(sent.status, 202, "{sent:?}");
    assert_eq!(sub.message().payload, "for its certificate");
    // Another name than that of its certificate, and topics of another device.
    let (done, said) = try_publish(
        served.tls,
        &texts(&flags(&lamp, &["-V", "5", "-i", "door", "-t", "x", "-m", "x"])),
    );
    assert!(!done && said.contains("Client Identifier not valid"), "{said}");
    let door = with(&served.authority, "door");
    let (_, said) = try_publish(
        served.tls,
        &texts(&flags(&door, &["-V", "5", "-i", "door", "-q", "1", "-t", "d/lamp/x", "-m", "x"])),
    );
    assert!(said.contains("Not authorized"), "{said}");
    // A token is as good as before, where TLS is not spoken.
    let (done, _) = try_publish(served.daemon.mqtt(), &["-i", "lamp", "-t", "d/lamp/x", "-m", "x"]);
    assert!(!done, "a name alone proves nothing");
    for (own, said) in [
        (None, "the client has no certificate"),
        (Some(with(&served.authority, "old")), "certificate has expired"),
        (Some(with(&stranger, "lamp")), "of an issuer not in tls.client_ca"),
    ] {
        let more = ["-i", "lamp", "-t", "d/lamp/x", "-m", "x"];
        let own = match &own {
            Some(own) => flags(own, &more),
            None => ["--cafile", &ca].iter().chain(&more).map(|one| (*one).to_owned()).collect(),
        };
        until(said, || {
            let (done, _) = try_publish(served.tls, &texts(&own));
            assert!(!done, "{said}");
            served.daemon.log().contains(said).then_some(())
        });
    }
    assert!(served.failed("certificate") >= 3);
}

#[test]
fn with_tls_required_no_listener_takes_anything_else() {
    let served = Served::start("", "", "required = true", "");
    let ca = served.authority.ca();
    publish(served.daemon.mqtt(), &["--cafile", &ca, "-t", "x", "-m", "x"]);
    assert!(!try_publish(served.daemon.mqtt(), &["-t", "x", "-m", "x"]).0);
    assert_eq!(answer(served.daemon.mqtt(), b"GET /mqtt HTTP/1.1\r\n\r\n"), b"");
}
