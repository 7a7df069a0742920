//! The HTTP API of a daemon.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Request;

use crate::wait::until;

/// Speaks to a daemon's admin port.
#[derive(Clone, Debug)]
pub struct Api {
    agent: Agent,
    base: String,
    token: Option<String>,
}

/// What a daemon answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The media type, without its parameters.
    pub media_type: String,
    /// The body; JSON's `null` where it is not JSON.
    pub json: Value,
    /// The body as text.
    pub text: String,
}

impl Api {
    /// For the daemon at `addr`, with its token.
    pub fn new(addr: SocketAddr, token: Option<String>) -> Api {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(20)))
            .build();
        Api { agent: config.new_agent(), base: format!("http://{addr}"), token }
    }

    /// The same daemon, asked with another token or none.
    #[must_use]
    pub fn with_token(&self, token: Option<&str>) -> Api {
        Api { token: token.map(str::to_owned), ..self.clone() }
    }

    /// The URL without a path.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Asks, with any method and body.
    ///
    /// # Errors
    /// Nobody answers, in words.
    pub fn ask(&self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let words = |error: ureq::Error| error.to_string();
        let response = match body {
            Some(body) => {
                let request =
                    request.header("content-type", "application/json").body(body.to_vec());
                self.agent.run(request.map_err(|error| error.to_string())?).map_err(words)?
            }
            None => {
                let request = request.body(()).map_err(|error| error.to_string())?;
                self.agent.run(request).map_err(words)?
            }
        };
        let status = response.status().as_u16();
        let content_type = response.headers().get("content-type");
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_owned();
        let text = response.into_body().read_to_string().map_err(words)?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, media_type, json, text })
    }

    /// `GET path`.
    ///
    /// # Panics
    /// Nobody answers.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        match self.ask("GET", path, None) {
            Ok(answer) => answer,
            Err(error) => panic!("GET {path}: {error}"),
        }
    }

    /// `POST path` with JSON.
    ///
    /// # Panics
    /// Nobody answers.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_bytes(path, body.to_string().as_bytes())
    }

    /// `POST path` with bytes that are said to be JSON.
    ///
    /// # Panics
    /// Nobody answers.
    #[track_caller]
    pub fn post_bytes(&self, path: &str, body: &[u8]) -> Answer {
        match self.ask("POST", path, Some(body)) {
            Ok(answer) => answer,
            Err(error) => panic!("POST {path}: {error}"),
        }
    }

    /// Pushes a message, and gives its id.
    ///
    /// # Panics
    /// It is not accepted.
    #[track_caller]
    pub fn send(&self, message: &Value) -> String {
        let answer = self.post("/v1/messages", message);
        assert_eq!(answer.status, 202, "{message} was refused: {}", answer.text);
        match answer.json["id"].as_str() {
            Some(id) => id.to_owned(),
            None => panic!("no id in {}", answer.text),
        }
    }

    /// The receipt of a message.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    pub fn receipt(&self, id: &str) -> Value {
        let answer = self.get(&format!("/v1/messages/{id}"));
        assert_eq!(answer.status, 200, "no receipt of {id}: {}", answer.text);
        answer.json
    }

    /// Waits until a message is in `state`, and gives its receipt.
    ///
    /// # Panics
    /// It does not get there.
    #[track_caller]
    pub fn receipt_in(&self, id: &str, state: &str) -> Value {
        until(&format!("message {id} is {state}"), || {
            let receipt = self.receipt(id);
            (receipt["state"] == state).then_some(receipt)
        })
    }

    /// A token for a device.
    ///
    /// # Panics
    /// None is issued.
    #[track_caller]
    pub fn device_token(&self, device: &str) -> String {
        let answer = self.post("/v1/tokens", &json!({"device": device, "ttl": "1h"}));
        match answer.json["token"].as_str() {
            Some(token) => token.to_owned(),
            None => panic!("no token for {device}: {} {}", answer.status, answer.text),
        }
    }

    /// What the daemon says about itself.
    ///
    /// # Panics
    /// It says nothing.
    #[track_caller]
    pub fn status(&self) -> Value {
        let answer = self.get("/v1/status");
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json
    }

    /// The sum of a metric over those of its series whose labels contain `labels`, such as
    /// `reason="slow_client"`; 0 where there is no such series.
    ///
    /// # Panics
    /// There are no metrics.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.text);
        let value = |line: &str| -> Option<f64> {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, found_labels) = series.split_once('{').unwrap_or((series, ""));
            (found == name && found_labels.contains(labels)).then(|| value.parse().ok())?
        };
        answer.text.lines().filter(|line| !line.starts_with('#')).filter_map(value).sum()
    }
}
