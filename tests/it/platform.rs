//! The sender platform as those see it who use it: senders and reviewers are curl, devices are
//! mosquitto's clients with their own tokens.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sextant_tests::{Daemon, Options, Sub, command, try_publish, until};

/// A class without hours, and one of which every message is reviewed.
const CLASSES: &str = "[platform.policy.classes.operational]\n\
                       [platform.policy.classes.reviewed]\nreview = true\n";

/// What curl was answered.
struct Reply {
    status: u16,
    head: String,
    text: String,
}

impl Reply {
    #[track_caller]
    fn json(&self) -> Value {
        match serde_json::from_str(&self.text) {
            Ok(json) => json,
            Err(error) => panic!("{} {}: {error}", self.status, self.text),
        }
    }

    #[track_caller]
    fn lines(&self) -> Vec<Value> {
        self.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[track_caller]
    fn is(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "{}{}", self.head, self.text);
        if status >= 400 {
            assert!(self.head.contains("application/problem+json"), "{}", self.head);
            assert_eq!(self.json()["status"], status);
        }
        self
    }
}

/// Somebody who asks over HTTP.
#[derive(Clone)]
struct Sender {
    base: String,
    token: String,
}

impl Sender {
    /// Asks with curl.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, headers: &[&str], body: Option<&[u8]>) -> Reply {
        let mut curl: Command = command("curl");
        let url = format!("{}{path}", self.base);
        curl.args(["--noproxy", "*", "-sS", "-i", "--max-time", "30", "-X", method, &url]);
        curl.args(["-H", &format!("Authorization: Bearer {}", self.token)]);
        for header in headers {
            curl.args(["-H", header]);
        }
        if body.is_some() {
            curl.args(["--data-binary", "@-"]);
        }
        curl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut curl = curl.spawn().unwrap();
        // curl may have what it needs before it has read all.
        let _ = curl.stdin.take().unwrap().write_all(body.unwrap_or_default());
        let output = curl.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (head, text) = text.split_once("\r\n\r\n").unwrap_or_else(|| {
            panic!("curl: {}", String::from_utf8_lossy(&output.stderr));
        });
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        Reply { status, head: format!("{head}\n"), text: text.to_owned() }
    }

    #[track_caller]
    fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], None)
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Reply {
        let json = ["Content-Type: application/json"];
        self.ask("POST", path, &json, Some(body.to_string().as_bytes()))
    }

    #[track_caller]
    fn put(&self, path: &str, body: &Value) -> Reply {
        let json = ["Content-Type: application/json"];
        self.ask("PUT", path, &json, Some(body.to_string().as_bytes()))
    }

    fn with(&self, token: &str) -> Sender {
        Sender { token: token.to_owned(), ..self.clone() }
    }

    /// A message's id, once it is accepted.
    #[track_caller]
    fn send(&self, message: &Value) -> String {
        let reply = self.post("/v1/apps/shop/messages", message).is(202);
        let id = reply.json()["id"].as_str().unwrap().to_owned();
        assert!(reply.head.contains(&format!("/v1/apps/shop/messages/{id}")), "{}", reply.head);
        id
    }

    /// A message's funnel, once `number` of its devices are at `stage`.
    #[track_caller]
    fn funnel(&self, id: &str, stage: &str, number: u64) -> Value {
        until(&format!("{number} are {stage}"), || {
            let funnel = self.get(&format!("/v1/apps/shop/messages/{id}/funnel")).is(200).json();
            (funnel[stage] == number).then_some(funnel)
        })
    }

    /// The token of a device that is registered here.
    #[track_caller]
    fn device(&self, id: &str, more: &Value) -> String {
        let path = format!("/v1/apps/shop/devices/{id}");
        assert!(matches!(self.put(&path, more).status, 200 | 201));
        self.token_of(id)
    }

    #[track_caller]
    fn token_of(&self, id: &str) -> String {
        let path = format!("/v1/apps/shop/devices/{id}/tokens");
        let token = self.post(&path, &json!({"ttl": "1h"})).is(200).json();
        assert_eq!(token["device"], id);
        token["token"].as_str().unwrap().to_owned()
    }
}

/// A daemon with an app, and a key of each role.
struct Shop {
    daemon: Daemon,
    admin: Sender,
    send: Sender,
    read: Sender,
    review: Sender,
}

impl Shop {
    fn open() -> Shop {
        Shop::with(CLASSES)
    }

