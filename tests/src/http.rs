//! An HTTP server that answers as it is told, right or wrong, and tells what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::wait::DEADLINE;

/// A request that was received.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its first line and header lines, as they came.
    pub head: Vec<String>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Asked {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// It is none.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(json) => json,
            Err(error) => panic!("{:?} is no JSON: {error}", String::from_utf8_lossy(&self.body)),
        }
    }
}

/// What a request is answered with.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A status with this body.
    Status(u16, String),
    /// These bytes, and the end of the connection.
    Bytes(Vec<u8>),
    /// Nothing, for as long as the server lives.
    Silence,
}

type Answer = dyn Fn(&Asked) -> Reply + Send + Sync;

/// A server, for as long as this value lives.
pub struct HttpServer {
    addr: SocketAddr,
    asked: Receiver<Asked>,
    shared: Arc<Shared>,
}

struct Shared {
    answer: Box<Answer>,
    over: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl HttpServer {
    /// Serves at `addr`, which nobody uses.
    ///
    /// # Panics
    /// It cannot.
    #[track_caller]
    pub fn start(
        addr: SocketAddr,
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> HttpServer {
        let listener = match TcpListener::bind(addr) {
            Ok(listener) => listener,
            Err(error) => panic!("no server at {addr}: {error}"),
        };
        let (tell, asked) = channel();
        let answer = Box::new(answer);
        let shared = Arc::new(Shared { answer, over: false.into(), open: Mutex::default() });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.over.load(Ordering::Acquire) {
                    return;
                }
                let (serving, tell) = (Arc::clone(&serving), tell.clone());
                std::thread::spawn(move || serving.serve(&stream, &tell));
            }
        });
        HttpServer { addr, asked, shared }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// The next request.
    ///
    /// # Panics
    /// None comes in time.
    #[track_caller]
    pub fn asked(&self) -> Asked {
        match self.asked.recv_timeout(DEADLINE) {
            Ok(asked) => asked,
            Err(error) => panic!("nothing was asked: {error}"),
        }
    }

    /// Requests that came and were not told of yet.
    pub fn asked_so_far(&self) -> Vec<Asked> {
        self.asked.try_iter().collect()
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        // So that it looks.
        let _ = TcpStream::connect_timeout(&self.addr, DEADLINE);
        for stream in &*self.shared.open.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream, tell: &Sender<Asked>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.extend(stream.try_clone());
        drop(open);
        let mut reader = BufReader::new(stream);
        while let Some(asked) = read(&mut reader) {
            let reply = (self.answer)(&asked);
            let _ = tell.send(asked);
            let mut writer = stream;
            match reply {
                Reply::Status(status, body) => {
                    let length = body.len();
                    let head = format!("HTTP/1.1 {status} -\r\ncontent-length: {length}\r\n\r\n");
                    if writer.write_all(format!("{head}{body}").as_bytes()).is_err() {
                        return;
                    }
                }
                Reply::Bytes(bytes) => {
                    let _ = writer.write_all(&bytes);
                    let _ = stream.shutdown(Shutdown::Both);
                    return;
                }
                // Until the server ends, or the client has had enough.
                Reply::Silence => {
                    let _ = reader.read(&mut [0]);
                    return;
                }
            }
        }
    }
}

/// A request with the body that its length says; none at the end of the connection.
fn read(reader: &mut BufReader<&TcpStream>) -> Option<Asked> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let asked = Asked { head, body: Vec::new() };
    let length = asked.header("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { body, ..asked })
}
