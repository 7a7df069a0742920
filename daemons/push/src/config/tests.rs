use super::*;

use sextant_service::config::{Loaded, Sources, load};

const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA\
                    $MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";

fn try_load(toml: &str) -> Result<Loaded<Config>, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("push.toml");
    std::fs::write(&file, toml).unwrap();
    load("push", &Sources { file: Some(file), ..Sources::default() })
        .map_err(|error| error.to_string())
}

fn loaded(toml: &str) -> Config {
    try_load(toml).unwrap_or_else(|error| panic!("{error}")).value
}

fn fault(toml: &str) -> String {
    try_load(toml).map(|loaded| loaded.value).expect_err(toml)
}

#[test]
fn with_no_sources_the_defaults_come_back() {
    let loaded = load::<Config>("push", &Sources::default()).unwrap();
    assert_eq!(loaded.value, Config::default());
    let printed = loaded.to_toml();
    assert!(printed.contains("durability = \"always\""), "{printed}");
    assert!(printed.contains("listen = [\"127.0.0.1:1883\"]"), "{printed}");
    assert_eq!(self::loaded(&printed), Config::default());
}

#[test]
fn a_driver_is_named_and_another_name_is_a_fault() {
    for (name, driver) in
        Driver::NAMES.into_iter().zip([Driver::Auto, Driver::IoUring, Driver::Epoll])
    {
        assert_eq!(loaded(&format!("driver = \"{name}\"")).driver, driver);
    }
    let error = fault("driver = \"kqueue\"");
    assert!(error.contains("driver") && error.contains("io_uring"), "{error}");
}

#[test]
fn the_documented_file_is_read_and_says_the_defaults() {
    let text = r#"
        data = "./data/push"
        cores = 0
        driver = "auto"
        [admin]
        listen = "127.0.0.1:7701"
        [mqtt]
        listen = ["127.0.0.1:1883"]
        connections_max = 10000
        connect_timeout = "10s"
        packet_bytes_max = "1MiB"
        receive_max = 64
        inflight_max = 64
        topic_alias_max = 16
        outgoing_topic_alias_max = 16
        keep_alive_max = "20m"
        suback_reasons = true
        session_expiry_max = "7d"
        will_grace = "30s"
        sys_interval = "10s"
        send_queue_bytes_max = "1MiB"
        send_queue_messages_max = 1000
        slow_client_timeout = "30s"
        queue_messages_max = 10000
        queue_bytes_max = "64MiB"
        retained_bytes_max = "64MiB"
        device_waiting_max = 1000
        receipts_max = 100000
        mesh_capacity = 4096
        [log]
        durability = "always"
        bytes_max = "8GiB"
        segment_bytes_max = "64MiB"
        [auth.jwt]
        secret = ""
        public_keys = []
        audience = []
        issuer = []
        leeway = "10s"
        expiry_required = true
        allow = ["all d/{user}/#"]
        [limits]
        connects_per_second = 0
        connects_waiting_max = 100000
        connect_wait_max = "20s"
        client_messages_per_second = 0
        client_bytes_per_second = 0
        messages_per_second = 0
        traces_max = 16
        [auth.http]
        url = ""
        timeout = "2s"
        requests_max = 16
        queue_max = 1000
        on_failure = "deny"
        allow = ["all d/{user}/#"]
        [presence]
        topic = true
        [presence.webhook]
        url = ""
        secret = ""
        timeout = "5s"
        batch_max = 500
        batch_delay = "200ms"
        queue_bytes_max = "16MiB"
        retry_max = "1m"
        flush_max = "5s"
        [auth]
        device_allow = []
    "#;
    assert_eq!(loaded(text), Config::default());
    let auth = loaded(&format!(
        "{text}anonymous = false\n[[auth.users]]\nname = \"dashboard\"\npassword = \"{HASH}\"\n\
         allow = [\"publish d/+/cmd\", \"subscribe d/+/#\"]\n"
    ))
    .auth;
    assert_eq!((auth.anonymous, auth.users.len()), (Some(false), 1));
}

#[test]
fn anonymous_clients_are_allowed_until_there_are_users() {
    let user = format!("[[auth.users]]\nname = \"u\"\npassword = \"{HASH}\"\n");
    assert!(loaded("").auth.allows_anonymous());
    assert!(!loaded(&user).auth.allows_anonymous());
    assert!(loaded(&format!("auth.anonymous = true\n{user}")).auth.allows_anonymous());
    assert!(!loaded("auth.anonymous = false\n").auth.allows_anonymous());
}