    fn with(config: &str) -> Shop {
        let daemon = Daemon::start_with(Options::config(config));
        let base = daemon.api().base().to_owned();
        let token = std::fs::read_to_string(daemon.data().join("admin.token")).unwrap();
        let admin = Sender { base, token: token.trim().to_owned() };
        admin.ask("PUT", "/v1/apps/shop", &[], None).is(201);
        admin.ask("PUT", "/v1/apps/shop", &[], None).is(200);
        let key = |role: &str| {
            let key = json!({"name": format!("{role}er"), "role": role});
            let made = admin.post("/v1/apps/shop/keys", &key).is(201).json();
            admin.post("/v1/apps/shop/keys", &key).is(409);
            admin.with(made["key"].as_str().unwrap())
        };
        let (send, read, review) = (key("send"), key("read"), key("review"));
        Shop { daemon, admin, send, read, review }
    }

    /// A device as mosquitto's client, subscribed to what is pushed to it.
    fn connect(&self, id: &str, token: &str) -> Sub {
        let mut sub = self.come_back(id, token);
        sub.lines().line_with("Subscribed (mid:");
        sub
    }

    /// The same where something waits for it, which may come before it is subscribed.
    fn come_back(&self, id: &str, token: &str) -> Sub {
        let topic = format!("d/{id}/push");
        let args = ["-V", "5", "-i", id, "-u", id, "-P", token, "-q", "1", "-t", &topic];
        Sub::start_unacknowledged(self.daemon.mqtt(), &args)
    }

    /// What a device says, acknowledged with QoS 1.
    #[track_caller]
    fn say(&self, id: &str, token: &str, topic: &str, what: &Value) {
        let (topic, what) = (format!("d/{id}/{topic}"), what.to_string());
        let args = ["-V", "5", "-i", id, "-u", id, "-P", token, "-q", "1", "-t", &topic];
        let (done, said) = try_publish(self.daemon.mqtt(), &[&args[..], &["-m", &what]].concat());
        assert!(done && !said.contains("rejected"), "{said}");
    }
}

fn pushed(sub: &mut Sub) -> Value {
    serde_json::from_str(&sub.message().payload).unwrap()
}

#[test]
fn a_message_reaches_a_device_which_tells_of_it_until_it_is_recalled() {
    let shop = Shop::open();
    let send = &shop.send;
    let phone = json!({"platform": "android", "attributes": {"city": "sz"}, "tags": ["vip"]});
    send.put("/v1/apps/shop/devices/phone-1", &phone).is(201);
    let token = send.device("phone-1", &phone);
    let _other = send.device("phone-2", &json!({"platform": "ios"}));
    shop.say("phone-1", &token, "topics", &json!({"subscribe": ["news", "sport"]}));
    let target = json!({"target": {"topic": "news"}});
    let count = shop.read.post("/v1/apps/shop/targets/count", &target).is(200).json();
    assert_eq!(count, json!({"devices": 1, "online": 0, "unknown": 0}));
    let mut sub = shop.connect("phone-1", &token);
    let id = send.send(&json!({
        "target": {"expression": "city:sz and tag:vip"}, "vars": {"name": "Li"},
        "notification": {"title": "Hi {{name}}"}, "data": {"n": 7},
    }));
    let message = pushed(&mut sub);
    assert_eq!((&message["id"], &message["type"]), (&json!(id), &json!("message")));
    assert_eq!(message["notification"], json!({"title": "Hi Li"}));
    assert_eq!(message["data"], json!({"n": 7}));
    let funnel = send.funnel(&id, "delivered", 1);
    assert_eq!((&funnel["targeted"], &funnel["sent"]), (&json!(1), &json!(1)));
    drop(sub);
    let receipt = |event: &str| json!({"receipts": [{"id": id, "event": event}]});
    shop.say("phone-1", &token, "receipts", &receipt("shown"));
    send.funnel(&id, "shown", 1);
    let own = send.with(&token);
    let say = |receipts: &Value| {
        let body = receipts.to_string();
        own.ask("POST", "/v1/receipts", &["X-Device: phone-1"], Some(body.as_bytes()))
    };
    let taken = say(&receipt("clicked")).is(200).json();
    assert_eq!(taken, json!({"accepted": 1, "repeated": 0, "unknown": 0}));
    assert_eq!(say(&receipt("shown")).is(200).json()["repeated"], 1);
    assert_eq!(send.funnel(&id, "clicked", 1)["shown"], 1);
    let recall = send.post(&format!("/v1/apps/shop/messages/{id}/recall"), &json!({})).is(200);
    assert_eq!(recall.json()["withdrawn"], 0, "it had come");
    assert!(recall.json()["recall_message"].is_string());
    send.post(&format!("/v1/apps/shop/messages/{id}/recall"), &json!({})).is(409);
    let mut sub = shop.come_back("phone-1", &token);
    assert_eq!(pushed(&mut sub), json!({"id": id, "type": "recall"}));
    told_by_the_audit(&shop, &id);
}

