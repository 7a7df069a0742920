use super::*;

use sextant_service::config::{Loaded, Sources, load};

fn try_load(toml: &str) -> Result<Loaded<Config>, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("store.toml");
    std::fs::write(&file, toml).unwrap();
    load("store", &Sources { file: Some(file), ..Sources::default() })
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
    let loaded = load::<Config>("store", &Sources::default()).unwrap();
    assert_eq!(loaded.value, Config::default());
    let printed = loaded.to_toml();
    assert!(printed.contains("listen = [\"127.0.0.1:6380\"]"), "{printed}");
    assert!(printed.contains("durability = \"always\""), "{printed}");
    assert_eq!(self::loaded(&printed), Config::default());
}

#[test]
fn the_documented_file_is_read_and_says_the_defaults() {
    let text = r#"
        data = "./data/store"
        cores = 0
        driver = "auto"
        [admin]
        listen = "127.0.0.1:7702"
        [limits]
        connections_max = 20000
        instances_max = 10000
        [default]
        enabled = true
        listen = ["127.0.0.1:6380"]
        unix_socket_mode = "0700"
        protected_mode = true
        durability = "always"
        memory_max = 0
        connections_max = 10000
        databases = 16
    "#;
    assert_eq!(loaded(text), Config::default());
}

#[test]
fn what_is_set_is_read_and_printed_the_same() {
    let text = r#"
        cores = 3
        driver = "epoll"
        [default]
        listen = []
        unix_socket = "/run/sextant/store.sock"
        unix_socket_mode = "770"
        durability = "none"
        memory_max = "2GiB"
        connections_max = 7
        databases = 1
    "#;
    let config = loaded(text);
    assert_eq!(config.cores(), 3);
    assert_eq!(config.default.unix_socket_mode, Mode(0o770));
    assert_eq!(config.default.durability, Keeping::Nothing);
    assert_eq!(config.default.memory_max, Bytes::gib(2));
    let printed = try_load(text).unwrap().to_toml();
    assert!(printed.contains("unix_socket_mode = \"0770\""), "{printed}");
    assert_eq!(loaded(&printed), config);
}

#[test]
fn a_durability_is_none_a_word_or_a_time() {
    let keeping = |text: &str| {
        loaded(&format!("default.durability = \"{text}\"")).default.durability.to_string()
    };
    for text in ["none", "always", "os", "50ms"] {
        assert_eq!(keeping(text), text);
    }
    let said = fault("default.durability = \"never\"");
    assert!(said.contains("default.durability") && said.contains("\"none\""), "{said}");
    assert!(fault("default.durability = \"2h\"").contains("1ms to 60s"));
}

#[test]
fn who_is_not_on_this_machine_is_kept_out_unless_the_operator_says_otherwise() {
    for addr in ["0.0.0.0:6380", "[::]:6380", "192.168.1.1:6380"] {
        let toml = format!("default.listen = [\"{addr}\"]");
        let said = fault(&toml);
        assert!(said.contains("default.listen[0]") && said.contains("anybody"), "{said}");
        loaded(&format!("{toml}\ndefault.protected_mode = false"));
    }
    loaded("default.listen = [\"[::1]:6380\", \"[::ffff:127.0.0.1]:6381\", \"127.0.0.9:6380\"]");
}

#[test]
fn every_limit_is_checked_and_named() {
    let twice = "default.listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]";
    let long = format!("default.unix_socket = \"/{}\"", "x".repeat(107));
    let many = format!("default.listen = [{}]", "\"127.0.0.1:0\",".repeat(17));
    for (toml, key) in [
        ("cores = 129", "cores"),
        ("data = \"\"", "data"),
        ("limits.connections_max = 0", "limits.connections_max"),
        ("limits.instances_max = 100001", "limits.instances_max"),
        ("default.connections_max = 20001", "default.connections_max"),
        ("default.connections_max = 0", "default.connections_max"),
        ("default.databases = 0", "default.databases"),
        ("default.databases = 16385", "default.databases"),
        ("default.memory_max = \"1kB\"", "default.memory_max"),
        ("default.unix_socket_mode = \"0888\"", "default.unix_socket_mode"),
        ("default.unix_socket_mode = \"1777\"", "default.unix_socket_mode"),
        ("default.unix_socket_mode = \"+7\"", "default.unix_socket_mode"),
        ("default.unix_socket = \"\"", "default.unix_socket"),
        ("default.listen = []", "default.listen"),
        ("default.nonsense = 1", "default.nonsense"),
        ("driver = \"kqueue\"", "driver"),
        (twice, "default.listen[1]"),
        (&long, "default.unix_socket"),
        (&many, "default.listen"),
    ] {
        let said = fault(toml);
        assert!(said.contains(key), "{toml}: {said}");
    }
    loaded("default.listen = []\ndefault.enabled = false");
    loaded("default.listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]");
}

#[test]
fn the_environment_has_a_variable_for_each_key() {
    let variables = vec![
        ("SEXTANT_STORE_CORES".into(), "2".into()),
        ("SEXTANT_STORE_DEFAULT__DURABILITY".into(), "os".into()),
    ];
    let config = load::<Config>("store", &Sources { env: variables, ..Sources::default() });
    let config = config.unwrap_or_else(|error| panic!("{error}")).value;
    assert_eq!((config.cores, config.default.durability), (2, Keeping::Log(Durability::Os)));
}