#[test]
fn keys_for_tokens_are_checked_and_end_anonymous_clients() {
    let secret = "auth.jwt.secret = \"thirty-two bytes are what it takes\"\n";
    assert!(!loaded(secret).auth.allows_anonymous());
    assert!(!loaded("auth.jwt.jwks_file = \"keys.json\"\n").auth.allows_anonymous());
    loaded(&format!("mqtt.listen = [\"0.0.0.0:1883\"]\n{secret}"));
    let short = fault("auth.jwt.secret = \"hunter2\"\n");
    assert!(short.contains("32 bytes") && !short.contains("hunter2"), "{short}");
    assert!(fault(&format!("{secret}auth.jwt.secret_file = \"key\"\n")).contains("one secret"));
    assert!(fault("auth.jwt.leeway = \"11m\"\n").contains("10m or less"));
    assert!(fault("auth.jwt.allow = [\"write a\"]\n").contains("auth.jwt.allow[0]"));
}

#[test]
fn who_is_asked_over_http_is_checked_and_ends_anonymous_clients() {
    let url = "auth.http.url = \"http://127.0.0.1:80/auth\"\n";
    assert!(!loaded(url).auth.allows_anonymous());
    let headers = loaded(&format!("{url}auth.http.headers = {{ x-api-key = \"k\" }}\n"));
    assert_eq!(headers.auth.http.headers["x-api-key"].expose(), "k");
    for wrong in ["auth", "ftp://a/", "http://", "/auth"] {
        let error = fault(&format!("auth.http.url = \"{wrong}\"\n"));
        assert!(error.contains("`auth.http.url`"), "{error}");
    }
    for (key, value) in [
        ("timeout", "\"6s\""),
        ("timeout", "\"1ms\""),
        ("requests_max", "0"),
        ("queue_max", "0"),
        ("on_failure", "\"allow\""),
        ("allow", "[\"write a\"]"),
        ("headers", "{ \"a b\" = \"c\" }"),
    ] {
        let error = fault(&format!("{url}auth.http.{key} = {value}\n"));
        assert!(error.contains(&format!("auth.http.{key}")), "{error}");
    }
    let newline = fault("auth.http.headers = { key = \"hunter2\\n\" }\n");
    assert!(newline.contains("auth.http.headers.key"), "{newline}");
    assert!(!newline.contains("hunter2"), "{newline}");
}