fn told_by_the_audit(shop: &Shop, id: &str) {
    let path = format!("/v1/apps/shop/audit?message={id}");
    let audit = shop.read.get(&path).is(200).json();
    let entries = audit["entries"].as_array().unwrap();
    let stages: Vec<&str> = entries.iter().filter_map(|entry| entry["stage"].as_str()).collect();
    for stage in ["accepted", "sent", "acknowledged", "shown", "clicked"] {
        let found = stages.iter().filter(|found| **found == stage).count();
        assert_eq!(found, 1, "{stage}: {audit}");
    }
    let recalled = entries.iter().find(|entry| entry["event"] == "recalled").unwrap();
    assert_eq!(recalled["actor"], "sender");
    let path = format!("/v1/apps/shop/audit/export?message={id}&device=phone-1&events=false");
    let exported = shop.read.get(&path).is(200).lines();
    assert_eq!(exported.len(), stages.len());
    assert!(exported.iter().all(|fact| fact["device"] == "phone-1" && fact["kind"] == "fact"));
    let head = shop.admin.get("/v1/audit/head").is(200).json();
    assert!(
        head["seq"].as_u64() >= entries.iter().map(|entry| entry["seq"].as_u64()).max().unwrap()
    );
}

#[test]
fn a_list_of_a_thousand_devices_brings_each_its_own_words() {
    const DEVICES: usize = 1000;
    let shop = Shop::open();
    let lines: String = (0..DEVICES)
        .map(|n| format!("{{\"device\":\"d-{n}\",\"platform\":\"ios\"}}\n"))
        .chain(["{\"device\":\"d-0\"}\n".to_owned()])
        .collect();
    let ndjson = ["Content-Type: application/x-ndjson"];
    let path = "/v1/apps/shop/devices/import";
    let import = shop.send.ask("POST", path, &ndjson, Some(lines.as_bytes())).is(200).json();
    assert_eq!((&import["registered"], &import["refused"]), (&json!(DEVICES), &json!(1)));
    assert_eq!(import["errors"][0]["line"], DEVICES + 1);
    let rows = (0..DEVICES).map(|n| format!("d-{n},\"Wu, {n}\"\n"));
    let csv: String = ["device,name\n".to_owned()]
        .into_iter()
        .chain(rows)
        .chain(["gone,x\n".to_owned()])
        .collect();
    let path = "/v1/apps/shop/lists";
    let list = shop.send.ask("POST", path, &["Content-Type: text/csv"], Some(csv.as_bytes()));
    let list = list.is(201).json();
    assert_eq!((&list["devices"], &list["unknown"]), (&json!(DEVICES), &json!(1)));
    assert_eq!(list["examples"], json!([{"line": DEVICES + 2, "name": "gone"}]));
    shop.send.ask("POST", path, &["Content-Type: image/png"], Some(b"x")).is(415);
    let token = shop.send.token_of("d-777");
    let mut sub = shop.connect("d-777", &token);
    let message = json!({
        "target": {"list": list["list"]}, "notification": {"title": "Hi {{name}}", "body": "x"},
    });
    let dry = json!({"target": message["target"], "data": {}, "dry_run": true});
    let dry = shop.send.post("/v1/apps/shop/messages", &dry).is(200).json();
    assert_eq!((&dry["targets"], &dry["now"]), (&json!(DEVICES), &json!(DEVICES)));
    let id = shop.send.send(&message);
    assert_eq!(pushed(&mut sub)["notification"], json!({"title": "Hi Wu, 777", "body": "x"}));
    let funnel = shop.send.funnel(&id, "delivered", 1);
    assert_eq!((&funnel["targeted"], &funnel["pending"]), (&json!(DEVICES), &json!(DEVICES - 1)));
}

