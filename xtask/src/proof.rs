//! The proof before your eyes: a device is a real MQTT client, a message is pushed over HTTP, the
//! client prints it, and its receipt says so.

use std::fmt::Display;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use ureq::Agent;

use crate::sh;

const DEVICE: &str = "proof-lamp";
/// The app of the campaign, and its devices.
const APP: &str = "proof";
const DEVICES: u64 = 40;
/// How long each step may take.
const STEP_TIME_MAX: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// A running push daemon.
#[derive(Debug)]
pub(crate) struct Push {
    pub(crate) url: String,
    pub(crate) mqtt: SocketAddr,
    /// The data directory of `sextant up`.
    data: PathBuf,
    agent: Agent,
}

impl Push {
    /// As `sextant up` with this data directory says, if it does yet.
    pub(crate) fn find(data: &Path) -> Option<Push> {
        let text = std::fs::read_to_string(data.join("up.json")).ok()?;
        let up: Value = serde_json::from_str(&text).ok()?;
        let push = up["daemons"].as_array()?.iter().find(|daemon| daemon["name"] == "push")?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(5)))
            .build();
        Some(Push {
            url: push["url"].as_str()?.to_owned(),
            mqtt: push["mqtt"][0].as_str()?.parse().ok()?,
            data: data.to_owned(),
            agent: config.new_agent(),
        })
    }

    /// Whether it serves.
    pub(crate) fn is_ready(&self) -> bool {
        let ready = self.agent.get(format!("{}/readyz", self.url)).call();
        ready.is_ok_and(|answer| answer.status().is_success())
    }

    fn token_path(&self) -> PathBuf {
        self.data.join("push/admin.token")
    }

    fn authorization(&self) -> Result<String> {
        let path = self.token_path();
        let token = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(format!("Bearer {}", token.trim()))
    }

    /// Shows the curl command, and does what it would do.
    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let url = format!("{}{path}", self.url);
        let token = self.token_path();
        println!(
            "{}",
            sh::paint(
                sh::GREY,
                format_args!(
                    "$ curl -H \"Authorization: Bearer $(cat {})\" --json '{body}' {url}",
                    token.strip_prefix(sh::root()).unwrap_or(&token).display()
                )
            )
        );
        let request = self
            .agent
            .post(&url)
            .header("authorization", self.authorization()?)
            .header("content-type", "application/json");
        answer(request.send(body.to_string()), &url)
    }

    fn get(&self, path: &str) -> Result<Value> {
        let url = format!("{}{path}", self.url);
        answer(self.agent.get(&url).header("authorization", self.authorization()?).call(), &url)
    }
}

fn answer(
    result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    url: &str,
) -> Result<Value> {
    let response = result.with_context(|| format!("{url} does not answer"))?;
    let status = response.status();
    let text = response.into_body().read_to_string().context("the answer cannot be read")?;
    if !status.is_success() {
        bail!("{url} answered {status}: {text}");
    }
    serde_json::from_str(&text).with_context(|| format!("{url} did not answer with JSON: {text}"))
}

/// Steps that are ticked off, each with its time.
struct Steps {
    last: Instant,
}

impl Steps {
    fn done(&mut self, what: impl Display) {
        let took = self.last.elapsed().as_millis();
        self.last = Instant::now();
        println!(
            "{} {what}  {}",
            sh::paint(sh::GREEN, "✓"),
            sh::paint(sh::GREY, format_args!("{took} ms"))
        );
    }
}

/// Sends a message to a device, and follows it until the device has acknowledged it. The daemons
/// were started at `began`.
///
/// # Errors
///
/// A step did not come about; those before it were ticked off.
pub(crate) fn run(push: &Push, began: Instant) -> Result<()> {
    println!();
    let mut steps = Steps { last: began };
    steps.done(format_args!("sextant-push serves MQTT on {} and HTTP on {}", push.mqtt, push.url));
    let issued = push.post("/v1/tokens", &json!({"device": DEVICE, "ttl": "1h"}))?;
    let token = text(&issued, "token")?;
    steps.done(format_args!("the device {DEVICE} has a token"));
    let mut device = Device::connect(push, token)?;
    device.says("Subscribed (mid:")?;
    steps.done(format_args!("mosquitto_sub is the device, subscribed to d/{DEVICE}/#"));
    let payload = format!("hello, it is {}", now());
    let message = json!({"device": DEVICE, "payload": payload, "ttl": "1m"});
    let accepted = push.post("/v1/messages", &message)?;
    let id = text(&accepted, "id")?;
    steps.done(format_args!("pushed over HTTP and durable: {id}"));
    let line = device.says(&payload)?;
    steps.done(format_args!("mosquitto_sub printed: {line}"));
    let receipt = acknowledged(push, id)?;
    steps.done("the receipt says acknowledged");
    for state in ["accepted", "sent", "acknowledged"] {
        let at = receipt[format!("{state}_at")].as_str().unwrap_or("-");
        println!("    {state:<13} {at}");
    }
    campaign(push, &mut steps)
}

