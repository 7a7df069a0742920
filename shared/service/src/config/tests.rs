use super::*;

use serde::Deserialize;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Daemon {
    data: PathBuf,
    cores: u16,
    mqtt: Mqtt,
    auth: Auth,
    tls: Option<Tls>,
    durability: Durability,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Mqtt {
    listen: Vec<std::net::SocketAddr>,
    connections_max: u32,
    connect_timeout: Span,
    packet_bytes_max: Bytes,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Auth {
    anonymous: Option<bool>,
    users: Vec<User>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct User {
    name: String,
    password: Secret,
    #[serde(default)]
    allow: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tls {
    certificate: String,
    #[serde(default)]
    ratio: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Durability {
    Always,
    Os,
    Every(Span),
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            data: "./data/push".into(),
            cores: 0,
            mqtt: Mqtt {
                listen: vec!["127.0.0.1:1883".parse().unwrap()],
                connections_max: 10_000,
                connect_timeout: Span::secs(10),
                packet_bytes_max: Bytes::mib(1),
            },
            auth: Auth::default(),
            tls: None,
            durability: Durability::Always,
            labels: BTreeMap::new(),
        }
    }
}

impl Config for Daemon {
    fn check(&self, faults: &mut Faults<'_>) {
        faults.require("mqtt.connections_max", self.mqtt.connections_max > 0, "must be 1 or more");
        for (index, user) in self.auth.users.iter().enumerate() {
            let key = format!("auth.users[{index}].name");
            faults.require(&key, !user.name.is_empty(), "must not be empty");
        }
    }
}

/// Loads from a file's text, variables and `--set`s.
fn load_from(
    toml: &str,
    env: &[(&str, &str)],
    sets: &[&str],
) -> Result<Loaded<Daemon>, Vec<String>> {
    load_in(&tempfile::tempdir().unwrap(), toml, env, sets)
}

fn load_in(
    dir: &tempfile::TempDir,
    toml: &str,
    env: &[(&str, &str)],
    sets: &[&str],
) -> Result<Loaded<Daemon>, Vec<String>> {
    let file = dir.path().join("push.toml");
    std::fs::write(&file, toml).unwrap();
    let sources = Sources {
        file: Some(file),
        env: env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        sets: sets.iter().map(|set| (*set).to_owned()).collect(),
        flags: Vec::new(),
    };
    let prefix = format!("{}/", dir.path().display());
    load("push", &sources).map_err(|error| {
        error.faults.iter().map(|fault| fault.to_string().replace(&prefix, "")).collect()
    })
}

fn faults_of(toml: &str) -> Vec<String> {
    load_from(toml, &[], &[]).expect_err("the configuration is faulty")
}

#[test]
fn with_no_sources_the_defaults_come_back() {
    let loaded = load::<Daemon>("push", &Sources::default()).unwrap();
    assert_eq!(loaded.value, Daemon::default());
    assert!(!loaded.to_toml().contains('#'), "{}", loaded.to_toml());
}

#[test]
fn a_later_layer_wins_key_by_key() {
    let loaded = load_from(
        "cores = 1\n[mqtt]\nconnections_max = 1\nconnect_timeout = \"1s\"\n",
        &[("SEXTANT_PUSH_MQTT__CONNECT_TIMEOUT", "2s"), ("SEXTANT_PUSH_CORES", "2")],
        &["cores=3"],
    )
    .unwrap();
    assert_eq!(loaded.value.mqtt.connections_max, 1);
    assert_eq!(loaded.value.mqtt.connect_timeout, Span::secs(2));
    assert_eq!(loaded.value.cores, 3);
    assert_eq!(loaded.value.mqtt.packet_bytes_max, Bytes::mib(1));
    assert_eq!(loaded.origin("cores"), Origin::Flag("--set".to_owned()));
    assert!(matches!(loaded.origin("mqtt.connections_max"), Origin::File { line: 3, .. }));
    assert_eq!(loaded.origin("mqtt.packet_bytes_max"), Origin::Default);
}

#[test]
fn the_daemons_own_flags_win_over_all() {
    let sources = Sources {
        sets: vec!["cores=3".to_owned()],
        flags: vec![
            Flag::new("--cores", "cores", 4),
            Flag::new("--mqtt", "mqtt.listen", vec!["127.0.0.2:1883".to_owned()]),
        ],
        ..Sources::default()
    };
    let loaded = load::<Daemon>("push", &sources).unwrap();
    assert_eq!(loaded.value.cores, 4);
    assert_eq!(loaded.value.mqtt.listen, ["127.0.0.2:1883".parse().unwrap()]);
}

#[test]
fn text_becomes_what_the_type_wants() {
    let loaded = load_from(
        "",
        &[
            ("SEXTANT_PUSH_MQTT__LISTEN", "127.0.0.1:1, [::1]:2"),
            ("SEXTANT_PUSH_MQTT__PACKET_BYTES_MAX", "2048"),
            ("SEXTANT_PUSH_AUTH__ANONYMOUS", "true"),
            ("SEXTANT_PUSH_AUTH__USERS__0__NAME", "12"),
            ("SEXTANT_PUSH_AUTH__USERS__0__PASSWORD", "true"),
            ("SEXTANT_PUSH_AUTH__USERS__1__NAME", "\"q\""),
            ("SEXTANT_PUSH_AUTH__USERS__1__PASSWORD", "a=b,c"),
            ("SEXTANT_PUSH_LABELS__ZONE", "eu-1"),
            ("OTHER_PUSH_CORES", "x"),
        ],
        &[
            "durability={ every = \"50ms\" }",
            "tls={certificate='x', ratio=0.5}",
            "data=\"/var/lib\"",
            "auth.users.1.allow=[\"publish a,b\"]",
        ],
    )
    .unwrap();
    let value = loaded.value;
    assert_eq!(value.mqtt.listen.len(), 2);
    assert_eq!(value.mqtt.packet_bytes_max, Bytes::kib(2));
    assert_eq!(value.auth.anonymous, Some(true));
    assert_eq!(value.auth.users[0].name, "12");
    assert_eq!(value.auth.users[0].password.expose(), "true");
    assert_eq!(value.auth.users[1].name, "\"q\"");
    assert_eq!(value.auth.users[1].password.expose(), "a=b,c");
    assert_eq!(value.auth.users[1].allow, ["publish a,b"]);
    assert_eq!(value.durability, Durability::Every(Span::millis(50)));
    assert_eq!(value.tls, Some(Tls { certificate: "x".to_owned(), ratio: 0.5 }));
    assert_eq!(value.data, Path::new("/var/lib"));
    assert_eq!(value.labels["zone"], "eu-1");
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_valid_one() {
    assert_eq!(
        faults_of("cores = 1\n\n[mqtt]\nconections_max = 1\n"),
        ["push.toml:4: `mqtt.conections_max`: unknown key; did you mean `mqtt.connections_max`?"]
    );
}

#[test]
fn unknown_keys_are_found_in_optional_tables_arrays_and_inline_tables_all_at_once() {
    let faults = faults_of(
        "core = 1\n\
         tls = { certificate = \"x\", ratoi = 1.0 }\n\
         [[auth.users]]\nname = \"a\"\npassword = \"x\"\n\
         [[auth.users]]\nname = \"b\"\npassword = \"x\"\nalow = []\n\
         [queue]\nsize = 1\n",
    );
    assert_eq!(
        faults,
        [
            "push.toml:9: `auth.users[1].alow`: unknown key; did you mean `auth.users[1].allow`?",
            "push.toml:1: `core`: unknown key; did you mean `cores`?",
            "push.toml:10: `queue`: unknown key",
            "push.toml:2: `tls.ratoi`: unknown key; did you mean `tls.ratio`?",
        ]
    );
}

#[test]
fn a_key_in_the_wrong_table_is_pointed_to_the_right_one() {
    assert_eq!(
        faults_of("connect_timeout = \"1s\"\n"),
        ["push.toml:1: `connect_timeout`: unknown key; did you mean `mqtt.connect_timeout`?"]
    );
}

#[test]
fn an_unknown_variable_and_an_unknown_set_are_errors_too() {
    let faults =
        load_from("", &[("SEXTANT_PUSH_MQTT__LISTN", "x")], &["mqtt.listten=1"]).unwrap_err();
    assert_eq!(
        faults,
        [
            "environment variable SEXTANT_PUSH_MQTT__LISTN: `mqtt.listn`: unknown key; \
             did you mean `mqtt.listen`?",
            "flag --set: `mqtt.listten`: unknown key; did you mean `mqtt.listen`?",
        ]
    );
}

#[test]
fn every_value_of_a_wrong_type_is_reported_and_not_only_the_first() {
    let faults = faults_of(
        "cores = 70000\ndurability = \"allways\"\n\
         [mqtt]\nconnections_max = \"many\"\nconnect_timeout = 10\npacket_bytes_max = \"1M\"\n\
         listen = [\"127.0.0.1:1883\", \"localhost\"]\n\
         [[auth.users]]\nname = 1\npassword = \"x\"\n\
         [[auth.users]]\nname = \"b\"\n",
    );
    let expected = [
        "push.toml:9: `auth.users[0].name`: expected a string, found 1",
        "push.toml:11: `auth.users[1]`: the key `password` is missing",
        "push.toml:1: `cores`: expected a whole number from 0 to 65535, found 70000",
        "push.toml:2: `durability`: expected one of \"always\", \"os\", \"every\", found \
         \"allways\"; did you mean `always`?",
        "push.toml:5: `mqtt.connect_timeout`: expected a length of time with its unit, such as \
         \"10s\", found 10",
        "push.toml:4: `mqtt.connections_max`: expected a whole number from 0 to 4294967295, \
         found \"many\"",
        "push.toml:7: `mqtt.listen[1]`: invalid socket address syntax",
        "push.toml:6: `mqtt.packet_bytes_max`: \"1M\" has no known unit: write one of B, kB, KiB, \
         MB, MiB, GB, GiB, TB, TiB",
    ];
    let mut faults = faults;
    faults.sort_by_key(|fault| fault.split('`').nth(1).map(str::to_owned));
    assert_eq!(faults, expected);
}

#[test]
fn a_type_error_in_the_environment_names_the_variable() {
    let faults = load_from("", &[("SEXTANT_PUSH_CORES", "two")], &["mqtt"]).unwrap_err();
    assert_eq!(
        faults,
        [
            "flag --set: `mqtt`: expected KEY=VALUE",
            "environment variable SEXTANT_PUSH_CORES: `cores`: expected a whole number from 0 to \
             65535, found \"two\"",
        ]
    );
}

#[test]
fn syntax_errors_name_their_line() {
    let faults = faults_of("cores = 1\ndata = \nmqtt = ]\n");
    assert!(faults[0].starts_with("push.toml:2: "), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.starts_with("push.toml:3: ")), "{faults:?}");
}

#[test]
fn a_file_that_is_not_there_is_an_error_with_its_path() {
    let sources = Sources { file: Some("/nowhere/push.toml".into()), ..Sources::default() };
    let error = load::<Daemon>("push", &sources).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/push.toml: cannot open"), "{error}");
}

#[test]
fn what_check_finds_is_given_its_place() {
    assert_eq!(
        faults_of("[mqtt]\nconnections_max = 0\n[[auth.users]]\nname = \"\"\npassword = \"x\"\n"),
        [
            "push.toml:2: `mqtt.connections_max`: must be 1 or more",
            "push.toml:4: `auth.users[0].name`: must not be empty",
        ]
    );
}

#[test]
fn the_printed_configuration_redacts_names_origins_and_reads_back() {
    let loaded = load_from(
        "[mqtt]\nconnections_max = 7\n\
         [[auth.users]]\nname = \"a\"\npassword = \"hunter2\"\n\
         [labels]\n\"a b\" = \"c\"\n",
        &[("SEXTANT_PUSH_CORES", "2")],
        &[],
    )
    .unwrap();
    let text = loaded.to_toml();
    assert!(!text.contains("hunter2"), "{text}");
    assert!(!format!("{loaded:?}").contains("hunter2"), "{loaded:?}");
    assert!(text.contains("cores = 2  # environment variable SEXTANT_PUSH_CORES\n"), "{text}");
    assert!(text.contains("push.toml:2\n"), "{text}");
    assert!(text.contains("[[auth.users]]\n"), "{text}");
    assert!(text.contains("connect_timeout = \"10s\"\n"), "{text}");
    let again = load_from(&text.replace(REDACTED, "hunter2"), &[], &[]).unwrap();
    assert_eq!(again.value, loaded.value);
    let refused = faults_of(&text);
    assert!(refused[0].contains("write the secret itself"), "{refused:?}");
}

#[test]
fn a_secret_of_the_wrong_type_is_not_quoted_in_the_error() {
    for password in ["12345", "true", "1.2345", "[12345]", "{ a = 12345 }"] {
        let faults = faults_of(&format!("[[auth.users]]\nname = \"a\"\npassword = {password}\n"));
        let [fault] = faults.as_slice() else { panic!("{faults:?}") };
        assert!(fault.starts_with("push.toml:3: `auth.users[0].password`: "), "{fault}");
        assert!(!fault.contains("2345") && !fault.contains("true"), "{fault}");
    }
}

#[test]
fn a_reload_says_which_keys_changed_and_sees_secrets() {
    let user = |password: &str, cores: u16| {
        load_from(
            &format!("cores = {cores}\n[[auth.users]]\nname = \"a\"\npassword = \"{password}\"\n"),
            &[],
            &[],
        )
        .unwrap()
    };
    assert_eq!(user("x", 1).changed_keys(&user("y", 2)), ["auth.users", "cores"]);
    assert!(user("x", 1).changed_keys(&user("x", 1)).is_empty());
    assert_eq!(
        user("x", 1).changes(&user("y", 2), &["auth", "core"]),
        Changes { live: vec!["auth.users".to_owned()], restart: vec!["cores".to_owned()] }
    );
}

#[test]
fn nesting_without_end_is_refused() {
    let deep = "a.".repeat(100_000);
    let levels = "a.".repeat(70);
    for toml in [
        format!("{deep}a = 1\n"),
        format!("[{deep}a]\nb = 1\n"),
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a=".repeat(100_000)),
        "[[a]]\n[a.b]\n".repeat(1_000),
        format!("[{levels}a]\n{}", format!("{levels}a = {{ ").repeat(70)),
        format!("{}1{}", format!("{levels}a = {{ ").repeat(70), "}".repeat(70)),
    ] {
        assert!(!faults_of(&toml).is_empty());
    }
    let variable = format!("SEXTANT_PUSH_{}A", "A__".repeat(10_000));
    let faults = load_from("", &[(&variable, "1")], &[&format!("{deep}a=1")]).unwrap_err();
    assert_eq!(faults.len(), 2, "one each");
}

#[test]
fn no_document_panics_the_loader() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    let pieces = [
        "cores",
        "mqtt",
        ".",
        "[",
        "]",
        "[[",
        "]]",
        "=",
        "\n",
        "\"",
        "auth",
        "users",
        "1",
        "-",
        "99999999999999999999",
        "{",
        "}",
        ",",
        "tls",
        "'",
        "0x",
        "é",
        " ",
        "true",
        "1979-05-27",
        "listen",
        "durability",
        "every",
        "1.5",
        "nan",
        "labels",
        "name",
        "password",
    ];
    for _ in 0..3_000 {
        let text: String =
            (0..random.usize(0..24)).map(|_| random.choice(pieces).unwrap()).collect();
        let key: String = (0..random.usize(0..4)).map(|_| random.choice(pieces).unwrap()).collect();
        let _ = load_in(
            &dir,
            &text,
            &[(&format!("SEXTANT_PUSH_{}", key.to_uppercase()), &text)],
            &[&format!("{key}={text}")],
        );
    }
}
