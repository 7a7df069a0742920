//! Sending messages, taking them back, and asking what became of them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use ureq::Body;
use ureq::http::{Method, Response};
use uuid::Uuid;

use super::{Call, Error, JSON, LiveMessage, MessageStream, Pages, Problem, Query, Sender};
use super::{json, read};
use crate::types::{
    By, DryRun, Funnel, Message, MessageQuery, MessageRequest, Outcome, Page, Recalled, Sent,
};

/// How many messages a batch has at most.
pub(super) const BATCH_LEN_MAX: usize = 1000;
/// The longest idempotency key, bytes.
const KEY_BYTES_MAX: usize = 128;

#[derive(Deserialize)]
struct Messages {
    messages: Vec<Message>,
    #[serde(default)]
    next: Option<String>,
}

/// A request with its key, as batches and streams have it.
#[derive(Serialize)]
pub(super) struct Keyed<'a> {
    #[serde(flatten)]
    request: &'a MessageRequest,
    idempotency_key: &'a str,
}

impl<'a> Keyed<'a> {
    pub(super) fn new(request: &'a MessageRequest, idempotency_key: &'a str) -> Keyed<'a> {
        Keyed { request, idempotency_key }
    }
}

/// What a batch or a stream says of one message.
#[derive(Deserialize)]
pub(super) struct Told {
    status: u16,
    #[serde(default)]
    message: Option<Message>,
    #[serde(default)]
    problem: Option<Problem>,
}

impl Told {
    /// Whether the daemon took nothing from here on.
    pub(super) fn is_unavailable(&self) -> bool {
        self.status == 503
    }

    /// The problem of something that is no message.
    pub(super) fn into_problem(self) -> Option<Problem> {
        self.problem.map(|problem| Problem { status: self.status, ..problem })
    }

    pub(super) fn outcome(self, idempotency_key: String) -> Result<Outcome, Error> {
        let result = match (self.message, self.problem) {
            (Some(message), _) => Ok(message),
            (None, Some(problem)) => Err(Problem { status: self.status, ..problem }),
            (None, None) => return Err(Error::Answer("neither a message nor a problem".into())),
        };
        Ok(Outcome { idempotency_key, result })
    }
}

/// The key of a request, or one of our own.
pub(super) fn key_of(request: &MessageRequest) -> Result<Cow<'_, str>, Error> {
    let Some(key) = &request.idempotency_key else {
        return Ok(Uuid::now_v7().to_string().into());
    };
    let is_key =
        (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    match is_key {
        true => Ok(key.into()),
        false => Err(Error::Request(format!(
            "an idempotency key has 1 to {KEY_BYTES_MAX} visible characters of ASCII"
        ))),
    }
}

impl Sender {
    /// Sends a message. When this returns, the daemon has it for good, once, however many attempts
    /// it took.
    ///
    /// # Errors
    ///
    /// Those of every request; problems of status 422: the content or the target is refused; 429:
    /// the sender's quota is used up.
    pub fn send(&self, request: &MessageRequest) -> Result<Sent, Error> {
        let key = key_of(request)?;
        let answer = self.post_message(&json(request), Some(&key))?;
        let replayed = answer.headers().contains_key("idempotency-replayed");
        Ok(Sent { message: read(answer)?, idempotency_key: key.into_owned(), replayed })
    }