#[test]
fn messages_are_taken_one_by_one_in_batches_and_streams_and_none_twice() {
    let shop = Shop::open();
    shop.send.device("phone-1", &json!({"platform": "ios"}));
    let message = json!({"target": {"device": "phone-1"}, "data": {}});
    let key = ["Idempotency-Key: order-1", "Content-Type: application/json"];
    let path = "/v1/apps/shop/messages";
    let body = message.to_string();
    let first = shop.send.ask("POST", path, &key, Some(body.as_bytes())).is(202);
    let again = shop.send.ask("POST", path, &key, Some(body.as_bytes())).is(200);
    assert!(again.head.to_lowercase().contains("idempotency-replayed: true"), "{}", again.head);
    assert_eq!(first.json()["id"], again.json()["id"]);
    let with = |key: &str| {
        let mut message = message.clone();
        message["idempotency_key"] = json!(key);
        message
    };
    let wrong = json!({"target": {"device": "nobody"}, "data": {}});
    let batch = json!({"messages": [with("order-1"), with("order-2"), wrong, {"titel": 1}]});
    let results = shop.send.post(&format!("{path}/batch"), &batch).is(200).json();
    let statuses = |results: &[Value]| -> Vec<u64> {
        results.iter().map(|result| result["status"].as_u64().unwrap()).collect()
    };
    let results = results["results"].as_array().unwrap();
    assert_eq!(statuses(results), [200, 202, 422, 422]);
    assert_eq!(results[0]["message"]["id"], first.json()["id"]);
    let detail = results[3]["problem"]["detail"].as_str().unwrap();
    assert!(detail.contains("titel"), "{detail}");
    let lines: String = [with("order-2"), with("order-3"), json!(["phone-1"]), with("order-4")]
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    let ndjson = ["Content-Type: application/x-ndjson"];
    let path = format!("{path}/stream");
    let stream = shop.send.ask("POST", &path, &ndjson, Some(lines.as_bytes())).is(200);
    assert_eq!(statuses(&stream.lines()), [200, 202, 422, 202]);
    let all = shop.read.get("/v1/apps/shop/messages?limit=3").is(200).json();
    assert_eq!(all["messages"][0]["id"], stream.lines()[3]["message"]["id"], "the newest first");
    let next = all["next"].as_str().unwrap();
    let rest = shop.read.get(&format!("/v1/apps/shop/messages?limit=3&after={next}")).is(200);
    assert_eq!(rest.json()["messages"].as_array().unwrap().len(), 1, "four altogether");
}

#[test]
fn a_device_whose_tokens_are_revoked_is_disconnected_and_refused() {
    let shop = Shop::open();
    let token = shop.send.device("phone-1", &json!({"platform": "ios"}));
    let mut sub = shop.connect("phone-1", &token);
    let path = "/v1/apps/shop/devices/phone-1/tokens";
    shop.send.ask("DELETE", path, &[], None).is(204);
    // 152: administrative action.
    sub.lines().line_with("Received DISCONNECT (152)");
    drop(sub);
    let args = ["-V", "5", "-i", "phone-1", "-u", "phone-1", "-P", &token, "-q", "1"];
    let args = [&args[..], &["-t", "d/phone-1/receipts", "-m", "{}"]].concat();
    let (done, said) = try_publish(shop.daemon.mqtt(), &args);
    assert!(!done, "{said}");
    let own = shop.send.with(&token);
    own.ask("POST", "/v1/topics", &["X-Device: phone-1"], Some(b"{}")).is(401);
    let fresh = shop.send.token_of("phone-1");
    let own = shop.send.with(&fresh);
    own.ask("POST", "/v1/topics", &["X-Device: phone-1"], Some(b"{}")).is(200);
    own.ask("POST", "/v1/topics", &["X-Device: phone-2"], Some(b"{}")).is(401);
    shop.connect("phone-1", &fresh);
}

