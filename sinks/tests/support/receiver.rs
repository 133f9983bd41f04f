//! A controllable syslog receiver that parses RFC 5424 messages with octet counting (RFC 6587).

use std::{net::SocketAddr, sync::Arc};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::bounded;

/// A parsed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub pri: u8,
    pub time: String,
    pub host: String,
    pub app_name: String,
    pub proc_id: String,
    pub text: String,
}

impl Message {
    pub fn parse(message: &str) -> Self {
        let (pri, rest) = message.strip_prefix('<').unwrap().split_once(">1 ").expect(message);
        let mut fields = rest.splitn(6, ' ');
        let mut field = || fields.next().expect(message).to_owned();
        let parsed = Self {
            pri: pri.parse().unwrap(),
            time: field(),
            host: field(),
            app_name: field(),
            proc_id: field(),
            text: String::new(),
        };
        assert_eq!(field(), "-", "no message id: {message}");
        let rest = field();
        let text = rest
            .strip_prefix("- ")
            .unwrap_or_else(|| panic!("no structured data: {message}"));
        Self {
            text: text.to_owned(),
            ..parsed
        }
    }
}

/// How the receiver handles connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Reads all messages.
    Read,
    /// Accepts connections and reads nothing.
    Blocked,
    /// Resets every connection with its unread bytes, as if the receiver was killed.
    Down,
}

/// A receiver on a free port.
pub struct Receiver {
    pub addr: SocketAddr,
    received: Arc<Mutex<Vec<Message>>>,
    mode: watch::Sender<Mode>,
    tls: watch::Sender<Option<TlsAcceptor>>,
    count: watch::Receiver<usize>,
    refused: watch::Receiver<usize>,
    accepting: JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    pub async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(128).unwrap();
        let addr = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Read);
        let (tls, tls_changes) = watch::channel(tls);
        let (counted, count) = watch::channel(0);
        let (refusing, refused) = watch::channel(0);
        let messages = Arc::default();
        let accepting = tokio::spawn(accept(
            listener,
            tls_changes,
            modes,
            Arc::clone(&messages),
            counted,
            refusing,
        ));
        Self {
            addr,
            received: messages,
            mode,
            tls,
            count,
            refused,
            accepting,
        }
    }

    /// Uses another certificate for new connections.
    pub fn set_certificate(&self, tls: TlsAcceptor) {
        self.tls.send_replace(Some(tls));
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Resets every connection and waits until a new one was reset as well.
    pub async fn take_down(&mut self) {
        let before = *self.refused.borrow_and_update();
        self.set(Mode::Down);
        bounded("another connection", self.refused.wait_for(|refused| *refused > before))
            .await
            .unwrap();
    }

    /// Waits until `count` messages were received in total.
    pub async fn until(&mut self, count: usize) {
        bounded("messages", self.count.wait_for(|got| *got >= count))
            .await
            .unwrap();
    }

    /// Waits until a message contains this text.
    pub async fn until_text(&mut self, text: &str) {
        let (messages, mut checked) = (Arc::clone(&self.received), 0);
        let contains = move |count: &usize| {
            let from = std::mem::replace(&mut checked, *count);
            messages.lock()[from..*count]
                .iter()
                .any(|message| message.text.contains(text))
        };
        bounded(text, self.count.wait_for(contains)).await.unwrap();
    }

    /// All messages received.
    pub fn messages(&self) -> Vec<Message> {
        self.received.lock().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    tls: watch::Receiver<Option<TlsAcceptor>>,
    modes: watch::Receiver<Mode>,
    messages: Arc<Mutex<Vec<Message>>>,
    counted: watch::Sender<usize>,
    refusing: watch::Sender<usize>,
) {
    let counted = Arc::new(counted);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        if *modes.borrow() == Mode::Down {
            reset(stream);
            refusing.send_modify(|refused| *refused += 1);
            continue;
        }
        let acceptor = tls.borrow().clone();
        let (modes, messages, counted) = (modes.clone(), Arc::clone(&messages), Arc::clone(&counted));
        tokio::spawn(async move {
            match acceptor {
                None => {
                    let stream = read(stream, modes, messages, counted).await;
                    stream.into_iter().for_each(reset);
                }
                Some(tls) => {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let stream = read(stream, modes, messages, counted).await;
                    stream.into_iter().for_each(|stream| reset(stream.into_inner().0));
                }
            }
        });
    }
}

/// Closes a connection with a reset.
fn reset(stream: TcpStream) {
    let _ = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
}

/// Reads until the end (`None`), or until the mode is [`Mode::Down`] (the connection).
async fn read<S: AsyncRead + Unpin>(
    mut stream: S,
    mut modes: watch::Receiver<Mode>,
    messages: Arc<Mutex<Vec<Message>>>,
    counted: Arc<watch::Sender<usize>>,
) -> Option<S> {
    let mut bytes = BytesMut::new();
    loop {
        let mode = *modes.borrow_and_update();
        if mode == Mode::Down {
            return Some(stream);
        }
        tokio::select! {
            changed = modes.changed() => if changed.is_err() { return None },
            read = stream.read_buf(&mut bytes), if mode == Mode::Read => {
                if !matches!(read, Ok(1..)) {
                    return None;
                }
                let mut messages = messages.lock();
                while let Some(message) = next_message(&mut bytes) {
                    messages.push(Message::parse(&message));
                }
                let count = messages.len();
                // Unlocked first, because the waiting test reads the messages.
                drop(messages);
                counted.send_replace(count);
            }
        }
    }
}

/// The next complete message with octet counting.
pub fn next_message(bytes: &mut BytesMut) -> Option<String> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let len: usize = std::str::from_utf8(&bytes[..space]).unwrap().parse().unwrap();
    if bytes.len() < space + 1 + len {
        return None;
    }
    bytes.advance(space + 1);
    Some(String::from_utf8(bytes.split_to(len).to_vec()).unwrap())
}