    /// What [`Sender::send`] would do now.
    ///
    /// # Errors
    ///
    /// As [`Sender::send`].
    pub fn dry_run(&self, request: &MessageRequest) -> Result<DryRun, Error> {
        #[derive(Serialize)]
        struct DryRunRequest<'a> {
            #[serde(flatten)]
            request: &'a MessageRequest,
            dry_run: bool,
        }
        let body = json(&DryRunRequest { request, dry_run: true });
        self.post_message(&body, None).and_then(read)
    }

    fn post_message(&self, body: &[u8], key: Option<&str>) -> Result<Response<Body>, Error> {
        self.exchange(&Call {
            method: Method::POST,
            path: self.path(&["messages"]),
            body: Some((JSON, body)),
            idempotency_key: key,
            may_repeat: true,
        })
    }

    /// Sends up to 1,000 messages at once. What became of each is told in their order.
    ///
    /// # Errors
    ///
    /// Those of every request, of the batch as a whole.
    pub fn send_batch(&self, requests: &[MessageRequest]) -> Result<Vec<Outcome>, Error> {
        #[derive(Serialize)]
        struct Batch<'a> {
            messages: Vec<Keyed<'a>>,
        }
        #[derive(Deserialize)]
        struct Results {
            results: Vec<Told>,
        }
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        if requests.len() > BATCH_LEN_MAX {
            return Err(Error::Request(format!("a batch has at most {BATCH_LEN_MAX} messages")));
        }
        let keys = requests.iter().map(key_of).collect::<Result<Vec<_>, _>>()?;
        let messages = requests.iter().zip(&keys).map(|(r, key)| Keyed::new(r, key)).collect();
        let batch = Batch { messages };
        let Results { results } =
            self.say(Method::POST, self.path(&["messages", "batch"]), &batch)?;
        if results.len() != requests.len() {
            return Err(Error::Answer(format!(
                "{} results for {} messages",
                results.len(),
                requests.len()
            )));
        }
        let results = results.into_iter().zip(keys);
        results.map(|(told, key)| told.outcome(key.into_owned())).collect()
    }

    /// Sends messages as they are taken from an iterator, over one connection. What became of each
    /// comes out, in their order, when it is durable.
    pub fn stream<I>(&self, requests: I) -> MessageStream<'_, I::IntoIter>
    where
        I: IntoIterator<Item = MessageRequest>,
    {
        MessageStream::new(self, requests.into_iter())
    }

    /// A message.
    ///
    /// # Errors
    ///
    /// Those of every request; a problem of status 404: there is no such message.
    pub fn message(&self, id: Uuid) -> Result<Message, Error> {
        self.get(self.path(&["messages", &id.to_string()]))
    }

    /// A page of the messages, newest first, after the cursor of the page before.
    ///
    /// # Errors
    ///
    /// Those of every request.
    pub fn messages_page(
        &self,
        what: &MessageQuery,
        after: Option<&str>,
    ) -> Result<Page<Message>, Error> {
        let mut query = Query::default();
        let state = what.state.and_then(|state| serde_json::to_value(state).ok());
        query.add_some("state", state.as_ref().and_then(|state| state.as_str()));
        query.add_some("limit", what.limit);
        query.add_some("after", after);
        let Messages { messages, next } = self.get(self.path(&["messages"]) + &query.0)?;
        Ok(Page { items: messages, next, incomplete: false })
    }

    /// The messages, newest first, page after page.
    pub fn messages(&self, what: MessageQuery) -> Pages<'_, Message> {
        Pages::new(self, Box::new(move |sender, after| sender.messages_page(&what, after)))
    }

    /// Takes a message back: who has not got it does not get it, who has is told so.
    ///
    /// # Errors
    ///
    /// Those of every request; problems of status 404: there is no such message; 409: it was taken
    /// back before. It is not said twice: after [`Error::Transport`] it may be done.
    pub fn recall(&self, id: Uuid) -> Result<Recalled, Error> {
        let path = self.path(&["messages", &id.to_string(), "recall"]);
        self.exchange(&Call::once(Method::POST, path)).and_then(read)
    }

    /// What became of a message, with the parts that `by` asks for.
    ///
    /// # Errors
    ///
    /// As [`Sender::message`].
    pub fn funnel(&self, id: Uuid, by: Option<By>) -> Result<Funnel, Error> {
        let mut query = Query::default();
        query.add_some("by", by.map(By::as_str));
        self.get(self.path(&["messages", &id.to_string(), "funnel"]) + &query.0)
    }

    /// A message's state and numbers as they change, until it has finished.
    pub fn live(&self, id: Uuid) -> LiveMessage<'_> {
        LiveMessage::new(self, id)
    }
}