#[test]
fn a_message_that_is_reviewed_goes_out_once_somebody_else_has_passed_it() {
    let shop = Shop::open();
    let token = shop.send.device("phone-1", &json!({"platform": "ios"}));
    let mut sub = shop.connect("phone-1", &token);
    let message =
        |n: u64| json!({"target": {"device": "phone-1"}, "data": {"n": n}, "class": "reviewed"});
    let (bad, good) = (shop.send.send(&message(1)), shop.send.send(&message(2)));
    let waiting = || -> Vec<Value> {
        let reviews = shop.review.get("/v1/apps/shop/reviews").is(200).json();
        let reviews = reviews["reviews"].as_array().unwrap().iter();
        reviews.map(|review| review["message"]["id"].clone()).collect()
    };
    assert_eq!(waiting(), [json!(bad), json!(good)]);
    let judge = |who: &Sender, id: &str, verdict: &str| {
        who.post(&format!("/v1/apps/shop/reviews/{id}"), &json!({"verdict": verdict}))
    };
    judge(&shop.send, &good, "approve").is(403);
    judge(&shop.read, &good, "approve").is(403);
    judge(&shop.review, &bad, "maybe").is(422);
    assert_eq!(judge(&shop.review, &bad, "reject").is(200).json()["state"], "rejected");
    let passed = judge(&shop.review, &good, "approve").is(200).json();
    assert_eq!(passed["review"]["by"], "reviewer");
    judge(&shop.review, &bad, "approve").is(409);
    assert_eq!(pushed(&mut sub)["data"], json!({"n": 2}), "the other never comes");
    assert_eq!(waiting(), Vec::<Value>::new());
    // The admin's own message is nobody's to pass but another's.
    let own = shop.admin.send(&message(3));
    judge(&shop.admin, &own, "approve").is(403);
}

#[test]
fn who_may_do_what_is_said_by_the_key() {
    let shop = Shop::open();
    shop.admin.ask("PUT", "/v1/apps/other", &[], None).is(201);
    shop.send.device("phone-1", &json!({"platform": "ios"}));
    let message = json!({"target": {"everyone": true}, "data": {}});
    let ndjson = ["Content-Type: application/x-ndjson"];
    for reader in [&shop.read, &shop.review] {
        reader.get("/v1/apps/shop/devices").is(200);
        reader.get("/v1/apps/shop/audit").is(200);
        reader.post("/v1/apps/shop/messages", &message).is(403);
        reader.post("/v1/apps/shop/messages/batch", &json!({"messages": [message]})).is(403);
        reader.ask("POST", "/v1/apps/shop/messages/stream", &[], Some(b"{}\n")).is(403);
        reader.ask("POST", "/v1/apps/shop/lists", &ndjson, Some(b"\"phone-1\"\n")).is(403);
        reader.put("/v1/apps/shop/devices/phone-2", &json!({"platform": "ios"})).is(403);
        reader.ask("DELETE", "/v1/apps/shop/devices/phone-1", &[], None).is(403);
    }
    for nobody in [shop.send.with("spk_x"), shop.send.with(""), shop.send.with("sxd1.x")] {
        nobody.get("/v1/apps/shop").is(401);
        nobody.post("/v1/apps/shop/messages", &message).is(401);
        nobody.get("/v1/status").is(401);
    }
    shop.send.get("/v1/apps/other").is(403);
    shop.send.post("/v1/apps/other/messages", &message).is(403);
    shop.send.get("/v1/apps/none").is(404);
    shop.send.get("/v1/apps/shop/keys").is(403);
    shop.send.post("/v1/apps/shop/keys", &json!({"name": "own", "role": "send"})).is(403);
    for path in ["/v1/platform", "/v1/audit/head"] {
        shop.send.get(path).is(403);
        shop.admin.get(path).is(200);
    }
    shop.send.get("/v1/status").is(401);
    let apps = shop.read.get("/v1/apps").is(200).json();
    assert_eq!(apps["apps"].as_array().unwrap().len(), 1, "its own alone");
    shop.admin.ask("DELETE", "/v1/apps/shop/keys/reader", &[], None).is(204);
    shop.read.get("/v1/apps/shop").is(401);
    let method = shop.admin.ask("PATCH", "/v1/apps/shop", &[], None).is(405);
    assert!(method.head.to_lowercase().contains("\nallow: "), "{}", method.head);
}

#[test]
fn a_sender_who_has_none_left_is_told_how_many_and_when_there_are_more() {
    let shop = Shop::with(&format!("{CLASSES}[platform.policy.quotas]\nper_day = 3\n"));
    for device in ["phone-1", "phone-2"] {
        shop.send.device(device, &json!({"platform": "ios"}));
    }
    let message = json!({"target": {"everyone": true}, "data": {}});
    shop.send.send(&message);
    let refused = shop.send.post("/v1/apps/shop/messages", &message).is(429);
    let problem = refused.json();
    assert_eq!(problem["type"], "urn:sextant:problem:sender-quota");
    assert_eq!((&problem["limit"], &problem["left"]), (&json!(3), &json!(1)));
    let after = problem["retry_after_s"].as_u64().unwrap();
    assert!((1..=86_400).contains(&after), "a day at most: {problem}");
    let head = refused.head.to_lowercase();
    assert!(head.contains(&format!("\nretry-after: {after}\r")), "{head}");
}