#[test]
fn a_url_has_no_user_and_its_query_is_not_shown() {
    for (key, instead) in
        [("auth.http", "auth.http.headers"), ("presence.webhook", "presence.webhook.secret")]
    {
        for user in ["hunter1:hunter2@", "hunter2@", ":hunter2@", "@"] {
            let error = fault(&format!("{key}.url = \"https://{user}example.org/hook\"\n"));
            assert!(error.contains(&format!("`{key}.url`: must be without a user")), "{error}");
            assert!(error.contains(instead) && !error.contains("hunter"), "{error}");
        }
        // Nor is it quoted where it is no URL at all.
        let error = fault(&format!("{key}.url = \"hunter1:hunter2@example.org\"\n"));
        assert!(error.contains("must be http://HOST") && !error.contains("hunter"), "{error}");
    }
    let text = "auth.http.url = \"https://example.org/hook?key=hunter2\"\n";
    let sources = Sources { sets: vec![text.trim().to_owned()], ..Sources::default() };
    let loaded = load::<Config>("push", &sources).unwrap();
    let (printed, debug) = (loaded.to_toml(), format!("{:?}", loaded.value));
    for shown in [&printed, &debug] {
        assert!(shown.contains("https://example.org/hook?<redacted>"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert_eq!(loaded.value.auth.http.url.expose(), "https://example.org/hook?key=hunter2");
    let error = fault("auth.http.url = \"https://example.org/hook?<redacted>\"\n");
    assert!(error.contains("write that itself"), "{error}");
}

#[test]
fn a_secret_in_a_table_that_is_none_is_not_quoted() {
    for (key, value) in [
        ("auth.http.headers", "authorization: hunter2"),
        ("auth.users", "u:hunter2"),
        ("auth.jwt", "hunter2"),
        ("presence.webhook", "hunter2"),
    ] {
        let error = fault(&format!("{key} = \"{value}\"\n"));
        assert!(error.contains(&format!("`{key}`")) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_user_has_a_password_or_a_proof_of_one() {
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let user = |more: &str| format!("[[auth.users]]\nname = \"u\"\n{more}\n");
    let scram = format!("scram = \"SCRAM-SHA-256$4096:AAAAAAAAAAA=${key}:{key}\"");
    loaded(&user(&scram));
    loaded(&user(&format!("{scram}\npassword = \"{HASH}\"")));
    assert!(fault(&user("")).contains("`auth.users[0].password`"));
    let error = fault(&user("scram = \"hunter2\""));
    assert!(error.contains("`auth.users[0].scram`") && error.contains("--scram"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_webhook_needs_a_secret_and_bounds() {
    let url = "presence.webhook.url = \"https://a/b\"\n";
    assert!(fault(url).contains("`presence.webhook.secret`: must have 16 bytes"));
    let both = format!("{url}presence.webhook.secret = \"sixteen bytes it is\"\n");
    assert!(loaded(&both).presence.webhook.is_configured());
    for (key, value) in [
        ("timeout", "\"0\""),
        ("retry_max", "\"2h\""),
        ("flush_max", "\"2m\""),
        ("batch_delay", "\"2m\""),
        ("batch_max", "0"),
        ("queue_bytes_max", "1"),
        ("url", "\"a\""),
    ] {
        let error = fault(&format!("presence.webhook.{key} = {value}\n"));
        assert!(error.contains(&format!("presence.webhook.{key}")), "{error}");
    }
}

#[test]
fn a_listener_that_others_reach_needs_authentication() {
    for addr in ["0.0.0.0:1883", "[::]:1883", "192.0.2.1:1883", "[::ffff:192.0.2.1]:1883"] {
        let listen = format!("mqtt.listen = [\"127.0.0.1:1883\", \"{addr}\"]\n");
        let error = fault(&listen);
        assert!(error.contains("`mqtt.listen[1]`"), "{error}");
        assert!(error.contains("auth.anonymous = false"), "{error}");
        loaded(&format!("{listen}auth.anonymous = false\n"));
        loaded(&format!("{listen}[[auth.users]]\nname = \"u\"\npassword = \"{HASH}\"\n"));
    }
    loaded("mqtt.listen = [\"127.8.0.1:1883\", \"[::1]:1883\", \"[::ffff:127.0.0.1]:1883\"]\n");
}

#[test]
fn users_are_checked_and_their_secrets_not_quoted() {
    let user = |name: &str, password: &str, rule: &str| {
        format!(
            "[[auth.users]]\nname = \"{name}\"\npassword = \"{password}\"\nallow = [\"{rule}\"]\n"
        )
    };
    let good = user("u", HASH, "all a/#");
    loaded(&good);
    let plain = fault(&user("u", "hunter2", "all a/#"));
    assert!(plain.contains("`auth.users[0].password`") && plain.contains("passwd"), "{plain}");
    assert!(!plain.contains("hunter2"), "{plain}");
    let rule = fault(&user("u", HASH, "publsh a"));
    assert!(rule.contains("`auth.users[0].allow[0]`"), "{rule}");
    let twice = fault(&format!("{good}{good}"));
    assert!(twice.contains("`auth.users[1].name`: another user"), "{twice}");
    assert!(fault(&user("", HASH, "all a")).contains("name"));
    let device = fault("auth.device_allow = [\"all x/{device}\"]\n");
    assert!(device.contains("`auth.device_allow[0]`"), "{device}");
}

#[test]
fn every_fault_is_found_at_once() {
    let error = fault(
        "cores = 1000\nmqtt.connections_max = 0\nmqtt.receive_max = 0\nmqtt.inflight_max = 0\n\
         mqtt.keep_alive_max = \"1500ms\"\nmqtt.connect_timeout = \"0\"\n\
         mqtt.queue_messages_max = 0\nmqtt.mesh_capacity = 1\nadmin.connections_max = 0\n\
         admin.request_timeout = \"10s\"\n",
    );
    assert_eq!(error.lines().count(), 10, "{error}");
}

#[test]
fn a_packet_must_fit_in_the_queues() {
    let error = fault("mqtt.packet_bytes_max = \"4MiB\"\n");
    assert!(error.contains("`mqtt.send_queue_bytes_max`: must hold a packet"), "{error}");
    assert!(error.contains("raise it to 4MiB"), "{error}");
    assert!(fault("mqtt.packet_bytes_max = \"257MiB\"\n").contains("1KiB to 256MiB"));
    assert!(fault("mqtt.packet_bytes_max = 100\n").contains("1KiB to 256MiB"));
}

#[test]
fn durability_is_a_word_or_a_time() {
    use sextant_segment::Durability as Kept;
    let durability =
        |text: &str| of_log(loaded(&format!("log.durability = \"{text}\"\n")).log.durability);
    assert_eq!(durability("always"), Kept::Always);
    assert_eq!(durability("os"), Kept::Os);
    assert_eq!(durability("50ms"), Kept::Every(Duration::from_millis(50)));
    for text in ["never", "0", "61s", "50", ""] {
        let error = fault(&format!("log.durability = \"{text}\"\n"));
        assert!(error.contains("always") && error.contains("`log.durability`"), "{error}");
    }
}

#[test]
fn the_limits_of_the_protocol_are_those_configured() {
    let limits = Config::default().server_limits();
    assert_eq!(limits, ServerLimits { outbound_alias_max: 16, ..ServerLimits::default() });
    let limits = loaded(
        "mqtt.keep_alive_max = \"0\"\nmqtt.session_expiry_max = \"36525d\"\n\
         mqtt.topic_alias_max = 3\nmqtt.packet_bytes_max = \"256KiB\"\nmqtt.receive_max = 7\n",
    )
    .server_limits();
    assert_eq!((limits.keep_alive_max_s, limits.session_expiry_max_s), (0, 36_525 * 86_400));
    assert_eq!((limits.inbound_alias_max, limits.outbound_alias_max), (3, 16));
    assert_eq!((limits.packet_bytes_max.get(), limits.receive_max.get()), (256 << 10, 7));
}

#[test]
fn the_log_of_each_core_has_its_share_and_holds_the_longest_message() {
    let options = Config::default().log_options(4, 7, 3);
    assert_eq!((options.id, options.ticket_space), (7, 3));
    assert_eq!((options.bytes_max, options.segment_bytes_min), (2 << 30, 4 << 20));
    assert_eq!(options.record_bytes_max, (1 << 20) + (64 << 10));
    assert_eq!(options.check(), Ok(()));
}

#[test]
fn a_log_that_is_too_small_is_refused_with_what_it_takes() {
    let error = fault("log.segment_bytes_max = \"1MiB\"\n");
    assert!(error.contains("`log.segment_bytes_max`"), "{error}");
    let error = fault("cores = 8\nlog.bytes_max = \"16MiB\"\n");
    assert!(error.contains("`log.bytes_max`") && error.contains("8 cores"), "{error}");
    assert!(fault("log.segment_bytes_max = \"2GiB\"\n").contains("1GiB or less"));
}

#[test]
fn whatever_passes_the_check_makes_a_log_that_can_be_opened() {
    for packet in ["1KiB", "64KiB", "1MiB", "3MiB", "255MiB", "256MiB"] {
        for segment in ["128KiB", "1MiB", "2MiB", "5000000", "64MiB", "300MiB", "1GiB"] {
            for bytes in ["1MiB", "16MiB", "40000001", "8GiB", "64GiB", "1TiB"] {
                for cores in [1, 2, 3, 64, usize::from(CORES_MAX)] {
                    let text = format!(
                        "cores = {cores}\n[mqtt]\npacket_bytes_max = \"{packet}\"\n\
                         send_queue_bytes_max = \"1GiB\"\nqueue_bytes_max = \"1GiB\"\n\
                         [log]\nsegment_bytes_max = \"{segment}\"\nbytes_max = \"{bytes}\"\n"
                    );
                    match try_load(&text) {
                        Ok(loaded) => {
                            let options = loaded.value.log_options(cores, 1, 0);
                            assert_eq!(options.check(), Ok(()), "{text}");
                        }
                        // Each refusal says which key to change, and to what.
                        Err(error) => assert!(error.contains("raise it to"), "{error}"),
                    }
                }
            }
        }
    }
}
