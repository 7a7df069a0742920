//! The HTTP API is as `openapi.json` describes it: schemathesis, which is somebody else's, asks a
//! daemon what the document allows and what it does not, and looks at every answer.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use sextant_tests::{Api, Daemon, Lines, Mqtt, Options, schemathesis};

/// How long all of it may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(480);

/// The classes that there are by default, but without hours, and one that is reviewed.
const CLASSES: &str = "[platform.policy.classes.operational]\n\
                       [platform.policy.classes.transactional]\n\
                       [platform.policy.classes.marketing]\n\
                       [platform.policy.classes.reviewed]\nreview = true\n";

/// Something to be asked about: the ids of a message, of one that is held, and of one that was
/// pushed; and the token of a device.
struct World {
    message: String,
    held: String,
    pushed: String,
    token: String,
}

fn make(api: &Api) -> World {
    let ask = |method: &str, path: &str, body: &serde_json::Value| {
        let answer = api.ask(method, path, Some(body.to_string().as_bytes())).unwrap();
        assert!(answer.status < 300, "{path}: {} {}", answer.status, answer.text);
        answer.json
    };
    let text = |json: &serde_json::Value| json.as_str().unwrap().to_owned();
    ask("PUT", "/v1/apps/shop", &json!(null));
    ask("POST", "/v1/apps/shop/keys", &json!({"name": "crm", "role": "send"}));
    for device in ["phone-1", "phone-2", "lost-1", "lost-2"] {
        let body = json!({"platform": "ios", "alias": "user-7", "attributes": {"city": "sz"}});
        ask("PUT", &format!("/v1/apps/shop/devices/{device}"), &body);
    }
    let message = json!({"target": {"everyone": true}, "data": {}});
    let held = json!({"target": {"everyone": true}, "data": {}, "class": "reviewed"});
    let token = ask("POST", "/v1/apps/shop/devices/phone-1/tokens", &json!({}));
    World {
        message: text(&ask("POST", "/v1/apps/shop/messages", &message)["id"]),
        held: text(&ask("POST", "/v1/apps/shop/messages", &held)["id"]),
        pushed: api.send(&json!({"device": "lamp", "payload": "on"})),
        token: text(&token["token"]),
    }
}

#[test]
fn every_answer_of_the_api_is_one_that_its_document_describes() {
    let daemon = Daemon::start_with(Options::config(CLASSES));
    let api = daemon.api();
    let World { message, held, pushed, token } = make(&api);
    let admin = std::fs::read_to_string(daemon.data().join("admin.token")).unwrap();
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let settings = std::fs::read_to_string(clients.join("schemathesis.toml")).unwrap();
    let hooks = clients.join("schemathesis_hooks.py");
    let settings = [
        ("${HOOKS}", hooks.to_str().unwrap()),
        ("${ADMIN_TOKEN}", admin.trim()),
        ("${DEVICE_TOKEN}", &token),
        ("${MESSAGE}", &message),
        ("${HELD}", &held),
        ("${PUSHED}", &pushed),
    ]
    .into_iter()
    .fold(settings, |settings, (name, value)| settings.replace(name, value));
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("schemathesis.toml");
    std::fs::write(&config, settings).unwrap();
    let _lamp = Mqtt::clean(daemon.mqtt(), "lamp");
    let mut run = schemathesis();
    run.current_dir(folder.path()).env("NO_PROXY", "*").arg("--config-file").arg(&config);
    run.args(["run", "--url", api.base(), &format!("{}/v1/openapi.json", api.base())]);
    let mut lines = Lines::start(run);
    lines.find_for(PATIENCE, "its end", |line| line.contains("Seed: ").then_some(()));
    let (is_well, said) = lines.end();
    assert!(is_well, "{said}\n{}", daemon.log());
    // It has asked, and was not refused everything.
    assert!(said.contains("Fuzzing") && said.contains("Coverage"), "{said}");
    assert_eq!(api.get("/v1/status").status, 200);
}