/// Sends a campaign to simulated devices, and takes it back.
fn campaign(push: &Push, steps: &mut Steps) -> Result<()> {
    let devices = DEVICES.to_string();
    let data = push.data.to_string_lossy();
    let args = ["--data", &data, "push", "simulate", "--app", APP, "--devices", &devices];
    println!("{}", sh::paint(sh::GREY, format_args!("$ sextant {}", args.join(" "))));
    let mut command = Command::new(sh::target()?.join("release/sextant"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _devices = Killed(command.spawn().context("cannot run sextant")?);
    wait("the devices are there", || {
        let apps = push.get("/v1/apps")?;
        let apps = apps["apps"].as_array().cloned().unwrap_or_default();
        Ok(apps.iter().any(|app| app["app"] == APP && app["online"] == DEVICES))
    })?;
    steps.done(format_args!("{DEVICES} simulated devices of app {APP} are there"));
    let path = format!("/v1/apps/{APP}/messages");
    let request = json!({
        "target": {"expression": "city:sz or vip"}, "class": "transactional", "name": "proof",
        "notification": {"title": "Hi {{name}}"}, "vars": {"name": "you"},
    });
    let message = push.post(&path, &request)?;
    let (id, targets) = (text(&message, "id")?, &message["targets"]);
    steps.done(format_args!("a campaign for {targets} of them is accepted and durable: {id}"));
    let own = format!("{path}/{id}");
    wait("the funnel counts all", || {
        let funnel = push.get(&format!("{own}/funnel"))?;
        Ok(funnel["delivered"] == *targets && funnel["shown"].as_u64() > Some(0))
    })?;
    let funnel = push.get(&format!("{own}/funnel"))?;
    steps.done(format_args!(
        "targeted {}  sent {}  delivered {}  shown {}  clicked {}",
        funnel["targeted"], funnel["sent"], funnel["delivered"], funnel["shown"], funnel["clicked"]
    ));
    let recalled = push.post(&format!("{own}/recall"), &json!({}))?;
    let recall = text(&recalled, "recall_message")?;
    wait("the recall is there", || {
        let funnel = push.get(&format!("{path}/{recall}/funnel"))?;
        Ok(funnel["delivered"] == *targets)
    })?;
    steps.done("it was taken back, and all that had it know");
    Ok(())
}

/// Waits until something is so.
fn wait(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_so()? {
        if began.elapsed() > STEP_TIME_MAX {
            bail!("waited in vain until {what}");
        }
        sleep(POLL_EVERY);
    }
    Ok(())
}

/// A process that ends with this value.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value[field].as_str().with_context(|| format!("no \"{field}\" in {value}"))
}

/// The time of day in UTC, for a message that is seen to be fresh.
fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let s = since.unwrap_or_default().as_secs();
    format!("{:02}:{:02}:{:02} UTC", s / 3600 % 24, s / 60 % 60, s % 60)
}

fn acknowledged(push: &Push, id: &str) -> Result<Value> {
    let began = Instant::now();
    loop {
        let receipt = push.get(&format!("/v1/messages/{id}"))?;
        if receipt["state"] == "acknowledged" {
            return Ok(receipt);
        }
        if began.elapsed() > STEP_TIME_MAX {
            bail!("the receipt says {}", receipt["state"]);
        }
        sleep(POLL_EVERY);
    }
}

/// A `mosquitto_sub` that runs as the device.
struct Device {
    child: Child,
    lines: Receiver<String>,
}

impl Device {
    fn connect(push: &Push, token: &str) -> Result<Device> {
        let broker = ["-h", &push.mqtt.ip().to_string(), "-p", &push.mqtt.port().to_string()];
        let topic = format!("d/{DEVICE}/#");
        let rest = ["-t", &topic, "-F", "%t  %p"];
        let shown = format!(
            "$ mosquitto_sub {} -V 5 -q 1 -i {DEVICE} -u {DEVICE} -P TOKEN -t '{topic}' -F '%t  %p'",
            broker.join(" ")
        );
        println!("{}", sh::paint(sh::GREY, shown));
        // With -d it says when it is subscribed, on a standard output that is otherwise not
        // flushed before a message comes.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "mosquitto_sub", "-d"]).args(broker);
        command.args(["-V", "5", "-q", "1", "-i", DEVICE, "-u", DEVICE, "-P", token]).args(rest);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot run mosquitto_sub")?;
        let (sender, lines) = channel();
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || {
                let lines = BufReader::new(output).lines().map_while(Result::ok);
                // Nobody listens any more when the proof is over.
                for line in lines {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Device { child, lines })
    }

    /// Waits for a line with `wanted`.
    fn says(&mut self, wanted: &str) -> Result<String> {
        let began = Instant::now();
        loop {
            let left = STEP_TIME_MAX.saturating_sub(began.elapsed());
            let line = self
                .lines
                .recv_timeout(left)
                .with_context(|| format!("mosquitto_sub did not say \"{wanted}\""))?;
            if line.contains(wanted) {
                return Ok(line);
            }
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
