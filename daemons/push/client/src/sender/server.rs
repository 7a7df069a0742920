//! A server for tests: it answers as it is told, request after request, and remembers what it was
//! asked.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::{Patience, Sender};

/// What the server does with a request.
pub(crate) enum Reply {
    /// Answers with a status, more head lines, and a body.
    Answer(u16, &'static str, String),
    /// Reads the request, if it has a length, and closes the connection.
    Close,
    /// Answers a stream: so many lines of the body, each by this, and then, if told to, the end.
    Lines(usize, fn(&str) -> String, bool),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) line: String,
    /// Lines of the head, names in lower case.
    pub(crate) head: Vec<String>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.iter().find_map(|line| line.strip_prefix(&prefix))
    }
}

pub(crate) struct Server {
    pub(crate) base: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    thread: JoinHandle<()>,
}

impl Server {
    pub(crate) fn start(replies: Vec<Reply>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let remembered = Arc::clone(&asked);
        let thread = std::thread::spawn(move || {
            for reply in VecDeque::from(replies) {
                let (socket, _) = listener.accept().unwrap();
                serve(&socket, &reply, &remembered);
            }
        });
        Server { base, asked, thread }
    }

    /// A sender that waits little.
    pub(crate) fn sender(&self) -> Sender {
        let patience = Patience {
            attempts_max: 4,
            first_wait_max: std::time::Duration::from_millis(1),
            wait_max: std::time::Duration::from_millis(4),
            ..Patience::default()
        };
        Sender::new(&self.base, "shop", "spk_test").unwrap().with_patience(patience)
    }

    /// What was asked, once all replies were given.
    pub(crate) fn asked(self) -> Vec<Asked> {
        self.thread.join().unwrap();
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn serve(socket: &TcpStream, reply: &Reply, remembered: &Mutex<Vec<Asked>>) {
    let mut input = BufReader::new(socket);
    let mut output = socket;
    let mut asked = Asked::default();
    let read_line = |input: &mut BufReader<&TcpStream>| {
        let mut line = String::new();
        input.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    asked.line = read_line(&mut input);
    loop {
        let line = read_line(&mut input);
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap();
        asked.head.push(format!("{}: {}", name.to_ascii_lowercase(), value.trim()));
    }
    let index = {
        let mut all = remembered.lock().unwrap();
        all.push(asked.clone());
        all.len() - 1
    };
    let add = |body: &str| remembered.lock().unwrap()[index].body.push_str(body);
    if let Reply::Lines(count, answer, ends) = reply {
        write!(output, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        let mut answered = 0;
        while answered < *count
            && let Some(chunk) = read_chunk(&mut input)
        {
            for line in chunk.lines().take(*count - answered) {
                add(&format!("{line}\n"));
                let line = answer(line) + "\n";
                write!(output, "{:x}\r\n{line}\r\n", line.len()).unwrap();
                answered += 1;
            }
        }
        if *ends {
            write!(output, "0\r\n\r\n").unwrap();
        }
        return;
    }
    if let Some(length) = asked.header("content-length") {
        let mut body = vec![0; length.parse().unwrap()];
        input.read_exact(&mut body).unwrap();
        add(std::str::from_utf8(&body).unwrap());
    } else if asked.header("transfer-encoding").is_some() && !matches!(reply, Reply::Close) {
        while let Some(chunk) = read_chunk(&mut input) {
            add(&chunk);
        }
    }
    if let Reply::Answer(status, head, body) = reply {
        let length = body.len();
        write!(
            output,
            "HTTP/1.1 {status} Told\r\n{head}connection: close\r\ncontent-length: {length}\r\n\r\n\
             {body}"
        )
        .unwrap();
    }
}

fn read_chunk(input: &mut impl BufRead) -> Option<String> {
    let mut size = String::new();
    input.read_line(&mut size).ok()?;
    let size = usize::from_str_radix(size.trim(), 16).ok()?;
    let mut chunk = vec![0; size + 2];
    input.read_exact(&mut chunk).ok()?;
    chunk.truncate(size);
    (size > 0).then(|| String::from_utf8(chunk).unwrap())
}
